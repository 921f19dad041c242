"""One patch day at a time: the lease, its expiry, and who takes it over."""

from __future__ import annotations

import os
import socket
import subprocess
from dataclasses import replace

import pytest

from clusterbox.images.lease import (
    Holder,
    Lease,
    LeaseHeldError,
    LeaseLostError,
    this_process,
    whoami,
)
from tests.images.memory_s3 import MemoryS3

HERE = this_process("2026-11-22")
ELSEWHERE = Holder("ann", "another-host", 7, "2026-11-22")


def _lease(s3: MemoryS3, holder: Holder = HERE, seconds: float = 600) -> Lease:
    return Lease(s3, "logs", "patch-day/ws-dev/lease.json", holder, seconds)


def test_a_second_operator_is_refused_and_told_who_has_it() -> None:
    s3 = MemoryS3()
    _lease(s3, ELSEWHERE).acquire()
    s3.pass_time(120)
    with pytest.raises(LeaseHeldError, match=r"ann on another-host .*8 minutes"):
        _lease(s3).acquire()


def test_after_its_time_it_is_taken_over_and_its_first_holder_is_told() -> None:
    s3 = MemoryS3()
    first = _lease(s3, ELSEWHERE)
    first.acquire()
    s3.pass_time(601)
    second = _lease(s3)
    second.acquire()
    first.renew()
    with pytest.raises(LeaseLostError, match=f"taken over by {whoami()}"):
        first.check()
    second.check()


def test_of_two_that_take_over_at_once_one_gets_it() -> None:
    s3 = MemoryS3()
    _lease(s3, ELSEWHERE).acquire()
    s3.pass_time(601)
    slow = _lease(s3, replace(ELSEWHERE, host="third"))
    read = slow._read

    def read_then_lose() -> object:
        found = read()
        _lease(s3).acquire()
        return found

    slow._read = read_then_lose  # type: ignore[method-assign, assignment]
    with pytest.raises(LeaseHeldError, match="began at this moment"):
        slow.acquire()


def test_that_of_a_killed_process_of_this_machine_is_taken_over_at_once() -> None:
    s3 = MemoryS3()
    gone = subprocess.Popen(["true"])
    gone.wait()
    _lease(s3, Holder("ann", socket.gethostname(), gone.pid, "2026-11-22")).acquire()
    _lease(s3).acquire()


def test_that_of_a_living_process_of_this_machine_is_not() -> None:
    s3 = MemoryS3()
    _lease(s3, Holder("ann", socket.gethostname(), os.getppid(), "2026-11-22")).acquire()
    with pytest.raises(LeaseHeldError):
        _lease(s3).acquire()


def test_renewing_keeps_it() -> None:
    s3 = MemoryS3()
    lease = _lease(s3, ELSEWHERE)
    lease.acquire()
    for _ in range(3):
        s3.pass_time(400)
        lease.renew()
    with pytest.raises(LeaseHeldError):
        _lease(s3).acquire()


def test_a_renewal_whose_answer_was_lost_is_no_loss() -> None:
    s3 = MemoryS3()
    lease = _lease(s3)
    lease.acquire()
    body, _, _ = s3.objects[lease.key]
    s3.put_object(Bucket="logs", Key=lease.key, Body=body + b" ")  # It arrived: another ETag.
    lease.renew()
    lease.check()
    lease.renew()
    lease.check()


def test_it_is_given_back_and_only_by_its_holder() -> None:
    s3 = MemoryS3()
    first = _lease(s3, ELSEWHERE)
    first.acquire()
    s3.pass_time(601)
    with _lease(s3) as second:
        first.release()
        assert second.key in s3.objects
    assert second.key not in s3.objects


def test_it_is_renewed_in_the_background_and_lost_when_that_fails() -> None:
    s3 = MemoryS3()
    with _lease(s3, seconds=0.05) as lease:
        s3.refuse = ["ExpiredToken"] * 10_000
        assert lease._thread is not None
        lease._thread.join(timeout=30)
        with pytest.raises(LeaseLostError, match=r"could not be renewed.*ExpiredToken"):
            lease.check()


def test_a_lease_that_cannot_be_read_is_respected_until_its_time() -> None:
    s3 = MemoryS3()
    s3.put_object(Bucket="logs", Key="patch-day/ws-dev/lease.json", Body=b"half")
    with pytest.raises(LeaseHeldError, match="somebody"):
        _lease(s3).acquire()
    s3.pass_time(601)
    _lease(s3).acquire()


def test_after_a_sleep_of_the_machine_it_is_renewed_before_anything_is_done() -> None:
    s3, now = MemoryS3(), [0.0]
    lease = replace(_lease(s3), clock=lambda: now[0])
    lease.acquire()
    now[0] = 3600.0
    s3.pass_time(3600)
    lease.check()
    with pytest.raises(LeaseHeldError):
        _lease(s3, ELSEWHERE).acquire()


def test_after_a_sleep_in_which_somebody_took_it_over_nothing_is_done() -> None:
    s3, now = MemoryS3(), [0.0]
    lease = replace(_lease(s3), clock=lambda: now[0])
    lease.acquire()
    now[0] = 3600.0
    s3.pass_time(3600)
    _lease(s3, ELSEWHERE).acquire()
    with pytest.raises(LeaseLostError, match="taken over by ann"):
        lease.check()


def test_a_process_of_a_container_of_the_same_name_is_not_taken_for_gone() -> None:
    s3 = MemoryS3()
    gone = subprocess.Popen(["true"])
    gone.wait()
    other = Holder("ann", socket.gethostname(), gone.pid, "2026-11-22", "another pid namespace")
    _lease(s3, other).acquire()
    with pytest.raises(LeaseHeldError):
        _lease(s3).acquire()
