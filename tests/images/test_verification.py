"""Verifying an image on an account in memory: what its machine says, and what becomes of it."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import random
import re
import subprocess
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

import clusterbox.images.verification as module
from clusterbox.errors import ClusterboxError
from clusterbox.images.context import StepFailedError
from clusterbox.images.verification import parse_checks, parse_facts, parse_packages, verify
from clusterbox.site.image_definitions import KernelPolicy, load_image_definition
from tests.conftest import ROOT
from tests.images.patch_day_world import (
    RUN,
    VERIFY,
    Killed,
    World,
    checks_output,
    make_context,
    plan_image,
    refusal,
)

AMI = "ami-00000000000000001"
COMPUTE = load_image_definition(ROOT, "compute")
KERNEL = "6.1.150-174.273.amzn2023.x86_64"
PACKAGES = [
    "bash-0:5.2.15-1.amzn2023.x86_64",
    "kernel-0:6.1.148-1.amzn2023.x86_64",
    "kernel-0:6.1.150-174.273.amzn2023.x86_64",
    "python3.11-0:3.11.6-1.amzn2023.x86_64",
]
DIGEST = hashlib.sha256("".join(f"{line}\n" for line in PACKAGES).encode()).hexdigest()
RESULTS = {"bake:compute": {"ami": AMI}}


def lines(*changes: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a good line of every check of the definition, and others after them."""
    good = [{"check": name, "ok": True, "detail": "fine"} for name in COMPUTE.verify]
    return [*good, *changes]


@dataclass
class Remote:
    """A machine that answers the two scripts of a verification."""

    checks: str = ""
    kernel: str = KERNEL
    slurm: str = "slurm 25.11.8"
    release: dict[str, Any] = field(default_factory=dict)
    packages: list[str] = field(default_factory=lambda: list(PACKAGES))
    faults: list[Exception] = field(default_factory=list)
    scripts: list[str] = field(default_factory=list)

    def run(self, script: str, *, timeout_seconds: float) -> str:
        self.scripts.append(script)
        if self.faults:
            raise self.faults.pop(0)
        if "run.sh" in script:
            return self.checks or checks_output(*lines())
        packed = base64.b64encode(gzip.compress(self.facts().encode())).decode()
        asked = re.search(r"tail -c \+(\d+) \| head -c (\d+)", script)
        assert asked is not None
        start, length = int(asked[1]) - 1, int(asked[2])
        piece = packed[start : start + length]
        # What `clusterbox.run_command` gets through Systems Manager.
        assert len(base64.b64encode(gzip.compress(piece.encode()))) < 24_000
        return piece

    def facts(self) -> str:
        release = {"bundle": plan_image().bundle, "packages": DIGEST, "steps": {}, **self.release}
        return "\n".join(
            [
                *("@kernel", self.kernel, "@slurm", self.slurm),
                *("@release", json.dumps(release, indent=2), "@packages", *self.packages, ""),
            ]
        )


@pytest.fixture
def remote(monkeypatch: pytest.MonkeyPatch) -> Remote:
    remote = Remote()
    monkeypatch.setattr(module, "_connect", lambda _context, _instance: remote)
    return remote


def make_world(**values: Any) -> World:
    world = World(**values)
    world.images.add(AMI)
    return world


def run(world: World) -> dict[str, Any]:
    return verify(make_context(world, results=RESULTS), VERIFY)


def fails(world: World) -> str:
    with pytest.raises(StepFailedError) as caught:
        run(world)
    return str(caught.value)


def verdict(world: World) -> str | None:
    return world.tags.get(AMI, {}).get("clusterbox:verified")


def test_a_good_image_is_marked_and_its_facts_are_returned(remote: Remote) -> None:
    world = make_world()
    result = run(world)
    assert {key: value for key, value in result.items() if key != "checks"} == {
        "ami": AMI,
        "passed": True,
        "kernel": KERNEL,
        "slurm_version": "25.11.8",
        "packages_digest": DIGEST,
        "packages": {
            "bash": "5.2.15-1.amzn2023",
            "kernel": "6.1.148-1.amzn2023, 6.1.150-174.273.amzn2023",
            "python3.11": "3.11.6-1.amzn2023",
        },
        "advisories": None,
        "at": "2026-11-22T08:00:00+00:00",
    }
    assert [check["check"] for check in result["checks"]] == [
        *COMPUTE.verify,
        "definition-slurm",
        "definition-files",
        "record-packages",
    ]
    assert verdict(world) == "passed"
    assert world.alive == []


def test_advisories_of_the_record_are_passed_on(remote: Remote) -> None:
    remote.release = {"advisories": {"installed": [{"id": "ALAS2023-2026-001"}], "available": []}}
    assert run(make_world())["advisories"] == remote.release["advisories"]


def advisories(count: int) -> list[dict[str, Any]]:
    """Return advisories such as Amazon Linux has, some hundreds of which hold on an image."""
    chance = random.Random(1)  # noqa: S311 - not for security
    return [
        {
            "id": f"ALAS2023-2026-{number:04}",
            "severity": "important",
            "cves": [f"CVE-2026-{chance.randint(1000, 60000)}" for _ in range(8)],
            "packages": [f"package{chance.randint(1, 10**6)}-1.0-1.x86_64" for _ in range(4)],
        }
        for number in range(count)
    ]


def test_a_record_that_is_more_than_one_command_returns_is_read_whole(remote: Remote) -> None:
    remote.release = {"advisories": {"installed": advisories(500), "available": []}}
    assert run(make_world())["advisories"] == remote.release["advisories"]
    assert len([script for script in remote.scripts if "run.sh" not in script]) > 2


def test_the_pieces_that_a_machine_prints_are_the_record(tmp_path: Path) -> None:
    record = {"advisories": {"installed": advisories(300), "available": []}}
    (tmp_path / "image-release.json").write_text(f"{json.dumps(record)}\n")
    (tmp_path / "image-packages.txt").write_text("".join(f"{line}\n" for line in PACKAGES))

    class Bash:
        def run(self, script: str, *, timeout_seconds: float) -> str:
            here = script.replace("/etc/clusterbox", str(tmp_path))
            return subprocess.run(
                ["bash", "-c", here], check=True, capture_output=True, text=True
            ).stdout

    facts = module._read_facts(make_context(make_world()), Bash())
    assert facts.release == record
    assert facts.packages_digest == DIGEST


def test_a_check_that_does_not_hold_fails_the_image(remote: Remote) -> None:
    world = make_world()
    bad = {"check": "units", "ok": False, "detail": "node-exporter.service is not there"}
    remote.checks = checks_output(*lines(bad), status=1)
    said = fails(world)
    assert f"compute ({AMI}) does not hold 1 of 14 checks:" in said
    assert "  units: node-exporter.service is not there\n" in said
    assert verdict(world) == "failed"
    assert world.alive == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param(
            {"slurm": "slurm 24.05.1"},
            "definition-slurm: Slurm 24.05.1; the definition's is 25.11.8",
            id="another Slurm",
        ),
        pytest.param({"slurm": ""}, "definition-slurm: Slurm none;", id="no Slurm"),
        pytest.param(
            {"release": {"bundle": "f" * 64}}, "definition-files: bundle ffff", id="files"
        ),
        pytest.param({"release": {"packages": "0"}}, "record-packages: 3 packages", id="packages"),
        pytest.param(
            {"packages": ["bash-0:5.3.0-1.amzn2023.x86_64"]}, "record-packages: 1", id="updated"
        ),
    ],
)
def test_what_differs_from_definition_plan_or_record_fails_the_image(
    change: dict[str, Any], said: str, remote: Remote
) -> None:
    world = make_world()
    for name, value in change.items():
        setattr(remote, name, value)
    assert said in fails(world)
    assert verdict(world) == "failed"


@pytest.mark.parametrize(
    ("kernel", "ok"),
    [
        ("6.1.150-174.273.amzn2023.x86_64", True),
        ("6.1.9-1.amzn2023.x86_64", True),
        ("6.1.151-1.amzn2023.x86_64", False),
        ("6.12.1-1.amzn2023.x86_64", False),
    ],
)
def test_a_kernel_above_the_cap_fails_the_image(kernel: str, ok: bool, remote: Remote) -> None:
    policy = KernelPolicy(policy="capped", newest="6.1.150", reason="Lustre")
    remote.kernel = kernel
    facts = parse_facts(remote.facts())
    capped = COMPUTE.model_copy(update={"kernel": policy})
    checks = {check.check: check.ok for check in module.compare(facts, capped, plan_image())}
    assert checks["definition-kernel"] is ok


def test_a_check_that_said_nothing_fails_the_image(remote: Remote) -> None:
    remote.checks = checks_output(*(line for line in lines() if line["check"] != "kernel"))
    assert "  kernel: said nothing" in fails(make_world())


def test_an_exit_code_without_a_failed_check_fails_the_image(remote: Remote) -> None:
    remote.checks = checks_output(*lines(), status=2)
    assert "run.sh ended with exit code 2" in fails(make_world())


def test_an_output_that_was_cut_off_fails_the_image(remote: Remote) -> None:
    remote.checks = checks_output(*lines()).rsplit("\n", 2)[0]
    assert "exit code -1" in fails(make_world())


@pytest.mark.parametrize(
    "line",
    ["no JSON", "[]", '"text"', '{"check": "a", "ok": true}', "3", '{"exit": "x"}', "null"],
)
def test_a_line_that_is_no_result_does_not_hold(line: str) -> None:
    checks, status = parse_checks(f'{{"check": "a", "ok": true, "detail": "b"}}\n{line}\n')
    assert [check.ok for check in checks] == [True, False]
    assert status == -1


def test_only_true_is_true() -> None:
    checks, _ = parse_checks('{"check": "a", "ok": "true", "detail": "b"}')
    assert checks[0].ok is False


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "lacks kernel, slurm, release, packages"),
        ("@kernel\n6.1\n@slurm\n@release\n[]\n@packages\n", "is no object"),
        ("@kernel\n6.1\n@slurm\n@release\n{\n@packages\n", "Expecting"),
        ("@kernel\n\n@slurm\n@release\n{}\n@packages\n", "does not say its kernel"),
        ("@kernel\n6.1\n@slurm\n@release\n{}\n@packages\nx y\n", "is no package"),
    ],
)
def test_a_record_that_cannot_be_read_is_told(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse_facts(text)


@pytest.mark.parametrize(
    ("line", "name", "version"),
    [
        ("kernel-libbpf-0:6.1.150-1.amzn2023.x86_64", "kernel-libbpf", "6.1.150-1.amzn2023"),
        ("gtk-update-icon-cache-1:3.24-2.noarch", "gtk-update-icon-cache", "3.24-2"),
        ("perl-5-compat-0:1.0~rc1-0.1.x86_64", "perl-5-compat", "1.0~rc1-0.1"),
    ],
)
def test_a_package_is_split_at_its_epoch(line: str, name: str, version: str) -> None:
    assert parse_packages([line]) == {name: version}


def test_an_image_that_was_not_baked_in_the_run_is_refused(remote: Remote) -> None:
    with pytest.raises(StepFailedError, match="has not been baked in this run"):
        verify(make_context(make_world()), VERIFY)


def test_an_image_that_disappears_is_told(remote: Remote) -> None:
    world = make_world(
        faults={"ec2:create_tags": [refusal("InvalidAMIID.NotFound", "does not exist")]}
    )
    assert fails(world) == f"the image {AMI} is gone from the account"


def test_a_command_that_fails_marks_nothing_and_ends_the_machine(remote: Remote) -> None:
    world = make_world()
    remote.faults = [ClusterboxError("i-1: TimedOut: it said nothing")]
    assert fails(world) == "running the checks: i-1: TimedOut: it said nothing"
    assert (verdict(world), world.alive) == (None, [])


def test_throttled_commands_are_sent_again(remote: Remote) -> None:
    remote.faults = [refusal("ThrottlingException", "Rate exceeded")] * 3
    world = make_world()
    assert run(world)["passed"] is True


def test_expired_credentials_end_it_with_what_to_do(remote: Remote) -> None:
    world = make_world()
    remote.faults = [refusal("ExpiredTokenException")]
    assert "sign in and run the command again" in fails(world)
    assert verdict(world) is None


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_kill_at_any_call_leaves_no_second_machine(remote: Remote, moment: str) -> None:
    world = make_world()
    run(world)
    for index in range(len(world.calls)):
        world = make_world(kill=(index, moment))
        with pytest.raises(Killed):
            run(world)
        assert len(world.alive) <= 1, index
        world.restart()
        assert run(world)["passed"] is True
        assert (world.alive, verdict(world)) == ([], "passed"), index


def test_a_second_run_of_the_plan_verifies_another_image(remote: Remote) -> None:
    # An image of another bake must not get the machine of the first one.
    world = make_world()
    run(world)
    other = "ami-00000000000000002"
    world.images.add(other)
    context = make_context(world, results={"bake:compute": {"ami": other}})
    context = replace(context, plan=replace(context.plan, run=f"{RUN}-2"))
    assert verify(context, VERIFY)["ami"] == other
    assert [each["ImageId"] for each in world.machines.values()] == [AMI, other]
