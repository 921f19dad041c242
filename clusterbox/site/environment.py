"""One environment of the site: an account, a region and everything that stands in it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Self

from pydantic import Field, model_validator

from clusterbox.site.accounting import AccountingDatabase
from clusterbox.site.budgets import Budgets
from clusterbox.site.fields import (
    AccountId,
    ClusterName,
    ConfigFile,
    DashedName,
    Finding,
    Identifier,
    InstanceType,
    Once,
    Reason,
    Region,
    RuleName,
    Section,
    SubnetName,
    TagValue,
    raise_findings,
)
from clusterbox.site.hosting import Hosting
from clusterbox.site.monitoring import Monitoring
from clusterbox.site.network import Network
from clusterbox.site.patch_day import PatchDay
from clusterbox.site.storage import Storage


class Tags(Section):
    """The tags that everything in the environment carries."""

    Owner: TagValue = Field(description="who answers for the site")
    Project: TagValue = Field(description="what it is for")
    Organization: TagValue = Field(description="whose it is")
    CostCenter: TagValue = Field(description="who pays")


class AdminBox(Section):
    """The machine from which clusters are looked after."""

    name: DashedName = Field(description="value of its Name tag, and its host name")
    instance_type: InstanceType = Field(description="EC2 instance type")
    image: Identifier = Field(description="image of ami/images.lock.yaml")
    root_gib: int = Field(ge=8, le=16384, description="size of the encrypted root volume in GiB")
    subnet: SubnetName = Field(description="subnet as GROUP.ZONE")
    ssh: bool = Field(False, description="whether port 22 is open besides Session Manager")
    idle_stop_minutes: int = Field(
        60,
        ge=0,
        le=1440,
        description="minutes without use until it stops itself; 0 for never",
    )


class ClusterEntry(Section):
    """One cluster of the environment."""

    name: ClusterName = Field(description="name of the cluster, unique in the account and region")
    config: ConfigFile = Field(description="file in cluster_configs/, native ParallelCluster YAML")
    accepted_findings: dict[RuleName, Reason] = Field(
        default_factory=dict,
        description="rule → why its hints and warnings are accepted; an error never is",
    )


class Environment(Section):
    """An environment file, parsed."""

    name: DashedName = Field(description="name of the environment; the file is NAME.yaml")
    description: str = Field(min_length=1, description="one sentence for people")
    account: AccountId = Field(description="AWS account")
    region: Region = Field(description="AWS region")
    tags: Tags = Field(description="tags on everything")
    hosting: Hosting = Field(description="rules of the hosting service")
    network: Network = Field(description="VPC, subnets, endpoints, SSH")
    storage: Storage = Field(description="file systems and buckets")
    images: Once[Identifier] = Field(
        strict=False, min_length=1, description="images of ami/images.lock.yaml that are used here"
    )
    admin_box: AdminBox | None = Field(None, description="the admin box, where there is one")
    clusters: tuple[ClusterEntry, ...] = Field((), strict=False, description="the clusters")
    budgets: Budgets | None = Field(None, description="what may be spent, where it is limited")
    accounting_database: AccountingDatabase | None = Field(
        None, description="the server of Slurm's accounting databases, where there is one"
    )
    patch_day: PatchDay | None = Field(
        None, description="when images are baked anew and rolled out, where that is planned"
    )
    monitoring: Monitoring | None = Field(
        None, description="the machine that watches the site, where there is one"
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        problems = [
            Finding(("images", index), "must not be pins: a rollout publishes its own there", image)
            for index, image in enumerate(self.images)
            if image == "pins"
        ]
        if self.patch_day is not None:
            problems += self._find_patch_day_problems(self.patch_day)
        raise_findings(problems)
        return self

    def _find_patch_day_problems(self, patch_day: PatchDay) -> Iterator[Finding]:
        known = [entry.name for entry in self.clusters]
        if patch_day.canary and patch_day.canary.partition("/")[0] not in known:
            yield Finding(
                ("patch_day", "canary"),
                f"must name a cluster of this file: {', '.join(known) or 'none yet'}",
                patch_day.canary,
            )
        platform = patch_day.pipeline
        if platform != "codebuild" and getattr(self.hosting.ci, platform) is None:
            yield Finding(
                ("patch_day", "pipeline"),
                f"must be one that hosting.ci names, or codebuild; there is no hosting.ci.{platform}",
                platform,
            )

    @property
    def boundary_arn(self) -> str:
        """ARN of the permissions boundary."""
        policy = self.hosting.permissions_boundary.name
        return f"arn:{self.partition}:iam::{self.account}:policy/{policy}"

    @property
    def partition(self) -> str:
        """AWS partition of the region: aws, aws-us-gov or aws-cn."""
        prefix = self.region.split("-")[0:2]
        return {("us", "gov"): "aws-us-gov", ("cn", prefix[1]): "aws-cn"}.get(
            (prefix[0], prefix[1]), "aws"
        )

    def zone(self, letter: str) -> str:
        """Return the name of an availability zone: `us-west-2a`."""
        return f"{self.region}{letter}"
