from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest

from clusterbox.clusters.older_schemas import explain_ini, explain_removed

_UNKNOWN = "Unknown field."
_MISSING = "Missing data for required field."
_INI = """# ParallelCluster 2
[global]
cluster_template = default
[cluster default]
base_os = alinux2
"""


@pytest.mark.parametrize(
    ("path", "configuration", "expected"),
    [
        (
            "Image.Os",
            {"Image": {"Os": "alinux2"}},
            "Os: alinux2 was removed in ParallelCluster 3.16.0: set it to alinux2023",
        ),
        ("Image.Os", {"Image": {"Os": "ubuntu2004"}}, "removed in ParallelCluster 3.14.0"),
        ("Image.Os", {"Image": {"Os": "centos7"}}, "removed in ParallelCluster 3.10.0"),
        ("Image.Os", {"Image": {"Os": "ubuntu1804"}}, "removed in ParallelCluster 3.7.0"),
        (
            "Scheduling.Scheduler",
            {"Scheduling": {"Scheduler": "awsbatch"}},
            "Scheduler: awsbatch was removed in ParallelCluster 3.16.0: set it to slurm",
        ),
        ("Scheduling.AwsBatchQueues", {}, "AwsBatchQueues was removed in ParallelCluster 3.16.0"),
        ("Scheduling.SchedulerSettings", {}, "removed in ParallelCluster 3.7.0"),
        (
            "LoginNodes.Pools[1].Ssh.KeyName",
            {},
            "KeyName was removed in ParallelCluster 3.15.0: delete it: login nodes take",
        ),
        ("HeadNode.LocalStorage.RootVolume.KmsKeyId", {}, "ParallelCluster 3.1.1"),
        (
            "Scheduling.SlurmQueues[2].ComputeSettings.LocalStorage.RootVolume.KmsKeyId",
            {},
            "default EBS key",
        ),
        ("Monitoring.Logs.CloudWatch.RetainOnDeletion", {}, "DeletionPolicy: Retain"),
        ("Iam.Role", {}, "Iam.Roles.LambdaFunctionsRole"),
        ("master_instance_type", {}, "its place is taken by HeadNode.InstanceType"),
        ("cluster.queue_settings", {}, "Scheduling.SlurmQueues"),
        ("vpc public", {}, "vpc public is a section of ParallelCluster 2.x"),
        ("cluster", {}, "`pcluster3-config-converter -c FILE` converts such a file"),
    ],
)
def test_a_removed_key_or_value_is_told_with_its_version_and_what_replaces_it(
    path: str, configuration: dict[str, Any], expected: str
) -> None:
    explained = explain_removed(path, _UNKNOWN, configuration)
    assert explained is not None
    assert expected in explained


def test_missing_queues_are_explained_by_those_of_another_scheduler() -> None:
    configuration = {"Scheduling": {"Scheduler": "awsbatch", "AwsBatchQueues": []}}
    explained = explain_removed("Scheduling.SlurmQueues", _MISSING, configuration)
    assert explained is not None
    assert "AwsBatchQueues was removed in ParallelCluster 3.16.0" in explained


def test_missing_sections_are_explained_by_keys_of_the_format_before() -> None:
    explained = explain_removed("HeadNode", _MISSING, {"global": {}, "cluster default": {}})
    assert explained is not None
    assert "global, cluster default are keys of ParallelCluster 2.x" in explained


@pytest.mark.parametrize(
    ("path", "message", "configuration"),
    [
        ("HeadNode.InstancesType", _UNKNOWN, {}),
        ("Image.Os", "Must be one of: alinux2023.", {"Image": {"Os": "windows"}}),
        ("Image.Os", "Must be one of: alinux2023.", {"Image": ["alinux2"]}),
        ("Scheduling.SlurmQueues", _MISSING, {"Scheduling": {"Scheduler": "slurm"}}),
        ("Scheduling.SlurmQueues", _MISSING, {"Scheduling": None}),
        ("HeadNode", _MISSING, {"Image": {}}),
        ("HeadNode.Ssh.KeyName", "Not a valid string.", {}),
    ],
)
def test_mistakes_that_no_older_schema_explains_are_left_to_the_schema(
    path: str, message: str, configuration: dict[str, Any]
) -> None:
    assert explain_removed(path, message, configuration) is None


def test_an_ini_file_is_recognised() -> None:
    explained = explain_ini(_INI)
    assert explained is not None
    assert explained.startswith("is an INI file of ParallelCluster 2.x ([global])")
    assert explain_ini("Region: us-west-2\nTags: [aws]\n") is None


def _schema_keys(root: Path) -> set[str]:
    """Return the keys of all sections of the installed library's schema, in its spelling."""
    (folder,) = root.glob(".venv-pcluster/lib/python3*/site-packages/pcluster/schemas")
    keys = set()
    for name in ("cluster_schema.py", "common_schema.py"):
        text = (folder / name).read_text(encoding="utf-8")
        for attribute in re.findall(r"^    (\w+) = (?:fields|OneOrMany)", text, re.MULTILINE):
            keys.add("".join(part.capitalize() for part in attribute.split("_")))
        keys |= set(re.findall(r'data_key="(\w+)"', text))
    return keys


@pytest.mark.integration
@pytest.mark.parametrize(
    "key",
    ["AwsBatchQueues", "AwsBatchSettings", "SchedulerQueues", "SchedulerSettings", "Throughout"],
)
def test_what_is_called_removed_is_not_in_the_installed_schema(root: Path, key: str) -> None:
    keys = _schema_keys(root)
    assert "SlurmQueues" in keys
    assert key not in keys


@pytest.mark.integration
def test_what_replaces_a_removed_operating_system_is_what_the_library_supports(root: Path) -> None:
    (file,) = root.glob(".venv-pcluster/lib/python3*/site-packages/pcluster/constants.py")
    supported = next(
        ast.literal_eval(node.value)
        for node in ast.parse(file.read_text(encoding="utf-8")).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "SUPPORTED_OSES"
    )
    explained = explain_removed("Image.Os", "", {"Image": {"Os": "alinux2"}})
    assert explained is not None
    named = re.findall(r"[a-z]+[0-9]+", explained.partition("set it to")[2])
    assert sorted(named) == sorted(supported)
