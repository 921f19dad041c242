"""What an image holds is made from what was sent to be baked, its parent and the day."""

from __future__ import annotations

import hashlib
import json
from datetime import date
from typing import Any

import pytest
from ministack.services import s3

from clusterbox.embedded.server import image_contents
from clusterbox.embedded.server.image_contents import Component, make_image_facts, read_component
from clusterbox.embedded.server.image_facts import (
    ImageFacts,
    day_of,
    facts_of,
    make_facts,
    package_list,
    packages_digest,
)
from clusterbox.images.components import render_bundle
from clusterbox.site.image_definitions import ImageDefinition, KernelPolicy, load_image_definition
from clusterbox.site.load import Repository
from tests.conftest import ROOT

WS_DEV = Repository(ROOT).load_environment("ws-dev")
COMPUTE = load_image_definition(ROOT, "compute")
BUCKET = "bucket"
PARENT = make_facts(date(2026, 10, 1))
PARALLELCLUSTER = Component("arn:pcluster", image_contents.PARALLELCLUSTER, {})


def bake(
    monkeypatch: pytest.MonkeyPatch, definition: ImageDefinition, day: date = date(2026, 11, 22)
) -> ImageFacts:
    """Return what is on an image that is baked from a definition's bundle."""
    bundle = render_bundle(ROOT, definition, WS_DEV)
    stored = {(BUCKET, key): body for key, body in bundle.objects.items()}
    monkeypatch.setattr(s3, "_get_object_data", lambda bucket, key: stored.get((bucket, key)))
    scripts = [
        Component(f"arn:{key}", "ScriptComponent", {}, f"s3://{BUCKET}/{key}")
        for key in bundle.keys
    ]
    return make_image_facts(
        [PARALLELCLUSTER, *scripts], PARENT, version="3.16.1", day=day, root_gib=45
    )


def test_an_image_holds_the_files_the_bundle_lays_down(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = bake(monkeypatch, COMPUTE)
    assert facts.steps == COMPUTE.steps
    assert facts.verify == COMPUTE.verify
    run = (ROOT / "ami" / "verify" / "run.sh").read_bytes()
    assert facts.files["verify/run.sh"] == run
    step = hashlib.sha256((ROOT / "ami" / "steps" / "20-efs-utils.sh").read_bytes()).hexdigest()
    assert facts.release["steps"]["20-efs-utils.sh"] == step
    assert facts.release["bundle"] == render_bundle(ROOT, COMPUTE, WS_DEV).digest
    assert facts.release["kernels"] == [facts.kernel]


def test_an_image_has_the_packages_its_definition_expects(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = bake(monkeypatch, COMPUTE)
    assert set(COMPUTE.expect.packages) <= facts.packages.keys()
    assert (facts.slurm_version, facts.parallelcluster_version) == ("25.11.8", "3.16.1")


def test_the_same_bake_gives_the_same_facts(monkeypatch: pytest.MonkeyPatch) -> None:
    assert bake(monkeypatch, COMPUTE) == bake(monkeypatch, COMPUTE)


def test_a_later_bake_is_newer(monkeypatch: pytest.MonkeyPatch) -> None:
    now, later = bake(monkeypatch, COMPUTE), bake(monkeypatch, COMPUTE, date(2026, 12, 20))
    assert now.kernel == "6.1.168-178.248.amzn2023.x86_64"
    assert later.kernel == "6.1.170-180.250.amzn2023.x86_64"
    assert now.packages["openssl"] != later.packages["openssl"]
    assert packages_digest(now) != packages_digest(later)
    newer = set(later.advisories) - set(now.advisories)
    assert {advisory.package.partition("-")[0] for advisory in newer} >= {"kernel", "openssl"}


@pytest.mark.parametrize(
    ("policy", "kernel", "openssl_is_newer", "gdal_is_newer"),
    [
        (KernelPolicy(policy="full"), "6.1.168-178.248.amzn2023.x86_64", True, True),
        (
            KernelPolicy(policy="capped", newest="6.1.170", reason="Lustre"),
            PARENT.kernel,
            True,
            True,
        ),
        (KernelPolicy(policy="minimal"), PARENT.kernel, True, False),
    ],
)
def test_the_kernel_policy_decides_what_is_updated(
    monkeypatch: pytest.MonkeyPatch,
    policy: KernelPolicy,
    kernel: str,
    openssl_is_newer: bool,
    gdal_is_newer: bool,
) -> None:
    facts = bake(monkeypatch, COMPUTE.model_copy(update={"kernel": policy}))
    assert facts.kernel == kernel
    assert (facts.packages["openssl"] != PARENT.packages["openssl"]) is openssl_is_newer
    agent = "amazon-ssm-agent"
    assert (facts.packages[agent] != PARENT.packages[agent]) is gdal_is_newer


def test_a_script_that_is_not_in_the_bucket_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "_get_object_data", lambda _bucket, _key: None)
    assert Component("arn", "ScriptComponent", {}, "s3://bucket/step.sh").script_is_missing()
    assert not PARALLELCLUSTER.script_is_missing()


def test_a_component_is_read_from_its_document() -> None:
    document: dict[str, Any] = {
        "name": "ScriptComponent",
        "phases": [
            {
                "name": "build",
                "steps": [
                    {
                        "name": "ScriptUrl",
                        "inputs": {"commands": ["set -v\necho s3://bucket/images/10-x.sh\n"]},
                    },
                    {"name": "Execute"},
                ],
            }
        ],
    }
    found = read_component("arn", {"Data": json.dumps(document)})
    assert found.script == "s3://bucket/images/10-x.sh"
    assert found.steps == {"build": ("ScriptUrl", "Execute")}


def test_the_package_list_is_the_one_that_a_bake_records() -> None:
    facts = make_facts(date(2026, 11, 22))
    lines = package_list(facts).splitlines()
    assert lines == sorted(lines)
    assert "openssl-0:3.2.2-1.amzn2023.0.25.x86_64" in lines
    assert packages_digest(facts) == hashlib.sha256(package_list(facts).encode()).hexdigest()


@pytest.mark.parametrize(
    ("name", "created", "expected"),
    [
        ("ws-dev-compute-2026-11-22 2026-11-23T01-00-00.000Z", None, date(2026, 11, 22)),
        ("csr-al2023-base-2026.10.01", None, date(2026, 10, 1)),
        ("compute", "2026-09-08T00:00:00.000Z", date(2026, 9, 8)),
        ("20269999", "2026-09-08T00:00:00.000Z", date(2026, 9, 8)),
    ],
)
def test_an_image_is_of_the_day_in_its_name_or_of_its_creation(
    name: str, created: str | None, expected: date
) -> None:
    assert day_of(name, created) == expected


def test_an_image_that_was_never_there_has_facts_too() -> None:
    assert facts_of("ami-00000000").packages["bash"]
