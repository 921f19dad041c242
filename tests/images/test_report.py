from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from clusterbox.images.plan import Plan, Step
from clusterbox.images.record import Store
from clusterbox.images.report import read_report, render_html, render_markdown
from tests.images.memory_s3 import MemoryS3
from tests.images.patch_day_record import STEPS, event, plan

NEW, OLD = "ami-000000aa", "ami-00000001"
OPENSSL = {
    "id": "ALAS-7",
    "severity": "important",
    "cves": ["CVE-2026-0001"],
    "packages": ["openssl-2.0-1.x86_64"],
}
KERNEL = {"id": "ALAS-8", "severity": "medium", "cves": [], "packages": ["kernel-7-1.x86_64"]}
CHECKS = [{"check": "units", "ok": True, "detail": ""}, {"check": "slurm", "ok": True}]


def verified(ami: str, kernel: str, packages: dict[str, str], **more: Any) -> dict[str, Any]:
    return {
        "ami": ami,
        "passed": True,
        "checks": CHECKS,
        "kernel": kernel,
        "slurm_version": "25.11.8",
        "packages": packages,
        **more,
    }


BEFORE = verified(
    OLD,
    "6.1.140",
    {"openssl": "1.0-1", "gone": "1-1", "same": "1-1"},
    advisories={"installed": [], "available": []},
)
AFTER = verified(
    NEW,
    "6.1.150",
    {"openssl": "2.0-1", "new": "1-1", "same": "1-1"},
    advisories={"installed": [OPENSSL], "available": [KERNEL]},
)
RUN = [
    event("begun", 0),
    event("started", 0, "bake:compute", expected_seconds=2400.0),
    event(
        "done", 1800, "bake:compute", seconds=1800.0, result={"ami": NEW, "parent": "ami-000000ff"}
    ),
    event("started", 1800, "verify:compute"),
    event("done", 1900, "verify:compute", seconds=100.0, result=AFTER),
    event("started", 1900, "promote"),
    event("noted", 1901, "promote", image="compute", locked=NEW, before=OLD),
    event(
        "done",
        1902,
        "promote",
        seconds=2.0,
        result={"changed": ["compute"], "merge_request": "https://git.example.gov/1"},
    ),
    event("noted", 1903, told="arn", subject="Patch day done"),
    event("noted", 1904, retired="ami-000000ee"),
    event("noted", 1905, what_runs=[["dev-eco queue eco", NEW, f"{NEW} (2)", "as it should be"]]),
    event("completed", 1906),
]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path, MemoryS3(), "logs", "patch-day/dev")


def write(store: Store, events: list[dict[str, Any]], of: Plan | None = None) -> None:
    chosen = of or plan(users=("grace",), unsupported=("dev-two does not stand",), cost_usd="0.42")
    store.create(chosen)
    lines = "".join(json.dumps({**each, "run": chosen.run}) + "\n" for each in events)
    (store.folder / f"{chosen.run}.jsonl").write_text(lines)


def write_earlier(store: Store, verify: dict[str, Any] = BEFORE) -> None:
    events = [
        event("started", 0, "verify:compute"),
        event("done", 9, "verify:compute", seconds=9.0, result=verify),
    ]
    write(store, events, plan(run="2026-10-20"))


def markdown(store: Store) -> str:
    # Spaces without width keep names from being mentions.
    return render_markdown(store, "2026-11-22").replace("\u200b", "")


def test_the_report_says_what_was_patched(store: Store) -> None:
    write_earlier(store)
    write(store, RUN)
    text = markdown(store)
    assert text.startswith("# Patch day 2026-11-22 of dev\n\n- state: completed\n")
    assert "- by: ada\n" in text
    assert "- steps done: 3 of 3\n" in text
    assert (
        f"| compute | {NEW} | {OLD} | 6.1.150 | 6.1.140 | 25.11.8 | ami-000000ff | 2 of 2 held |"
        in text
    )
    assert "<summary>1 changed, 1 added, 1 removed</summary>" in text
    assert "| openssl | 1.0-1 | 2.0-1 |\n" in text
    assert "| gone | 1-1 |  |\n" in text
    assert "same" not in text
    assert "Security, fixed: 1 advisory." in text
    assert "| ALAS-7 | Important | CVE-2026-0001 | openssl-2.0-1.x86\\_64 |" in text
    assert "Security, still open: 1 advisory." in text
    assert "| bake:compute | done | 2026-11-22 08:00:00 | 30 min 0 s | 40 min 0 s | 1 |\n" in text
    assert "- dev-two does not stand" in text
    assert f"| dev-eco queue eco | {NEW} | {NEW} (2) | as it should be |" in text
    assert "- told: Patch day done\n- at work when it was planned: grace\n" in text
    assert "## Retired\n\n`ami-000000ee`\n" in text
    assert "## Failures" not in text


HEAD = {
    "cluster": "dev-eco",
    "instance": "i-00000001",
    "snapshot": "snap-00000001",
    "kernel_before": "6.1.140-1",
    "kernel_after": "6.1.150-2",
    "packages": {
        "added": {"new": "1-1"},
        "removed": {"gone": "3-1"},
        "upgraded": {"openssl": ["1.0-1", "2.0-1"]},
    },
    "modules_gone": ["floppy"],
}


def test_patched_head_nodes_are_told_with_kernels_and_packages(store: Store) -> None:
    write(store, [*RUN[:-1], event("done", 9, "head:dev-eco", seconds=1.0, result=HEAD)])
    text = markdown(store)
    assert (
        "| dev-eco | 6.1.150-2 | 6.1.140-1 | 1 changed, 1 added, 1 removed | floppy | i-00000001 |"
        in text
    )
    assert "### Head node of dev-eco: packages" in text
    for row in ("| gone | 3-1 |  |", "| new |  | 1-1 |", "| openssl | 1.0-1 | 2.0-1 |"):
        assert row in text
    page = render_html(store, "2026-11-22")
    assert "<h3>Head node of dev-eco</h3>" in page
    assert "<td>6.1.140-1</td>" in page
    assert "<td>openssl</td><td>1.0-1</td><td>2.0-1</td>" in page


def test_a_head_node_that_was_left_out_is_not_told_as_patched(store: Store) -> None:
    left = event("skipped", 9, "head:dev-eco", seconds=0.0, result={"skipped": "3 jobs run"})
    write(store, [*RUN[:-1], left])
    assert "## Head nodes" not in markdown(store)


def test_the_image_before_is_found_in_the_record_that_made_it(store: Store) -> None:
    write_earlier(store, {**BEFORE, "ami": "ami-0000000e"})
    write(store, RUN)
    (image,) = read_report(store, "2026-11-22").images
    assert (image.earlier, image.changes) == ({}, None)
    assert "| 6.1.150 | not known |" in markdown(store)
    assert (
        "Not known: the packages of this image or of the one before are in no record."
        in markdown(store)
    )
    assert "Security, fixed: not known" in markdown(store)


def test_a_failure_is_told_with_its_reason(store: Store) -> None:
    write(
        store,
        [
            *RUN[:3],
            event("started", 5, "verify:compute"),
            event("failed", 9, "verify:compute", seconds=4.0, reason="units: failed\nmore"),
        ],
    )
    text = markdown(store)
    assert "- state: stopped at a failure\n" in text
    assert "## Failures\n\n- `verify:compute` failed: units: failed more\n" in text
    assert "| promote | not begun |" in text
    page = render_html(store, "2026-11-22")
    assert '<p class="failure">verify:compute failed: units: failed\nmore</p>' in page


def test_what_was_left_out_is_told_with_its_reason(store: Store) -> None:
    steps = (*STEPS, Step(id="queues:dev-eco/eco", action="queues"))
    skipped = event(
        "skipped", 9, "queues:dev-eco/eco", seconds=0.0, result={"skipped": "left: 3 jobs run"}
    )
    write(store, [*RUN[:-1], skipped], plan(steps))
    assert "## Left out\n\n- `queues:dev-eco/eco`: left: 3 jobs run" in markdown(store)
    assert "<li>queues:dev-eco/eco: left: 3 jobs run</li>" in render_html(store, "2026-11-22")


def test_a_run_that_a_kill_cut_off_is_not_complete(store: Store) -> None:
    write(store, RUN[:4])
    text = markdown(store)
    assert "- state: not complete\n" in text
    assert "- `verify:compute` cut off: \n" in text


def test_a_run_without_a_plan_or_events_still_has_a_report(store: Store) -> None:
    (store.folder / "2026-11-22.jsonl").write_text("")
    assert "Patch day 2026-11-22 of an unknown environment" in markdown(store)
    assert "No step has begun." in render_html(store, "2026-11-22")


def test_the_page_loads_and_runs_nothing(store: Store) -> None:
    write_earlier(store)
    write(store, RUN)
    page = render_html(store, "2026-11-22")
    assert "default-src 'none'; style-src 'sha256-" in page
    assert not re.search(r"<script|<link|<img|src=|url\(|@import|href=", page)
    # Every element is closed: it is read as XML, without its first line and the void elements.
    body = page.partition("<body>")[2].partition("</body>")[0]
    root = ElementTree.fromstring(body)  # noqa: S314 - our own page
    bars = [rect for rect in root.iter("rect") if rect.get("class") == "done"]
    assert len(bars) == 3
    widths = [float(rect.get("width", 0)) for rect in bars]
    assert widths[0] > widths[1] > widths[2]
    assert [rect.get("class") for rect in root.iter("rect")].count("expected") == 1
    for element in root.iter("rect"):
        assert float(element.get("x", 0)) + float(element.get("width", 0)) <= 772


HOSTILE = '<script>alert(1)</script> @ada | `x` <img src="http://evil.example.gov">'


def test_nothing_of_the_record_becomes_markup(store: Store) -> None:
    events = [
        {**RUN[0], "who": HOSTILE},
        event("started", 0, "promote"),
        event("failed", 1, "promote", seconds=1.0, reason=HOSTILE),
        event("noted", 2, told="arn", subject=HOSTILE),
        event("noted", 2, what_runs=[[HOSTILE] * 4]),
        event(
            "done",
            3,
            "verify:compute",
            seconds=1.0,
            result={**AFTER, "kernel": HOSTILE, "packages": {HOSTILE: HOSTILE}},
        ),
    ]
    write(store, events)
    page = render_html(store, "2026-11-22")
    assert "<script" not in page
    assert "<img" not in page
    text = render_markdown(store, "2026-11-22")
    assert "<script" not in text
    assert "@ada" not in text
    assert "http://" not in text
