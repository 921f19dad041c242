"""OpenTelemetry traces of commands that run unattended: off unless an endpoint is given.

Off, nothing of OpenTelemetry is imported and a span costs a comparison. On, each command is one
trace, and each step of it (`clusterbox.deployment.progress`) a span. The variables are those of
OpenTelemetry's specification: OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_EXPORTER_OTLP_HEADERS,
OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES, OTEL_SDK_DISABLED and their like.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

# Commands whose runs are worth a trace: those that change a site, or that run at night.
TRACED = ("costs", "deploy", "destroy", "images", "patch-day", "rehearse", "review")

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
# A collector that does not answer must not hold a patch day up.
_EXPORT_SECONDS = 3.0
_MOST_MESSAGE = 500

Attribute = str | int | float | bool


@dataclass(frozen=True)
class _Tracer:
    trace: Any
    tracer: Any
    # The span of the command: steps that threads run have no other parent.
    command: Any


_current: _Tracer | None = None


def is_wanted(command: str, environment: Mapping[str, str]) -> bool:
    """Return whether the environment asks for traces of this command."""
    if command not in TRACED or environment.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    if environment.get("OTEL_TRACES_EXPORTER", "otlp") != "otlp":
        return False
    return any(environment.get(name) for name in _ENDPOINTS)


def run_traced(
    command: str,
    attributes: Mapping[str, Attribute],
    environment: Mapping[str, str],
    run: Callable[[], int],
) -> int:
    """Run a command as one trace and return its exit code; without traces where none are wanted.

    What `run` raises is recorded and raised again. A missing package and a collector that does
    not answer are said on standard error, and change nothing else.
    """
    global _current
    if not is_wanted(command, environment):
        return run()
    try:
        trace, provider = _start(environment)
    except ImportError:
        _say("traces are asked for, but OpenTelemetry is not here: install clusterbox[tracing]")
        return run()
    except _UnknownProtocolError as error:
        _say(str(error))
        return run()
    tracer = provider.get_tracer("clusterbox")
    try:
        with tracer.start_as_current_span(
            f"clusterbox {command}",
            attributes=dict(attributes),
            record_exception=False,
            set_status_on_exception=False,
        ) as root:
            _current = _Tracer(trace, tracer, root)
            with _recording(trace, root):
                code = run()
            root.set_attribute("clusterbox.exit_code", code)
            if code != 0:
                root.set_status(trace.StatusCode.ERROR, f"exit code {code}")
            return code
    finally:
        _current = None
        provider.shutdown()


@contextmanager
def span(name: str, **attributes: Attribute) -> Iterator[None]:
    """Be a span of the command's trace; nothing where there is none. Errors are recorded."""
    on = _current
    if on is None:
        yield
        return
    parent = None
    if not on.trace.get_current_span().get_span_context().is_valid:
        parent = on.trace.set_span_in_context(on.command)
    with (
        on.tracer.start_as_current_span(
            name,
            context=parent,
            attributes=attributes,
            record_exception=False,
            set_status_on_exception=False,
        ) as own,
        _recording(on.trace, own),
    ):
        yield


@contextmanager
def _recording(trace: Any, own: Any) -> Iterator[None]:
    """Record what is raised: its type and first line; a stack could hold what is secret."""
    try:
        yield
    except BaseException as error:
        lines = str(error).splitlines() or [""]
        message = lines[0][:_MOST_MESSAGE]
        kind = f"{type(error).__module__}.{type(error).__qualname__}"
        own.add_event("exception", {"exception.type": kind, "exception.message": message})
        own.set_status(trace.StatusCode.ERROR, f"{type(error).__name__}: {message}")
        own.set_attribute("error.type", kind)
        raise


class _UnknownProtocolError(Exception):
    """The environment asks for a protocol that is not HTTP."""


def _start(environment: Mapping[str, str]) -> tuple[Any, Any]:
    """Return OpenTelemetry's API and a provider that sends; raises ImportError without it."""
    import logging

    protocol = next((environment[name] for name in _PROTOCOLS if environment.get(name)), "")
    if protocol not in ("", "http/protobuf"):
        raise _UnknownProtocolError(
            f"traces are not sent: the protocol {protocol} is not spoken, only http/protobuf"
        )
    # An optional extra: the type checker must not need it either.
    trace = importlib.import_module("opentelemetry.trace")
    resources = importlib.import_module("opentelemetry.sdk.resources")
    sdk = importlib.import_module("opentelemetry.sdk.trace")
    processors = importlib.import_module("opentelemetry.sdk.trace.export")
    otlp = importlib.import_module("opentelemetry.exporter.otlp.proto.http.trace_exporter")
    # It tells of every failed batch with a stack; `_Told` tells once.
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL + 1)
    resource = resources.Resource.create(
        {} if environment.get("OTEL_SERVICE_NAME") else {"service.name": "clusterbox"}
    )
    provider = sdk.TracerProvider(resource=resource, shutdown_on_exit=False)
    exporter = _told(otlp.OTLPSpanExporter(timeout=_EXPORT_SECONDS), processors)
    provider.add_span_processor(
        processors.BatchSpanProcessor(
            exporter,
            schedule_delay_millis=2000,
            export_timeout_millis=int(_EXPORT_SECONDS * 1000),
        )
    )
    return trace, provider


def _told(exporter: Any, processors: Any) -> Any:
    """Have an exporter say once that its spans were not taken, and then try no more."""
    export = exporter.export
    failed = False

    def tell(spans: Any) -> Any:
        nonlocal failed
        failure = processors.SpanExportResult.FAILURE
        if failed:
            return failure
        result = export(spans)
        if result is failure:
            failed = True
            _say("traces could not be sent: does the collector of OTEL_EXPORTER_OTLP_ENDPOINT run?")
        return result

    exporter.export = tell
    return exporter


def _say(text: str) -> None:
    sys.stderr.write(f"clusterbox: {text}\n")
