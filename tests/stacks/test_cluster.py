from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from clusterbox.deployment.cdk import synthesize
from clusterbox.site.images import LOCK, ClusterPins, LoginPin, render_lock
from clusterbox.site.load import Repository
from stacks import build_app
from tests.conftest import Templates
from tests.deployment.conftest import copy_repository
from tests.stacks.resources import each, only


def configuration(templates: Templates, stack: str) -> dict[str, Any]:
    cluster = only(templates[stack], "Custom::PclusterCluster")
    found: dict[str, Any] = cluster["Properties"]["ClusterConfiguration"]
    return found


def test_the_provider_gets_the_site_s_role_because_its_own_would_have_no_boundary(
    templates: Templates,
) -> None:
    nested = [item for _, _, item in each(templates, "AWS::CloudFormation::Stack")]
    assert len(nested) == 2
    for stack in nested:
        assert set(stack["Properties"]["Parameters"]) == {"CustomLambdaRole"}
        assert stack["Properties"]["TemplateURL"] == (
            "https://us-west-2-aws-parallelcluster.s3.us-west-2.amazonaws.com/"
            "parallelcluster/3.16.1/templates/custom_resource/cluster.yaml"
        )


def test_the_cluster_has_the_properties_that_the_provider_takes_and_no_other(
    templates: Templates,
) -> None:
    for _, _, cluster in each(templates, "Custom::PclusterCluster"):
        properties = cluster["Properties"]
        assert set(properties) == {
            "ServiceToken",
            "ClusterName",
            "ClusterConfiguration",
            "DeletionPolicy",
        }
        assert properties["DeletionPolicy"] == "Retain"
        assert cluster["DeletionPolicy"] == "Retain"


def test_a_queue_s_max_count_can_be_read_in_the_template(ws_dev: Templates) -> None:
    queues = configuration(ws_dev, "ws-dev-cluster-ws-eco")["Scheduling"]["SlurmQueues"]
    counts = {queue["Name"]: queue["ComputeResources"][0]["MaxCount"] for queue in queues}
    assert counts == {"eco": 3, "spot": 3}


def test_references_become_what_the_stacks_own(ws_dev: Templates) -> None:
    found = configuration(ws_dev, "ws-dev-cluster-ws-eco")
    assert found["Image"]["CustomAmi"] == "ami-067d504ae48dd3252"
    assert found["HeadNode"]["Networking"]["SubnetId"] == "subnet-08f1118dd59133513"
    assert found["CustomS3Bucket"] == "dev-ws-parallelcluster-testbucket"
    assert "Fn::ImportValue" in found["SharedStorage"][0]["EfsSettings"]["FileSystemId"]
    assert "${" not in json.dumps(found)


def amis_of(configuration: Any) -> list[str]:
    """Return the AMIs of a cluster: its own, then those of login pools, then those of queues."""
    pools = configuration.get("LoginNodes", {}).get("Pools", [])
    parts = [configuration, *pools, *configuration["Scheduling"]["SlurmQueues"]]
    return [part["Image"]["CustomAmi"] for part in parts]


def test_head_node_login_nodes_and_queues_share_one_image(templates: Templates) -> None:
    for _, _, cluster in each(templates, "Custom::PclusterCluster"):
        assert len(set(amis_of(cluster["Properties"]["ClusterConfiguration"]))) == 1


def test_a_pinned_part_runs_its_image_and_the_head_node_may_start_it(
    root: Path, tmp_path: Path
) -> None:
    copy = copy_repository(root, tmp_path / "copy")
    new, locked = "ami-0aaaaaaaaaaaaaaa1", "ami-067d504ae48dd3252"
    pins = ClusterPins(queues={"eco": new}, login={"login": LoginPin(ami=new, closed=True)})
    lock = Repository(copy).load_lock().with_pins("ws-dev", "ws-eco-login", pins)
    (copy / LOCK).write_text(render_lock(lock), encoding="utf-8")
    build_app(copy, "ws-dev", outdir=tmp_path / "out").synth()

    def template(cluster: str) -> dict[str, Any]:
        path = tmp_path / "out" / f"ws-dev-cluster-{cluster}.template.json"
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return found

    login, eco = template("ws-eco-login"), template("ws-eco")
    found = only(login, "Custom::PclusterCluster")["Properties"]["ClusterConfiguration"]
    assert amis_of(found) == [locked, new, new]
    assert found["LoginNodes"]["Pools"][0]["Count"] == 0
    assert f"image/{new}" in json.dumps(login)
    assert f"image/{locked}" in json.dumps(login)
    # A pin of one cluster concerns no other.
    assert new not in json.dumps(eco)


def test_the_seed_s_cluster_looks_as_it_must_today(ws_dev: Templates) -> None:
    found = configuration(ws_dev, "ws-dev-cluster-ws-eco")
    eco, spot = found["Scheduling"]["SlurmQueues"]
    assert found["Image"]["Os"] == "alinux2023"
    assert eco["ComputeResources"][0]["Instances"][0] == {"InstanceType": "t3a.2xlarge"}
    assert len(eco["ComputeResources"][0]["Instances"]) > 1
    assert spot["CapacityType"] == "SPOT"
    assert found["Scheduling"]["SlurmSettings"]["QueueUpdateStrategy"] == "DRAIN"
    assert found["Scheduling"]["SlurmSettings"]["ScaledownIdletime"] == 10
    storage = found["SharedStorage"][0]
    assert storage["MountDir"] == "/wspcefs"
    assert storage["EfsSettings"]["EncryptionInTransit"] is True
    assert storage["EfsSettings"]["IamAuthorization"] is True
    assert {"Key": "Owner", "Value": "butzer"} in found["Tags"]
    assert found["Monitoring"]["Logs"]["CloudWatch"]["Enabled"] is True


def test_no_tag_of_ours_is_one_that_parallelcluster_gives_its_nodes(templates: Templates) -> None:
    for _, _, cluster in each(templates, "Custom::PclusterCluster"):
        keys = {tag["Key"] for tag in cluster["Properties"]["ClusterConfiguration"]["Tags"]}
        assert keys == {
            "Owner",
            "Project",
            "Organization",
            "CostCenter",
            "Environment",
            "Cluster",
        }


def test_only_the_roles_that_a_configuration_refers_to_are_made(ws_dev: Templates) -> None:
    def roles(stack: str) -> list[str]:
        return [
            role["Properties"]["RoleName"]
            for _, _, role in each({"": ws_dev[stack]}, "AWS::IAM::Role")
        ]

    assert sorted(roles("ws-dev-cluster-ws-eco")) == [
        "ws-dev-ws-eco-cleanup",
        "ws-dev-ws-eco-compute",
        "ws-dev-ws-eco-head-node",
    ]
    assert "ws-dev-ws-eco-login-login" in roles("ws-dev-cluster-ws-eco-login")


def test_every_resource_that_can_carry_tags_carries_those_of_the_environment(
    templates: Templates,
) -> None:
    seen = 0
    for stack, logical_id, resource in each(
        templates, "AWS::IAM::Role", "AWS::EC2::SecurityGroup", "AWS::S3::Bucket"
    ):
        tags = {tag["Key"] for tag in resource["Properties"].get("Tags", [])}
        if logical_id.startswith("CustomVpcRestrict"):
            continue  # CDK writes this one without tags; its stack carries them
        assert {"Owner", "Project", "Organization", "CostCenter", "Environment"} <= tags, (
            stack,
            logical_id,
        )
        seen += 1
    assert seen > 10


def test_the_admin_box_is_private_encrypted_and_takes_only_imds_v2(templates: Templates) -> None:
    (template,) = [t for name, t in templates.items() if name.endswith("-admin")]
    box = only(template, "AWS::EC2::Instance")["Properties"]
    assert box["NetworkInterfaces"][0]["AssociatePublicIpAddress"] is False
    assert box["BlockDeviceMappings"][0]["Ebs"]["Encrypted"] is True
    assert box["BlockDeviceMappings"][0]["Ebs"]["VolumeSize"] == 60
    assert box["InstanceInitiatedShutdownBehavior"] == "stop"
    launch = only(template, "AWS::EC2::LaunchTemplate")["Properties"]["LaunchTemplateData"]
    assert launch["MetadataOptions"]["HttpTokens"] == "required"


def test_the_admin_box_has_a_name_that_outlives_its_address(
    sandbox: Templates, ws_dev: Templates
) -> None:
    record = only(sandbox["sandbox-admin"], "AWS::Route53::RecordSet")["Properties"]
    assert record["Name"] == "sandbox-adminbox.sandbox.internal."
    box = only(ws_dev["ws-dev-admin"], "AWS::EC2::Instance")["Properties"]
    assert {"Key": "Name", "Value": "ws-pc-adminbox"} in box["Tags"]
    assert "KeyName" in box
    assert "KeyName" not in only(sandbox["sandbox-admin"], "AWS::EC2::Instance")["Properties"]


def test_the_head_node_reads_the_secrets_that_its_configuration_names_and_no_other(
    root: Path, tmp_path: Path
) -> None:
    secret = "arn:aws:secretsmanager:us-west-2:427491229895:secret:slurmdb-AbCdEf"
    copy = copy_repository(root, tmp_path / "copy")
    path = copy / "cluster_configs" / "eco.yaml"
    database = (
        f"    Database: {{Uri: db.example:3306, UserName: slurm, PasswordSecretArn: '{secret}'}}\n"
    )
    path.write_text(path.read_text().replace("    Dns:\n", f"{database}    Dns:\n", 1))
    assembly = synthesize(copy, "ws-dev", tmp_path / "out")

    def readable(stack: str) -> dict[str, object]:
        return {
            logical_id: statement["Resource"]
            for _, logical_id, policy in each(
                {"": assembly.template(stack)}, "AWS::IAM::ManagedPolicy"
            )
            for statement in policy["Properties"]["PolicyDocument"]["Statement"]
            if "secretsmanager" in json.dumps(statement["Action"])
        }

    (found,) = readable("ws-dev-cluster-ws-eco").items()
    assert found[0].startswith("HeadNodePolicy")
    assert found[1] == secret
    assert readable("ws-dev-cluster-ws-eco-login") == {}
