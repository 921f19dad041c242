from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import pytest
import yaml

from clusterbox.clusters.composed import ComposedCluster, compose_environment
from clusterbox.costs.estimate import (
    Estimate,
    difference,
    estimate_cluster,
    estimate_environment,
)
from clusterbox.costs.lines import Line
from clusterbox.costs.price import SpotHistory
from clusterbox.costs.prices import Prices, load_prices
from clusterbox.site.load import Repository
from clusterbox.site.yaml_file import parse_yaml
from tests.conftest import ROOT

D = Decimal

SEED = """
Region: us-west-2
Image: {Os: alinux2023}
HeadNode:
  InstanceType: t3.medium
  Networking: {SubnetId: subnet-1}
Scheduling:
  Scheduler: slurm
  SlurmQueues:
    - Name: eco
      ComputeResources:
        - {Name: n8c32g, InstanceType: t3a.2xlarge, MinCount: 0, MaxCount: 3}
      Networking: {SubnetIds: [subnet-1]}
SharedStorage:
  - {Name: wspcefs, StorageType: Efs, MountDir: /wspcefs, EfsSettings: {FileSystemId: fs-1}}
"""


@pytest.fixture(scope="module")
def prices() -> Prices:
    return load_prices("us-west-2")


def cluster(text: str = SEED, name: str = "bbb") -> ComposedCluster:
    file = parse_yaml(text, name=f"{name}.yaml")
    return ComposedCluster(name, file, file.data)


def changed(change: Mapping[str, Any], *, queue: Mapping[str, Any] | None = None) -> str:
    """Return the seed's cluster with other sections, and another compute resource and queue."""
    data = yaml.safe_load(SEED)
    data |= change
    data["Scheduling"]["SlurmQueues"][0] |= queue or {}
    text: str = yaml.safe_dump(data)
    return text


def line(estimate: Estimate, item: str) -> Line:
    (found,) = [entry for entry in estimate.lines if entry.item == item]
    return found


def amounts(estimate: Estimate, item: str) -> tuple[str, str]:
    found = line(estimate, item)
    assert found.idle is not None
    assert found.worst is not None
    return f"{found.idle:.3f}", f"{found.worst:.3f}"


def test_the_instances_of_the_prototype_cost_what_they_did(prices: Prices) -> None:
    estimate = estimate_cluster(cluster(), prices)
    head, queue = line(estimate, "head node"), line(estimate, "queue eco/n8c32g")
    assert (head.worst, queue.worst) == (D("30.368"), D("658.752"))
    assert f"{(head.worst or 0) + (queue.worst or 0):.2f}" == "689.12"
    assert (head.idle, queue.idle) == (D("30.368"), D(0))


def test_disks_are_counted_with_each_machine(prices: Prices) -> None:
    estimate = estimate_cluster(cluster(), prices)
    assert amounts(estimate, "head node root volume") == ("3.600", "3.600")
    assert amounts(estimate, "queue eco/n8c32g root volumes") == ("0.000", "10.800")
    assert line(estimate, "head node root volume").note == "size taken as ParallelCluster's default"


def test_an_existing_file_system_is_not_the_clusters(prices: Prices) -> None:
    assert not [entry for entry in estimate_cluster(cluster(), prices).lines if "EFS" in entry.item]


def queue_of(**resource: Any) -> dict[str, Any]:
    return {"ComputeResources": [{"Name": "cr", **resource}]}


TYPES = [{"InstanceType": f"{kind}.2xlarge"} for kind in ("m6i", "t3a", "c6i", "r6i")]


@pytest.mark.parametrize(
    ("strategy", "idle"),
    [
        ("lowest-price", "439.168"),  # two t3a.2xlarge at 0.3008
        ("prioritized", "560.640"),  # two m6i.2xlarge at 0.384, the first
        ("capacity-optimized", "735.840"),  # two r6i.2xlarge at 0.504, the dearest
    ],
)
def test_with_several_types_the_strategy_decides_the_floor_and_the_dearest_the_worst(
    strategy: str, idle: str, prices: Prices
) -> None:
    queue = {
        "AllocationStrategy": strategy,
        **queue_of(Instances=TYPES, MinCount=2, MaxCount=4),
    }
    estimate = estimate_cluster(cluster(changed({}, queue=queue)), prices)
    assert amounts(estimate, "queue eco/cr") == (idle, "1471.680")


def test_spot_counts_at_the_on_demand_price_and_says_so(prices: Prices) -> None:
    queue = {"CapacityType": "SPOT", **queue_of(InstanceType="m6i.2xlarge", MaxCount=2)}
    estimate = estimate_cluster(cluster(changed({}, queue=queue)), prices)
    assert amounts(estimate, "queue eco/cr") == ("0.000", "560.640")
    assert "Spot does not exceed" in (line(estimate, "queue eco/cr").note or "")


def test_a_spot_limit_below_the_on_demand_price_is_the_worst_case(prices: Prices) -> None:
    resource = queue_of(InstanceType="m6i.2xlarge", MaxCount=2, SpotPrice=0.1)
    queue = {"CapacityType": "SPOT", **resource}
    estimate = estimate_cluster(cluster(changed({}, queue=queue)), prices)
    assert amounts(estimate, "queue eco/cr") == ("0.000", "146.000")


def test_a_spot_history_is_shown_beside_the_worst_case() -> None:
    history = SpotHistory(D("0.16"), D("0.15"), D("0.2"), days=30)
    known = load_prices("us-west-2", spot={"m6i.2xlarge": history})
    queue = {"CapacityType": "SPOT", **queue_of(InstanceType="m6i.2xlarge", MaxCount=2)}
    note = line(estimate_cluster(cluster(changed({}, queue=queue)), known), "queue eco/cr").note
    assert "0.16 USD/hour mean of 30 days" in (note or "")


def test_an_unknown_type_is_listed_and_never_counted_as_nothing(prices: Prices) -> None:
    queue = queue_of(InstanceType="m99.large", MaxCount=2)
    estimate = estimate_cluster(cluster(changed({}, queue=queue)), prices)
    found = line(estimate, "queue eco/cr")
    assert (found.idle, found.worst) == (None, None)
    assert "no price of ec2/linux m99.large" in (found.unknown or "")
    assert found in estimate.unpriced


def test_an_unknown_type_among_known_ones_is_said_beside_what_is_known(prices: Prices) -> None:
    types = [{"InstanceType": "m99.large"}, {"InstanceType": "m6i.2xlarge"}]
    queue = queue_of(Instances=types, MaxCount=2)
    found = line(estimate_cluster(cluster(changed({}, queue=queue)), prices), "queue eco/cr")
    assert found.worst == D("560.64")
    assert "m99.large" in (found.unknown or "")


@pytest.mark.parametrize(
    "queue",
    [
        {"CapacityType": "CAPACITY_BLOCK", **queue_of(InstanceType="p5.48xlarge", MaxCount=1)},
        queue_of(MaxCount=1),
    ],
)
def test_reserved_capacity_has_no_price(queue: dict[str, Any], prices: Prices) -> None:
    found = line(estimate_cluster(cluster(changed({}, queue=queue)), prices), "queue eco/cr")
    assert found.worst is None
    assert found.unknown is not None


def test_counts_that_are_text_or_left_out_are_read_as_parallelcluster_does(prices: Prices) -> None:
    queue = queue_of(InstanceType="t3a.2xlarge", MinCount="1")
    estimate = estimate_cluster(cluster(changed({}, queue=queue)), prices)
    assert amounts(estimate, "queue eco/cr") == ("219.584", "2195.840")


def test_login_nodes_run_all_month_behind_a_load_balancer(prices: Prices) -> None:
    pools = [{"Name": "login", "InstanceType": "t3.medium", "Count": 2}]
    estimate = estimate_cluster(cluster(changed({"LoginNodes": {"Pools": pools}})), prices)
    assert amounts(estimate, "login pool login") == ("60.736", "60.736")
    assert amounts(estimate, "login pool login root volumes") == ("7.200", "7.200")
    assert amounts(estimate, "login pool login load balancer") == ("16.425", "16.425")


@pytest.mark.parametrize(
    ("settings", "item", "usd"),
    [
        ({"VolumeType": "gp3", "Size": 100}, "EBS data", "8.000"),
        ({}, "EBS data", "3.200"),
        ({"Size": 100, "Iops": 4000, "Throughput": 250}, "EBS data, gp3.iops", "5.000"),
        ({"Size": 100, "Iops": 4000, "Throughput": 250}, "EBS data, gp3.throughput", "5.000"),
        ({"VolumeType": "io1", "Size": 100, "Iops": 1000}, "EBS data, io1.iops", "65.000"),
        ({"VolumeType": "io2", "Size": 9, "Iops": 40000}, "EBS data, io2.iops", "2080.000"),
        ({"VolumeType": "io2", "Size": 9, "Iops": 40000}, "EBS data, io2.iops.tier2", "364.000"),
        ({"Size": 100, "Raid": {"Type": 0}}, "EBS data", "16.000"),
        ({"Size": 100, "Raid": {"Type": 0, "NumberOfVolumes": 4}}, "EBS data", "32.000"),
    ],
)
def test_shared_volumes_cost_their_size_iops_and_throughput(
    settings: dict[str, Any], item: str, usd: str, prices: Prices
) -> None:
    storage = [{"Name": "data", "StorageType": "Ebs", "EbsSettings": settings}]
    estimate = estimate_cluster(cluster(changed({"SharedStorage": storage})), prices)
    assert amounts(estimate, item) == (usd, usd)


@pytest.mark.parametrize(
    ("settings", "usd"),
    [
        ({"StorageCapacity": 1200}, "168.000"),
        (
            {
                "StorageCapacity": 1200,
                "DeploymentType": "PERSISTENT_2",
                "PerUnitStorageThroughput": 125,
            },
            "174.000",
        ),
    ],
)
def test_lustre_costs_its_capacity(settings: dict[str, Any], usd: str, prices: Prices) -> None:
    storage = [{"Name": "fast", "StorageType": "FsxLustre", "FsxLustreSettings": settings}]
    estimate = estimate_cluster(cluster(changed({"SharedStorage": storage})), prices)
    assert amounts(estimate, "FSx for Lustre fast") == (usd, usd)


def test_a_managed_efs_is_not_priced_but_told_by_the_gigabyte(prices: Prices) -> None:
    storage = [{"Name": "home", "StorageType": "Efs", "EfsSettings": {}}]
    found = line(estimate_cluster(cluster(changed({"SharedStorage": storage})), prices), "EFS home")
    assert found.idle is None
    assert found.unknown == "depends on GB stored: 30.00 USD a month per 100 GB"


def test_public_addresses_and_detailed_monitoring_are_counted(prices: Prices) -> None:
    head = {
        "InstanceType": "t3.medium",
        "Networking": {"SubnetId": "subnet-1", "ElasticIp": True},
    }
    queue = {"Networking": {"SubnetIds": ["subnet-1"], "AssignPublicIp": True}}
    text = changed({"HeadNode": head, "Monitoring": {"DetailedMonitoring": True}}, queue=queue)
    estimate = estimate_cluster(cluster(text), prices)
    assert amounts(estimate, "head node public IPv4") == ("3.650", "3.650")
    assert amounts(estimate, "queue eco/n8c32g public IPv4") == ("0.000", "10.950")
    assert amounts(estimate, "head node detailed monitoring") == ("2.100", "2.100")
    assert amounts(estimate, "queue eco/n8c32g detailed monitoring") == ("0.000", "6.300")


@pytest.fixture(scope="module")
def sandbox() -> Estimate:
    environment = Repository(ROOT).load_environment("sandbox")
    clusters = compose_environment(ROOT, "sandbox")
    return estimate_environment(environment, clusters, load_prices(environment.region))


def test_an_environment_has_its_own_parts_before_its_clusters(sandbox: Estimate) -> None:
    assert sandbox.parts == (
        "network",
        "storage",
        "accounting database",
        "admin box",
        "site",
        "sandbox-eco",
        "sandbox-economy-hpc",
    )


def test_the_accounting_database_costs_its_least_capacity_when_idle(sandbox: Estimate) -> None:
    lines = {entry.item: entry for entry in sandbox.lines if entry.part == "accounting database"}
    server = lines["Aurora Serverless v2"]
    # 0.12 USD an hour of one capacity unit, 730 hours: a half of one, and at most two.
    assert (server.idle, server.worst) == (Decimal("43.800"), Decimal("175.20"))
    assert lines["secret"].idle == Decimal("0.40")
    assert lines["storage"].idle is None


@pytest.mark.parametrize(
    ("item", "usd"),
    [
        ("NAT gateways", "32.850"),
        ("public IPv4 of NAT gateways", "3.650"),
        ("interface endpoints", "175.200"),  # 12 services in 2 zones
        ("private DNS zone", "0.500"),
        ("KMS key", "1.000"),
    ],
)
def test_the_network_and_the_key_cost_the_same_all_the_time(
    item: str, usd: str, sandbox: Estimate
) -> None:
    assert amounts(sandbox, item) == (usd, usd)


def test_the_admin_box_stops_itself_and_keeps_its_disk(sandbox: Estimate) -> None:
    lines = {entry.item: entry for entry in sandbox.lines if entry.part == "admin box"}
    assert lines["instance"].idle == 0
    assert lines["instance"].worst == D("27.448")
    assert lines["root volume"].idle == D("4.80")


def test_what_depends_on_use_is_not_priced(sandbox: Estimate) -> None:
    storage = [entry for entry in sandbox.lines if entry.part == "storage"]
    assert len(storage) == 9
    assert all(entry.idle is None and entry.unknown for entry in storage)
    assert sandbox.total("storage").worst is None
    assert sandbox.total("storage").unpriced == 9


def test_parts_add_up_to_the_total(sandbox: Estimate) -> None:
    parts = [sandbox.total(part) for part in sandbox.parts]
    whole = sandbox.total()
    assert sum(part.idle or 0 for part in parts) == whole.idle
    assert sum(part.worst or 0 for part in parts) == whole.worst
    assert sum(part.unpriced for part in parts) == whole.unpriced


def test_no_amount_is_negative_and_idle_is_never_above_worst(sandbox: Estimate) -> None:
    for entry in sandbox.lines:
        if entry.idle is not None and entry.worst is not None:
            assert 0 <= entry.idle <= entry.worst


def test_items_are_named_once_in_each_part(sandbox: Estimate) -> None:
    names = [(entry.part, entry.item) for entry in sandbox.lines]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("hours", "utilisation", "usd"),
    [("0", "1", "10"), ("24", "1", "34"), ("12", "0.5", "16"), ("24", "0", "10")],
)
def test_typical_lies_between_idle_and_worst(hours: str, utilisation: str, usd: str) -> None:
    entry = Line("part", "item", "", D(10), D(34))
    assert entry.typical(D(hours), D(utilisation)) == D(usd)


def test_typical_of_what_has_no_price_has_no_price() -> None:
    assert Line("part", "item", "", None, None, "unknown").typical(D(8), D(1)) is None


def test_a_change_is_the_difference_of_its_items(prices: Prices) -> None:
    base = estimate_cluster(cluster(), prices)
    more = SEED.replace("MaxCount: 3", "MaxCount: 4")
    found = difference(base, estimate_cluster(cluster(more), prices))
    assert [change.item for change in found.changes] == [
        "queue eco/n8c32g",
        "queue eco/n8c32g root volumes",
    ]
    assert [change.worst_usd for change in found.changes] == [D("219.584"), D("3.60")]
    assert [change.idle_usd for change in found.changes] == [0, 0]
    (part,) = found.parts
    assert (part.part, part.worst_difference) == ("bbb", D("223.184"))
    assert found.total.worst_difference == D("223.184")
    assert "2025-03-02" in found.prices_title


def test_an_added_and_a_removed_cluster_are_differences_to_nothing(prices: Prices) -> None:
    estimate = estimate_cluster(cluster(), prices)
    added, removed = difference(None, estimate), difference(estimate, None)
    assert added.total.worst_difference == estimate.total().worst
    assert removed.total.worst_difference == -(estimate.total().worst or 0)
    assert added.parts[0].worst_before is None
    assert removed.parts[0].worst_after is None
    assert [entry.item for entry in added.unpriced] == ["logs"]
    assert [entry.item for entry in removed.unpriced] == ["logs"]


def test_no_change_is_no_difference(prices: Prices) -> None:
    estimate = estimate_cluster(cluster(), prices)
    found = difference(estimate, estimate)
    assert found.changes == ()
    assert found.total.worst_difference == 0


def test_a_change_to_an_unknown_type_has_no_difference_and_is_listed(prices: Prices) -> None:
    base = estimate_cluster(cluster(), prices)
    head = estimate_cluster(cluster(SEED.replace("t3a.2xlarge", "m99.large")), prices)
    found = difference(base, head)
    (change,) = found.changes
    assert change.worst_usd is None
    assert "m99.large" in str(found.unpriced)
