from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from clusterbox.embedded.account import EmbeddedAccount
from tests.embedded.stack_driver import ACCOUNT, REGION, Stack


@pytest.fixture(scope="session")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedAccount]:
    """One running account for the whole session: tests use names and networks of their own."""
    state_dir = tmp_path_factory.mktemp("account")
    yield EmbeddedAccount.start(state_dir, account=ACCOUNT, region=REGION)
    EmbeddedAccount.stop(state_dir)


@pytest.fixture
def stack(account: EmbeddedAccount, request: pytest.FixtureRequest) -> Stack:
    """A stack named after the test, and not yet created."""
    name = re.sub(r"[^a-zA-Z0-9]+", "-", request.node.name.removeprefix("test_"))
    return Stack(account, name.strip("-")[:60])
