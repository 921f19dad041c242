from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from clusterbox import tracing
from clusterbox.deployment.progress import Progress
from clusterbox.errors import InputError

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"


class Collector(ThreadingHTTPServer):
    """An OTLP/HTTP receiver on loopback that keeps what it is sent, and answers `status`."""

    daemon_threads = True

    def __init__(self, status: int = 200) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.status = status
        self.requests: list[tuple[str, bytes]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def resources(self) -> list[Any]:
        service = pytest.importorskip("opentelemetry.proto.collector.trace.v1.trace_service_pb2")
        return [
            resource
            for _, body in self.requests
            for resource in service.ExportTraceServiceRequest.FromString(body).resource_spans
        ]

    def spans(self) -> dict[str, Any]:
        return {
            span.name: span
            for resource in self.resources()
            for scope in resource.scope_spans
            for span in scope.spans
        }


class _Handler(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.requests.append((self.path, body))
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, *_words: Any) -> None:
        pass


@pytest.fixture
def collector() -> Iterator[Collector]:
    server = Collector()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def asked(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """An environment that asks for traces; the exporter reads it too."""
    pytest.importorskip(
        "opentelemetry.exporter.otlp.proto.http", reason="needs clusterbox[tracing]"
    )
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv(ENDPOINT, collector.url)
    return dict(os.environ)


def attributes(span: Any) -> dict[str, Any]:
    return {
        entry.key: getattr(entry.value, entry.value.WhichOneof("value"))
        for entry in span.attributes
    }


@pytest.mark.parametrize(
    ("command", "environment", "wanted"),
    [
        ("patch-day", {ENDPOINT: "http://127.0.0.1:4318"}, True),
        ("costs", {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:4318/x"}, True),
        ("patch-day", {}, False),
        ("patch-day", {ENDPOINT: ""}, False),
        ("patch-day", {ENDPOINT: "http://127.0.0.1", "OTEL_SDK_DISABLED": "true"}, False),
        ("patch-day", {ENDPOINT: "http://127.0.0.1", "OTEL_TRACES_EXPORTER": "none"}, False),
        ("observe", {ENDPOINT: "http://127.0.0.1"}, False),
    ],
)
def test_traces_are_off_unless_an_endpoint_is_given(
    command: str, environment: dict[str, str], wanted: bool
) -> None:
    assert tracing.is_wanted(command, environment) is wanted


def test_off_nothing_of_opentelemetry_is_imported(root: Path) -> None:
    code = (
        "import sys\n"
        "from clusterbox import tracing\n"
        "from clusterbox.deployment.progress import Progress\n"
        "def run():\n"
        "    with Progress().step('bake'): return 3\n"
        "code = tracing.run_traced('patch-day', {}, {}, run)\n"
        "found = [name for name in sys.modules if name.startswith(('opentelemetry', 'google', 'requests'))]\n"
        "print(code, found)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("3 []\n", "")


def test_a_step_is_a_span_of_the_commands_trace(
    collector: Collector, asked: dict[str, str]
) -> None:
    progress = Progress()

    def run() -> int:
        with progress.step("bake"), progress.step("build compute"):
            pass
        return 0

    assert tracing.run_traced("patch-day", {"clusterbox.environment": "ws-dev"}, asked, run) == 0
    assert {path for path, _ in collector.requests} == {"/v1/traces"}
    spans = collector.spans()
    assert set(spans) == {"clusterbox patch-day", "bake", "build compute"}
    root, bake, build = (spans[name] for name in ("clusterbox patch-day", "bake", "build compute"))
    assert {span.trace_id for span in spans.values()} == {root.trace_id}
    assert (root.parent_span_id, bake.parent_span_id) == (b"", root.span_id)
    assert build.parent_span_id == bake.span_id
    assert attributes(root) == {"clusterbox.environment": "ws-dev", "clusterbox.exit_code": 0}
    assert attributes(collector.resources()[0].resource)["service.name"] == "clusterbox"
    assert set(progress.seconds) == {"bake", "build compute"}


def test_steps_of_other_threads_belong_to_the_command(
    collector: Collector, asked: dict[str, str]
) -> None:
    progress = Progress()

    def take(name: str) -> None:
        with progress.step(name):
            pass

    def run() -> int:
        threads = [threading.Thread(target=take, args=(f"queue {at}",)) for at in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return 0

    tracing.run_traced("patch-day", {}, asked, run)
    spans = collector.spans()
    root = spans["clusterbox patch-day"]
    assert {spans[f"queue {at}"].parent_span_id for at in range(3)} == {root.span_id}


def test_an_error_is_recorded_without_a_stack_and_raised(
    collector: Collector, asked: dict[str, str]
) -> None:
    def run() -> int:
        with Progress().step("verify"):
            raise InputError("no such image\nwith details below")

    with pytest.raises(InputError):
        tracing.run_traced("patch-day", {}, asked, run)
    spans = collector.spans()
    for name in ("verify", "clusterbox patch-day"):
        assert spans[name].status.code == 2
        assert spans[name].status.message == "InputError: no such image"
        (event,) = spans[name].events
        assert attributes(event) == {
            "exception.type": "clusterbox.errors.InputError",
            "exception.message": "no such image",
        }


def test_an_exit_code_that_is_not_0_is_an_error(
    collector: Collector, asked: dict[str, str]
) -> None:
    assert tracing.run_traced("costs", {}, asked, lambda: 1) == 1
    root = collector.spans()["clusterbox costs"]
    assert (root.status.code, attributes(root)["clusterbox.exit_code"]) == (2, 1)


def test_after_a_command_spans_are_off_again(collector: Collector, asked: dict[str, str]) -> None:
    tracing.run_traced("costs", {}, asked, lambda: 0)
    with Progress().step("later"):
        pass
    assert set(collector.spans()) == {"clusterbox costs"}
    assert tracing._current is None


@pytest.mark.parametrize("status", [400, 500])
def test_a_collector_that_refuses_is_said_once_and_changes_nothing(
    status: int, collector: Collector, asked: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    collector.status = status
    assert tracing.run_traced("costs", {}, asked, lambda: 7) == 7
    assert capsys.readouterr().err == (
        "clusterbox: traces could not be sent: does the collector of OTEL_EXPORTER_OTLP_ENDPOINT run?\n"
    )


def test_a_collector_that_is_not_there_changes_nothing(
    asked: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(ENDPOINT, "http://127.0.0.1:9")  # The discard port: nobody listens.
    assert tracing.run_traced("costs", {}, dict(os.environ), lambda: 0) == 0
    assert capsys.readouterr().err.count("traces could not be sent") == 1


def test_another_protocol_is_not_spoken(capsys: pytest.CaptureFixture[str]) -> None:
    environment = {ENDPOINT: "http://127.0.0.1:9", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
    assert tracing.run_traced("costs", {}, environment, lambda: 0) == 0
    assert "the protocol grpc is not spoken" in capsys.readouterr().err


def test_without_the_packages_the_command_runs_and_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr("clusterbox.tracing.importlib.import_module", missing)
    assert tracing.run_traced("costs", {}, {ENDPOINT: "http://127.0.0.1:9"}, lambda: 0) == 0
    assert "install clusterbox[tracing]" in capsys.readouterr().err
