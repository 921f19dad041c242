"""The plan of a patch day: which images, which steps in which order, and the world it was made in."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from clusterbox.errors import InputError

VERSION = 1
# A run's id: its date, and a number from the second one of a day on. It names files and branches.
_RUN = re.compile(r"\d{4}-\d\d-\d\d(-\d{1,4})?", re.ASCII)

Action = Literal[
    "bake",
    "verify",
    "promote",
    "restore",
    "queues",
    "gate",
    "login",
    "head",
    "replace",
    "admin-box",
    "retire",
    "notify",
]
HeadNodes = Literal["patch", "replace", "leave"]


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the operator decided about a patch day; times in seconds."""

    # `CLUSTER/QUEUE` whose nodes get the new image first, or None: the first queue of the first cluster.
    canary: str | None = None
    # What happens to head nodes: patched in place, replaced by a second cluster, or left alone.
    head: HeadNodes = "patch"
    # Instance type of a head node while it is patched; None keeps its own.
    resize_head: str | None = None
    # Running jobs may be ended (and requeued) where a queue does not drain in time.
    terminate: bool = False
    # How long a queue, a pool of login nodes or a head node may take until nothing runs on it.
    drain_seconds: float = 24 * 3600.0
    # Only clusters without running jobs are touched; others are left for another run.
    when_idle: bool = False
    # `22:00-04:00` in the window's time zone: clusters are touched only then.
    window: str | None = None
    window_time_zone: str = "UTC"
    # How long the gate's job may take, from submission to its end.
    gate_seconds: float = 1800.0
    # Earlier images of each that `retire` keeps beside the locked one and its previous.
    keep: int = 2


@dataclass(frozen=True, kw_only=True)
class PlannedImage:
    """An image that is baked: its parent and its name are decided in the plan."""

    image: str
    # Name and ParallelCluster image id of the bake: a second run with it finds the first one's.
    name: str
    parent: str
    bundle: str


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step. It can be repeated: it looks at what is, and does what is missing."""

    id: str
    action: Action
    # What it is about: `image`, `cluster`, `queues` (names with commas), `pool`.
    subject: Mapping[str, str] = field(default_factory=dict)
    # Ids of the steps that must be done before.
    after: tuple[str, ...] = ()
    # Median of what it took in earlier runs; None where there is none.
    expected_seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A patch day of one environment; `to_json` and `from_json` keep all of it."""

    run: str
    environment: str
    created: str
    options: Options
    images: tuple[PlannedImage, ...]
    steps: tuple[Step, ...]
    # What the plan was made from: fact → value. It is refused where one of them has changed.
    world: Mapping[str, str]
    # What cannot be done and why; shown, and recorded, so that nobody takes it for done.
    unsupported: tuple[str, ...] = ()
    users: tuple[str, ...] = ()
    # USD of the machines that bake and verify; None where a price is unknown.
    cost_usd: str | None = None

    def image(self, name: str) -> PlannedImage | None:
        """Return what is planned for an image; None where it is not baked."""
        return next((image for image in self.images if image.image == name), None)

    def to_json(self) -> str:
        """Return the plan as JSON with a newline at its end."""
        return json.dumps({"version": VERSION, **asdict(self)}, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """Return the plan of a JSON text; raises InputError where it is none of this version."""
        try:
            data = json.loads(text)
            if not isinstance(data, dict) or "version" not in data:
                raise InputError("this is not a plan of a patch day")
            version = data.pop("version")
            if not _RUN.fullmatch(str(data["run"])):
                raise InputError(f"the plan's run is {data['run']!r}, which is no date of a run")
            if version != VERSION:
                raise InputError(
                    f"the plan is of version {version}, and this clusterbox reads {VERSION}; "
                    "plan again"
                )
            return cls(
                **{
                    **data,
                    "options": Options(**data["options"]),
                    "images": tuple(PlannedImage(**image) for image in data["images"]),
                    "steps": tuple(_step(step) for step in data["steps"]),
                    "unsupported": tuple(data["unsupported"]),
                    "users": tuple(data["users"]),
                }
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"this is not a plan of a patch day: {error}") from error


def _step(data: dict[str, Any]) -> Step:
    if data["action"] not in get_args(Action):
        raise ValueError(f"there is no action {data['action']}")
    return Step(**{**data, "after": tuple(data["after"])})
