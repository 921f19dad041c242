"""From definitions to ParallelCluster's file, and what its library says about it."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from clusterbox.errors import InputError
from clusterbox.images.components import (
    HOME,
    BuildPlace,
    Bundle,
    build_configuration,
    collect_files,
    render_bundle,
    render_values,
)
from clusterbox.site.image_definitions import (
    Expectations,
    ImageDefinition,
    KernelPolicy,
    bake_name,
    load_image_definition,
)
from clusterbox.site.load import Repository
from tests.conftest import ROOT

PLACE = BuildPlace(subnet_id="subnet-00000001", security_group_ids=("sg-00000001",))
WS_DEV = Repository(ROOT).load_environment("ws-dev")
COMPUTE = load_image_definition(ROOT, "compute")
ADMIN = load_image_definition(ROOT, "admin")
BUCKET = "s3://dev-ws-parallelcluster-testbucket"
CAPPED = KernelPolicy(policy="capped", newest="6.1.150", reason="Lustre's client")


def _bundle(definition: ImageDefinition) -> Bundle:
    return render_bundle(ROOT, definition, WS_DEV)


def _configure(definition: ImageDefinition, place: BuildPlace = PLACE) -> dict[str, Any]:
    name = bake_name("ws-dev", definition.name, "2026-11-22")
    bundle = _bundle(definition)
    return build_configuration(definition, WS_DEV, place, bundle, parent="ami-00000001", name=name)


def _with(definition: ImageDefinition, **changes: Any) -> ImageDefinition:
    return definition.model_copy(update=changes)


def test_the_same_files_give_the_same_bundle() -> None:
    assert _bundle(COMPUTE) == _bundle(load_image_definition(ROOT, "compute"))


def test_another_value_gives_another_bundle_under_another_key() -> None:
    other = _bundle(_with(COMPUTE, root_gib=46))
    assert other.digest != _bundle(COMPUTE).digest
    assert set(other.objects) & set(_bundle(COMPUTE).objects) == set()


def test_scripts_run_in_the_order_of_the_steps_after_the_files() -> None:
    names = [key.rpartition("/")[2] for key in _bundle(COMPUTE).keys]
    assert names == ["00-files.sh", *COMPUTE.steps]


def test_the_first_script_lays_down_all_files_and_the_next_ones_start_a_step(
    tmp_path: Path,
) -> None:
    bundle = _bundle(ADMIN)
    home = tmp_path / "image"
    for _ in range(2):
        script = bundle.objects[bundle.keys[0]].decode().replace(HOME, str(home))
        subprocess.run(["bash", "-c", script], check=True)
    files = collect_files(ROOT, ADMIN, WS_DEV)
    found = {str(path.relative_to(home)): path for path in home.rglob("*") if path.is_file()}
    assert {name: path.read_bytes() for name, path in found.items()} == files
    assert os.access(found["steps/10-os-updates.sh"], os.X_OK)
    assert "steps/30-science-base.sh" not in found
    step = bundle.objects[bundle.keys[1]].decode()
    assert step == f"#!/bin/bash\nexec {HOME}/steps/10-os-updates.sh\n"
    assert [path.name for path in tmp_path.iterdir()] == ["image"]


def test_values_are_quoted_for_the_shell(tmp_path: Path) -> None:
    file = tmp_path / "image.env"
    file.write_text(render_values(_with(ADMIN, name="a'b $HOME"), WS_DEV))
    words = ["bash", "-c", f'. {file}; echo "$CLUSTERBOX_IMAGE|$CLUSTERBOX_SLURM_VERSION|"']
    said = subprocess.run(words, check=True, capture_output=True, encoding="utf-8").stdout
    assert said == "a'b $HOME||\n"


def test_every_value_that_a_step_or_check_reads_is_given() -> None:
    given = render_values(COMPUTE, WS_DEV)
    names = {line.partition("=")[0] for line in given.splitlines()}
    read = {
        name
        for folder in ("steps", "verify")
        for script in (ROOT / "ami" / folder).glob("*.sh")
        for name in re.findall(r"CLUSTERBOX_[A-Z_]+", script.read_text())
    }
    assert read == names | {"CLUSTERBOX_RETRY_SECONDS"}


def test_the_configuration_of_a_cluster_image() -> None:
    found = _configure(COMPUTE)
    prefix = f"{BUCKET}/images/bundles/compute/{_bundle(COMPUTE).digest[:16]}"
    assert found["Image"]["Name"] == "ws-dev-compute-2026-11-22"
    assert found["Image"]["RootVolume"] == {"Size": 45, "Encrypted": True}
    build = found["Build"]
    assert build["ParentImage"] == "ami-00000001"
    assert build["Components"][0] == {"Type": "script", "Value": f"{prefix}/00-files.sh"}
    assert build["Components"][1] == {"Type": "script", "Value": f"{prefix}/10-os-updates.sh"}
    assert build["UpdateOsPackages"] == {"Enabled": True}
    assert build["Imds"] == {"ImdsSupport": "v2.0"}
    assert "DevSettings" not in found


def test_every_role_is_the_sites_own_and_has_the_boundary() -> None:
    assert _configure(COMPUTE)["Build"]["Iam"] == {
        "InstanceRole": "arn:aws:iam::427491229895:role/ws/ws-dev-image-build",
        "CleanupLambdaRole": "arn:aws:iam::427491229895:role/ws/ws-dev-image-cleanup",
        "PermissionsBoundary": (
            "arn:aws:iam::427491229895:policy/csr-Developer-Permissions-Boundary"
        ),
    }


def test_image_and_build_are_tagged_with_the_bundle_and_the_site() -> None:
    found = _configure(COMPUTE)
    tags = {tag["Key"]: tag["Value"] for tag in found["Image"]["Tags"]}
    assert found["Image"]["Tags"] == found["Build"]["Tags"]
    assert tags["clusterbox:bundle"] == _bundle(COMPUTE).digest
    assert (tags["clusterbox:image"], tags["Purpose"]) == ("compute", "cluster-nodes")
    assert (tags["Project"], tags["Environment"]) == ("WaterSMART", "ws-dev")


def test_an_image_without_parallelcluster_leaves_its_component_out() -> None:
    found = _configure(ADMIN)
    assert found["DevSettings"] == {"DisablePclusterComponent": True}
    assert found["Build"]["UpdateOsPackages"] == {"Enabled": False}


@pytest.mark.parametrize(
    ("policy", "updates", "keeps"),
    [
        pytest.param(KernelPolicy(policy="full"), True, False, id="full"),
        pytest.param(KernelPolicy(policy="minimal"), False, True, id="minimal"),
        pytest.param(CAPPED, True, True, id="capped"),
    ],
)
def test_the_kernel_policy_is_told_to_parallelcluster(
    policy: KernelPolicy, updates: bool, keeps: bool
) -> None:
    found = _configure(_with(COMPUTE, kernel=policy))
    assert found["Build"]["UpdateOsPackages"] == {"Enabled": updates}
    assert found.get("DevSettings", {}).get("DisableKernelUpdate", False) is keeps


def test_lustre_and_nvidia_are_installed_where_their_modules_are_expected() -> None:
    expect = Expectations(kernel_modules=("lustre", "nvidia"))
    found = _configure(_with(COMPUTE, expect=expect))["Build"]["Installation"]
    assert found == {"LustreClient": {"Enabled": True}, "NvidiaSoftware": {"Enabled": True}}
    assert _configure(COMPUTE)["Build"]["Installation"] == {
        "LustreClient": {"Enabled": False},
        "NvidiaSoftware": {"Enabled": False},
    }


SHARED = _with(COMPUTE, launch_accounts=("123456789012",))
KEYED = BuildPlace(
    subnet_id="subnet-00000001", security_group_ids=("sg-00000001",), kms_key_id="key-1"
)


def test_a_shared_image_is_encrypted_with_the_sites_key() -> None:
    found = _configure(SHARED, KEYED)
    assert found["Image"]["RootVolume"]["KmsKeyId"] == "key-1"
    assert found["DevSettings"]["DistributionConfiguration"] == {
        "Regions": "us-west-2",
        "LaunchPermission": '{"UserIds": ["123456789012"]}',
    }


def test_a_shared_image_without_a_key_is_refused() -> None:
    with pytest.raises(
        InputError, match=r"^ami/images/compute\.yaml: launch_accounts: .* the site$"
    ):
        _configure(SHARED)


Answers = Mapping[str, dict[str, Any]]


@pytest.fixture(scope="module")
def answers() -> Answers:
    """Return what ParallelCluster's library says about configurations, by name."""
    configurations = {
        "compute": _configure(COMPUTE),
        "admin": _configure(ADMIN),
        "shared": _configure(_with(SHARED, kernel=CAPPED), KEYED),
        # What must be refused, so that silence means something.
        "small": _configure(_with(ADMIN, root_gib=14)),
    }
    done = subprocess.run(
        [ROOT / ".venv-pcluster" / "bin" / "python", Path(__file__).with_name("dry_run.py")],
        input=json.dumps(configurations),
        capture_output=True,
        encoding="utf-8",
        check=False,
        env={
            **os.environ,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-west-2",
            "AWS_REGION": "us-west-2",
            "MOTO_ACCOUNT_ID": "427491229895",
        },
    )
    assert done.returncode == 0, done.stderr
    found: Answers = json.loads(done.stdout)
    return found


@pytest.mark.integration
@pytest.mark.parametrize("name", ["compute", "admin", "shared"])
def test_parallelcluster_accepts_the_configuration(name: str, answers: Answers) -> None:
    assert answers[name]["messages"] == []


@pytest.mark.integration
def test_parallelcluster_refuses_a_root_smaller_than_its_parents(answers: Answers) -> None:
    assert [message.partition(",")[0] for message in answers["small"]["messages"]] == [
        "ERROR: Root volume size 14 GB is less than the minimum required size 15 GB that equals "
        "parent ami volume size."
    ]


def _resources(answer: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    resources = answer["template"]["Resources"].values()
    return [each["Properties"] for each in resources if each["Type"] == kind]


@pytest.mark.integration
def test_parallelcluster_makes_no_role_of_its_own(answers: Answers) -> None:
    for name in ("compute", "admin"):
        assert _resources(answers[name], "AWS::IAM::Role") == []


@pytest.mark.integration
def test_the_scripts_run_after_parallelcluster_in_their_order(answers: Answers) -> None:
    (recipe,) = _resources(answers["compute"], "AWS::ImageBuilder::ImageRecipe")
    order = [component["ComponentArn"]["Ref"] for component in recipe["Components"]]
    assert order == [
        "UpdateOSComponent",
        "ParallelClusterComponent",
        "ParallelClusterTagComponent",
        *(f"ScriptComponent{number}" for number in range(7)),
    ]
    resources = answers["compute"]["template"]["Resources"]
    described = [
        resources[f"ScriptComponent{number}"]["Properties"]["Description"] for number in range(7)
    ]
    assert [text.rpartition("/")[2] for text in described] == ["00-files.sh", *COMPUTE.steps]


@pytest.mark.integration
def test_the_admin_box_gets_no_parallelcluster(answers: Answers) -> None:
    (recipe,) = _resources(answers["admin"], "AWS::ImageBuilder::ImageRecipe")
    order = [component["ComponentArn"]["Ref"] for component in recipe["Components"]]
    assert "ParallelClusterComponent" not in order
    assert "UpdateOSComponent" not in order


@pytest.mark.integration
def test_a_cap_reaches_the_build_instance(answers: Answers) -> None:
    kept = {
        name: json.loads(answers[name]["template"]["Parameters"]["CfnParamChefDnaJson"]["Default"])[
            "cluster"
        ]["disable_kernel_update"]
        for name in ("compute", "shared")
    }
    assert kept == {"compute": "false", "shared": "true"}


@pytest.mark.integration
def test_a_shared_image_may_be_started_by_the_other_account(answers: Answers) -> None:
    (found,) = _resources(answers["shared"], "AWS::ImageBuilder::DistributionConfiguration")
    settings = found["Distributions"][0]["AmiDistributionConfiguration"]
    assert settings["LaunchPermissionConfiguration"] == {"UserIds": ["123456789012"]}
