"""What can be made to go wrong in an embedded account, for tests and rehearsals of failures.

`EmbeddedAccount.inject(BuildFault(image="compute", stage="build"))` asks for it. What is said of
an image waits for its next bake and is used up by it; a bake that is held goes on when
`clear_faults("hold")` was called; calls are refused until their number is used up; images that go
missing go at once.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

_STRICT = ConfigDict(strict=True, frozen=True, extra="forbid")
Stage = Literal["build", "validate", "test", "distribute"]
ImagePattern = Annotated[
    str,
    Field(
        min_length=1,
        description="name of an image of ami/images/, or the ParallelCluster image id of its "
        "bake, with * and ?",
    ),
]
Times = Annotated[int, Field(ge=1, description="how often it happens")]

# What ParallelCluster's recipe and the installer of EFA said in the log of users' builds
# (aws/aws-parallelcluster issues 5746 and 7406), on other systems than Amazon Linux.
LUSTRE_KERNEL_LOG = (
    "FATAL: Chef::Exceptions::Package: lustre[Install FSx options] (aws-parallelcluster-environment"
    "::install line 22) had an error: Chef::Exceptions::Package: apt_package[lustre-client-modules-"
    "5.19.0-1025-aws, lustre-client-modules-aws, initramfs-tools] ((eval) line 27) had an error: "
    "Chef::Exceptions::Package: No candidate version available for "
    "lustre-client-modules-5.19.0-1025-aws"
)
KERNEL_DEVEL_LOG = "Error: Unable to find a match: kernel-devel-5.14.0-611.5.1.el9_7.x86_64"
# The reason of a stack whose clean-up may not do enough (aws/aws-parallelcluster issue 3867).
CLEAN_UP_REASON = (
    'Resource handler returned message: "User: ParallelClusterImageCleanup is not authorized to '
    'perform: imagebuilder:GetImage (Service: Imagebuilder, Status Code: 403)" '
    "(HandlerErrorCode: GeneralServiceException)"
)


class BuildFault(BaseModel):
    """The next build of an image fails at a stage."""

    model_config = _STRICT
    kind: Literal["build"] = "build"
    image: ImagePattern
    stage: Stage = Field(description="where it fails")
    reason: str | None = Field(
        None, description="failure message of Image Builder; None for the one it gives there"
    )
    log: tuple[str, ...] = Field(
        (), strict=False, description="lines that the failing component writes into the log"
    )
    times: Times = 1


class HeldBuild(BaseModel):
    """Builds of an image stop at the entrance of a stage until this fault is cleared."""

    model_config = _STRICT
    kind: Literal["hold"] = "hold"
    image: ImagePattern
    status: Literal["BUILDING", "TESTING", "DISTRIBUTING", "INTEGRATING"] = Field(
        "BUILDING", description="Image Builder's status in which it stays"
    )


class CleanUpFault(BaseModel):
    """Deleting the stack of an image's build fails: it ends as DELETE_FAILED."""

    model_config = _STRICT
    kind: Literal["clean-up"] = "clean-up"
    image: ImagePattern
    reason: str = CLEAN_UP_REASON
    times: Times = 1


class CheckFault(BaseModel):
    """Checks of ami/verify/ fail on the image that is baked next."""

    model_config = _STRICT
    kind: Literal["check"] = "check"
    image: ImagePattern
    checks: tuple[str, ...] = Field(strict=False, min_length=1, description="names of the checks")
    times: Times = 1


class BrokenImage(BaseModel):
    """Checks of ami/verify/ fail from now on on every instance of an image that is there."""

    model_config = _STRICT
    kind: Literal["broken-image"] = "broken-image"
    ami: str = Field(pattern=r"^ami-[0-9a-f]+$", description="id of the image")
    checks: tuple[str, ...] = Field(
        strict=False, description="names of the checks; none mends the image"
    )


class MissingImages(BaseModel):
    """Images whose name matches are deregistered now: a parent that disappears."""

    model_config = _STRICT
    kind: Literal["missing-images"] = "missing-images"
    name: str = Field(min_length=1, description="name of the AMI, with * and ?")


class ThrottledCalls(BaseModel):
    """The next calls of a service are throttled."""

    model_config = _STRICT
    kind: Literal["throttle"] = "throttle"
    service: str = Field(min_length=1, description="as requests are signed: ec2, cloudformation")
    operation: str | None = Field(None, description="one operation, such as DescribeImages")
    times: Times = 1


class ExpiredCredentials(BaseModel):
    """The next calls are refused because their credentials have expired."""

    model_config = _STRICT
    kind: Literal["expired"] = "expired"
    service: str | None = Field(None, description="one service; None for every one")
    operation: str | None = Field(None, description="one operation, such as DescribeImages")
    times: Times = 1


Fault = (
    BuildFault
    | HeldBuild
    | CleanUpFault
    | CheckFault
    | BrokenImage
    | MissingImages
    | ThrottledCalls
    | ExpiredCredentials
)
CallFault = ThrottledCalls | ExpiredCredentials

FAULTS: TypeAdapter[tuple[Fault, ...]] = TypeAdapter(
    tuple[Annotated[Fault, Field(discriminator="kind")], ...]
)
