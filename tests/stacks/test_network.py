from __future__ import annotations

from tests.conftest import Templates
from tests.stacks.resources import each, only


def test_nothing_is_open_to_the_world(templates: Templates) -> None:
    rules = [
        rule
        for _, _, group in each(templates, "AWS::EC2::SecurityGroup")
        for rule in group["Properties"].get("SecurityGroupIngress", [])
    ]
    rules += [
        rule["Properties"] for _, _, rule in each(templates, "AWS::EC2::SecurityGroupIngress")
    ]
    assert len(rules) >= 5
    for rule in rules:
        assert rule.get("CidrIp") not in {"0.0.0.0/0", "::/0"}, rule
        assert "CidrIpv6" not in rule, rule


def test_the_existing_vpc_is_not_made_again(ws_dev: Templates) -> None:
    kinds = {resource["Type"] for _, _, resource in each(ws_dev)}
    assert not kinds & {"AWS::EC2::VPC", "AWS::EC2::Subnet", "AWS::EC2::InternetGateway"}


def test_the_made_vpc_has_the_address_plan_of_the_environment(sandbox: Templates) -> None:
    template = sandbox["sandbox-network"]
    assert only(template, "AWS::EC2::VPC")["Properties"]["CidrBlock"] == "10.12.64.0/21"
    plan = {
        logical_id[:8]: (
            subnet["Properties"]["CidrBlock"],
            subnet["Properties"]["AvailabilityZone"],
        )
        for _, logical_id, subnet in each({"": template}, "AWS::EC2::Subnet")
    }
    assert sorted(plan.values()) == [
        ("10.12.64.0/22", "us-west-2a"),
        ("10.12.68.0/23", "us-west-2b"),
        ("10.12.70.0/23", "us-west-2c"),
        ("10.12.72.0/28", "us-west-2a"),
        ("10.12.72.16/28", "us-west-2b"),
    ]


def test_no_subnet_gives_public_addresses(sandbox: Templates) -> None:
    for _, logical_id, subnet in each(sandbox, "AWS::EC2::Subnet"):
        assert subnet["Properties"]["MapPublicIpOnLaunch"] is False, logical_id


def test_the_endpoints_are_those_that_the_environment_names_and_the_two_free_gateways(
    sandbox: Templates,
) -> None:
    found: dict[str, set[str]] = {"Gateway": set(), "Interface": set()}
    for _, _, endpoint in each(sandbox, "AWS::EC2::VPCEndpoint"):
        service = endpoint["Properties"]["ServiceName"]
        name = "".join(service["Fn::Join"][1][-1:]) if isinstance(service, dict) else service
        found[endpoint["Properties"]["VpcEndpointType"]].add(name.rsplit(".", 1)[-1])
    assert found["Gateway"] == {"s3", "dynamodb"}
    assert found["Interface"] == {
        "autoscaling",
        "cloudformation",
        "ec2",
        "ec2messages",
        "elasticfilesystem",
        "elasticloadbalancing",
        "logs",
        "monitoring",
        "secretsmanager",
        "ssm",
        "ssmmessages",
        "sts",
    }


def test_flow_logs_are_kept_and_encrypted(sandbox: Templates) -> None:
    template = sandbox["sandbox-network"]
    assert only(template, "AWS::EC2::FlowLog")["Properties"]["TrafficType"] == "ALL"
    group = only(template, "AWS::Logs::LogGroup")
    assert group["Properties"]["RetentionInDays"] == 365
    assert "KmsKeyId" in group["Properties"]
    assert group["DeletionPolicy"] == "Retain"


def test_ssh_comes_only_from_the_configured_ranges_the_bastion_and_the_admin_box(
    ws_dev: Templates, sandbox: Templates
) -> None:
    def sources(templates: Templates, stack: str) -> list[object]:
        rules = [
            rule
            for _, _, group in each({"": templates[stack]}, "AWS::EC2::SecurityGroup")
            for rule in group["Properties"].get("SecurityGroupIngress", [])
        ]
        rules += [
            r["Properties"]
            for _, _, r in each({"": templates[stack]}, "AWS::EC2::SecurityGroupIngress")
        ]
        return [
            rule.get("CidrIp") or rule["SourceSecurityGroupId"]
            for rule in rules
            if rule.get("FromPort") == 22
        ]

    admin = {"Fn::GetAtt": ["AdminC75D2A91", "GroupId"]}
    assert sources(ws_dev, "ws-dev-security") == ["sg-067d5d0cb608f6af9", admin]
    assert sources(sandbox, "sandbox-security") == ["10.12.0.0/16", admin]


def test_nfs_comes_only_from_cluster_and_admin_groups(templates: Templates) -> None:
    (security,) = [t for name, t in templates.items() if name.endswith("-security")]
    rules = {
        logical_id: rule["Properties"]
        for _, logical_id, rule in each({"": security}, "AWS::EC2::SecurityGroupIngress")
        if rule["Properties"].get("FromPort") == 2049
    }
    assert set(rules) == {"WspcefsFromCluster", "WspcefsFromAdmin"}


def test_cluster_nodes_reach_each_other_by_group_in_both_directions_as_efa_asks(
    templates: Templates,
) -> None:
    (security,) = [t for name, t in templates.items() if name.endswith("-security")]
    egress = security["Resources"]["ClusterToItself"]["Properties"]
    assert egress["IpProtocol"] == "-1"
    assert egress["GroupId"] == egress["DestinationSecurityGroupId"]


def test_machines_that_bake_and_verify_reach_https_alone_and_nobody_reaches_them(
    templates: Templates,
) -> None:
    (group,) = (
        (logical_id, item["Properties"])
        for _, logical_id, item in each(templates, "AWS::EC2::SecurityGroup")
        if item["Properties"]["GroupDescription"] == "Machines that bake and verify images"
    )
    logical_id, properties = group
    assert "SecurityGroupIngress" not in properties
    (rule,) = properties["SecurityGroupEgress"]
    assert (rule["IpProtocol"], rule["FromPort"], rule["ToPort"]) == ("tcp", 443, 443)
    names = [tag["Value"] for tag in properties["Tags"] if tag["Key"] == "Name"]
    assert names[0].endswith("-images")
    # No other group lets it in, file systems and SSH included.
    for kind in ("AWS::EC2::SecurityGroupIngress", "AWS::EC2::SecurityGroup"):
        for _, other, item in each(templates, kind):
            assert other == logical_id or logical_id not in str(item["Properties"])
