"""A site that makes its own VPC and its own boundary is deployed for real, and removed."""

from __future__ import annotations

import json
import os
import subprocess
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from clusterbox.clusters.composed import compose_repository
from clusterbox.deployment.inventory import Item, fetch_stack_states, find_leftover_stacks
from clusterbox.deployment.progress import Progress
from clusterbox.deployment.site import Site
from clusterbox.deployment.targets import find_embedded
from clusterbox.embedded.slurm import Options, SlurmCluster
from clusterbox.site.load import Repository
from clusterbox.slurm import SlurmError
from tests.slurm_cluster import needs_slurm

pytestmark = pytest.mark.integration

BUCKET = "sandbox-123456789012-parallelcluster"


def open_site(repository: Path) -> Site:
    return Site(repository, Repository(repository).load_environment("sandbox"), Progress())


def agree(_question: str) -> bool:
    return True


def of_kind(items: list[Item], kind: str) -> list[Item]:
    return [item for item in items if item.kind == kind]


@pytest.fixture(scope="module")
def items(repository: Path) -> list[Item]:
    return open_site(repository).deploy("embedded", agree).items


def test_the_vpc_has_the_ranges_and_subnets_of_the_address_plan(items: list[Item]) -> None:
    (vpc,) = of_kind(items, "vpc")
    assert vpc.detail == "10.12.64.0/21, 10.12.72.0/26"
    assert {item.name: item.detail for item in of_kind(items, "subnet")} == {
        "sandbox-compute.a": "10.12.64.0/22 in us-west-2a",
        "sandbox-compute.b": "10.12.68.0/23 in us-west-2b",
        "sandbox-compute.c": "10.12.70.0/23 in us-west-2c",
        "sandbox-public.a": "10.12.72.0/28 in us-west-2a",
        "sandbox-public.b": "10.12.72.16/28 in us-west-2b",
    }


def test_every_role_carries_the_boundary_that_the_site_made_the_bootstrap_s_included(
    items: list[Item],
) -> None:
    roles = {item.name: item.detail for item in of_kind(items, "role")}
    assert set(roles.values()) == {"boundary clusterbox-sandbox-boundary"}
    assert any("CustomVpcRestrictDefaultSG" in name for name in roles)
    assert "cdk-hnb659fds-cfn-exec-role-123456789012-us-west-2" in roles


def test_the_default_security_group_of_the_vpc_lets_nothing_in_or_out(
    repository: Path, items: list[Item]
) -> None:
    target = find_embedded(repository, open_site(repository).environment)
    assert target is not None
    (vpc,) = of_kind(items, "vpc")
    (group,) = target.client("ec2").describe_security_groups(
        Filters=[
            {"Name": "vpc-id", "Values": [vpc.id]},
            {"Name": "group-name", "Values": ["default"]},
        ]
    )["SecurityGroups"]
    assert (group["IpPermissions"], group["IpPermissionsEgress"]) == ([], [])


def test_the_private_zone_names_the_admin_box_by_its_address(
    repository: Path, items: list[Item]
) -> None:
    target = find_embedded(repository, open_site(repository).environment)
    assert target is not None
    route53 = target.client("route53")
    zones = {zone["Name"]: zone["Id"] for zone in route53.list_hosted_zones()["HostedZones"]}
    records = route53.list_resource_record_sets(HostedZoneId=zones["sandbox.internal."])
    found = {
        record["Name"]: record["ResourceRecords"][0]["Value"]
        for record in records["ResourceRecordSets"]
        if record["Type"] == "A"
    }
    (box,) = of_kind(items, "admin box")
    assert found == {"sandbox-adminbox.sandbox.internal.": box.detail.split(",")[0]}


def test_both_clusters_stand_in_the_first_zone(items: list[Item]) -> None:
    clusters = {item.name: item.detail for item in of_kind(items, "cluster")}
    assert set(clusters) == {"sandbox-eco", "sandbox-economy-hpc"}
    assert all(detail.startswith("10.12.6") for detail in clusters.values())


def client(repository: Path, service: str) -> Any:
    target = find_embedded(repository, open_site(repository).environment)
    assert target is not None
    return target.client(service)


def test_the_accounting_database_stands_and_its_cluster_signs_in_there(
    repository: Path, items: list[Item]
) -> None:
    (database,) = of_kind(items, "database")
    assert (database.name, database.state) == ("clusterbox-sandbox-accounting", "available")
    sealed, address = database.detail.split(", ")
    assert sealed == "encrypted"
    assert address.endswith(".us-west-2.rds.amazonaws.com:3306")
    # ParallelCluster's own validators took the settings, and asked for the secret.
    config = cluster_config(repository, "sandbox-economy-hpc")
    settings = config["Scheduling"]["SlurmSettings"]["Database"]
    assert (settings["Uri"], settings["UserName"]) == (address, "slurm")
    secrets = client(repository, "secretsmanager")
    password = secrets.get_secret_value(SecretId=settings["PasswordSecretArn"])["SecretString"]
    assert len(password) == 40


def cluster_config(repository: Path, cluster: str) -> dict[str, Any]:
    """Return the configuration that ParallelCluster keeps of a cluster."""
    s3 = client(repository, "s3")
    found = s3.list_objects_v2(Bucket=BUCKET, Prefix="parallelcluster/3.16.1/clusters/")
    (key,) = (
        item["Key"]
        for item in found["Contents"]
        if f"/{cluster}-" in item["Key"] and item["Key"].endswith("/cluster-config.yaml")
    )
    config: dict[str, Any] = yaml.safe_load(s3.get_object(Bucket=BUCKET, Key=key)["Body"].read())
    return config


def limit_script(repository: Path) -> str:
    """Return the script that the cluster's configuration names for the head node's start."""
    config = cluster_config(repository, "sandbox-economy-hpc")
    url = config["HeadNode"]["CustomActions"]["OnNodeConfigured"]["Script"]
    bucket, _, key = url.removeprefix("s3://").partition("/")
    text: bytes = client(repository, "s3").get_object(Bucket=bucket, Key=key)["Body"].read()
    return text.decode()


@needs_slurm[1]
@pytest.mark.skipif(os.geteuid() != 0, reason="only root submits for other users")
def test_the_head_node_takes_its_limits_at_its_start_and_refuses_a_run_away(
    repository: Path, items: list[Item], tmp_path: Path
) -> None:
    assert items
    cluster = compose_repository(repository, ["sandbox-economy-hpc"])["sandbox-economy-hpc"]
    script = limit_script(repository)
    with SlurmCluster.start(cluster, tmp_path / "state", Options(boot_seconds=0)) as slurm:
        # OnNodeConfigured, and OnNodeUpdated with its argument.
        first = start_up(slurm, script)
        assert "cluster: GrpTRESMins: none -> 1430.46 USD" in first.stdout
        second = start_up(slurm, script, "0a1b2c3d4e5f")
        assert second.stdout == "clusterbox limits: nothing to change\n"
        # Nobody may submit yet but root; every setting that the limits need is there.
        assert second.stderr.splitlines() == [
            "clusterbox limits: NOT ENFORCED: no user but root may submit: sacctmgr add user NAME "
            "account=ACCOUNT"
        ]
        slurm.door.change_accounting("add", "account", "tiles")
        slurm.door.change_accounting("add", "user", "games", "account=tiles")

        def submit(*options: str) -> str:
            given = ["--uid=games", "--gid=games", "--output=/dev/null", "--chdir=/", "--time=1"]
            return slurm.door.submit("true", *given, "--begin=now+1hour", *options)

        with pytest.raises(SlurmError, match="Invalid job array specification"):
            submit("--array=0-184999")
        # A loop over years without end: each a job that does nothing.
        for _ in range(9):
            submit("--array=0-1000")
        with pytest.raises(SlurmError, match="QOSMaxSubmitJobPerUserLimit"):
            submit("--array=0-1000")


def start_up(slurm: SlurmCluster, script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a custom action as the head node does."""
    return subprocess.run(
        ["bash", "-s", "--", *arguments],
        input=script,
        env={**os.environ, **slurm.environment},
        capture_output=True,
        text=True,
        check=True,
    )


def test_another_budget_is_another_script_and_an_update_of_its_cluster_alone(
    repository: Path, items: list[Item]
) -> None:
    assert items
    path = repository / "environments" / "sandbox.yaml"
    text = path.read_text(encoding="utf-8")
    assert "monthly_usd: 1500" in text
    before = cluster_config(repository, "sandbox-economy-hpc")
    path.write_text(text.replace("monthly_usd: 1500", "monthly_usd: 1400"), encoding="utf-8")
    done = open_site(repository).deploy("embedded", agree)
    assert "1330.46 USD a month for jobs" in limit_script(repository)
    after = cluster_config(repository, "sandbox-economy-hpc")
    changed = {stack for stack, differs in done.changed.items() if differs}
    assert "sandbox-costs" in changed
    clusters = [stack for stack in changed if stack.startswith("sandbox-cluster-")]
    assert clusters == ["sandbox-cluster-sandbox-economy-hpc"]
    updated = [
        config["HeadNode"]["CustomActions"].pop("OnNodeUpdated") for config in (before, after)
    ]
    assert before == after
    assert updated[0]["Args"] != updated[1]["Args"]


def test_the_function_of_spent_budgets_finds_none_spent(
    repository: Path, items: list[Item]
) -> None:
    assert items
    functions = client(repository, "lambda")
    (name,) = (
        item["FunctionName"]
        for item in functions.list_functions()["Functions"]
        if "sandbox-costs-Guard" in item["FunctionName"]
    )
    done = functions.invoke(FunctionName=name, Payload=json.dumps({"check": "again"}))
    assert (done.get("FunctionError"), json.load(done["Payload"])) == (None, [])


def test_a_section_that_is_taken_out_leaves_its_stack_and_is_told(
    repository: Path, items: list[Item]
) -> None:
    assert items
    site = open_site(repository)
    states = fetch_stack_states(partial(client, repository))
    known = [stack for stack in states if stack != "sandbox-costs"]
    assert find_leftover_stacks(states, site.environment, states) == []
    assert find_leftover_stacks(states, site.environment, known) == ["sandbox-costs"]


def test_destroy_keeps_data_and_the_network_that_its_mount_targets_stand_in(
    repository: Path, items: list[Item]
) -> None:
    removal = open_site(repository).destroy("embedded", agree)
    assert removal.kept == {
        "sandbox-accounting": "protected: holds data, keys or what these need",
        "sandbox-boundary": "protected: holds data, keys or what these need",
        "sandbox-encryption": "protected: holds data, keys or what these need",
        "sandbox-network": "protected: holds data, keys or what these need",
        "sandbox-storage": "protected: holds data, keys or what these need",
    }
    assert of_kind(removal.items, "cluster") == []
    assert len(of_kind(removal.items, "bucket")) == 3
