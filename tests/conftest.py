"""What several test packages share: the repository, and its environments synthesized once."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

ROOT = Path(__file__).parent.parent

# No test fails because a machine is busy.
settings.register_profile("clusterbox", deadline=None)
settings.load_profile("clusterbox")

Templates = Mapping[str, dict[str, Any]]


@pytest.fixture(scope="session")
def root() -> Path:
    """Return the folder of the repository."""
    return ROOT


@pytest.fixture(scope="session", autouse=True)
def repository_node() -> Iterator[None]:
    """Let jsii use the repository's Node, and leave CDK's own validation to `make synth`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JSII_NODE", str(ROOT / ".venv" / "bin" / "node"))
        patch.setenv("CDK_VALIDATION", "false")
        patch.setenv("PATH", f"{ROOT / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}")
        yield


def _synthesize(name: str, folder: Path) -> Templates:
    from stacks import build_app

    build_app(ROOT, name, outdir=folder).synth()
    return {
        path.name.removesuffix(".template.json"): json.loads(path.read_text(encoding="utf-8"))
        for path in sorted(folder.glob("*.template.json"))
    }


@pytest.fixture(scope="session")
def ws_dev(tmp_path_factory: pytest.TempPathFactory) -> Templates:
    """Return the templates of ws-dev by stack."""
    return _synthesize("ws-dev", tmp_path_factory.mktemp("ws-dev"))


@pytest.fixture(scope="session")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Templates:
    """Return the templates of sandbox by stack."""
    return _synthesize("sandbox", tmp_path_factory.mktemp("sandbox"))


@pytest.fixture(scope="session", params=["ws-dev", "sandbox"])
def templates(request: pytest.FixtureRequest) -> Templates:
    """Return the templates of each shipped environment in turn."""
    found: Templates = request.getfixturevalue(request.param.replace("-", "_"))
    return found


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option with which CI refuses a run that left something out."""
    parser.addoption(
        "--fail-on-skip", action="store_true", help="fail when an integration test was skipped"
    )


class _Skips:
    """Counts the integration tests that were skipped."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.skipped and "integration" in report.keywords:
            self.names.append(report.nodeid)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.names and session.config.getoption("--fail-on-skip"):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self.names:
            terminalreporter.write_line(f"{len(self.names)} integration tests were skipped:")
            for name in self.names:
                terminalreporter.write_line(f"  {name}")


def pytest_configure(config: pytest.Config) -> None:
    """Count skipped integration tests in every run."""
    config.pluginmanager.register(_Skips())
