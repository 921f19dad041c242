"""The daily cost report: what is in one or more accounts, what it costs, and what could go."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from functools import cached_property
from typing import TYPE_CHECKING, Any

from clusterbox.aws import Account, Gap
from clusterbox.costs.estimate import add_amounts
from clusterbox.costs.inventory import read_busiest_hour, read_items, read_template_uses
from clusterbox.costs.item import Item
from clusterbox.costs.prices import Prices
from clusterbox.costs.report_orphans import Known, Orphan, find_orphans
from clusterbox.costs.report_selection import Selection, link, select
from clusterbox.errors import InputError
from clusterbox.site.environment import Environment

if TYPE_CHECKING:
    import pandas

# Groups that totals are made by; each function says which one an item is in.
GROUPS: dict[str, Callable[[Item], str]] = {
    "kind": lambda item: item.kind,
    # The disks of a machine that is stopped are what that state costs.
    "state": lambda item: item.machine_state or item.state,
    "owner": lambda item: item.owner,
    "project": lambda item: item.project,
    "cluster": lambda item: item.cluster,
    "environment": lambda item: item.environment,
    "account": lambda item: item.account,
}
# How a launch template names an image by a parameter, before the parameter's name.
PARAMETER = "resolve:ssm:"
# What an item without a tag is in.
NO_NAME = "(none)"


@dataclass(frozen=True)
class Total:
    """A sum in USD a month; None where nothing of it has a price.

    `unpriced` is how many items are not, or not wholly, in it.
    """

    name: str
    items: int
    now: Decimal | None
    if_running: Decimal | None
    unpriced: int


@dataclass(frozen=True)
class Report:
    """A cost report. Amounts are USD a month of 730 hours; `gaps` make it partial."""

    made: datetime
    selection: Selection
    places: tuple[tuple[str, str], ...]
    prices: tuple[str, ...]
    items: tuple[Item, ...] = field(repr=False)
    orphans: tuple[Orphan, ...] = field(repr=False)
    gaps: tuple[Gap, ...]

    @property
    def is_partial(self) -> bool:
        """Whether something could not be read."""
        return bool(self.gaps)

    @property
    def unpriced(self) -> tuple[Item, ...]:
        """The items of which something has no price."""
        return tuple(item for item in self.items if item.cost.unknown is not None)

    @property
    def untagged(self) -> tuple[Item, ...]:
        """The items that lack a tag which says whose they are, the dearest first."""
        found = (item for item in self.items if missing_tags(item))
        return tuple(sorted(found, key=lambda item: (-(item.cost.now or 0), item.kind, item.id)))

    @property
    def total(self) -> Total:
        """The sum of everything."""
        return sum_items("all", self.items)

    def totals(self, group: str) -> list[Total]:
        """Return the sums by one of GROUPS, the dearest first; they add up to `total`."""
        members: dict[str, list[Item]] = defaultdict(list)
        for item in self.items:
            members[GROUPS[group](item) or NO_NAME].append(item)
        sums = [sum_items(name, items) for name, items in members.items()]
        return sorted(sums, key=lambda total: (-(total.now or 0), total.name))

    def disks_of(self, instance: Item) -> Decimal | None:
        """Return what the disks of an instance cost, None where one of them is not known."""
        return self._disks[(instance.account, instance.region, instance.id)]

    @cached_property
    def _disks(self) -> Mapping[tuple[str, str, str], Decimal | None]:
        return _sum_disks(self.items)


def missing_tags(item: Item) -> list[str]:
    """Return which of the tags that say whose an item is are on neither it nor its machine."""
    said = {
        "Owner": item.owner,
        "Project": item.project,
        # A cluster's node or a thing that an environment's file names is of that environment.
        "Environment": item.environment or item.cluster,
    }
    return [tag for tag, value in said.items() if not value]


def make_report(
    accounts: Sequence[Account],
    *,
    prices: Callable[[str], Prices],
    environments: Sequence[Environment],
    used: frozenset[str],
    selection: Selection,
    made: datetime,
    gaps: Sequence[Gap] = (),
    tell: Callable[[str], None] = lambda _text: None,
) -> Report:
    """Read the accounts and return their report.

    `prices` gives the prices of a region; `environments` and `used`, ids of its files, say what
    the repository knows of; `gaps` are accounts that could not even be opened; `tell` hears how far
    the reading is. Order and paging of what AWS answers make no difference.
    """
    found: list[tuple[Account, list[Item]]] = []
    titles: dict[str, str] = {}
    for account in accounts:
        known_prices = prices(account.region)
        titles[account.region] = known_prices.title
        linked = link(read_items(account, known_prices, made), environments)
        tell(f"{account.account} {account.region}: {len(linked)} things")
        found.append((account, linked))
    items = [item for _account, linked in found for item in linked]
    uses = _Uses.read(accounts, items, used, gaps)
    orphans = [
        orphan
        for account, linked in found
        for orphan in find_orphans(linked, _known(account, linked, environments, uses, made))
    ]
    chosen = select(items, selection)
    chosen_ids = {(item.account, item.region, item.id) for item in chosen}
    return Report(
        made=made,
        selection=selection,
        places=tuple(sorted((account.account, account.region) for account in accounts)),
        prices=tuple(titles[region] for region in sorted(titles)),
        # Images cost nothing: their snapshots do.
        items=tuple(sorted((item for item in chosen if item.kind != "image"), key=_order)),
        orphans=tuple(
            sorted(
                orphan
                for orphan in orphans
                if (orphan.account, orphan.region, orphan.id) in chosen_ids
            )
        ),
        gaps=tuple(sorted([*gaps, *(gap for account in accounts for gap in account.gaps)])),
    )


def sum_items(name: str, items: Iterable[Item]) -> Total:
    """Return the sum of what is known of the items; free ones beside unknown ones are not known."""
    known = list(items)
    return Total(
        name,
        len(known),
        _sum(item.cost.now for item in known),
        _sum(item.cost.if_running for item in known),
        sum(item.cost.unknown is not None for item in known),
    )


def to_frame(report: Report) -> pandas.DataFrame:
    """Return the items as a pandas DataFrame: a row each, and a column for each fact.

    Amounts are floats in USD a month, NaN where there is no price; `unknown` says why. Machines are
    without their disks, which are rows of their own, so that sums count nothing twice. Raises
    InputError where pandas is not installed.
    """
    try:
        import pandas
    except ImportError as error:
        raise InputError(
            "pandas is not installed; it is the extra `pandas`: pip install 'clusterbox[pandas]'"
        ) from error
    rows = [record(item) for item in report.items]
    frame = pandas.DataFrame(rows, columns=list(RECORD_COLUMNS))
    for column in ("monthly_now", "monthly_if_running"):
        frame[column] = frame[column].astype(float)
    frame["created"] = pandas.to_datetime(frame["created"], utc=True)
    return frame


RECORD_COLUMNS = (
    "account",
    "region",
    "kind",
    "id",
    "name",
    "state",
    "ip",
    "type",
    "purchase",
    "quantity",
    "owner",
    "project",
    "cluster",
    "environment",
    "created",
    "monthly_now",
    "monthly_if_running",
    "unknown",
    "note",
)


def record(item: Item) -> dict[str, Any]:
    """Return an item as one flat row of RECORD_COLUMNS."""
    found = {
        name: getattr(item, name) for name in RECORD_COLUMNS[: RECORD_COLUMNS.index("created")]
    }
    return {
        **found,
        "created": item.created,
        "monthly_now": item.cost.now,
        "monthly_if_running": item.cost.if_running,
        "unknown": item.cost.unknown,
        "note": item.cost.note,
    }


def _sum(amounts: Iterable[Decimal | None]) -> Decimal | None:
    found = list(amounts)
    total = add_amounts(found)
    return None if None in found and not total else total


@dataclass(frozen=True)
class _Uses:
    """Ids that something uses, in any account, and whether all that could use one was read."""

    ids: frozenset[str]
    is_whole: bool

    @classmethod
    def read(
        cls,
        accounts: Sequence[Account],
        items: Iterable[Item],
        used: frozenset[str],
        gaps: Sequence[Gap],
    ) -> _Uses:
        ids = {key for account in accounts for key in read_template_uses(account)} | used
        ids.update(key for item in items if item.kind == "instance" for key in item.links)
        calls = ("ec2:DescribeInstances", "ec2:DescribeLaunchTemplateVersions")
        # A parameter may name any image, but for AWS's own parameters, which name its own.
        hidden = any(
            key.startswith(PARAMETER) and not key.startswith(f"{PARAMETER}/aws/") for key in ids
        )
        return cls(
            frozenset(ids),
            not (gaps or hidden or any(account.lacks(*calls) for account in accounts)),
        )


def _known(
    account: Account,
    items: Sequence[Item],
    environments: Sequence[Environment],
    uses: _Uses,
    made: datetime,
) -> Known:
    """Return what has to be known before something is called an orphan."""
    boxes = {
        environment.admin_box.name
        for environment in environments
        if environment.admin_box is not None and environment.account == account.account
    }
    running = [item for item in items if item.name in boxes and item.state == "running"]
    busiest = {
        item.id: read_busiest_hour(account, item.id, made)
        for item in running
        if item.kind == "instance"
    }
    return Known(
        made=made,
        used=uses.ids,
        admin_boxes=busiest,
        # An image or a volume that was not read could be what holds a thing in use.
        all_images=not account.lacks("ec2:DescribeImages"),
        all_volumes=not account.lacks("ec2:DescribeVolumes"),
        all_uses=uses.is_whole,
    )


def _sum_disks(items: Sequence[Item]) -> dict[tuple[str, str, str], Decimal | None]:
    volumes = {
        (item.account, item.region, item.id): item for item in items if item.kind == "volume"
    }
    found: dict[tuple[str, str, str], Decimal | None] = {}
    for item in items:
        if item.kind == "instance":
            disks = [volumes.get((item.account, item.region, key)) for key in item.disks]
            costs = [None if disk is None or disk.cost.unknown else disk.cost.now for disk in disks]
            known = [usd for usd in costs if usd is not None]
            whole = len(known) == len(costs)
            found[(item.account, item.region, item.id)] = sum(known, Decimal(0)) if whole else None
    return found


def _order(item: Item) -> tuple[str, ...]:
    return (item.account, item.region, item.kind, item.name, item.id)
