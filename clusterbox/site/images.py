"""The lock of machine images: for each environment and image the AMI id and where it came from."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from clusterbox.site.fields import AmiId, DashedName, Identifier, Section, Version


class LockedImage(Section):
    """One entry of `ami/images.lock.yaml`."""

    ami: AmiId = Field(description="id of the image")
    parent: AmiId | None = Field(None, description="id of the image it was baked from")
    os: Literal[
        "alinux2", "alinux2023", "rhel8", "rhel9", "rocky8", "rocky9", "ubuntu2204", "ubuntu2404"
    ] = Field(description="operating system, in ParallelCluster's spelling")
    architecture: Literal["x86_64", "arm64"] = Field("x86_64", description="processor architecture")
    root_gib: int = Field(ge=8, le=16384, description="size of the root volume in GiB")
    parallelcluster_version: Version | None = Field(
        None, description="version the image was built for, if any"
    )
    origin: str = Field(min_length=1, description="where the image came from, in words")


class ImageLock(Section):
    """All locked images: environment → image → entry."""

    environments: dict[DashedName, dict[Identifier, LockedImage]] = Field(
        description="locked images"
    )
