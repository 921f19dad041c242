"""What a change does to the image lock and to the address budget of an environment."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from clusterbox.review.snapshot import Snapshot
from clusterbox.site.addresses import SubnetBudget
from clusterbox.site.images import LockedImage


@dataclass(frozen=True)
class ImageChange:
    """One entry of the image lock that differs, and who uses the image."""

    environment: str
    image: str
    base: LockedImage | None
    head: LockedImage | None
    used_by: tuple[str, ...]


@dataclass(frozen=True)
class AddressChange:
    """The address budget of one subnet: needed addresses before and after, of those usable.

    None stands for a subnet that is not there. `may_also_come` are addresses of what may stand
    in this subnet or in another, after the change.
    """

    environment: str
    subnet: str
    cidr: str
    usable: int
    needed_before: int | None
    needed_after: int | None
    may_also_come: int

    @property
    def free(self) -> int:
        """Usable addresses left after the change by what can stand nowhere else."""
        return self.usable - (self.needed_after or 0)


def compare_images(base: Snapshot | None, head: Snapshot | None) -> tuple[ImageChange, ...]:
    """Return the entries of the image lock that differ between two snapshots."""
    before: Mapping[str, LockedImage] = base.images if base else {}
    after: Mapping[str, LockedImage] = head.images if head else {}
    newest = head or base
    return tuple(
        ImageChange(
            newest.name,
            image,
            before.get(image),
            after.get(image),
            tuple(_users(newest, (after.get(image) or before[image]).ami)),
        )
        for image in dict.fromkeys([*after, *before])
        if newest is not None and before.get(image) != after.get(image)
    )


def compare_addresses(base: Snapshot | None, head: Snapshot | None) -> tuple[AddressChange, ...]:
    """Return the budgets of all subnets before and after, where any of them differs."""
    before = _by_subnet(base)
    after = _by_subnet(head)
    newest = head or base
    if newest is None or {name: _figures(item) for name, item in before.items()} == {
        name: _figures(item) for name, item in after.items()
    }:
        return ()
    return tuple(_address_change(newest.name, name, before, after) for name in {**after, **before})


def _address_change(
    environment: str,
    name: str,
    before: Mapping[str, SubnetBudget],
    after: Mapping[str, SubnetBudget],
) -> AddressChange:
    budget = after.get(name) or before[name]
    return AddressChange(
        environment,
        name,
        budget.cidr,
        budget.usable,
        before[name].needed if name in before else None,
        after[name].needed if name in after else None,
        _elsewhere(budget),
    )


def _users(snapshot: Snapshot, ami: str) -> Iterator[str]:
    """Yield the clusters whose configuration names the image, and the admin box."""
    for cluster in snapshot.clusters:
        if ami in _texts(cluster.configuration):
            yield cluster.name
    box = snapshot.environment.admin_box if snapshot.environment else None
    if box is not None and snapshot.images[box.image].ami == ami:
        yield box.name


def _texts(data: object) -> Iterator[str]:
    if isinstance(data, Mapping):
        for value in data.values():
            yield from _texts(value)
    elif isinstance(data, Sequence) and not isinstance(data, str):
        for item in data:
            yield from _texts(item)
    elif isinstance(data, str):
        yield data


def _by_subnet(snapshot: Snapshot | None) -> dict[str, SubnetBudget]:
    return {budget.name: budget for budget in snapshot.budgets} if snapshot else {}


def _figures(budget: SubnetBudget) -> tuple[str, int, int]:
    return budget.cidr, budget.needed, _elsewhere(budget)


def _elsewhere(budget: SubnetBudget) -> int:
    return sum(demand.addresses for demand in budget.may_be_here)
