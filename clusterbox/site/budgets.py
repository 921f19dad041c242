"""What may be spent: budgets of the environment, its clusters and their Slurm accounts."""

from __future__ import annotations

from decimal import Decimal
from typing import Literal

from pydantic import Field

from clusterbox.site.fields import (
    ClusterName,
    EmailAddress,
    Money,
    Once,
    Percent,
    Section,
    SlurmName,
)


class AccountBudget(Section):
    """What one Slurm account of a cluster may spend and submit."""

    monthly_usd: Money = Field(description="USD a month for the jobs of the account")
    max_submit_jobs: int | None = Field(
        None,
        ge=1,
        le=1_000_000,
        description="jobs that may wait and run at a time; none for the cluster's",
    )


class ClusterBudget(Section):
    """What one cluster may spend, and what its Slurm allows at most."""

    monthly_usd: Money = Field(description="USD a month for head node, nodes and disks")
    when_spent: Literal["warn", "drain", "stop"] = Field(
        "drain",
        description="what happens when it is spent: mail only, no new jobs start, or jobs end too",
    )
    max_wall_hours: int = Field(
        72, ge=1, le=8760, description="longest time limit of a job in hours"
    )
    max_submit_jobs: int = Field(
        10_000, ge=1, le=1_000_000, description="jobs of a user that may wait and run at a time"
    )
    max_array_size: int = Field(
        1001,
        ge=2,
        le=4_000_001,
        description="Slurm's MaxArraySize: highest index of an array plus 1",
    )
    accounts: dict[SlurmName, AccountBudget] = Field(
        default_factory=dict, description="Slurm account → its budget"
    )


class Budgets(Section):
    """What the environment may spend, and who is told."""

    monthly_usd: Money = Field(description="USD a month for everything in the environment")
    notify: Once[EmailAddress] = Field(
        strict=False, min_length=1, description="who gets alarms and the daily report"
    )
    warn_percent: Once[Percent] = Field(
        (50, 80, 100),
        strict=False,
        max_length=8,
        description="shares of the budget at which spending is told",
    )
    forecast_percent: Percent = Field(
        100, description="share of the budget at which the month's forecast is told"
    )
    report_hour_utc: int | None = Field(
        6, ge=0, le=23, description="hour in UTC at which the daily report is made; null for none"
    )
    clusters: dict[ClusterName, ClusterBudget] = Field(
        default_factory=dict, description="cluster → its budget"
    )

    @property
    def clusters_usd(self) -> Decimal:
        """The sum of the clusters' budgets in USD a month."""
        return sum((item.monthly_usd for item in self.clusters.values()), Decimal(0))
