"""Grafana's dashboards as code: what each shows, its JSON, and pages drawn from the same panels."""

from __future__ import annotations

from clusterbox.observe.dashboards.clusters import CLUSTER, QUEUE, SITE
from clusterbox.observe.dashboards.machines import CONTAINERS, NODE, PATCH_DAY
from clusterbox.observe.dashboards.model import Dashboard
from clusterbox.observe.dashboards.people import COST, USERS

DASHBOARDS: tuple[Dashboard, ...] = (
    SITE,
    CLUSTER,
    QUEUE,
    USERS,
    COST,
    NODE,
    CONTAINERS,
    PATCH_DAY,
)
