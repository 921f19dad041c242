from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from clusterbox.cli.main import main
from clusterbox.costs.history import observed_share
from clusterbox.costs.usage import InstanceRun, Usage, write_usage
from clusterbox.errors import InputError

DAY = 86_400


def _run(
    start: int, end: int | None, cluster: str = "ws-eco", kind: str = "Compute"
) -> InstanceRun:
    return InstanceRun(
        instance=f"i-{start}-{end}-{kind}",
        instance_type="m6a.2xlarge",
        purchase="on-demand",
        zone="us-west-2a",
        cluster=cluster,
        node_type=kind,
        start=start,
        end=end,
    )


def _configuration(*counts: tuple[object, object]) -> dict[str, Any]:
    resources = [{"Name": "c", "MinCount": low, "MaxCount": high} for low, high in counts]
    return {"Scheduling": {"SlurmQueues": [{"Name": "q", "ComputeResources": resources}]}}


@pytest.mark.parametrize(
    ("runs", "counts", "share"),
    [
        pytest.param([(0, 2 * DAY)], [(0, 1)], "1", id="one node all the time"),
        pytest.param([(0, 2 * DAY)], [(0, 4)], "0.25", id="one of four"),
        pytest.param([(0, DAY), (3 * DAY, 4 * DAY)], [(0, 1)], "0.5", id="half of the time"),
        pytest.param([(0, 2 * DAY)], [("0", "4")], "0.25", id="counts as texts"),
        pytest.param([(0, 2 * DAY)], [(0, 1), (0, 1)], "0.5", id="two compute resources"),
        pytest.param([(0, 2 * DAY)] * 2, [(1, 3)], "0.5", id="a static node does not count"),
        pytest.param([(0, 2 * DAY)], [(1, 3)], "0", id="static nodes alone"),
        pytest.param([(0, 2 * DAY)] * 5, [(0, 2)], "1", id="more than there can be now"),
        pytest.param([(0, None)], [(0, 2)], "0.5", id="a node that still runs"),
    ],
)
def test_the_share_of_dynamic_nodes_that_ran(
    runs: list[tuple[int, int | None]], counts: list[tuple[object, object]], share: str
) -> None:
    usage = Usage(tuple(_run(start, end) for start, end in runs))
    found = observed_share(usage, "ws-eco", _configuration(*counts), at=4 * DAY)
    assert found == Decimal(share)


@pytest.mark.parametrize(
    ("runs", "counts", "message"),
    [
        ([], [(0, 1)], "has no compute node of ws-eco"),
        ([_run(0, DAY, "other")], [(0, 1)], "has no compute node of ws-eco"),
        ([_run(0, DAY, kind="HeadNode")], [(0, 1)], "has no compute node of ws-eco"),
        ([_run(0, 60)], [(0, 1)], "shorter than a day"),
        ([_run(0, 2 * DAY)], [(2, 2)], "has no dynamic nodes"),
    ],
)
def test_what_says_nothing_of_typical_use_is_refused(
    runs: list[InstanceRun], counts: list[tuple[object, object]], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        observed_share(Usage(tuple(runs)), "ws-eco", _configuration(*counts), at=DAY)


def test_the_estimate_takes_it_from_a_file(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    history = tmp_path / "usage.jsonl"
    # Six nodes can run: three of them did, all the time.
    write_usage(Usage(tuple(_run(0, 10 * DAY + i) for i in range(3))), history)
    words = ["--root", str(root), "costs", "estimate", "ws-eco", "--format", "csv"]
    assert main([*words, "--history", str(history)]) == 0
    by_history = capsys.readouterr().out
    assert main([*words, "--hours-a-day", "24", "--utilisation", "0.5"]) == 0
    assert by_history == capsys.readouterr().out
    assert main([*words, "--history", str(history), "--utilisation", "1"]) == 2
    assert "not both" in capsys.readouterr().err


def test_clusters_of_an_environment_without_history_are_told(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    history = tmp_path / "usage.jsonl"
    write_usage(Usage((_run(0, 2 * DAY),)), history)
    words = ["--root", str(root), "costs", "estimate", "ws-dev", "--history", str(history)]
    assert main(words) == 0
    said = capsys.readouterr()
    assert "no compute node of ws-eco-login; its typical cost is unknown" in said.err
