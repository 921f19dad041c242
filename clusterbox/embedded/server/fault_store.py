"""The faults that wait in this account: put in through the control path, taken by what they hit."""

from __future__ import annotations

import threading
from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import Any, TypeVar

from ministack.services import ec2

from clusterbox.embedded.faults import (
    BrokenImage,
    CallFault,
    ExpiredCredentials,
    Fault,
    HeldBuild,
    MissingImages,
    ThrottledCalls,
)
from clusterbox.embedded.server import image_facts

FaultT = TypeVar("FaultT", bound=Fault)

_lock = threading.Lock()
_waiting: list[Fault] = []


def inject(faults: tuple[Fault, ...]) -> list[str]:
    """Keep faults that wait, and do at once what does not; return what was done, a line each."""
    done = []
    for fault in faults:
        if isinstance(fault, MissingImages):
            done += _remove_images(fault.name)
        elif isinstance(fault, BrokenImage):
            image_facts.break_checks(fault.ami, fault.checks)
            done.append(f"{fault.ami}: {', '.join(fault.checks) or 'no check'} fails")
        else:
            with _lock:
                _waiting.append(fault)
            done.append(f"waiting: {fault.kind}")
    return done


def waiting() -> list[dict[str, Any]]:
    """Return the faults that nothing has taken yet, with the times that are left."""
    with _lock:
        return [fault.model_dump(mode="json") for fault in _waiting]


def clear(kind: str | None = None) -> None:
    """Forget every fault that waits, or those of one kind."""
    with _lock:
        _waiting[:] = [fault for fault in _waiting if kind not in (None, fault.kind)]


def take_image_fault(kind: type[FaultT], image: str, image_id: str) -> FaultT | None:
    """Return the first fault of that kind for an image, one time less of it left.

    `image` is the name of its definition, `image_id` ParallelCluster's id of the bake.
    """
    return _take(kind, lambda fault: _is_about(fault, image, image_id))


def is_held(image: str, image_id: str, status: str) -> bool:
    """Return whether a build has to wait at the entrance of a stage."""
    return any(
        isinstance(fault, HeldBuild)
        and fault.status == status
        and _is_about(fault, image, image_id)
        for fault in tuple(_waiting)
    )


def _is_about(fault: Any, image: str, image_id: str) -> bool:
    return bool(fault.image == image or fnmatchcase(image_id, fault.image))


def take_call_fault(service: str, operation: str) -> CallFault | None:
    """Return the fault that hits this call, one time less of it left."""

    def hits(fault: Any) -> bool:
        return fault.service in (None, service) and fault.operation in (None, operation)

    return _take(ThrottledCalls, hits) or _take(ExpiredCredentials, hits)


def hits_calls() -> bool:
    """Return whether any fault waits for calls; looking into a request takes time."""
    return any(isinstance(fault, CallFault) for fault in tuple(_waiting))


def _take(kind: type[FaultT], hits: Callable[[Any], bool]) -> FaultT | None:
    with _lock:
        for index, fault in enumerate(_waiting):
            if isinstance(fault, kind) and hits(fault):
                left: Any = fault.times - 1 if hasattr(fault, "times") else 0
                if left:
                    _waiting[index] = fault.model_copy(update={"times": left})
                else:
                    del _waiting[index]
                return fault
    return None


def _remove_images(pattern: str) -> list[str]:
    names = {key: str(image["Name"]) for key, image in ec2._images.items()}
    gone = [key for key, name in names.items() if fnmatchcase(name, pattern)]
    for key in gone:
        del ec2._images[key]
        ec2._tags.pop(key, None)
    return [f"deregistered {key} {names[key]}" for key in gone]
