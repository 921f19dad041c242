"""Known failures by the texts that were really seen, and calls that AWS refuses."""

from __future__ import annotations

import pytest
from botocore.exceptions import EndpointConnectionError, NoCredentialsError

from clusterbox.images.context import StepFailedError
from clusterbox.images.failures import KNOWN_FAILURES, explain, is_expired, is_transient, steadily
from clusterbox.pcluster import PclusterError
from tests.images.patch_day_world import World, make_context, refusal


# Texts of reports to aws/aws-parallelcluster and its cookbook, and of the tools themselves.
@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "lustre-kernel",
            "FATAL: Chef::Exceptions::Package: apt_package[lustre-client-modules-5.13.0-1017-aws] "
            "(aws-parallelcluster-install::lustre line 89) had an error: Chef::Exceptions::Package: "
            "No candidate version available for lustre-client-modules-5.13.0-1017-aws",
        ),
        (
            "lustre-kernel",
            "WARN: FSx for Lustre is not supported in kernel version 4.18.0-425.13.1.el8_7.x86_64 "
            "of RHEL 8.7, please update the kernel version",
        ),
        (
            "lustre-kernel",
            "- nothing provides kernel(__ib_alloc_pd) = 0x5e523d59 needed by "
            "kmod-lustre-client-2.12.8_6_g5457c37-1.el8.x86_64",
        ),
        (
            "lustre-kernel",
            "Error: Package: kmod-lustre-client-2.12.3-1.el7.x86_64 (/kmod-lustre-client)\n"
            "           Requires: kernel < 3.10.0-1063",
        ),
        ("lustre-kernel", "modprobe: FATAL: Module lnet not found in directory /lib/modules/6.1"),
        (
            "kernel-devel",
            "Error: Unable to find a match: kernel6.12-devel-matched-6.12.58-82.121.amzn2023.aarch64",
        ),
        (
            "kernel-devel",
            "Problem 1: package efa-2.15.0-1.el9.x86_64 from @commandline requires "
            "kernel-abi-stablelists, but none of the providers can be installed",
        ),
        ("kernel-devel", "No package matching 'kernel-devel-3.10.0-1062.12.1.el7.x86_64' found"),
        ("kernel-devel", "No match for argument: kernel-devel-6.1.150-174.273.amzn2023.x86_64"),
        (
            "clean-up",
            "The following resource(s) failed to delete: [DeleteStackFunctionExecutionRole].",
        ),
        (
            "clean-up",
            "is not authorized to perform: \nimagebuilder:GetImage on resource: arn:aws:image",
        ),
        (
            "boundary",
            "is not authorized to perform: iam:CreateRole on resource: arn:aws:iam::1:role/x because "
            "no permissions boundary allows the iam:CreateRole action",
        ),
        (
            "capacity",
            "InsufficientInstanceCapacity: We currently do not have sufficient m6a.24xlarge capacity "
            "in the Availability Zone you requested (us-west-2a).",
        ),
        ("quota", "VcpuLimitExceeded: You have requested more vCPU capacity than your current"),
        ("parent", "InvalidAMIID.NotFound: The image id '[ami-0123456789abcdef0]' does not exist"),
        (
            "systems-manager",
            "with status = 'TimedOut' in state = 'BUILDING' and failure message = 'SSM Agent "
            "verification failed'",
        ),
        (
            "systems-manager",
            "Workflow Execution ID: 'wf-b867ea03' failed with reason: Unable to bootstrap TOE",
        ),
        ("systems-manager", "Instances [[i-0b964162541ce7df0]] not in a valid state for account 1"),
        ("disk-full", "cp: error writing '/opt/x': No space left on device"),
        ("disk-full", "At least 512MB more space needed on the / filesystem."),
        ("memory", "Out of memory: Killed process 1234 (cc1)"),
        ("repository", "Error: Failed to download metadata for repo 'amazonlinux'"),
        ("repository", "Curl error (28): Timeout was reached for https://al2023-repos"),
        (
            "artefact",
            "fatal error: An error occurred (404) when calling the HeadObject operation: Key x",
        ),
        ("artefact", "FAILED: a.tar.gz of s3://x is not the file that artefacts.sha256 pins"),
        ("key", "Client.InternalError: Client error on launch"),
        ("step", "Stdout: ERROR - Script execution failure. Exit code != 0"),
        ("step", "Stderr: 30-science-base.sh: FAILED: gave up after 4 attempts: pip"),
        ("denied", "User: x is not authorized to perform: s3:GetObject on resource: y"),
    ],
)
def test_a_failure_is_known_by_its_text(name: str, text: str) -> None:
    assert next(failure.name for failure in explain(text)) == name


@pytest.mark.parametrize(
    "text",
    [
        "Installed: kernel-devel-6.1.150, lustre-client",
        "Complete!",
        "kernel policy: full; runs: 6.1.150-174.273.amzn2023.x86_64",
        "10-os-updates.sh: done",
        "Document arn:aws:imagebuilder:us-west-2:1:component/x/3.16.1/1 failed!",
    ],
)
def test_what_is_no_known_failure_is_not_explained(text: str) -> None:
    assert explain(text) == []


def test_a_cause_is_told_and_not_that_a_step_failed() -> None:
    text = "No space left on device\nScript execution failure. Exit code != 0"
    assert [failure.name for failure in explain(text)] == ["disk-full"]


def test_every_known_failure_says_what_to_do() -> None:
    names = [failure.name for failure in KNOWN_FAILURES]
    assert len(set(names)) == len(names)
    for failure in KNOWN_FAILURES:
        meaning, todo = str(failure).split("\n  what to do: ")
        assert meaning.endswith(".")
        assert todo.endswith(".")


@pytest.mark.parametrize(
    "error",
    [
        refusal("Throttling", "Rate exceeded"),
        refusal("RequestLimitExceeded", "Request limit exceeded."),
        refusal("SlowDown", "Please reduce your request rate."),
        refusal("ServiceUnavailable"),
        refusal("InternalError", "An internal error has occurred"),
        EndpointConnectionError(endpoint_url="https://ec2"),
        PclusterError("`pcluster describe-image`: Rate exceeded"),
    ],
)
def test_a_call_that_may_succeed_later_is_known(error: Exception) -> None:
    assert (is_transient(error), is_expired(error)) == (True, False)


@pytest.mark.parametrize(
    "error",
    [
        refusal("ExpiredToken", "The provided token has expired."),
        refusal("RequestExpired", "Request has expired."),
        refusal("AuthFailure", "AWS was not able to validate the provided access credentials"),
        NoCredentialsError(),
        PclusterError("The security token included in the request is expired"),
        # As ParallelCluster passes it on: without the code.
        PclusterError(
            "`pcluster describe-image`: Unable to get image x, due to Request has expired.."
        ),
    ],
)
def test_credentials_that_are_over_are_known(error: Exception) -> None:
    assert (is_transient(error), is_expired(error)) == (False, True)


@pytest.mark.parametrize(
    "error",
    [
        refusal("UnauthorizedOperation", "You are not authorized to perform this operation."),
        refusal("InvalidAMIID.NotFound"),
        PclusterError("`pcluster build-image`: Configuration is invalid"),
    ],
)
def test_any_other_error_is_neither_and_the_calls_own(error: Exception) -> None:
    assert (is_transient(error), is_expired(error)) == (False, False)

    def call() -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        steadily(make_context(World()), "trying", call)
    assert caught.value is error


def test_pauses_grow_and_end() -> None:
    world = World()
    pauses: list[float] = []
    context = make_context(world)

    def call() -> None:
        pauses.append((world.now - start).total_seconds())
        raise refusal("Throttling")

    start = world.now
    with pytest.raises(StepFailedError, match=r"^trying: AWS did not answer for 5 minutes"):
        steadily(context, "trying", call)
    assert pauses == [0, 2, 7, 17, 37, 77, 137, 197, 257, 317]
    assert len(world.shown) == 9
