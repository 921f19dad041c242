"""The release record: on disk and in S3, whole after a kill, continued on another machine."""

from __future__ import annotations

from pathlib import Path

from clusterbox.images.lease import LeaseLostError
from clusterbox.images.plan import Options, Plan
from clusterbox.images.record import Record, Store
from tests.images.memory_s3 import MemoryS3


def _store(folder: Path, s3: MemoryS3) -> Store:
    return Store(folder, s3, "logs", "patch-day/ws-dev")


def _plan(run: str) -> Plan:
    return Plan(
        run=run,
        environment="ws-dev",
        created="2026-11-22T12:00:00+00:00",
        options=Options(),
        images=(),
        steps=(),
        world={},
    )


def test_events_are_on_disk_and_in_s3(tmp_path: Path) -> None:
    s3 = MemoryS3()
    store = _store(tmp_path, s3)
    record = Record.open(store, "2026-11-22", "ann")
    record.append("started", step="bake:compute")
    record.append("done", step="bake:compute", result={"ami": "ami-1"})
    local = (tmp_path / "2026-11-22.jsonl").read_text()
    remote = s3.objects["patch-day/ws-dev/runs/2026-11-22/record.jsonl"][0].decode()
    assert local == remote == record.text()
    assert record.results == {"bake:compute": {"ami": "ami-1"}}
    assert {event["who"] for event in record.events} == {"ann"}


def test_a_line_that_a_kill_cut_off_is_left_out_and_the_next_one_is_whole(tmp_path: Path) -> None:
    store = _store(tmp_path, MemoryS3())
    Record.open(store, "2026-11-22", "ann").append("started", step="promote")
    path = tmp_path / "2026-11-22.jsonl"
    path.write_text(path.read_text() + '{"id": "x", "at"')
    again = Record.open(store, "2026-11-22", "ann")
    again.append("done", step="promote")
    assert [event["event"] for event in store.read("2026-11-22")] == ["started", "done"]
    assert len(path.read_text().splitlines()) == 2


def test_another_machine_goes_on_and_the_first_one_sees_it(tmp_path: Path) -> None:
    s3 = MemoryS3()
    first, second = _store(tmp_path / "a", s3), _store(tmp_path / "b", s3)
    Record.open(first, "2026-11-22", "ann").append("done", step="bake:compute")
    Record.open(second, "2026-11-22", "bob").append("done", step="verify:compute")
    found = Record.open(first, "2026-11-22", "ann")
    assert [event["who"] for event in found.events] == ["ann", "bob"]
    assert set(found.results) == {"bake:compute", "verify:compute"}


def test_what_s3_missed_goes_with_the_next_event(tmp_path: Path) -> None:
    s3 = MemoryS3()
    record = Record.open(_store(tmp_path, s3), "2026-11-22", "ann")
    s3.refuse = ["ExpiredToken"]
    record.append("started", step="promote")
    assert "ExpiredToken" in record.behind
    record.append("done", step="promote")
    assert record.behind == ""
    assert len(s3.objects["patch-day/ws-dev/runs/2026-11-22/record.jsonl"][0].splitlines()) == 2


def test_the_newest_run_that_has_not_ended(tmp_path: Path) -> None:
    store = _store(tmp_path, MemoryS3())
    assert store.unfinished() is None
    Record.open(store, "2026-10-20", "ann").append("completed")
    assert store.unfinished() is None
    for run in ("2026-11-22", "2026-11-22-2", "2026-11-22-10"):
        store.create(_plan(run))
        Record.open(store, run, "ann").append("begun")
    assert store.runs()[-1] == "2026-11-22-10"
    assert store.unfinished() == "2026-11-22-10"
    Record.open(store, "2026-11-22-10", "ann").append("abandoned")
    assert store.unfinished() is None


def test_the_plan_comes_back_from_the_other_place(tmp_path: Path) -> None:
    s3 = MemoryS3()
    _store(tmp_path / "a", s3).create(_plan("2026-11-22"))
    assert _store(tmp_path / "b", s3).read_plan("2026-11-22") == _plan("2026-11-22")
    assert _store(tmp_path / "b", s3).read_plan("2026-11-23") is None


def test_a_run_that_was_taken_over_does_not_replace_what_the_other_one_recorded(
    tmp_path: Path,
) -> None:
    s3 = MemoryS3()
    mine, other = _store(tmp_path / "a", s3), _store(tmp_path / "b", s3)
    record = Record.open(mine, "2026-11-22", "ann")
    record.append("started", step="promote")

    def lost() -> None:
        raise LeaseLostError("it was taken over by bob")

    record.check = lost
    Record.open(other, "2026-11-22", "bob").append("completed")
    record.append("failed", step="promote")
    assert [event["event"] for event in other.read("2026-11-22")] == ["started", "completed"]
    assert "taken over by bob" in record.behind
    assert "failed" in {event["event"] for event in mine.read("2026-11-22")}
