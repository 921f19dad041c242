"""The judgement of configurations by ParallelCluster's own library, in one process for all."""

from __future__ import annotations

import copy
import dataclasses
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from clusterbox.clusters.composed import ComposedCluster, compose_repository, read_native
from clusterbox.clusters.findings import Finding, Level, Validation
from clusterbox.clusters.validate import validate_clusters
from clusterbox.pcluster import Pcluster, PclusterError

pytestmark = pytest.mark.integration

Configuration = dict[str, Any]
_NATIVE: Configuration = {
    "Region": "us-west-2",
    "Image": {"Os": "alinux2023"},
    "HeadNode": {
        "InstanceType": "t3.medium",
        "Networking": {"SubnetId": "subnet-00000001"},
        "Ssh": {"KeyName": "somebody"},
    },
    "Scheduling": {
        "Scheduler": "slurm",
        "SlurmQueues": [
            {
                "Name": "q",
                "Networking": {"SubnetIds": ["subnet-00000001"]},
                "ComputeResources": [{"Name": "c", "InstanceType": "c6i.large"}],
            }
        ],
    },
}


def _queue(configuration: Configuration, index: int = 0) -> Configuration:
    queue: Configuration = configuration["Scheduling"]["SlurmQueues"][index]
    return queue


def _schema_mistakes(configuration: Configuration) -> None:
    _queue(configuration)["ComputeResources"][0]["MaxCount"] = "many"
    configuration["HeadNode"]["InstanceTyp"] = "t3.large"
    configuration["HeadNode"]["Imds"]["Secure"] = True


def _typo_in_instances(configuration: Configuration) -> None:
    # ParallelCluster's own schema fails on it: 'dict' object has no attribute 'instance_type'.
    instances = _queue(configuration)["ComputeResources"][0]["Instances"]
    instances[2] = {"InstanceTyp": "m5a.2xlarge"}


def _number_in_tag(configuration: Configuration) -> None:
    configuration["Tags"] = [{"Key": "Year", "Value": 2026}]


def _other_subnet(configuration: Configuration) -> None:
    _queue(configuration)["Networking"]["SubnetIds"] = ["subnet-0aaaaaaaaaaaaaaa1"]


def _unknown_family(configuration: Configuration) -> None:
    _queue(configuration)["ComputeResources"][0]["Instances"] = [{"InstanceType": "z99.large"}]


def _unknown_size(configuration: Configuration) -> None:
    _queue(configuration)["ComputeResources"][0]["Instances"] = [{"InstanceType": "m6i.3xlarge"}]


def _repeated_queue(configuration: Configuration) -> None:
    _queue(configuration, 1)["Name"] = "eco"


def _placement_group(configuration: Configuration) -> None:
    _queue(configuration)["Networking"]["PlacementGroup"] = {
        "Enabled": True,
        "Id": "mine",
        "Name": "mine",
    }


def _scripts(configuration: Configuration) -> None:
    action = {"Script": "https://nowhere.invalid/start.sh"}
    configuration["HeadNode"]["CustomActions"] = {"OnNodeConfigured": action}


def _wrong_scheme(configuration: Configuration) -> None:
    action = {"Script": "ftp://nowhere.invalid/start.sh"}
    configuration["HeadNode"]["CustomActions"] = {"OnNodeConfigured": action}


def _unmounted_zone(configuration: Configuration) -> None:
    configuration["SharedStorage"][0]["EfsSettings"]["FileSystemId"] = "fs-0123456789abcdef0"


def _small_root(configuration: Configuration) -> None:
    storage = _queue(configuration, 1)["ComputeSettings"]["LocalStorage"]
    storage["RootVolume"]["Size"] = 20


def _misspelt_policy(configuration: Configuration) -> None:
    policies = [{"Policy": "arn:aws:iam::aws:policy/AmazonS3FullAcces"}]
    configuration["HeadNode"]["Iam"] = {"AdditionalIamPolicies": policies}


def _two_zones_in_placement_group(configuration: Configuration) -> None:
    queue = _queue(configuration)
    queue["Networking"]["SubnetIds"] = ["subnet-00000001", "subnet-00000002"]
    queue["Networking"]["PlacementGroup"] = {"Enabled": True}
    queue["ComputeResources"] = [{"Name": "c", "Instances": [{"InstanceType": "c6i.large"}]}]


def _reservation(configuration: Configuration) -> None:
    queue = _queue(configuration)
    target = {"CapacityReservationId": "cr-0123456789abcdef0"}
    queue["ComputeResources"] = [{"Name": "c", "CapacityReservationTarget": target}]


def _nothing(_: Configuration) -> None:
    """Leave the configuration as it is."""


_OF_SITE: Mapping[str, tuple[str, Callable[[Configuration], None]]] = {
    "schema": ("ws-eco", _schema_mistakes),
    "typo in instances": ("ws-eco", _typo_in_instances),
    "number in tag": ("ws-eco", _number_in_tag),
    "other subnet": ("ws-eco-login", _other_subnet),
    "unknown family": ("ws-eco", _unknown_family),
    "unknown size": ("ws-eco", _unknown_size),
    "repeated queue": ("ws-eco", _repeated_queue),
    "placement group": ("ws-eco", _placement_group),
    "script": ("ws-eco", _scripts),
    "script again": ("ws-eco", _scripts),
    "wrong scheme": ("ws-eco", _wrong_scheme),
    "unstated file system": ("ws-eco", _unmounted_zone),
    "small root": ("ws-eco", _small_root),
    "misspelt policy": ("ws-eco", _misspelt_policy),
}


def _short_name_twice(configuration: Configuration) -> None:
    _queue(configuration)["ComputeResources"][0]["Name"] = "q"
    configuration["Scheduling"]["SlurmQueues"].append(copy.deepcopy(_queue(configuration)))


def _remote_desktop(configuration: Configuration) -> None:
    configuration["HeadNode"]["Dcv"] = {"Enabled": True}
    # A login pool of the same type must not draw the finding to the whole file.
    pool = {"Name": "login", "InstanceType": "t3.medium", "Count": 1}
    networking = {"Networking": {"SubnetIds": ["subnet-00000001"]}}
    configuration["LoginNodes"] = {"Pools": [{**pool, **networking}]}


def _reference(configuration: Configuration) -> None:
    configuration["HeadNode"]["Networking"]["SubnetId"] = "${network.compute.a}"


_NATIVES: Mapping[str, Callable[[Configuration], None]] = {
    "native": _nothing,
    "native number in tag": _number_in_tag,
    "native placement group": _two_zones_in_placement_group,
    "native reservation": _reservation,
    "repeated short name": _short_name_twice,
    "remote desktop": _remote_desktop,
    "references": _reference,
}


# Those of ParallelCluster's images are left out: a cluster has none of them.
_LIST_VALIDATORS = """
import importlib, inspect, json, os, pkgutil, sys
os.environ["AWS_DEFAULT_REGION"] = "us-east-1"
import pcluster.config.cluster_config
from clusterbox.clusters.library import validators as ours
from pcluster import validators
from pcluster.validators.common import AsyncValidator, Validator

modules = [f"pcluster.validators.{item.name}" for item in pkgutil.iter_modules(validators.__path__)]
found = {
    name
    for module in modules if not module.endswith(".imagebuilder_validators")
    for name, item in inspect.getmembers(importlib.import_module(module), inspect.isclass)
    if issubclass(item, Validator) and item not in (Validator, AsyncValidator)
    and not name.startswith(("_", "AsyncTimed"))
}
groups = (ours.AWS_ALONE, ours.CONFIGURATION, ours.INSTANCE_TYPES, ours.SITE)
once = len(ours.VALIDATORS) == sum(map(len, groups))
print(json.dumps([sorted(found), sorted(ours.VALIDATORS), once]), flush=True)
os._exit(0)
"""


@pytest.fixture(scope="module")
def pcluster(root: Path) -> Pcluster:
    return Pcluster(root / ".venv-pcluster", os.environ)


@pytest.fixture(scope="module")
def shipped(root: Path) -> dict[str, ComposedCluster]:
    return compose_repository(root)


@pytest.fixture(scope="module")
def validations(
    pcluster: Pcluster,
    shipped: dict[str, ComposedCluster],
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Validation]:
    """Return the judgement of the shipped clusters and of all those of this module."""
    clusters = dict(shipped)
    for name, (base, change) in _OF_SITE.items():
        configuration = copy.deepcopy(dict(shipped[base].configuration))
        change(configuration)
        clusters[name] = dataclasses.replace(shipped[base], configuration=configuration)
    folder = tmp_path_factory.mktemp("native")
    for name, change in _NATIVES.items():
        configuration = copy.deepcopy(_NATIVE)
        change(configuration)
        path = folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(configuration, sort_keys=False))
        clusters[name] = read_native(path)
    return validate_clusters(pcluster, clusters)


def found(validation: Validation, rule: str) -> list[tuple[str, str]]:
    """Return path and message of the findings of a rule."""
    return [(item.path, item.message) for item in validation.findings if item.rule == rule]


def one(validation: Validation, rule: str) -> Finding:
    (finding,) = [item for item in validation.findings if item.rule == rule]
    return finding


def unchecked(validation: Validation) -> dict[str, list[str]]:
    """Return the reasons for which rules were not checked, by rule."""
    reasons: dict[str, list[str]] = {}
    for item in validation.not_checked:
        reasons.setdefault(item.rule, []).append(item.reason)
    return reasons


def test_the_shipped_clusters_have_nothing_that_is_wrong_or_doubtful(
    shipped: dict[str, ComposedCluster], validations: dict[str, Validation]
) -> None:
    assert sorted(shipped) == ["sandbox-eco", "sandbox-economy-hpc", "ws-eco", "ws-eco-login"]
    for name in shipped:
        assert [item for item in validations[name].findings if item.level is not Level.INFO] == []


def test_what_is_not_checked_of_a_made_site_is_only_what_aws_alone_knows(
    validations: dict[str, Validation],
) -> None:
    assert unchecked(validations["sandbox-economy-hpc"]) == {
        rule: ["quotas, capacity and the permission to launch, which AWS alone knows"]
        for rule in ("ComputeResourceLaunchTemplateValidator", "HeadNodeLaunchTemplateValidator")
    }


def test_what_the_schema_refuses_is_told_with_path_line_and_meant_key(
    root: Path, validations: dict[str, Validation]
) -> None:
    text = (root / "cluster_configs" / "eco.yaml").read_text().splitlines()
    findings = {item.path: item for item in validations["schema"].findings if item.rule == "Schema"}
    assert {path: item.message for path, item in findings.items()} == {
        "HeadNode.InstanceTyp": "Unknown field. Did you mean InstanceType?",
        "HeadNode.Imds.Secure": "Unknown field. Did you mean Secured?",
        "Scheduling.SlurmQueues[0].ComputeResources[0].MaxCount": "Not a valid integer.",
    }
    line = findings["Scheduling.SlurmQueues[0].ComputeResources[0].MaxCount"].line
    assert line is not None
    assert text[line - 1].strip() == "MaxCount: 3"
    assert "Validators" in unchecked(validations["schema"])


def test_a_refusal_below_a_section_on_which_the_schema_fails_is_told(
    validations: dict[str, Validation],
) -> None:
    section = "Scheduling.SlurmQueues[0].ComputeResources[0].Instances[2]"
    assert sorted(found(validations["typo in instances"], "Schema")) == [
        (f"{section}.InstanceTyp", "Unknown field. Did you mean InstanceType?"),
        (f"{section}.InstanceType", "Missing data for required field."),
    ]


def test_numbers_are_texts_in_a_site_because_cloudformation_delivers_them_so(
    validations: dict[str, Validation],
) -> None:
    assert found(validations["number in tag"], "Schema") == []
    assert found(validations["native number in tag"], "Schema") == [
        ("Tags[0].Value", "Not a valid string.")
    ]


def test_a_subnet_that_is_not_the_site_s_is_in_another_vpc(
    validations: dict[str, Validation],
) -> None:
    finding = one(validations["other subnet"], "SubnetsValidator")
    assert "is not in VPC" in finding.message
    assert finding.level is Level.ERROR
    # The subnet stands behind a reference, and the finding on the reference's line.
    assert finding.line is not None


def test_an_instance_type_of_an_unknown_family_is_neither_passed_nor_failed(
    validations: dict[str, Validation],
) -> None:
    validation = validations["unknown family"]
    assert not validation.failed
    reasons = unchecked(validation)
    for rule in ("InstanceTypeBaseAMICompatibleValidator", "InstancesCPUValidator"):
        assert any("z99.large" in reason and "moto" in reason for reason in reasons[rule])


def test_a_size_that_a_known_family_does_not_have_is_refused(
    validations: dict[str, Validation],
) -> None:
    finding = one(validations["unknown size"], "InstanceTypeBaseAMICompatibleValidator")
    assert finding.message == "The instance type 'm6i.3xlarge' is not supported."
    assert finding.path.endswith("SlurmQueues[0].ComputeResources[0].Instances[0].InstanceType")


def test_the_second_of_two_equal_names_is_named(validations: dict[str, Validation]) -> None:
    finding = one(validations["repeated queue"], "DuplicateNameValidator")
    assert finding.path == "Scheduling.SlurmQueues[1].Name"


def test_a_short_name_that_a_compute_resource_shares_is_found_at_the_queue(
    validations: dict[str, Validation],
) -> None:
    finding = one(validations["repeated short name"], "DuplicateNameValidator")
    assert finding.path == "Scheduling.SlurmQueues[1].Name"


def test_remote_desktop_without_a_gpu_is_a_remark_on_its_section(
    validations: dict[str, Validation],
) -> None:
    assert ("HeadNode.Dcv", True) in [
        (path, "GPU" in message)
        for path, message in found(validations["remote desktop"], "DcvValidator")
    ]


def test_a_reference_in_a_native_configuration_is_told_as_such(
    validations: dict[str, Validation],
) -> None:
    finding = one(validations["references"], "Schema")
    assert finding.path == "HeadNode.Networking.SubnetId"
    assert finding.advice.startswith("Only an environment resolves references")


def test_a_finding_on_the_root_volume_of_a_queue_stands_at_its_size(
    root: Path, validations: dict[str, Validation]
) -> None:
    finding = one(validations["small root"], "RootVolumeSizeValidator")
    volume = "ComputeSettings.LocalStorage.RootVolume.Size"
    assert finding.path == f"Scheduling.SlurmQueues[1].{volume}"
    text = (root / "cluster_configs" / "eco.yaml").read_text().splitlines()
    assert finding.line is not None
    assert text[finding.line - 1].strip() == "Size: 60"
    assert finding.line > text.index("    - Name: spot")


def test_what_a_validator_found_before_it_asked_is_kept(
    validations: dict[str, Validation],
) -> None:
    validation = validations["placement group"]
    finding = one(validation, "PlacementGroupNamingValidator")
    assert "Id cannot be set" in finding.message
    assert unchecked(validation)["PlacementGroupNamingValidator"] == [
        "whether placement group mine exists"
    ]


@pytest.mark.parametrize("name", ["script", "script again"])
def test_an_address_is_not_fetched_and_not_passed(
    name: str, validations: dict[str, Validation]
) -> None:
    assert found(validations[name], "UrlValidator") == []
    assert unchecked(validations[name])["UrlValidator"] == [
        "whether https://nowhere.invalid/start.sh answers"
    ]


def test_an_asynchronous_validator_s_finding_has_its_place(
    validations: dict[str, Validation],
) -> None:
    ((path, message),) = found(validations["wrong scheme"], "UrlValidator")
    assert path == "HeadNode.CustomActions.OnNodeConfigured.Script"
    assert "is not a valid URL" in message


def test_a_file_system_that_nobody_states_is_assumed_and_told(
    validations: dict[str, Validation],
) -> None:
    validation = validations["unstated file system"]
    assert found(validation, "EfsIdValidator") == []
    assert any("mount targets" in reason for reason in unchecked(validation)["EfsIdValidator"])


def test_a_policy_that_aws_does_not_have_is_refused(validations: dict[str, Validation]) -> None:
    finding = one(validations["misspelt policy"], "AdditionalIamPolicyValidator")
    assert finding.message.endswith("AmazonS3FullAcces was not found.")
    assert finding.path == "HeadNode.Iam.AdditionalIamPolicies[0].Policy"


def test_of_a_native_configuration_nothing_that_is_assumed_counts_as_passed(
    validations: dict[str, Validation],
) -> None:
    validation = validations["native"]
    assert not validation.failed
    assert {"ClusterNameValidator", "KeyPairValidator", "RootVolumeSizeValidator"} <= set(
        unchecked(validation)
    )


def test_several_subnets_are_several_zones_in_a_native_configuration_too(
    validations: dict[str, Validation],
) -> None:
    finding = one(validations["native placement group"], "MultiAzPlacementGroupValidator")
    assert finding.level is Level.ERROR


def test_a_reservation_is_judged_as_far_as_the_configuration_goes(
    validations: dict[str, Validation],
) -> None:
    reasons = unchecked(validations["native reservation"])
    assert "CapacityReservationValidator" in reasons
    assert not validations["native reservation"].failed


def test_every_finding_names_its_cluster_its_file_and_what_to_do(
    validations: dict[str, Validation],
) -> None:
    for name, validation in validations.items():
        for finding in validation.findings:
            assert finding.cluster == name
            assert finding.file.endswith(".yaml")
            assert finding.line is not None
            assert finding.advice


def test_every_validator_of_the_library_is_classified(pcluster: Pcluster, root: Path) -> None:
    second = Pcluster(pcluster.folder, {**os.environ, "PYTHONPATH": str(root)})
    done = second.run_python("-c", _LIST_VALIDATORS)
    assert done.stdout, done.stderr
    known, classified, once = json.loads(done.stdout)
    assert known == classified
    assert once, "a validator is in two classes"


def test_the_second_environment_holds_the_version_that_the_stacks_deploy(
    pcluster: Pcluster,
) -> None:
    from clusterbox.site.names import PARALLELCLUSTER_VERSION

    done = pcluster.run_python("-c", "import pcluster.utils as u; print(u.get_installed_version())")
    assert done.stdout.strip() == PARALLELCLUSTER_VERSION


def test_an_environment_that_is_not_installed_says_what_to_do(
    tmp_path: Path, shipped: dict[str, ComposedCluster]
) -> None:
    with pytest.raises(PclusterError, match="run `make setup`"):
        validate_clusters(Pcluster(tmp_path, os.environ), shipped)
