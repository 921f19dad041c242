"""The storage of a site: file systems and buckets, made here or existing."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from clusterbox.site.fields import (
    BucketName,
    FileMode,
    FileSystemId,
    Finding,
    FolderPath,
    Identifier,
    Section,
    SecurityGroupId,
    SubnetName,
    WholeNumber,
    raise_findings,
)


class AccessPoint(Section):
    """An EFS access point: a folder seen as a root, owned by one user and group."""

    path: FolderPath = Field(description="folder on the file system")
    uid: int = Field(ge=0, le=4294967295, description="POSIX user that owns the folder")
    gid: int = Field(ge=0, le=4294967295, description="POSIX group that owns the folder")
    permissions: FileMode = Field(description="mode of the folder, octal")


class FileSystem(Section):
    """An EFS file system that outlives every cluster: made here, or existing where it has an id."""

    id: FileSystemId | None = Field(None, description="id, where the file system already exists")
    security_group: SecurityGroupId | None = Field(
        None, description="group of an existing file system's mount targets; gets the NFS rules"
    )
    subnets: tuple[SubnetName, ...] = Field(
        (), strict=False, description="subnets with a mount target, one a zone"
    )
    throughput: Literal["elastic", "bursting"] = Field("elastic", description="EFS throughput mode")
    infrequent_access_days: (
        Annotated[Literal[1, 7, 14, 30, 60, 90, 180, 270, 365], WholeNumber] | None
    ) = Field(30, description="days without access until a file moves to infrequent access")
    backup_days: int = Field(
        35, ge=0, le=3650, description="days a daily backup is kept; 0 for no backup"
    )
    access_points: dict[Identifier, AccessPoint] = Field({}, description="access points to make")

    @model_validator(mode="after")
    def _check(self) -> Self:
        findings = []
        if self.id is None:
            if not self.subnets:
                findings.append(
                    Finding(("subnets",), "must name at least one subnet for the mount target")
                )
            if self.security_group is not None:
                findings.append(
                    Finding(
                        ("security_group",),
                        "must be left out: the file system is made here, and so is its group",
                        self.security_group,
                    )
                )
        zones = [name.split(".")[1] for name in self.subnets]
        for index, name in enumerate(self.subnets):
            if zones.index(zones[index]) != index:
                findings.append(
                    Finding(
                        ("subnets", index),
                        "must be in a zone of its own: EFS has one mount target a zone",
                        name,
                    )
                )
        if self.id is not None:
            if self.security_group is None:
                findings.append(
                    Finding(
                        ("security_group",),
                        "must be given: nodes reach an existing file system through it",
                    )
                )
            if self.access_points:
                findings.append(
                    Finding(("access_points",), "must be left out: the file system exists")
                )
        raise_findings(findings)
        return self


class Bucket(Section):
    """An S3 bucket: made here, or existing."""

    name: BucketName = Field(description="name of the bucket")
    exists: bool = Field(False, description="whether the bucket exists outside of this project")
    infrequent_access_days: int | None = Field(
        None, ge=30, le=36500, description="days until an object moves to infrequent access"
    )
    expire_days: int | None = Field(
        None, ge=1, le=36500, description="days until an object is deleted"
    )
    noncurrent_days: int = Field(
        90, ge=1, le=36500, description="days an overwritten version is kept"
    )


class Buckets(Section):
    """The buckets that every site has."""

    cluster_config: Bucket = Field(description="ParallelCluster's own artefacts (CustomS3Bucket)")
    logs: Bucket = Field(description="access logs and build logs")
    results: Bucket = Field(description="what the scientists' jobs write")

    @model_validator(mode="after")
    def _check(self) -> Self:
        names = [self.cluster_config.name, self.logs.name, self.results.name]
        raise_findings(
            [
                Finding((key, "name"), "must differ from the site's other buckets", names[index])
                for index, key in enumerate(Buckets.model_fields)
                if names.index(names[index]) != index
            ]
        )
        return self


class Storage(Section):
    """What outlives every cluster."""

    file_systems: dict[Identifier, FileSystem] = Field(
        min_length=1, description="file systems by name"
    )
    buckets: Buckets = Field(description="buckets")
