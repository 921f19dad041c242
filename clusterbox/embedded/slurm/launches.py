"""What happens when nodes of a cluster are launched: their boot time, and failures on purpose."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

_FILE = "launches.json"


@dataclass(frozen=True)
class LaunchPlan:
    """Read by the ResumeProgram at each launch; times in seconds."""

    boot: float
    static_nodes: tuple[str, ...]
    fail: tuple[str, ...]
    failed_seconds: float

    @classmethod
    def read(cls, folder: Path) -> LaunchPlan:
        """Return the plan of the cluster in `folder`."""
        given = json.loads((folder / _FILE).read_text(encoding="utf-8"))
        given["static_nodes"] = tuple(given["static_nodes"])
        given["fail"] = tuple(given["fail"])
        return cls(**given)

    def write(self, folder: Path) -> None:
        """Make this the plan from the next launch on."""
        beside = folder / f"{_FILE}.new"
        beside.write_text(json.dumps(asdict(self)), encoding="utf-8")
        beside.replace(folder / _FILE)

    def fails(self, node: str) -> bool:
        """Return whether a node's launch fails: it, its compute resource or its queue is named."""
        return any(node == name or node.startswith(f"{name}-") for name in self.fail)

    def boot_seconds(self, node: str) -> float:
        """Return how long a node boots; static nodes are there from the beginning."""
        return 0.0 if node in self.static_nodes else self.boot
