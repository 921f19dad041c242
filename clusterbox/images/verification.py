"""Verify a baked image: start a machine of it, run its checks there, and mark the image."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
import time
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from clusterbox.errors import ClusterboxError
from clusterbox.images.components import HOME
from clusterbox.images.context import Context, Result, StepFailedError
from clusterbox.images.failures import as_failure, call_errors, code_of, steadily
from clusterbox.images.machines import running_machine
from clusterbox.images.plan import PlannedImage, Step
from clusterbox.site.image_definitions import ImageDefinition, load_image_definition

# `passed` or `failed`; only an image that passed may be promoted.
TAG_VERIFIED = "clusterbox:verified"
_CHECK_SECONDS = 900.0
_READ_SECONDS = 300.0
# run.sh says with 1 that a check does not hold, which is an answer; and with 2 that it has none.
_CHECKS = f"""\
status=0
{HOME}/verify/run.sh || status=$?
printf '{{"exit": %d}}\\n' "$status"
"""
_PARTS = ("kernel", "slurm", "release", "packages")
_FACTS = """\
printf '@kernel\\n'; uname -r
printf '@slurm\\n'; if [ -x /opt/slurm/bin/sinfo ]; then /opt/slurm/bin/sinfo -V || true; fi
printf '@release\\n'; cat /etc/clusterbox/image-release.json
printf '@packages\\n'; cat /etc/clusterbox/image-packages.txt
"""
# Packages and advisories are several times what Systems Manager returns of one command, so that they
# are read in pieces. Nothing is kept on the machine: each command makes the same text again.
_PIECE = 16_000
# A line of image-packages.txt: NAME-EPOCH:VERSION-RELEASE.ARCH (ami/steps/record.py).
_PACKAGE = re.compile(r"(?P<name>.+)-\d+:(?P<version>[^-]+-[^-]+)\.[^.]+")


class Remote(Protocol):
    """What is used of `clusterbox.run_command.Machine`."""

    def run(self, script: str, *, timeout_seconds: float) -> str:
        """Run a script and return what it printed."""


@dataclass(frozen=True)
class Check:
    """One line of a check: what it says of the machine."""

    check: str
    ok: bool
    detail: str

    def as_result(self) -> dict[str, Any]:
        """Return it for the result of the step."""
        return {"check": self.check, "ok": self.ok, "detail": self.detail}


@dataclass(frozen=True)
class Facts:
    """What a machine of the image is: read from its kernel, Slurm, record and package list."""

    kernel: str
    slurm_version: str | None
    release: Mapping[str, Any]
    # Package → VERSION-RELEASE, several with commas where more than one is installed.
    packages: Mapping[str, str] = field(repr=False)
    packages_digest: str


def verify(context: Context, step: Step) -> Result:
    """Verify what the step `bake:IMAGE` has made; return what promotion and report need.

    Keys: ami, passed, checks, kernel, slurm_version, packages_digest, packages, advisories, at. An
    image that was verified before, by a call that was killed at its end, is verified again. Raises
    StepFailedError with every check that does not hold; the AMI then has the tag
    `clusterbox:verified=failed`, else `passed`.
    """
    image = step.subject["image"]
    planned = context.plan.image(image)
    baked = context.results.get(f"bake:{image}")
    if planned is None or not baked or not baked.get("ami"):
        raise StepFailedError(
            f"{image} has not been baked in this run, so there is nothing to verify"
        )
    ami = str(baked["ami"])
    definition = load_image_definition(context.root, image)
    try:
        with running_machine(context, step, definition, ami) as machine:
            remote = _connect(context, machine.instance)
            checks = _run_checks(context, remote, definition)
            facts = _read_facts(context, remote)
    except StepFailedError:
        raise
    except call_errors() as error:
        raise as_failure(f"verifying {ami}", error) from error
    checks += compare(facts, definition, planned)
    at = context.clock.now().isoformat(timespec="seconds")
    failed = [check for check in checks if not check.ok]
    _mark(context, ami, "failed" if failed else "passed")
    context.note(
        "verified", ami=ami, passed=not failed, checks=[check.as_result() for check in checks]
    )
    if failed:
        raise StepFailedError(_render_failure(image, ami, failed, len(checks)))
    return {
        "ami": ami,
        "passed": True,
        "checks": [check.as_result() for check in checks],
        "kernel": facts.kernel,
        "slurm_version": facts.slurm_version,
        "packages_digest": facts.packages_digest,
        "packages": dict(facts.packages),
        "advisories": facts.release.get("advisories"),
        "at": at,
    }


def _connect(context: Context, instance: str) -> Remote:
    from clusterbox.run_command import Machine

    return Machine(instance, context.client("ssm"), context.clock.sleep)


def _run_checks(context: Context, remote: Remote, definition: ImageDefinition) -> list[Check]:
    """Run the checks that the image's definition names, on the machine."""
    start = time.monotonic()
    output = _run(context, remote, "running the checks", _CHECKS, _CHECK_SECONDS)
    checks, status = parse_checks(output)
    context.note("checks ran", seconds=round(time.monotonic() - start, 1), exit=status)
    told = {check.check for check in checks}
    checks += [Check(name, False, "said nothing") for name in definition.verify if name not in told]
    if status != 0 and all(check.ok for check in checks):
        checks.append(Check("run", False, f"{HOME}/verify/run.sh ended with exit code {status}"))
    return checks


def _run(context: Context, remote: Remote, doing: str, script: str, seconds: float) -> str:
    def call() -> str:
        return remote.run(script, timeout_seconds=seconds)

    try:
        return steadily(context, doing, call)
    except StepFailedError:
        raise
    except ClusterboxError as error:
        raise as_failure(doing, error) from error


def parse_checks(output: str) -> tuple[list[Check], int]:
    """Return the checks of `run.sh`, one JSON object a line, and its exit code.

    What is not such a line is a check that does not hold: it hides whatever it stands for. An
    output without exit code has been cut off, and its code is -1.
    """
    checks: list[Check] = []
    status = -1
    for line in filter(str.strip, output.splitlines()):
        try:
            found = json.loads(line)
            if "exit" in found:
                status = int(found["exit"])
                continue
            checks.append(Check(str(found["check"]), found["ok"] is True, str(found["detail"])))
        except (ValueError, KeyError, TypeError):
            checks.append(Check("run", False, f"printed what is no result: {line[:200]}"))
    return checks, status


def _read_facts(context: Context, remote: Remote) -> Facts:
    packed = ""
    while len(packed) % _PIECE == 0:
        script = _facts_script(len(packed))
        piece = _run(context, remote, "reading the record of the image", script, _READ_SECONDS)
        if not piece:
            break
        packed += piece
    try:
        return parse_facts(gzip.decompress(base64.b64decode(packed, validate=True)).decode())
    except (ValueError, OSError, EOFError, zlib.error) as error:
        raise StepFailedError(f"the machine's record cannot be read: {error}") from error


def _facts_script(start: int) -> str:
    """Return what prints one piece of the facts, compressed and in Base64, from a character on."""
    pipe = f"gzip -nc | base64 -w0 | tail -c +{start + 1} | head -c {_PIECE}"
    return f"{{\n{_FACTS}}} | {pipe}\n"


def parse_facts(output: str) -> Facts:
    """Return what the machine printed about itself; raises ValueError for what it is not."""
    parts: dict[str, list[str]] = {}
    current: list[str] = []
    for line in output.splitlines():
        if line.startswith("@") and line[1:] in _PARTS:
            current = parts.setdefault(line[1:], [])
        else:
            current.append(line)
    missing = [name for name in _PARTS if name not in parts]
    if missing:
        raise ValueError(f"its answer lacks {', '.join(missing)}")
    release = json.loads("\n".join(parts["release"]))
    if not isinstance(release, dict):
        raise ValueError("image-release.json is no object")
    kernel = "".join(parts["kernel"]).strip()
    if not kernel:
        raise ValueError("it does not say its kernel")
    slurm = re.fullmatch(r"slurm (\S+)", "\n".join(parts["slurm"]).strip())
    listed = [line for line in parts["packages"] if line]
    text = "".join(f"{line}\n" for line in listed)
    return Facts(
        kernel=kernel,
        slurm_version=slurm[1] if slurm else None,
        release=release,
        packages=parse_packages(listed),
        packages_digest=hashlib.sha256(text.encode()).hexdigest(),
    )


def parse_packages(lines: Iterable[str]) -> dict[str, str]:
    """Return package → VERSION-RELEASE of the lines of image-packages.txt.

    Raises ValueError for another line.
    """
    found: dict[str, set[str]] = {}
    for line in lines:
        match = _PACKAGE.fullmatch(line)
        if match is None:
            raise ValueError(f"{line[:100]!r} is no package of image-packages.txt")
        found.setdefault(match["name"], set()).add(match["version"])
    return {name: ", ".join(sorted(versions)) for name, versions in sorted(found.items())}


def compare(facts: Facts, definition: ImageDefinition, planned: PlannedImage) -> list[Check]:
    """Return what the machine is beside what the definition and the plan say.

    The image's own checks read the values that were baked into it; these are the repository's.
    """
    expected = definition.slurm_version
    checks = [
        Check(
            "definition-slurm",
            facts.slurm_version == expected,
            f"Slurm {facts.slurm_version or 'none'}; the definition's is {expected or 'none'}",
        )
    ]
    newest = definition.kernel.newest
    if newest is not None:
        ok = _version(facts.kernel) <= _version(newest)
        checks.append(Check("definition-kernel", ok, f"{facts.kernel}; the cap is {newest}"))
    bundle = facts.release.get("bundle")
    checks.append(Check("definition-files", bundle == planned.bundle, f"bundle {str(bundle)[:16]}"))
    recorded = facts.release.get("packages")
    same = recorded == facts.packages_digest
    checks.append(
        Check(
            "record-packages", same, f"{len(facts.packages)} packages, {facts.packages_digest[:16]}"
        )
    )
    return checks


def _version(kernel: str) -> tuple[int, ...]:
    """Return the numbers of a kernel before the distribution's own: 6.1.150-174.273 → 6, 1, 150."""
    return tuple(int(number) for number in re.findall(r"\d+", kernel.partition("-")[0]))


def _mark(context: Context, ami: str, verdict: str) -> None:
    tags = [{"Key": TAG_VERIFIED, "Value": verdict}]
    ec2 = context.client("ec2")
    try:
        steadily(context, "marking the image", lambda: ec2.create_tags(Resources=[ami], Tags=tags))
    except call_errors() as error:
        if code_of(error).startswith("InvalidAMIID"):
            raise StepFailedError(f"the image {ami} is gone from the account") from error
        raise as_failure(f"marking {ami} as {verdict}", error) from error


def _render_failure(image: str, ami: str, failed: list[Check], total: int) -> str:
    lines = [f"  {check.check}: {check.detail}" for check in failed]
    return "\n".join(
        [
            f"{image} ({ami}) does not hold {len(failed)} of {total} checks:",
            *lines,
            f"it is marked {TAG_VERIFIED}=failed and will not be promoted; mend the step or the "
            "definition, and plan again",
        ]
    )
