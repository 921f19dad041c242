"""The release record: what a patch day did, one JSON object a line, on this machine and in S3.

It is the memory of a run: a step that it calls done is not done again, and what a step returned is
there for the next one.
"""

from __future__ import annotations

import json
import os
import threading
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from clusterbox.files import write_whole
from clusterbox.images.lease import LeaseLostError
from clusterbox.images.plan import Plan
from clusterbox.site.environment import Environment

Event = dict[str, Any]
# A run that has one of these is over.
ENDINGS = ("completed", "abandoned", "rolled back")
_ABSENT = {"NoSuchKey", "404"}


@dataclass(frozen=True)
class Store:
    """Where the records of an environment's patch days are: a local folder and a bucket.

    `s3` is None where only the local ones are wanted.
    """

    folder: Path
    s3: Any = field(repr=False)
    bucket: str
    prefix: str

    def runs(self) -> list[str]:
        """Return the ids of all runs, the oldest first; ids begin with their date."""
        found = {path.stem for path in self.folder.glob("*.jsonl")}
        if self.s3 is not None:
            pages = self.s3.get_paginator("list_objects_v2").paginate(
                Bucket=self.bucket, Prefix=f"{self.prefix}/runs/", Delimiter="/"
            )
            for page in pages:
                for entry in page.get("CommonPrefixes", ()):
                    found.add(entry["Prefix"].rstrip("/").rpartition("/")[2])
        return sorted(found, key=_run_order)

    def read(self, run: str) -> list[Event]:
        """Return the events of a run, from both places, the oldest first."""
        local = self.folder / f"{run}.jsonl"
        events = _parse(local.read_text(encoding="utf-8")) if local.exists() else []
        remote = self.get(f"{run}/record.jsonl")
        return merge(events, _parse(remote) if remote else [])

    def read_plan(self, run: str) -> Plan | None:
        """Return the plan of a run; None where it has none that can be read."""
        local = self.folder / f"{run}.plan.json"
        text = local.read_text(encoding="utf-8") if local.exists() else None
        text = text or self.get(f"{run}/plan.json")
        return Plan.from_json(text) if text else None

    def unfinished(self) -> str | None:
        """Return the newest run that has begun and neither completed nor was given up."""
        for run in reversed(self.runs()):
            events = self.read(run)
            if not events:
                continue
            return None if is_over(events) else run
        return None

    def create(self, plan: Plan) -> None:
        """Keep the plan of a run that begins."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{plan.run}.plan.json"
        write_whole(path, plan.to_json())
        self.put(f"{plan.run}/plan.json", plan.to_json())

    def put(self, name: str, text: str) -> None:
        """Write an object below the environment's runs."""
        if self.s3 is not None:
            self.s3.put_object(
                Bucket=self.bucket, Key=f"{self.prefix}/runs/{name}", Body=text.encode()
            )

    def get(self, name: str) -> str | None:
        """Return an object below the environment's runs; None where there is none."""
        from botocore.exceptions import ClientError

        if self.s3 is None:
            return None
        try:
            answer = self.s3.get_object(Bucket=self.bucket, Key=f"{self.prefix}/runs/{name}")
        except ClientError as error:
            if str(error.response.get("Error", {}).get("Code", "")) in _ABSENT:
                return None
            raise
        text: str = answer["Body"].read().decode()
        return text


def open_store(root: Path, environment: Environment, s3: Any) -> Store:
    """Return where the environment's patch days are recorded."""
    return Store(
        folder=root / ".clusterbox" / "patch-day" / environment.name,
        s3=s3,
        bucket=environment.storage.buckets.logs.name,
        prefix=f"patch-day/{environment.name}",
    )


def _check_nothing() -> None:
    pass


@dataclass
class Record:
    """The record of one run, to which lines are appended; threads may share it."""

    store: Store
    run: str
    who: str
    events: list[Event] = field(default_factory=list)
    # Why S3 lacks the last lines; empty where it has all.
    behind: str = ""
    # Raises LeaseLostError where another operator writes this record by now.
    check: Callable[[], None] = field(default=_check_nothing, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @classmethod
    def open(cls, store: Store, run: str, who: str) -> Record:
        """Return the record of a run with what is there of it."""
        record = cls(store, run, who, store.read(run))
        store.folder.mkdir(parents=True, exist_ok=True)
        # What a kill left of the last line, or another machine added, is made whole.
        record._rewrite()
        return record

    def append(self, event: str, *, step: str | None = None, **facts: Any) -> Event:
        """Append one event, to the disk at once; S3 gets the whole record."""
        line: Event = {
            "id": uuid.uuid4().hex,
            "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "run": self.run,
            "who": self.who,
            "event": event,
        }
        if step is not None:
            line["step"] = step
        line |= facts
        text = json.dumps(line, default=str)
        with self._lock:
            self.events.append(json.loads(text))
            with self._path.open("a", encoding="utf-8") as file:
                file.write(text + "\n")
                file.flush()
                os.fsync(file.fileno())
            self._send()
        return line

    def _send(self) -> None:
        """Bring S3 up to date; what it missed, when AWS did not answer, goes with the next line."""
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            # What a run that was taken over has to say must not replace what the other one says.
            self.check()
            self.store.put(f"{self.run}/record.jsonl", self.text())
            self.behind = ""
        except (BotoCoreError, ClientError, LeaseLostError) as error:
            self.behind = f"the record is only in {self._path}: {error}"

    def text(self) -> str:
        """Return all events as JSON lines."""
        return "".join(json.dumps(event) + "\n" for event in self.events)

    @property
    def results(self) -> dict[str, dict[str, Any]]:
        """What each step that is done returned."""
        return done_results(self.events)

    @property
    def _path(self) -> Path:
        return self.store.folder / f"{self.run}.jsonl"

    def _rewrite(self) -> None:
        write_whole(self._path, self.text())


def done_results(events: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return what each step that is done returned, by its id."""
    return {
        str(event["step"]): dict(event.get("result") or {})
        for event in events
        if event.get("event") in ("done", "skipped") and "step" in event
    }


def find_held(events: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the clusters whose jobs a run has held and, as far as it knows, not let go again."""
    held: dict[str, None] = {}
    for event in events:
        if event.get("event") == "held":
            held[str(event["cluster"])] = None
        elif event.get("event") in ("released", "patched"):
            held.pop(str(event["cluster"]), None)
    return list(held)


def is_over(events: Iterable[Mapping[str, Any]]) -> bool:
    """Return whether a run has ended for good."""
    return any(event.get("event") in ENDINGS for event in events)


def merge(one: list[Event], other: list[Event]) -> list[Event]:
    """Return the events of two copies of a record, each once, the oldest first."""
    found = {str(event["id"]): event for event in [*one, *other] if "id" in event}
    return sorted(found.values(), key=lambda event: str(event.get("at", "")))


def _run_order(run: str) -> tuple[str, int]:
    date, _, number = run[:10], run[10:11], run[11:]
    return date, int(number) if number.isdigit() else 1


def _parse(text: str) -> list[Event]:
    events = []
    for line in text.splitlines():
        try:
            event = json.loads(line)
        except ValueError:
            continue  # The end of a line that a kill cut off.
        if isinstance(event, dict):
            events.append(event)
    return events
