"""Things that nobody seems to use any more, and what deleting them saves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal

from clusterbox.costs.estimate import add_amounts
from clusterbox.costs.item import Item

# A younger image may be on its way into the lock: images are baked anew every month.
OLD_IMAGE_DAYS = 30
# An admin box stops itself after minutes; one that runs for a day without work did not.
IDLE_HOURS = 24
IDLE_CPU_PERCENT = Decimal(10)
# What EC2 says is the volume of a snapshot that was copied.
COPY_VOLUME = "vol-ffffffff"
ONLY_COPY = "look first whether its data are anywhere else"


@dataclass(frozen=True, order=True)
class Orphan:
    """A thing without use: why it is thought so, and USD a month that its end saves.

    `saves` is None where it has no price. `note` says what else to know.
    """

    account: str
    region: str
    kind: str
    id: str
    name: str
    why: str
    saves: Decimal | None
    note: str | None = None


@dataclass(frozen=True)
class Known:
    """What is known of the use of things; what was not read cannot be an orphan's proof.

    `used` are ids that files of the repository name, and images and snapshots that launch templates
    or instances of any account use: images are shared among accounts. `admin_boxes` are the
    instances of those that run, each with the highest hourly mean of its CPU in the last day in
    percent, None where that is not known.
    """

    made: datetime
    used: frozenset[str]
    admin_boxes: Mapping[str, Decimal | None]
    all_images: bool = True
    all_volumes: bool = True
    all_uses: bool = True


def find_orphans(items: Sequence[Item], known: Known) -> list[Orphan]:
    """Return the orphans among the items of one account and region; nothing is in two of them."""
    images = _find_images(items, known)
    return [
        *_find_volumes(items, known),
        *images.values(),
        *_find_snapshots(items, known),
        *_find_addresses(items, known),
        *_find_admin_boxes(items, known),
    ]


def total_savings(orphans: Sequence[Orphan]) -> Decimal | None:
    """Return the sum of what is known, None where nothing is."""
    return add_amounts(orphan.saves for orphan in orphans)


def _orphan(item: Item, why: str) -> Orphan:
    place = (item.account, item.region, item.kind, item.id, item.name)
    return Orphan(*place, why, item.cost.now, item.cost.note)


def _find_volumes(items: Sequence[Item], known: Known) -> Iterator[Orphan]:
    for item in items:
        if item.kind == "volume" and item.state == "available" and item.id not in known.used:
            yield _orphan(item, "attached to no instance")


def _find_images(items: Sequence[Item], known: Known) -> dict[str, Orphan]:
    """Return images that are old and in no lock, template or instance, with their snapshots."""
    if not known.all_uses:
        return {}
    snapshots = {item.id: item for item in items if item.kind == "snapshot"}
    uses = Counter(key for item in items if item.kind == "image" for key in set(item.links))
    oldest = known.made - timedelta(days=OLD_IMAGE_DAYS)
    found = {}
    for item in items:
        if item.kind != "image" or item.type == "backup" or item.id in known.used:
            continue
        if item.created is None or item.created > oldest:
            continue
        # A snapshot that another image needs too stays.
        own = [
            snapshots.get(key)
            for key in dict.fromkeys(item.links)
            if uses[key] == 1 and key not in known.used
        ]
        costs = [None if snapshot is None else snapshot.cost.now for snapshot in own]
        why = f"older than {OLD_IMAGE_DAYS} days, in no lock, launch template or instance"
        notes = [f"with its snapshots ({len(own)})"] if own else []
        notes += [snapshot.cost.note for snapshot in own[:1] if snapshot and snapshot.cost.note]
        saves = add_amounts(costs) if costs else Decimal(0)
        found[item.id] = replace(_orphan(item, why), saves=saves, note="; ".join(notes) or None)
    return found


def _find_snapshots(items: Sequence[Item], known: Known) -> Iterator[Orphan]:
    if not (known.all_images and known.all_volumes and known.all_uses):
        return
    volumes = {item.id for item in items if item.kind == "volume"}
    of_images = {key for item in items if item.kind == "image" for key in item.links}
    for item in items:
        if item.kind != "snapshot" or item.type == "backup":
            continue
        if item.id in of_images or item.id in known.used or volumes.intersection(item.links):
            continue
        is_copy = COPY_VOLUME in item.links
        why = "a copy" if is_copy else "its volume is gone"
        found = _orphan(item, f"{why}, and no image or launch template needs it")
        yield replace(found, note="; ".join(filter(None, [ONLY_COPY, found.note])))


def _find_addresses(items: Sequence[Item], known: Known) -> Iterator[Orphan]:
    for item in items:
        if item.kind == "address" and item.state == "unassociated" and item.id not in known.used:
            yield _orphan(item, "associated with nothing")


def _find_admin_boxes(items: Sequence[Item], known: Known) -> Iterator[Orphan]:
    for item in items:
        busiest = known.admin_boxes.get(item.id)
        if busiest is None or item.created is None:
            continue
        runs = known.made - item.created
        if runs >= timedelta(hours=IDLE_HOURS) and busiest < IDLE_CPU_PERCENT:
            yield _orphan(
                item,
                f"admin box that runs for {runs // timedelta(hours=1)} hours, its busiest of the "
                f"last {IDLE_HOURS} at {busiest:.1f} % CPU: stop it",
            )
