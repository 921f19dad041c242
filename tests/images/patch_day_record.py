"""Release records for the tests of what is read from them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from clusterbox.images.plan import Options, Plan, PlannedImage, Step

START = datetime(2026, 11, 22, 8, tzinfo=UTC)
STEPS = (
    Step(id="bake:compute", action="bake", expected_seconds=2400.0),
    Step(id="verify:compute", action="verify"),
    Step(id="promote", action="promote"),
)


def event(kind: str, at: float, step: str | None = None, **facts: Any) -> dict[str, Any]:
    """Return an event that happened `at` seconds after the start."""
    found: dict[str, Any] = {
        "id": f"{kind}-{at}-{step}-{sorted(facts)}-{facts.get('run', '')}",
        "at": (START + timedelta(seconds=at)).isoformat(),
        "run": "2026-11-22",
        "who": "ada",
        "event": kind,
    }
    return {**found, **({} if step is None else {"step": step}), **facts}


def plan(steps: tuple[Step, ...] = STEPS, run: str = "2026-11-22", **more: Any) -> Plan:
    """Return a plan for one image."""
    words: dict[str, Any] = {
        "created": "2026-11-22T08:00:00+00:00",
        "options": Options(),
        "images": (
            PlannedImage(image="compute", name="dev-compute-1", parent="ami-000000ff", bundle="b"),
        ),
        "world": {},
        **more,
    }
    return Plan(run=run, environment="dev", steps=steps, **words)
