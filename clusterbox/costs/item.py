"""One thing of an account that costs money, whatever service it is of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from clusterbox.aws import Account, tags_of
from clusterbox.costs.report_prices import NOTHING, Cost
from clusterbox.site.names import TAG_CLUSTER, TAG_ENVIRONMENT, TAG_SITE_CLUSTER


@dataclass(frozen=True, slots=True)
class Item:
    """One thing of an account, with its cost.

    `links` are ids of what it hangs on: an instance's image, a volume's instance, a snapshot's
    volume, an image's snapshots. `disks` are the volumes of an instance. `machine_state` is the
    state of the instance that a volume is attached to.
    """

    account: str
    region: str
    kind: str
    id: str
    name: str = ""
    state: str = ""
    ip: str = ""
    type: str = ""
    purchase: str = ""
    quantity: str = ""
    owner: str = ""
    project: str = ""
    cluster: str = ""
    environment: str = ""
    created: datetime | None = None
    cost: Cost = NOTHING
    links: tuple[str, ...] = ()
    disks: tuple[str, ...] = ()
    machine_state: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)


def make_item(
    account: Account,
    kind: str,
    identity: str,
    tagged: Mapping[str, Any],
    cost: Cost,
    **details: Any,
) -> Item:
    """Return an item with what its tags say; `tagged` holds them, `details` are other fields."""
    tags = tags_of(tagged)
    lower = {key.lower(): value for key, value in tags.items()}
    return Item(
        account.account,
        account.region,
        kind,
        identity,
        name=tags.get("Name", ""),
        owner=lower.get("owner", ""),
        project=lower.get("project", ""),
        cluster=tags.get(TAG_CLUSTER) or tags.get(TAG_SITE_CLUSTER, ""),
        environment=lower.get(TAG_ENVIRONMENT.lower(), ""),
        cost=cost,
        tags=tags,
        **details,
    )
