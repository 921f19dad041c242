"""What `clusterbox deploy` tells of what still stands."""

from __future__ import annotations

import pytest

from clusterbox.cli.main import main
from clusterbox.deployment.site import Deployment, Site
from tests.conftest import ROOT


def test_a_stack_whose_section_was_taken_out_is_told_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    done = Deployment({"ws-dev-storage": False}, 0, [], [], ["ws-dev-costs"])
    monkeypatch.setattr(Site, "deploy", lambda *_words, **_options: done)
    assert main(["--root", str(ROOT), "deploy", "ws-dev"]) == 0
    assert (
        "stack ws-dev-costs still stands though the environment has no section for it any more; if "
        "nothing of it is needed: `aws cloudformation delete-stack --stack-name ws-dev-costs`\n"
    ) in capsys.readouterr().err


def test_limits_that_will_not_hold_are_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    done = Deployment({"ws-dev-storage": False}, 0, [], [], [], ("limits of eco will not hold",))
    monkeypatch.setattr(Site, "deploy", lambda *_words, **_options: done)
    assert main(["--root", str(ROOT), "deploy", "ws-dev"]) == 0
    assert "limits of eco will not hold" in capsys.readouterr().err
