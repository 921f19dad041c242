"""The door to Prometheus: its HTTP interface for queries."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urlsplit

from clusterbox.errors import ClusterboxError, InputError

DEFAULT_URL = "http://127.0.0.1:9090"
# Prometheus refuses a series of more points.
MOST_POINTS = 11_000


class PrometheusError(ClusterboxError):
    """Prometheus did not answer, or not with what it was asked for."""


@dataclass(frozen=True)
class Series:
    """One series: its labels without the name, and (seconds since 1970, value) in their order."""

    name: str
    labels: Mapping[str, str]
    points: tuple[tuple[float, float], ...]

    @property
    def value(self) -> float:
        """The last value."""
        return self.points[-1][1]


@dataclass(frozen=True)
class Prometheus:
    """A Prometheus at a URL; each question may take `timeout_seconds`."""

    url: str = DEFAULT_URL
    timeout_seconds: float = 30.0

    def __post_init__(self) -> None:
        """Raise InputError for what is not a URL of HTTP."""
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InputError(f"a Prometheus is at a URL such as {DEFAULT_URL}, not {self.url!r}")

    def query(self, promql: str, at: float | None = None) -> list[Series]:
        """Return what an expression is at a time (default: now), one point each.

        Raises InputError where Prometheus cannot read the expression, PrometheusError otherwise.
        """
        given = {"query": promql} | ({} if at is None else {"time": f"{at:.3f}"})
        return _series(self._ask("query", given), promql)

    def query_range(
        self, promql: str, start: float, end: float, step_seconds: float
    ) -> list[Series]:
        """Return what an expression was from `start` to `end`, seconds since 1970.

        Raises InputError where Prometheus cannot read the expression or there are too many points,
        PrometheusError otherwise.
        """
        if not step_seconds > 0 or end < start or (end - start) / step_seconds > MOST_POINTS:
            raise InputError(
                f"from {start:.0f} to {end:.0f} in steps of {step_seconds:g} s is nothing that "
                f"Prometheus answers: a step is more than 0, and there are up to {MOST_POINTS}"
            )
        given = {
            "query": promql,
            "start": f"{start:.3f}",
            "end": f"{end:.3f}",
            "step": f"{step_seconds:g}",
        }
        return _series(self._ask("query_range", given), promql)

    def is_up(self) -> bool:
        """Return whether it answers, within 2 s."""
        try:
            Prometheus(self.url, min(self.timeout_seconds, 2.0)).query("vector(1)")
        except (PrometheusError, InputError):
            return False
        return True

    def _ask(self, what: str, given: Mapping[str, str]) -> dict[str, Any]:
        import urllib3

        address = f"{self.url.rstrip('/')}/api/v1/{what}"
        try:
            answer = urllib3.request(
                "POST",
                address,
                body=urlencode(given),
                headers={
                    "Accept": "application/json",
                    "Content-Type": "application/x-www-form-urlencoded",
                },
                timeout=self.timeout_seconds,
                retries=False,
            )
        except urllib3.exceptions.HTTPError as error:
            raise PrometheusError(
                f"Prometheus at {self.url} does not answer ({type(error).__name__}); does it run, "
                "and is its port forwarded to here?"
            ) from error
        try:
            found = json.loads(answer.data)
            status = found["status"]
        except (ValueError, KeyError, TypeError) as error:
            raise PrometheusError(
                f"{self.url} is no Prometheus: it answered {answer.status} with "
                f"{answer.data[:80]!r}"
            ) from error
        if status != "success":
            reason = f"{found.get('errorType')}: {found.get('error')}"
            if found.get("errorType") == "bad_data":
                raise InputError(f"Prometheus cannot read {given['query']!r}: {reason}")
            raise PrometheusError(f"Prometheus at {self.url}: {reason}")
        data: dict[str, Any] = found["data"]
        return data


def _series(data: Mapping[str, Any], promql: str) -> list[Series]:
    kind, result = data["resultType"], data["result"]
    if kind == "scalar":
        return [Series("", {}, (_point(result),))]
    if kind == "vector":
        return [_one(item["metric"], [item["value"]]) for item in result if "value" in item]
    if kind == "matrix":
        return [_one(item["metric"], item["values"]) for item in result if item.get("values")]
    raise InputError(f"{promql!r} is a {kind}, not numbers")


def _one(metric: Mapping[str, str], points: list[list[Any]]) -> Series:
    labels = {name: text for name, text in metric.items() if name != "__name__"}
    return Series(metric.get("__name__", ""), labels, tuple(_point(point) for point in points))


def _point(pair: list[Any]) -> tuple[float, float]:
    return float(pair[0]), float(pair[1])


def choose_step(seconds: float, points: int = 240) -> float:
    """Return a step that gives a span about so many points, and 15 s at least."""
    return max(15.0, round(seconds / points))


def now() -> float:
    """Return the time, in seconds since 1970."""
    return time.time()
