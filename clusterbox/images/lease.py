"""One patch day at a time in an environment: an object in S3, held for minutes and renewed.

S3 writes it only where nobody else has (If-None-Match, If-Match), and its own clock says how old it
is: the clocks of two operators need not agree.
"""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

from clusterbox.errors import ClusterboxError

SECONDS = 600.0
# The holder renews it this often; a renewal may fail a few times before it is lost.
_RENEWALS = 5
_TAKEN = {"PreconditionFailed", "ConditionalRequestConflict", "412", "409"}
_ABSENT = {"NoSuchKey", "404"}


class LeaseHeldError(ClusterboxError):
    """Another operator's patch day is under way."""


class LeaseLostError(ClusterboxError):
    """The lease ran out or was taken over; this run must not go on."""


@dataclass(frozen=True)
class Holder:
    """Who holds the lease."""

    who: str
    host: str
    pid: int
    run: str
    # In which numbers of processes `pid` is one: containers of one name have each their own.
    namespace: str = ""

    def __str__(self) -> str:
        """Return it for people."""
        return f"{self.who} on {self.host} (process {self.pid}, run {self.run})"


def this_process(run: str) -> Holder:
    """Return the holder that this process would be."""
    return Holder(whoami(), socket.gethostname(), os.getpid(), run, _namespace())


def whoami() -> str:
    """Return the user's name, or the number where the machine has no name for it."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def _boot_seconds() -> float:
    """Return seconds since the machine started; where the system can, those asleep count too."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


@dataclass
class Lease:
    """The lease of one environment; as a context manager it is held inside and given back after."""

    s3: Any = field(repr=False)
    bucket: str
    key: str
    holder: Holder
    seconds: float = SECONDS
    # Seconds of a clock that goes on while the machine sleeps.
    clock: Callable[[], float] = field(default=_boot_seconds, repr=False)
    _etag: str = ""
    _lost: str = ""
    # When the last renewal that arrived was begun.
    _renewed: float = 0.0
    _renewing: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _ended: threading.Event = field(default_factory=threading.Event, repr=False)
    _thread: threading.Thread | None = field(default=None, repr=False)

    def acquire(self) -> None:
        """Take the lease; raises LeaseHeldError while somebody else has it.

        One whose time is over is taken over, and so is one of a process of this machine that is gone.
        """
        found = self._read()
        if found is None:
            taken = self._write(IfNoneMatch="*")
        else:
            holder, age, etag = found
            if age <= self.seconds and not _is_gone(holder):
                left = self.seconds - age
                raise LeaseHeldError(
                    f"another patch day is under way: {holder}; wait for it, or if it was killed "
                    f"on another machine, {left / 60:.0f} minutes until its lease runs out"
                )
            taken = self._write(IfMatch=etag)
        if not taken:
            raise LeaseHeldError("another patch day began at this moment; look at its status")

    def check(self) -> None:
        """Raise LeaseLostError where the lease is not ours any more.

        One whose time is over, as after a sleep of this machine, is renewed first or lost.
        """
        if not self._lost and self.clock() - self._renewed > self.seconds:
            try:
                self.renew()
            except Exception as error:
                self._lost = f"the lease of this patch day could not be renewed: {error}"
        if self._lost:
            raise LeaseLostError(self._lost)

    def renew(self) -> None:
        """Renew it once; a lease that somebody else took is lost."""
        with self._renewing:
            self._renew()

    def _renew(self) -> None:
        start = self.clock()
        if not self._write(IfMatch=self._etag):
            found = self._read()
            # Our own renewal may have arrived though its answer did not.
            if found is not None and found[0] == self.holder:
                self._etag, self._renewed = found[2], start - found[1]
                return
            by = f" by {found[0]}" if found else ""
            self._lost = (
                f"the lease of this patch day was taken over{by}; nothing more is done here"
            )

    def release(self) -> None:
        """Give it back where it is still ours; a failure is left to its expiry."""
        with contextlib.suppress(Exception):
            found = self._read()
            if found is not None and found[0] == self.holder:
                self.s3.delete_object(Bucket=self.bucket, Key=self.key)

    def __enter__(self) -> Lease:
        """Take it and renew it until the end."""
        self.acquire()
        self._thread = threading.Thread(target=self._keep, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Give it back."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join(timeout=30)
        if not self._lost:
            self.release()

    def _keep(self) -> None:
        failures = 0
        while not self._ended.wait(self.seconds / _RENEWALS):
            try:
                self.renew()
                failures = 0
            except Exception as error:
                failures += 1
                if failures >= _RENEWALS - 1:
                    self._lost = f"the lease of this patch day could not be renewed: {error}"
            if self._lost:
                return

    def _read(self) -> tuple[Holder, float, str] | None:
        """Return holder, age in seconds and ETag of the lease that is there."""
        from botocore.exceptions import ClientError

        try:
            answer = self.s3.get_object(Bucket=self.bucket, Key=self.key)
        except ClientError as error:
            if _code(error) in _ABSENT:
                return None
            raise
        now = _server_time(answer)
        age = (now - answer["LastModified"]).total_seconds()
        try:
            holder = Holder(**json.loads(answer["Body"].read()))
        except (ValueError, TypeError):
            holder = Holder("somebody", "an unknown host", 0, "unknown")
        return holder, age, str(answer["ETag"])

    def _write(self, **condition: str) -> bool:
        from botocore.exceptions import ClientError

        body = json.dumps(asdict(self.holder)).encode()
        start = self.clock()
        try:
            answer = self.s3.put_object(Bucket=self.bucket, Key=self.key, Body=body, **condition)
        except ClientError as error:
            if _code(error) in _TAKEN | _ABSENT:
                return False
            raise
        self._etag, self._renewed = str(answer["ETag"]), start
        return True


def _server_time(answer: dict[str, Any]) -> datetime:
    date = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date", "")
    try:
        found = parsedate_to_datetime(date)
    except (TypeError, ValueError):
        return datetime.now(UTC)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _is_gone(holder: Holder) -> bool:
    """Return whether the holder was a process of this machine that has ended."""
    here = (socket.gethostname(), _namespace())
    if (holder.host, holder.namespace or here[1]) != here or holder.pid <= 0:
        return False
    try:
        os.kill(holder.pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


def _namespace() -> str:
    """Return what tells this machine's boot and its container's processes from others."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _code(error: Any) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))
