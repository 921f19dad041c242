from __future__ import annotations

import os
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import NamedTuple

import pytest

from clusterbox.clusters.compare import Comparison, compare_clusters
from clusterbox.clusters.update_policies import UPDATE_POLICIES, Need, Verdict
from clusterbox.pcluster import Pcluster
from tests.clusters.comparison_base import BASE, Config, add, as_delivered, drop, edited, put, turn

LIVE, LOGIN, DRAINS = Verdict.LIVE, Verdict.STOPS_LOGIN, Verdict.DRAINS
TERMINATES, STOPS, REPLACES = Verdict.TERMINATES, Verdict.STOPS, Verdict.REPLACES
SETTINGS = ("Scheduling", "SlurmSettings")
ECO = ("Scheduling", "SlurmQueues", 0)
HPC = ("Scheduling", "SlurmQueues", 1)
SMALL = (*ECO, "ComputeResources", 0)
POOL = ("LoginNodes", "Pools", 0)
STRATEGY = (*SETTINGS, "QueueUpdateStrategy")
MANAGED_EBS = {
    "Name": "scratch",
    "StorageType": "Ebs",
    "MountDir": "/scratch",
    "EbsSettings": {"Size": 100},
}
EXISTING_FSX = {
    "Name": "fast",
    "StorageType": "FsxLustre",
    "MountDir": "/fast",
    "FsxLustreSettings": {"FileSystemId": "fs-00000000000000002"},
}
MANAGED_FSX = {
    "Name": "lustre",
    "StorageType": "FsxLustre",
    "MountDir": "/lustre",
    "FsxLustreSettings": {"StorageCapacity": 1200},
}
COMPRESSED_FSX = {
    **MANAGED_FSX,
    "FsxLustreSettings": {"StorageCapacity": 1200, "DataCompressionType": "LZ4"},
}
QUEUE = {
    "Name": "new",
    "ComputeResources": [{"Name": "one", "InstanceType": "t3.large"}],
    "Networking": {"SubnetIds": ["subnet-00000000000000001"]},
}
DIRECTORY = {
    "DomainName": "dc=example,dc=org",
    "DomainAddr": "ldaps://ldap.example.org",
    "PasswordSecretArn": "arn:aws:secretsmanager:us-west-2:111122223333:secret:ldap",
    "DomainReadOnlyUser": "cn=reader,dc=example,dc=org",
}
PROFILE = "arn:aws:iam::111122223333:instance-profile/nodes"
WITH_PROFILE = edited(put(*HPC, "Iam", value={"InstanceProfile": f"{PROFILE}-old"}))
WITH_LUSTRE = edited(add("SharedStorage", item=MANAGED_FSX))
NO_LOGIN = edited(drop("LoginNodes"))


class Case(NamedTuple):
    """One change: the new configuration, and what is expected of it."""

    head: Config
    verdict: Verdict
    needs: tuple[Need, ...] = ()
    base: Config = BASE


_STOP, _ZERO = Need.FLEET_STOPPED, Need.LOGIN_TO_ZERO
_NEW, _REVERT, _TERM, _DRAIN = Need.NEW_CLUSTER, Need.REVERT, Need.TERMINATE, Need.DRAIN

CASES = {
    # Size of queues
    "MaxCount raised": Case(edited(put(*SMALL, "MaxCount", value=5)), LIVE),
    "MaxCount lowered": Case(edited(put(*SMALL, "MaxCount", value=2)), TERMINATES, (_TERM,)),
    "MaxCount lowered with TERMINATE": Case(
        edited(put(*SMALL, "MaxCount", value=2), put(*STRATEGY, value="TERMINATE")), TERMINATES
    ),
    "MinCount raised alone": Case(edited(put(*SMALL, "MinCount", value=2)), TERMINATES, (_TERM,)),
    "MinCount raised with MaxCount": Case(
        edited(put(*SMALL, "MinCount", value=2), put(*SMALL, "MaxCount", value=4)), LIVE
    ),
    "queue added": Case(edited(add("Scheduling", "SlurmQueues", item=QUEUE)), LIVE),
    "queue removed": Case(edited(drop(*HPC)), TERMINATES, (_TERM,)),
    "queue renamed": Case(edited(put(*HPC, "Name", value="mpi")), TERMINATES, (_TERM,)),
    "compute resource renamed": Case(
        edited(put(*SMALL, "Name", value="little")), TERMINATES, (_TERM,)
    ),
    # Nodes of queues
    "instance type added": Case(
        edited(add(*SMALL, "Instances", item={"InstanceType": "m6i.2xlarge"})), LIVE
    ),
    "instance type removed": Case(edited(drop(*SMALL, "Instances", 1)), STOPS, (_STOP,)),
    "single instance type changed": Case(
        edited(put(*HPC, "ComputeResources", 0, "InstanceType", value="c7i.48xlarge")),
        STOPS,
        (_STOP,),
    ),
    "Spot with DRAIN": Case(edited(put(*ECO, "CapacityType", value="SPOT")), DRAINS),
    "Spot with TERMINATE": Case(
        edited(put(*ECO, "CapacityType", value="SPOT"), put(*STRATEGY, value="TERMINATE")),
        TERMINATES,
    ),
    "Spot with COMPUTE_FLEET_STOP": Case(
        edited(put(*ECO, "CapacityType", value="SPOT"), put(*STRATEGY, value="COMPUTE_FLEET_STOP")),
        DRAINS,
        (_DRAIN,),
    ),
    "Spot without SlurmSettings": Case(
        edited(put(*ECO, "CapacityType", value="SPOT"), drop(*SETTINGS)), STOPS, (_STOP,)
    ),
    "image of a queue": Case(
        edited(put(*ECO, "Image", "CustomAmi", value="ami-00000000000000002")), DRAINS
    ),
    "root volume of a queue": Case(
        edited(put(*ECO, "ComputeSettings", "LocalStorage", "RootVolume", "Size", value=90)), DRAINS
    ),
    "security group of a queue": Case(
        edited(put(*ECO, "Networking", "SecurityGroups", value=["sg-00000000000000003"])), LIVE
    ),
    # The library asks the policy of the whole section where it is new.
    "section Iam of a queue": Case(edited(put(*ECO, "Iam", value={"InstanceProfile": PROFILE})), LIVE),
    "instance profile of a queue": Case(
        edited(put(*HPC, "Iam", "InstanceProfile", value=PROFILE), base=WITH_PROFILE),
        STOPS,
        (_STOP,),
        WITH_PROFILE,
    ),
    "node priority": Case(edited(put(*SMALL, "DynamicNodePriority", value=500)), LIVE),
    # Networks of queues
    "subnet added": Case(
        edited(add(*HPC, "Networking", "SubnetIds", item="subnet-00000000000000002")), LIVE
    ),
    "subnet removed": Case(edited(drop(*ECO, "Networking", "SubnetIds", 1)), DRAINS),
    "subnets in another order": Case(edited(turn(*ECO, "Networking", "SubnetIds")), LIVE),
    "subnet removed beside a managed Lustre": Case(
        edited(drop(*ECO, "Networking", "SubnetIds", 1), base=WITH_LUSTRE),
        REPLACES,
        (_NEW,),
        WITH_LUSTRE,
    ),
    "managed placement group given up": Case(
        edited(put(*HPC, "Networking", "PlacementGroup", "Enabled", value=False)), STOPS, (_STOP,)
    ),
    "placement group added": Case(
        edited(put(*ECO, "Networking", "PlacementGroup", value={"Enabled": True})), DRAINS
    ),
    # Slurm
    "ScaledownIdletime": Case(
        edited(put(*SETTINGS, "ScaledownIdletime", value=5)), STOPS, (_STOP,)
    ),
    "memory based scheduling": Case(
        edited(put(*SETTINGS, "EnableMemoryBasedScheduling", value=True)), STOPS, (_STOP,)
    ),
    "custom Slurm settings": Case(
        edited(put(*SETTINGS, "CustomSlurmSettings", value=[{"MaxJobCount": 500}])), LIVE
    ),
    "DNS": Case(
        edited(put(*SETTINGS, "Dns", value={"DisableManagedDns": True})), REPLACES, (_NEW,)
    ),
    "munge key": Case(
        edited(
            put(
                *SETTINGS, "MungeKeySecretArn",
                value="arn:aws:secretsmanager:us-west-2:111122223333:secret:munge",
            )
        ),
        STOPS,
        (_STOP, _ZERO),
    ),
    # Head node and the whole cluster
    "image": Case(
        edited(put("Image", "CustomAmi", value="ami-00000000000000002")), REPLACES, (_NEW,)
    ),
    "head node's type": Case(
        edited(put("HeadNode", "InstanceType", value="t3.large")), REPLACES, (_NEW,)
    ),
    "head node's security groups": Case(
        edited(put("HeadNode", "Networking", "SecurityGroups", value=["sg-00000000000000003"])),
        LIVE,
    ),
    "head node's start script": Case(
        edited(
            put("HeadNode", "CustomActions", "OnNodeConfigured", value={"Script": "s3://results/a"})
        ),
        REPLACES,
        (_NEW,),
    ),
    "head node's update script": Case(
        edited(put("HeadNode", "CustomActions", "OnNodeUpdated", value={"Script": "s3://results/a"})),
        LIVE,
    ),
    "tag": Case(edited(put("Tags", 0, "Value", value="other")), LIVE),
    "bucket": Case(edited(put("CustomS3Bucket", value="other-bucket")), REPLACES, (_REVERT,)),
    "log retention": Case(
        edited(put("Monitoring", "Logs", "CloudWatch", "RetentionInDays", value=90)), LIVE
    ),
    "directory service": Case(
        edited(put("DirectoryService", value=DIRECTORY)), STOPS, (_STOP, _ZERO)
    ),
    "directory service without login nodes": Case(
        edited(put("DirectoryService", value=DIRECTORY), base=NO_LOGIN), STOPS, (_STOP,), NO_LOGIN
    ),
    "chef attributes": Case(
        edited(put("DevSettings", value={"Cookbook": {"ExtraChefAttributes": '{"cluster": {"a": 1}}'}})),
        LIVE,
    ),
    # Login nodes
    "login pool smaller": Case(edited(put(*POOL, "Count", value=0)), LIVE),
    "login pool's type": Case(edited(put(*POOL, "InstanceType", value="t3.large")), LOGIN, (_ZERO,)),
    "login pool added": Case(
        edited(add("LoginNodes", "Pools", item={**BASE["LoginNodes"]["Pools"][0], "Name": "two"})),
        LIVE,
    ),
    "login nodes removed": Case(edited(drop("LoginNodes")), LOGIN, (_ZERO,)),
    "login nodes added": Case(BASE, LIVE, (), NO_LOGIN),
    # File systems
    "existing file system mounted": Case(edited(add("SharedStorage", item=EXISTING_FSX)), LIVE),
    "existing file system unmounted": Case(edited(drop("SharedStorage", 0)), LIVE),
    "existing file system replaced": Case(
        edited(put("SharedStorage", 0, "EfsSettings", "FileSystemId", value="fs-00000000000000009")),
        REPLACES,
        (_NEW,),
    ),
    "mount point changed": Case(
        edited(put("SharedStorage", 0, "MountDir", value="/other")), STOPS, (_STOP, _ZERO)
    ),
    "setting of a file system removed": Case(
        WITH_LUSTRE, LIVE, (), edited(add("SharedStorage", item=COMPRESSED_FSX))
    ),
    "own file system removed": Case(BASE, DRAINS, (_ZERO,), WITH_LUSTRE),
    "own volume added": Case(edited(add("SharedStorage", item=MANAGED_EBS)), DRAINS, (_ZERO,)),
    "home moved": Case(
        edited(add("SharedStorage", item={**EXISTING_FSX, "MountDir": "/home"})),
        REPLACES,
        (_REVERT,),
    ),
    "type of a file system changed": Case(
        edited(drop("SharedStorage", 0), add("SharedStorage", item={**EXISTING_FSX, "Name": "data"})),
        REPLACES,
        (_NEW,),
    ),
}  # fmt: skip


_REORDERED = edited(turn(*SMALL, "Instances"), turn("Scheduling", "SlurmQueues"))
# Differences of form, which are no change.
FORMS = {
    "texts": as_delivered(BASE),
    "order": _REORDERED,
    "keys": dict(reversed(BASE.items())),
    "order of texts": as_delivered(_REORDERED),
    "empty section": edited(put("Monitoring", "Dashboards", value={})),
}
_DEFAULT, _ORDER = "ParallelCluster's default", "the same values in another order"
# Single changes, and what their note says, None where there is none.
NOTES: dict[str, tuple[Config, str | None]] = {
    "Dcv off": (edited(put("HeadNode", "Dcv", value={"Enabled": False})), _DEFAULT),
    "Dcv on": (edited(put("HeadNode", "Dcv", value={"Enabled": True})), None),
    "threads": (
        edited(put("HeadNode", "DisableSimultaneousMultithreading", value=False)),
        _DEFAULT,
    ),
    "root volume": (
        edited(put("HeadNode", "LocalStorage", "RootVolume", value={"Encrypted": True})),
        _DEFAULT,
    ),
    "plain root volume": (
        edited(put("HeadNode", "LocalStorage", "RootVolume", value={"Encrypted": False})),
        None,
    ),
    "monitoring left out": (edited(drop("Monitoring", "DetailedMonitoring")), _DEFAULT),
    "logs left out": (edited(drop("Monitoring", "Logs")), None),
    "Lambda subnets": (
        edited(turn("DeploymentSettings", "LambdaFunctionsVpcConfig", "SubnetIds")),
        _ORDER,
    ),
}
_ISOLATED = edited(put("Region", value="us-iso-east-1"))
_NO_NODES = edited(put(*POOL, "Count", value=0))
_BROKEN = edited(put("HeadNode", "Colour", value="red"))
_SMALLER = put(*SMALL, "MaxCount", value=2)
_SPOT = put(*HPC, "CapacityType", value="SPOT")
OTHERS = {
    **{name: (BASE, head) for name, head in FORMS.items()},
    **{name: (BASE, head) for name, (head, _) in NOTES.items()},
    "larger, as texts": (BASE, as_delivered(edited(put(*SMALL, "MaxCount", value=5)))),
    "strategy alone": (BASE, edited(put(*STRATEGY, value="TERMINATE"))),
    "smaller and Spot": (BASE, edited(_SMALLER, _SPOT)),
    "idle time and Spot": (BASE, edited(put(*SETTINGS, "ScaledownIdletime", value=5), _SPOT)),
    "isolated": (_ISOLATED, edited(put("Tags", 0, "Value", value="other"), base=_ISOLATED)),
    "no login nodes": (
        _NO_NODES,
        edited(put(*POOL, "InstanceType", value="t3.large"), base=_NO_NODES),
    ),
    "new is broken": (BASE, _BROKEN),
    "old is of an older schema": (edited(put("Image", "Os", value="alinux2")), BASE),
    "old is broken": (_BROKEN, BASE),
    "a list for a section": (BASE, {**BASE, "Scheduling": ["slurm"]}),
}


@pytest.fixture(scope="module")
def pcluster(root: Path) -> Pcluster:
    return Pcluster(root / ".venv-pcluster", os.environ)


@pytest.fixture(scope="module")
def compared(pcluster: Pcluster) -> dict[str, Comparison]:
    """Return the comparison of every case, made in one process."""
    pairs = {name: (case.base, case.head) for name, case in CASES.items()}
    return compare_clusters(pcluster, {**pairs, **OTHERS})


@pytest.mark.integration
@pytest.mark.parametrize("name", CASES)
def test_a_change_has_the_verdict_that_the_library_gives_it(
    name: str, compared: dict[str, Comparison]
) -> None:
    found, case = compared[name], CASES[name]
    worst = found.changes[0]
    assert (found.verdict, worst.needs, found.allowed) == (
        case.verdict,
        case.needs,
        not case.needs,
    )
    assert bool(found.steps) == bool(case.needs)


@pytest.mark.integration
def test_a_change_needs_only_what_its_policy_is_classified_with(
    compared: dict[str, Comparison],
) -> None:
    for comparison in compared.values():
        for change in comparison.changes:
            allowed = set(UPDATE_POLICIES[change.policy].needs)
            assert set(change.needs) <= allowed, (change.path, change.needs)


@pytest.mark.integration
def test_tags_do_not_change_in_an_isolated_region(compared: dict[str, Comparison]) -> None:
    assert compared["isolated"].verdict is REPLACES


@pytest.mark.integration
def test_what_running_jobs_notice_is_said(compared: dict[str, Comparison]) -> None:
    assert compared["Spot with DRAIN"].jobs == (
        "Running jobs in the queue eco finish; their nodes take no new job and are replaced as"
        " soon as they are idle. Slurm's controller restarts: its commands fail for some seconds."
    )
    assert compared["Spot with TERMINATE"].jobs.startswith(
        "Running jobs in the queue eco end at once, with QueueUpdateStrategy: TERMINATE;"
    )
    assert "on the nodes that go" in compared["MaxCount lowered"].jobs
    assert compared["own volume added"].jobs == (
        "Running jobs in every queue finish; their nodes take no new job and are replaced as soon"
        " as they are idle. Users on the login nodes login are logged out."
    )
    assert "ends every running job" in compared["ScaledownIdletime"].jobs
    assert compared["existing file system unmounted"].jobs == (
        "Running jobs go on. Jobs that use /data lose it."
    )
    assert compared["tag"].jobs == "Running jobs go on."
    assert compared["setting of a file system removed"].jobs == "Running jobs go on."


@pytest.mark.integration
def test_files_that_an_update_deletes_are_told(compared: dict[str, Comparison]) -> None:
    comparison = compared["own file system removed"]
    deleted = "ParallelCluster deletes lustre and all files on it, by DeletionPolicy: Delete"
    assert comparison.jobs.endswith(f"Jobs that use /lustre lose it. {deleted}.")
    assert comparison.changes[0].note == deleted


@pytest.mark.integration
def test_the_steps_are_in_the_order_of_doing(compared: dict[str, Comparison]) -> None:
    assert [step.split(",")[0].split(":")[0] for step in compared["munge key"].steps] == [
        "Deploy the old configuration with Count",
        "Stop the compute fleet",
        "Deploy the new configuration",
        "Start the compute fleet",
        "Deploy Count of the login pools as wanted",
    ]
    assert compared["MaxCount lowered"].steps[0] == (
        "Set Scheduling.SlurmSettings.QueueUpdateStrategy: TERMINATE in the new configuration"
    )


@pytest.mark.integration
def test_a_change_names_the_library_s_path_and_the_place_in_the_new_configuration(
    compared: dict[str, Comparison],
) -> None:
    raised = compared["MaxCount raised"].changes[0]
    assert raised.path == "Scheduling.SlurmQueues[eco].ComputeResources[small].MaxCount"
    assert raised.location == (*SMALL, "MaxCount")
    assert (raised.old, raised.new, raised.policy) == (3, 5, "RESIZE_UPDATE_STRATEGY_ON_REMOVE")
    removed = compared["queue removed"].changes[0]
    assert removed.path == "Scheduling.SlurmQueues[hpc]"
    assert removed.location == ("Scheduling", "SlurmQueues")
    assert removed.new is None


@pytest.mark.integration
def test_a_renamed_queue_is_told_as_such(compared: dict[str, Comparison]) -> None:
    for change in compared["queue renamed"].changes:
        assert (
            change.note == "renamed? hpc -> mpi: ParallelCluster removes the one and adds the other"
        )
    for change in compared["queue removed"].changes:
        assert change.note is None


@pytest.mark.integration
def test_a_change_on_which_the_library_s_own_check_fails_is_not_allowed(
    compared: dict[str, Comparison],
) -> None:
    change = compared["mount point changed"].changes[0]
    assert change.reason is not None
    assert change.reason.startswith("ParallelCluster's own check fails on this change")


@pytest.mark.integration
@pytest.mark.parametrize("name", FORMS)
def test_a_difference_of_form_is_no_change(name: str, compared: dict[str, Comparison]) -> None:
    assert compared[name].verdict is Verdict.UNCHANGED


@pytest.mark.integration
def test_a_change_is_found_between_texts_and_numbers(compared: dict[str, Comparison]) -> None:
    (change,) = compared["larger, as texts"].changes
    assert (change.old, change.new, change.verdict) == (3, 5, Verdict.LIVE)


@pytest.mark.integration
@pytest.mark.parametrize("name", NOTES)
def test_a_default_or_an_order_that_makes_the_update_needless_is_told(
    name: str, compared: dict[str, Comparison]
) -> None:
    (change,) = compared[name].changes
    expected = NOTES[name][1]
    assert expected in (change.note or "") if expected else change.note is None


@pytest.mark.integration
def test_what_the_library_refuses_without_need_is_refused_here_too(
    compared: dict[str, Comparison],
) -> None:
    assert compared["Dcv off"].verdict is REPLACES
    assert compared["Lambda subnets"].verdict is REPLACES


@pytest.mark.integration
def test_the_strategy_alone_is_no_update(compared: dict[str, Comparison]) -> None:
    found = compared["strategy alone"]
    assert (found.verdict, found.allowed, found.steps) == (Verdict.UNCHANGED, True, ())
    assert "no update by itself" in (found.changes[0].note or "")


@pytest.mark.integration
def test_a_stricter_change_decides_what_the_others_do(compared: dict[str, Comparison]) -> None:
    """One change needs TERMINATE, so that the other's jobs end too."""
    found = compared["smaller and Spot"]
    assert {change.verdict for change in found.changes} == {TERMINATES}
    assert "in the queue hpc" in found.jobs
    assert compared["idle time and Spot"].verdict is STOPS


@pytest.mark.integration
def test_what_is_stopped_already_need_not_be_stopped(pcluster: Pcluster) -> None:
    idle = edited(put(*SETTINGS, "ScaledownIdletime", value=5))
    munge = CASES["munge key"].head
    stopped = compare_clusters(
        pcluster, {"idle": (BASE, idle), "munge": (BASE, munge)}, fleet_running=False
    )
    assert (stopped["idle"].verdict, stopped["idle"].allowed, stopped["idle"].steps) == (
        STOPS,
        True,
        (),
    )
    assert stopped["idle"].jobs == "No job runs while the compute fleet is stopped."
    assert stopped["munge"].changes[0].needs == (_ZERO,)
    both = compare_clusters(
        pcluster, {"munge": (BASE, munge)}, fleet_running=False, login_running=False
    )
    assert both["munge"].allowed


@pytest.mark.integration
def test_a_pool_without_nodes_is_stopped(compared: dict[str, Comparison]) -> None:
    assert compared["no login nodes"].verdict is LIVE


@pytest.mark.integration
def test_what_the_schema_refuses_is_a_problem_with_cluster_and_path(
    compared: dict[str, Comparison],
) -> None:
    names = ("new is broken", "old is broken", "a list for a section")
    assert {compared[name].verdict for name in names} == {Verdict.UNKNOWN}
    (problem,) = compared["new is broken"].problems
    assert (problem.file, problem.path) == (
        "new is broken, the new configuration",
        "HeadNode.Colour",
    )
    assert compared["old is broken"].problems[0].file == "old is broken, the old configuration"
    assert compared["a list for a section"].problems[0].path.startswith("Scheduling")


@pytest.mark.integration
def test_what_an_older_schema_had_is_told_with_what_replaces_it(
    compared: dict[str, Comparison],
) -> None:
    (problem,) = compared["old is of an older schema"].problems
    assert (problem.path, problem.file[-17:]) == ("Image.Os", "old configuration")
    assert "alinux2 was removed in ParallelCluster 3.16.0: set it to" in problem.message


@pytest.mark.integration
def test_aws_is_not_asked_with_the_caller_s_credentials(root: Path, tmp_path: Path) -> None:
    asked: list[str] = []

    class Aws(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(self.path)
            self.send_error(400)

    server = HTTPServer(("127.0.0.1", 0), Aws)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws" / "config").write_text(
        "[default]\naws_access_key_id = id\naws_secret_access_key = key\n"
        f"endpoint_url = http://127.0.0.1:{server.server_port}\n"
    )
    target = {"CapacityReservationId": "cr-00000000000000001"}
    reserved = edited(put(*SMALL, "CapacityReservationTarget", value=target))
    try:
        comparison = compare_clusters(
            Pcluster(root / ".venv-pcluster", {**os.environ, "HOME": str(tmp_path)}),
            {"one": (BASE, reserved)},
        )["one"]
    finally:
        server.shutdown()
        server.server_close()
    assert comparison.verdict is DRAINS
    assert asked == []


def test_added_removed_and_equal_clusters_need_no_library(tmp_path: Path) -> None:
    found = compare_clusters(
        Pcluster(tmp_path, {}), {"new": (None, BASE), "old": (BASE, None), "same": (BASE, BASE)}
    )
    assert [(name, one.verdict) for name, one in found.items()] == [
        ("new", Verdict.ADDED),
        ("old", Verdict.REMOVED),
        ("same", Verdict.UNCHANGED),
    ]
    assert "goes on running" in found["old"].jobs
    assert found["old"].steps == ("End the cluster with `clusterbox destroy ENV --cluster old`",)
