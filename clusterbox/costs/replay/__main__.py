"""Make the records of the replay again, or measure the meter's error with those that are kept.

python -m clusterbox.costs.replay             measure
python -m clusterbox.costs.replay generate    make the records again
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import sys
from pathlib import Path

from clusterbox.cli.tables import render_table
from clusterbox.costs.replay.billing import COLUMNS, bill, job_costs
from clusterbox.costs.replay.measure import FOLDER, measure
from clusterbox.costs.replay.records import accounting_lines, spot_lines, usage_lines
from clusterbox.costs.replay.world import SEED, simulate


def main(words: list[str]) -> int:
    """Measure or generate; return 0, or 2 for other words."""
    if words == ["generate"]:
        write(FOLDER)
        return 0
    if words:
        sys.stderr.write(f"{__doc__}\n")
        return 2
    rows = [
        [item.kind, item.name, f"{item.billed:.2f}", f"{item.metered:.2f}", f"{item.percent:+.2f}"]
        for item in measure()
    ]
    columns = ("kind", "name", "billed_usd", "metered_usd", "error_percent")
    sys.stdout.write(render_table(columns, rows, "table") + "\n")
    return 0


def write(folder: Path, seed: int = SEED) -> None:
    """Write the files of a month to a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in generate(seed).items():
        (folder / name).write_bytes(content)


def generate(seed: int = SEED) -> dict[str, bytes]:
    """Return the files of a month by name; the same bytes every time."""
    world = simulate(seed)
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(line.cells() for line in bill(world))
    costs = {
        kind: {name: round(usd, 6) for name, usd in found.items()}
        for kind, found in job_costs(world).items()
    }
    return {
        "billing.csv.gz": gzip.compress(buffer.getvalue().encode(), mtime=0),
        "jobs.json": (json.dumps(costs, indent=2) + "\n").encode(),
        "usage.jsonl": _text(usage_lines(world)),
        "accounting.txt": _text(accounting_lines(world)),
        "spot.csv": _text(spot_lines(world)),
    }


def _text(lines: list[str]) -> bytes:
    return ("\n".join(lines) + "\n").encode()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
