"""What goes wrong when images are baked and verified: known failures, and calls that AWS refuses.

The patterns are of messages that ParallelCluster, Image Builder, dnf and EC2 really write; where
one was seen in a report of aws/aws-parallelcluster, its number stands beside it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TypeVar

from clusterbox.images.context import Context, StepFailedError

Answer = TypeVar("Answer")

# Pauses between attempts at a call that is throttled or does not get through: five minutes in all.
_PAUSES = (2.0, 5.0, 10.0, 20.0, 40.0, 60.0, 60.0, 60.0, 60.0)
_TRANSIENT = re.compile(
    r"Throttl|Rate exceeded|Request ?limit ?exceeded|Too ?Many ?Requests|SlowDown|Service ?Unavailable"
    r"|\(?(500|502|503|504)\)? when calling|(?<!Client\.)InternalError|InternalFailure|InternalServerError"
    r"|internal error has occurred|Could not connect to the endpoint|Connection was closed"
    r"|Connection reset|Connection aborted|timeout on endpoint|timed out on endpoint"
    r"|Failed to connect to proxy|Temporary failure in name resolution",
    re.IGNORECASE,
)
_EXPIRED = re.compile(
    r"ExpiredToken|RequestExpired|InvalidClientTokenId|UnrecognizedClient|TokenRefreshRequired"
    r"|AuthFailure|security token included in the request is (expired|invalid)"
    r"|Request has expired|Token has expired|credentials? (have|has|were|are) expired"
    r"|Unable to locate credentials"
    r"|Error when retrieving credentials|not able to validate the provided access credentials",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class KnownFailure:
    """A failure that was seen before: what it means, and what to do."""

    name: str
    pattern: re.Pattern[str] = field(repr=False)
    meaning: str
    todo: str

    def __str__(self) -> str:
        """Return two lines for people."""
        return f"{self.meaning}\n  what to do: {self.todo}"


def _known(name: str, meaning: str, todo: str, *patterns: str) -> KnownFailure:
    return KnownFailure(name, re.compile("|".join(patterns), re.IGNORECASE), meaning, todo)


# The causes first: what follows from them is told after them.
KNOWN_FAILURES = (
    _known(
        "lustre-kernel",
        "The Lustre client does not support the kernel of this image.",
        "Cap the kernel where FSx for Lustre is used: `kernel: {policy: capped, newest: ..., "
        "reason: ...}` in ami/images/; take `lustre` out of `expect.kernel_modules` where it is not.",
        r"No candidate version available for lustre-client-modules",  # 3878
        r"FSx for Lustre is not supported in kernel version",  # cookbook 2441
        r"needed by kmod-lustre-client",
        r"kmod-lustre-client\S*[^\n]*\n?[^\n]*Requires: kernel",
        r"(modprobe|kernel_module)[^\n]*\b(lnet|lustre)\b",  # 5913
        r"lustre[^\n]*disagrees about version of symbol",
    ),
    _known(
        "kernel-devel",
        "There is no kernel-devel package for the kernel that runs, so that no module can be built.",
        "Take a newer parent image, or let the bake update the kernel first (`kernel.policy: full`); "
        "the repositories of the parent must have kernel-devel of its running kernel.",
        r"Unable to find a match: kernel[\w.]*-(devel|headers)",  # 7155
        r"No match for argument: kernel[\w.]*-(devel|headers)",
        r"No package (matching )?'?kernel[\w.]*-(devel|headers)",
        r"No candidate version available for (kernel-devel|linux-headers)",
        r"requires kernel-abi-stablelists, but none of the providers can be installed",  # 6874
        r"Your kernel headers for kernel \S+ cannot be found",
        r"Kernel (source|headers) (were )?not found",
    ),
    _known(
        "boundary",
        "IAM refused a call because of the permissions boundary, or a role has none.",
        "Every role must be the site's own, with the boundary: deploy the environment, and look at "
        "`hosting.permissions_boundary`. ParallelCluster must make no role here.",
        r"no permissions boundary allows",
        r"explicit deny in a permissions boundary",
        r"not authorized to perform: iam:(CreateRole|PutRolePolicy|AttachRolePolicy)",
    ),
    _known(
        "clean-up",
        "The image may be built, but the stack of its build could not be deleted.",
        "The role of the clean-up function may lack an action that ParallelCluster needs now (see "
        "the reason; stacks/permissions/images.py). The image can be used; delete the stack by hand.",
        r"resource\(s\) failed to delete",  # 5914
        r"not authorized to perform:\s+imagebuilder:(GetImage|CancelImageCreation|Delete\w+)",  # 3867
        r"\bDELETE_FAILED\b",
    ),
    _known(
        "capacity",
        "AWS has no instance of this type in the zone now.",
        "Run again later, or change `build_instance_type` of the image's definition.",
        r"InsufficientInstanceCapacity",
        r"do not have sufficient \S+ capacity",
        r"InsufficientFreeAddressesInSubnet",
    ),
    _known(
        "quota",
        "A quota of the account is used up.",
        "Ask for more in Service Quotas, or end what runs without need.",
        r"VcpuLimitExceeded|InstanceLimitExceeded|ServiceQuotaExceeded|ResourceLimitExceeded",
    ),
    _known(
        "parent",
        "The image to start from is not there, or may not be used.",
        "Plan again: the newest approved parent is taken then.",
        r"InvalidAMIID\.\w+",
        r"The image ids? '\[ami-[0-9a-f, ami-]+\]' do(es)? not exist",
    ),
    _known(
        "systems-manager",
        "Systems Manager does not reach the machine.",
        "The subnet needs a way to ssm, ssmmessages, ec2messages and s3 (endpoints or NAT), the "
        "instance role its permissions, and the image the SSM agent.",
        r"SSM Agent verification failed",  # 4955
        r"Unable to bootstrap TOE",  # 6358
        r"verifying the SSM Agent availability",
        r"Instances \[\[.*?\]\] not in a valid state",
    ),
    _known(
        "disk-full",
        "The root volume is full.",
        "Raise `root_gib` of the image's definition.",
        r"No space left on device",
        r"needs \d+\s*[KMG]?B? (more space )?on the / filesystem",
        r"At least \d+[KMG]B more space needed",
    ),
    _known(
        "memory",
        "The machine ran out of memory.",
        "Take a larger `build_instance_type`: building kernel modules and Python packages needs it.",
        r"Out of memory: Killed process",
        r"Cannot allocate memory",
        r"oom-kill",
    ),
    _known(
        "repository",
        "A package repository does not answer, or does not have what was asked for.",
        "Run again; if it stays so, look at the way from the subnet to the repositories (S3 endpoint "
        "for Amazon Linux) and at what the parent image has in /etc/yum.repos.d.",
        r"Failed to download metadata for repo",
        r"Cannot download repomd\.xml",
        r"Curl error \((6|7|28|35|56)\)",
        r"No more mirrors to try",
        r"Failed to synchronize cache for repo",
        r"Cannot prepare internal mirrorlist",
    ),
    _known(
        "artefact",
        "A file in S3 is not there, or not the one that is pinned.",
        "Put the file below images/artefacts/ of the bucket `cluster_config`, and pin its SHA-256 in "
        "ami/artefacts.sha256.",
        r"fatal error: An error occurred \((404|NoSuchKey)\)",
        r"An error occurred \((404|NoSuchKey)\) when calling the (HeadObject|GetObject)",
        r"is not (the file that|pinned in) artefacts\.sha256",
    ),
    _known(
        "key",
        "The machine could not start because its volume cannot be decrypted.",
        "Whoever starts it needs the key of the image's snapshot: kms:CreateGrant and kms:Decrypt.",
        r"Client\.InternalError: Client error on launch",
        r"Client\.InvalidKMSKey|KMSKeyNotAccessibleFault|InvalidKMSKey",
    ),
    _known(
        "step",
        "A bake step or ParallelCluster's own recipe ended with an error.",
        "Look for the last `FAILED` or `FATAL` in the log; a step can be tried on a machine by hand.",
        r"Script execution failure\. Exit code != 0",
        r"\d\d-[a-z0-9-]+\.sh: FAILED",
        r"FATAL: (Chef|Mixlib)::",
    ),
    _known(
        "denied",
        "A permission is missing.",
        "Allow the action that the message names, in stacks/permissions/.",
        r"is not authorized to perform",
        r"UnauthorizedOperation|AccessDenied|Access Denied",
    ),
)


def explain(text: str) -> list[KnownFailure]:
    """Return the known failures of which a text speaks, causes first.

    One that only says that something was denied, or that a step failed, is left out where a
    failure that says more was found.
    """
    found = [failure for failure in KNOWN_FAILURES if failure.pattern.search(text)]
    special = [failure for failure in found if failure.name not in ("step", "denied")]
    return special or found


def render_explanations(texts: Iterable[str]) -> str:
    """Return what is known about the failure that texts tell of; empty where nothing is."""
    return "\n".join(str(failure) for failure in explain("\n".join(texts)))


def is_transient(error: Exception) -> bool:
    """Return whether AWS may answer the same call a little later."""
    text = str(error)
    return bool(_TRANSIENT.search(text)) and not _EXPIRED.search(text)


def is_expired(error: Exception) -> bool:
    """Return whether AWS does not take the credentials any more."""
    return bool(_EXPIRED.search(str(error)))


def steadily(context: Context, doing: str, call: Callable[[], Answer], *, safe: str = "") -> Answer:
    """Return what a call answers; one that is throttled or does not get through is tried again.

    `doing` says what for, such as "looking at the build", `safe` what becomes of the work in the
    meantime. Raises StepFailedError after five minutes, for expired credentials and for a missing
    permission; errors of any other kind are the call's own.
    """
    for pause in (*_PAUSES, None):
        try:
            return call()
        except call_errors() as error:
            if is_expired(error):
                raise StepFailedError(
                    f"{doing}: the AWS credentials are not valid any more ({error}); sign in and "
                    f"run the command again{'; ' + safe if safe else ''}"
                ) from error
            if not is_transient(error):
                raise
            if pause is None:
                raise StepFailedError(
                    f"{doing}: AWS did not answer for {sum(_PAUSES) / 60:.0f} minutes ({error}); "
                    f"run the command again{'; ' + safe if safe else ''}"
                ) from error
            context.progress.note(f"{doing}: again in {pause:.0f} s, after: {error}")
            context.wait(pause)
    raise AssertionError  # The last attempt answers or raises.


def call_errors() -> tuple[type[Exception], ...]:
    """Return the errors of boto3 and of ParallelCluster's commands."""
    from botocore.exceptions import BotoCoreError, ClientError

    from clusterbox.pcluster import PclusterError

    return (BotoCoreError, ClientError, PclusterError)


def code_of(error: Exception) -> str:
    """Return the code of an error of AWS, such as InvalidAMIID.NotFound; empty where it has none."""
    response = getattr(error, "response", None) or {}
    return str(response.get("Error", {}).get("Code", ""))


def as_failure(doing: str, error: Exception) -> StepFailedError:
    """Return the failure of a step for an error of a call, with what is known about it."""
    known = render_explanations([str(error)])
    return StepFailedError(f"{doing}: {error}" + (f"\n{known}" if known else ""))
