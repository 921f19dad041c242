"""What means the same is no change, whatever it looks like, and what widens is found."""

from __future__ import annotations

import itertools
import json
import random
from copy import deepcopy
from typing import Any

import pytest

from clusterbox.review.changes import Grade, shorten
from clusterbox.review.patterns import pattern_covers, patterns_meet
from clusterbox.review.security import (
    SecurityChange,
    security_changes,
    termination_protection_changes,
)
from tests.conftest import Templates

BOUNDARIES = {
    "ws-dev": "arn:aws:iam::427491229895:policy/csr-Developer-Permissions-Boundary",
    "sandbox": "arn:aws:iam::123456789012:policy/clusterbox-sandbox-boundary",
}
CLUSTER = "ws-dev-cluster-ws-eco"
Stack = dict[str, Any]


def compare(base: Any, head: Any, boundary: str | None = BOUNDARIES["ws-dev"]) -> list[str]:
    return [change.sentence for change in security_changes(base, head, boundary)]


def widenings(base: Any, head: Any) -> list[SecurityChange]:
    found = security_changes(base, head, BOUNDARIES["ws-dev"])
    return [change for change in found if change.kind == "widening"]


def boundary_of(templates: Templates) -> str:
    (name,) = (stack.removesuffix("-admin") for stack in templates if stack.endswith("-admin"))
    return BOUNDARIES[name]


def stack(resources: dict[str, Any], **parts: Any) -> dict[str, Stack]:
    return {"s": {"Resources": resources, **parts}}


def copied(templates: Templates) -> dict[str, Stack]:
    return deepcopy(dict(templates))


def resources_of(templates: Any, kind: str) -> list[dict[str, Any]]:
    return [r for t in templates.values() for r in t["Resources"].values() if r["Type"] == kind]


# The shipped environments


def test_identical_templates_have_no_changes(templates: Templates) -> None:
    head = copied(templates)
    for template in head.values():
        template["Description"] = "something else"
    assert security_changes(templates, head, boundary_of(templates)) == []


def statements_shuffled(document: dict[str, Any], luck: random.Random) -> None:
    """Rewrite the statements of a policy so that they mean the same."""
    found: list[dict[str, Any]] = []
    for statement in document["Statement"]:
        parts = [statement]
        for key in ("Action", "Resource"):
            if key in statement and luck.random() < 0.5:
                items = statement[key] if isinstance(statement[key], list) else [statement[key]]
                cut = luck.randrange(len(items) + 1)
                halves = [half for half in (items[:cut], items[cut:]) if half]
                parts = [{**part, key: half} for part in parts for half in halves]
        for part in parts:
            if isinstance(part.get("Action"), list):
                part["Action"] = [luck.choice([a, a.lower()]) for a in part["Action"]]
                luck.shuffle(part["Action"])
            elif "Action" in part and luck.random() < 0.5:
                part["Action"] = [part["Action"]]
            part["Sid"] = f"Statement{len(found)}"
            found += [part] * luck.choice([1, 1, 2])
    luck.shuffle(found)
    document["Statement"] = found


def packed_anew(template: Stack, luck: random.Random) -> None:
    """Move statements of managed policies between policies of other names and inline policies."""
    resources = template["Resources"]
    for role in [r for r in resources.values() if r["Type"] == "AWS::IAM::Role"]:
        arns = role["Properties"].get("ManagedPolicyArns", [])
        refs = [arn["Ref"] for arn in arns if isinstance(arn, dict) and "Ref" in arn]
        statements = [
            statement
            for ref in refs
            for statement in resources.pop(ref)["Properties"]["PolicyDocument"]["Statement"]
        ]
        if not statements:
            continue
        luck.shuffle(statements)
        cut = luck.randrange(len(statements))
        name = f"Packed{refs[0]}"
        resources[name] = {
            "Type": "AWS::IAM::ManagedPolicy",
            "Properties": {"PolicyDocument": {"Statement": statements[:cut]}},
        }
        role["Properties"]["Policies"] = [
            {"PolicyName": "rest", "PolicyDocument": {"Statement": statements[cut:]}}
        ]
        role["Properties"]["ManagedPolicyArns"] = [
            *(arn for arn in arns if not (isinstance(arn, dict) and "Ref" in arn)),
            {"Ref": name},
        ]
    template["Resources"] = dict(luck.sample(sorted(resources.items()), len(resources)))


@pytest.mark.parametrize("seed", range(12))
def test_reordered_split_and_repacked_statements_are_no_change(
    templates: Templates, seed: int
) -> None:
    luck = random.Random(seed)  # noqa: S311 (chooses test data)
    head = copied(templates)
    for template in head.values():
        for resource in template["Resources"].values():
            properties = resource.get("Properties", {})
            for key in ("PolicyDocument", "KeyPolicy", "AssumeRolePolicyDocument"):
                if key in properties:
                    statements_shuffled(properties[key], luck)
            for key in ("SecurityGroupIngress", "SecurityGroupEgress", "ManagedPolicyArns"):
                luck.shuffle(properties.get(key, []))
        packed_anew(template, luck)
    found = security_changes(templates, head, boundary_of(templates))
    # The policy of the boundary is attached to nobody, so it keeps its name.
    assert [change.sentence for change in found] == []


def test_every_role_that_loses_its_boundary_is_told_of(templates: Templates) -> None:
    head = copied(templates)
    roles = resources_of(head, "AWS::IAM::Role")
    for role in roles:
        del role["Properties"]["PermissionsBoundary"]
    found = security_changes(templates, head, boundary_of(templates))
    assert {(c.rule, c.kind, c.grade) for c in found} == {
        ("boundary lost", "widening", Grade.ALARM)
    }
    assert len(found) == len(roles) > 5


def test_a_statement_of_a_real_role_is_told_with_its_name(ws_dev: Templates) -> None:
    head = copied(ws_dev)
    for policy in resources_of({"c": head[CLUSTER]}, "AWS::IAM::ManagedPolicy"):
        for statement in policy["Properties"]["PolicyDocument"]["Statement"]:
            if statement.get("Sid") == "FindOwnName":
                statement["Action"] = ["dynamodb:Query", "dynamodb:*"]
    (change,) = security_changes(ws_dev, head, BOUNDARIES["ws-dev"])
    assert change.rule == "new wildcard"
    assert (change.stack, change.resource) == (CLUSTER, "Compute5791E1FA")
    assert change.sentence.startswith("role ws-dev-ws-eco-compute may now dynamodb:* on arn:aws:")


def statements_of(templates: Any, effect: str) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Return each statement with the document that it is in."""
    found: list[tuple[dict[str, Any], dict[str, Any]]] = []
    for template in templates.values():
        for resource in template["Resources"].values():
            for key in ("PolicyDocument", "KeyPolicy", "FileSystemPolicy"):
                document = resource.get("Properties", {}).get(key, {})
                found += [(document, s) for s in document.get("Statement", [])]
    return [(document, s) for document, s in found if s["Effect"] == effect]


@pytest.mark.parametrize("element", ["Action", "Resource"])
def test_a_wildcard_in_any_statement_is_told_of(templates: Templates, element: str) -> None:
    missed = []
    count = len(statements_of(templates, "Allow"))
    for number in random.Random(1).sample(range(count), 8):  # noqa: S311 (chooses test data)
        head = copied(templates)
        _, statement = statements_of(head, "Allow")[number]
        if statement[element] in ("*", ["*"]) or "KeyPolicy" in statement:
            continue
        statement[element] = "*"
        found = security_changes(templates, head, boundary_of(templates))
        if not any(c.kind == "widening" and "new wildcard" in c.rule for c in found):
            missed.append(statement)
    assert missed == []


def test_the_loss_of_any_denial_is_told_of(templates: Templates) -> None:
    count = len(statements_of(templates, "Deny"))
    assert count >= 3
    for number in range(count):
        head = copied(templates)
        document, statement = statements_of(head, "Deny")[number]
        document["Statement"].remove(statement)
        found = security_changes(templates, head, boundary_of(templates))
        assert [c.rule.partition(": ")[2] for c in found] == ["Deny removed"]


def test_a_key_of_another_stack_is_called_by_its_name(ws_dev: Templates) -> None:
    head = copied(ws_dev)
    for policy in resources_of({"c": head[CLUSTER]}, "AWS::IAM::ManagedPolicy"):
        for statement in policy["Properties"]["PolicyDocument"]["Statement"]:
            if statement.get("Sid") == "SiteKey":
                del statement["Condition"]
    before = "(before: only if kms:ViaService is s3.us-west-2.amazonaws.com)"
    assert compare(ws_dev, head) == [
        f"role ws-dev-ws-eco-{name} may now kms:Decrypt, kms:GenerateDataKey"
        f" on key Key of ws-dev-encryption {before}"
        for name in ("compute", "head-node")
    ]


def test_the_boundary_of_a_site_may_not_deny_less(sandbox: Templates) -> None:
    head = copied(sandbox)
    policy = head["sandbox-boundary"]["Resources"]["BoundaryEA298153"]["Properties"]
    statements = policy["PolicyDocument"]["Statement"]
    policy["PolicyDocument"]["Statement"] = [s for s in statements if s["Sid"] != "NoWayOut"]
    (change,) = security_changes(sandbox, head, BOUNDARIES["sandbox"])
    assert (change.kind, change.rule) == ("widening", "boundary: Deny removed")
    assert "no longer denies its roles iam:CreateAccessKey, iam:CreateUser" in change.sentence


def test_rules_of_a_group_are_told_with_the_name_of_their_peers(ws_dev: Templates) -> None:
    head = copied(ws_dev)
    head["ws-dev-security"]["Resources"]["SshD3C75D03"]["Properties"]["SecurityGroupIngress"] = [
        {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "CidrIp": "0.0.0.0/0"}
    ]
    assert compare(ws_dev, head) == [
        "security group ws-dev-ssh now accepts tcp 22 from 0.0.0.0/0"
        " (before: security group ws-dev-admin, sg-067d5d0cb608f6af9)",
        "security group ws-dev-ssh no longer accepts tcp 22 from sg-067d5d0cb608f6af9",
    ]


def test_a_new_cluster_is_told_role_by_role(ws_dev: Templates) -> None:
    base = {name: template for name, template in ws_dev.items() if name != CLUSTER}
    found = security_changes({**base, CLUSTER: None}, ws_dev, BOUNDARIES["ws-dev"])
    new = [c.name for c in found if c.rule == "principal added"]
    assert new == ["ws-dev-ws-eco-cleanup", "ws-dev-ws-eco-compute", "ws-dev-ws-eco-head-node"]
    assert {c.rule for c in found} == {"principal added", "new wildcard", "nested stack"}
    assert {c.stack for c in found} == {CLUSTER}


def test_a_removed_cluster_only_narrows(ws_dev: Templates) -> None:
    head = {name: template for name, template in ws_dev.items() if name != CLUSTER}
    found = security_changes(ws_dev, head, BOUNDARIES["ws-dev"])
    assert {(c.kind, c.rule) for c in found} == {("narrowing", "principal removed")}


def test_a_pipeline_that_may_come_from_any_branch_is_told_of(ws_dev: Templates) -> None:
    head = copied(ws_dev)
    role = head["ws-dev-identity"]["Resources"]["GitLabDeploy6E2B9BBD"]["Properties"]
    condition = role["AssumeRolePolicyDocument"]["Statement"][0]["Condition"]
    branch = condition["StringEquals"].pop("gitlab.example.gov:sub")
    condition["StringLike"] = {"gitlab.example.gov:sub": branch.replace("main", "*")}
    first, *others = security_changes(ws_dev, head, BOUNDARIES["ws-dev"])
    assert (first.kind, first.rule, others) == ("widening", "trust: condition changed", [])
    assert "ref:* (before: only if " in first.sentence


def test_the_role_of_the_provider_is_told_of(ws_dev: Templates) -> None:
    head = copied(ws_dev)
    del head[CLUSTER]["Resources"]["Provider"]["Properties"]["Parameters"]["CustomLambdaRole"]
    assert compare(ws_dev, head) == [
        "stack Provider has CustomLambdaRole no more"
        " (before: arn:aws:iam::427491229895:role/ws/ws-dev-pcluster-provider)"
    ]


def test_roles_of_a_clusters_functions_are_told_of(ws_dev: Templates) -> None:
    head = copied(ws_dev)
    configuration = head[CLUSTER]["Resources"]["Cluster"]["Properties"]["ClusterConfiguration"]
    del configuration["Iam"]["Roles"]
    assert compare(ws_dev, head) == [
        "cluster ws-eco: LambdaFunctionsRole is one that ParallelCluster makes"
        " (before: arn:aws:iam::427491229895:role/ws/ws-dev-ws-eco-cleanup)"
    ]


def test_a_share_that_is_no_longer_mounted_loses_no_encryption(ws_dev: Templates) -> None:
    head = copied(ws_dev)
    configuration = head[CLUSTER]["Resources"]["Cluster"]["Properties"]["ClusterConfiguration"]
    del configuration["SharedStorage"]
    configuration["Monitoring"]["Dashboards"]["CloudWatch"]["Enabled"] = False
    assert compare(ws_dev, head) == []
    configuration["Monitoring"]["Logs"]["CloudWatch"]["Enabled"] = False
    assert compare(ws_dev, head) == ["cluster ws-eco: logging to CloudWatch is off now"]


# Moved and renamed resources


def test_a_role_that_moves_to_another_stack_is_no_widening(ws_dev: Templates) -> None:
    head = copied(ws_dev)
    moved = {}
    for name in ("ImageCleanup6DC0D0D8", "ImageCleanupPolicy8AFEFA71"):
        moved[f"Moved{name}"] = head["ws-dev-identity"]["Resources"].pop(name)
    moved["MovedImageCleanup6DC0D0D8"]["Properties"]["ManagedPolicyArns"] = [
        {"Ref": "MovedImageCleanupPolicy8AFEFA71"}
    ]
    head["ws-dev-admin"]["Resources"].update(moved)
    found = security_changes(ws_dev, head, BOUNDARIES["ws-dev"])
    assert {(c.kind, c.rule) for c in found} == {("change", "moved or renamed")}


def test_a_renamed_group_is_recognised_with_the_rules_that_refer_to_it(ws_dev: Templates) -> None:
    head = json.loads(json.dumps(ws_dev).replace('"AdminC75D2A91"', '"AdminNew"'))
    found = security_changes(ws_dev, head, BOUNDARIES["ws-dev"])
    assert {(c.kind, c.rule) for c in found} == {("change", "moved or renamed")}


def test_a_role_at_the_place_of_another_is_not_taken_for_it() -> None:
    def role(name: str, action: str) -> dict[str, Any]:
        document = {"Statement": [{"Effect": "Allow", "Action": action, "Resource": "r"}]}
        inline = [{"PolicyName": "p", "PolicyDocument": document}]
        return {"Type": "AWS::IAM::Role", "Properties": {"RoleName": name, "Policies": inline}}

    base = stack({"A": role("reader", "s3:Get"), "B": role("writer", "s3:Put")})
    head = stack({"A": role("writer", "s3:Put"), "B": role("reader", "s3:Get")})
    assert [c.rule for c in security_changes(base, head, None)] == ["moved or renamed"] * 2
    head = stack({"A": role("writer", "s3:Get"), "B": role("reader", "s3:Put")})
    assert [c.sentence for c in widenings(base, head)] == [
        "role reader may now s3:Put on r (before: only s3:Get)",
        "role writer may now s3:Get on r (before: only s3:Put)",
    ]


# Functions of CloudFormation


def policy_on(resource: Any, **parts: Any) -> dict[str, Stack]:
    statement = {"Effect": "Allow", "Action": "s3:GetObject", "Resource": resource}
    properties = {"Roles": ["worker"], "PolicyDocument": {"Statement": [statement]}}
    bucket = {"Type": "AWS::S3::Bucket", "Properties": {"BucketName": "data"}}
    policy = {"Type": "AWS::IAM::Policy", "Properties": properties}
    return stack({"Bucket": bucket, "Policy": policy}, **parts)


@pytest.mark.parametrize(
    "spelled",
    [
        {"Fn::Join": ["", [{"Fn::GetAtt": ["Bucket", "Arn"]}, "/*"]]},
        {"Fn::Join": ["/", [{"Fn::GetAtt": "Bucket.Arn"}, "*"]]},
        {"Fn::Sub": "${Bucket.Arn}/*"},
        {"Fn::Sub": "arn:${AWS::Partition}:s3:::${Bucket}/*"},
        {"Fn::Sub": ["arn:aws:s3:::${Name}/*", {"Name": {"Ref": "Bucket"}}]},
        {"Fn::Select": [1, ["a", "arn:aws:s3:::data/*"]]},
        {"Fn::Join": [":", {"Fn::Split": ["|", "arn|aws|s3|||data/*"]}]},
        {"Ref": "Where"},
        {"Fn::FindInMap": ["Map", "a", "b"]},
        [{"Fn::If": ["C", "arn:aws:s3:::data/*", "arn:aws:s3:::data/*"]}],
        ["arn:aws:s3:::data/*", {"Ref": "AWS::NoValue"}],
    ],
    ids=str,
)
def test_every_spelling_of_an_arn_is_the_same(spelled: Any) -> None:
    parts: dict[str, Any] = {
        "Parameters": {"Where": {"Type": "String", "Default": "arn:aws:s3:::data/*"}},
        "Mappings": {"Map": {"a": {"b": "arn:aws:s3:::data/*"}}},
        "Conditions": {"C": {"Fn::Equals": [{"Ref": "AWS::Region"}, "us-west-2"]}},
    }
    assert compare(policy_on("arn:aws:s3:::data/*"), policy_on(spelled, **parts)) == []
    assert len(compare(policy_on("arn:aws:s3:::other"), policy_on(spelled, **parts))) == 2


def test_the_account_of_the_boundary_is_that_of_the_stacks() -> None:
    known = policy_on("arn:aws:sqs:us-west-2:427491229895:q")
    spelled = policy_on({"Fn::Sub": "arn:aws:sqs:us-west-2:${AWS::AccountId}:q"})
    assert compare(known, spelled) == []
    assert len(compare(known, spelled, None)) == 2


def test_the_default_of_a_parameter_counts_and_a_secret_one_is_not_shown() -> None:
    def with_default(value: str, **more: Any) -> dict[str, Stack]:
        parameters = {"P": {"Type": "String", "Default": value, **more}}
        return policy_on({"Ref": "P"}, Parameters=parameters)

    assert compare(with_default("a"), with_default("b"))[0].endswith("on b (before: only on a)")
    hidden = compare(policy_on("x"), with_default("hunter2", NoEcho=True))
    assert hidden[0].endswith("on ${P} (before: only on x)")


def test_an_import_that_no_stack_exports_is_still_compared() -> None:
    one, other = ({"Fn::ImportValue": name} for name in ("one", "other"))
    assert compare(policy_on(one), policy_on(deepcopy(one))) == []
    assert compare(policy_on(one), policy_on(other))[0].endswith(
        "on ${import other} (before: only on ${import one})"
    )


def test_both_branches_of_a_condition_are_compared() -> None:
    conditions = {"IsProd": {"Fn::Equals": [{"Ref": "AWS::Region"}, "us-east-1"]}}
    base = policy_on("a", Conditions=conditions)
    head = policy_on({"Fn::If": ["IsProd", "a", "*"]}, Conditions=conditions)
    (change,) = security_changes(base, head, None)
    assert change.rule == "new wildcard"
    assert "[when s/IsProd does not hold" in change.sentence


def test_a_resource_with_a_condition_counts_in_the_case_that_it_is_there() -> None:
    conditions = {"C": {"Fn::Equals": ["a", "b"]}}
    base, head = policy_on("a", Conditions=conditions), policy_on("a", Conditions=conditions)
    base["s"]["Resources"]["Policy"]["Condition"] = "C"
    (change,) = security_changes(base, head, None)
    assert (change.kind, change.rule) == ("widening", "statement added")


@pytest.mark.parametrize("where", ["Conditions", "Parameters"])
def test_a_condition_that_is_defined_otherwise_may_widen(where: str) -> None:
    def with_switch(condition: str, default: str) -> dict[str, Stack]:
        return policy_on(
            {"Fn::If": ["C", "*", "a"]},
            Conditions={"C": {"Fn::Equals": [{"Ref": "P"}, condition]}},
            Parameters={"P": {"Type": "String", "Default": default}},
        )

    changed = with_switch("y", "n") if where == "Conditions" else with_switch("x", "x")
    found = security_changes(with_switch("x", "n"), changed, None)
    assert {c.rule for c in found if c.kind == "widening"} == {"new wildcard"}


def test_many_conditions_are_compared_one_by_one() -> None:
    names = [f"C{number}" for number in range(9)]
    conditions: Any = {name: {"Fn::Equals": [name, {"Ref": "AWS::Region"}]} for name in names}

    def with_last(resource: str) -> dict[str, Stack]:
        values = [{"Fn::If": [name, name, "b"]} for name in names[:-1]]
        return policy_on([*values, {"Fn::If": ["C8", resource, "b"]}], Conditions=conditions)

    assert [c.rule for c in widenings(with_last("C8"), with_last("*"))] == ["new wildcard"]
    assert compare(with_last("C8"), with_last("C8")) == []


def test_a_value_that_refers_to_itself_ends() -> None:
    loop = {"Outputs": {"O": {"Value": {"Fn::ImportValue": "o"}, "Export": {"Name": "o"}}}}
    base, head = policy_on({"Fn::ImportValue": "o"}, **loop), policy_on("a", **loop)
    assert len(compare(base, head)) == 2


# Security groups


def group(*rules: dict[str, Any]) -> dict[str, Stack]:
    properties = {"GroupDescription": "g", "SecurityGroupIngress": list(rules)}
    return stack({"G": {"Type": "AWS::EC2::SecurityGroup", "Properties": properties}})


def apart(*rules: dict[str, Any]) -> dict[str, Stack]:
    found = group()
    for number, rule in enumerate(rules):
        found["s"]["Resources"][f"R{number}"] = {
            "Type": "AWS::EC2::SecurityGroupIngress",
            "Properties": {"GroupId": {"Fn::GetAtt": ["G", "GroupId"]}, **rule},
        }
    return found


def tcp(first: Any, last: Any, cidr: str) -> dict[str, Any]:
    return {"IpProtocol": "tcp", "FromPort": first, "ToPort": last, "CidrIp": cidr}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (group(tcp(22, 22, "10.0.0.0/8")), apart(tcp(22, 22, "10.0.0.0/8"))),
        (group(tcp(22, 22, "10.0.0.0/8")), group(tcp("22", "22", "10.0.0.0/8"))),
        (
            group(tcp(22, 22, "10.0.0.0/8")),
            group({**tcp(22, 22, "10.0.0.0/8"), "IpProtocol": 6, "Description": "x"}),
        ),
        (
            group(tcp(20, 25, "10.0.0.0/23")),
            group(tcp(20, 22, "10.0.0.0/23"), tcp(23, 25, "10.0.0.0/23")),
        ),
        (
            group(tcp(22, 22, "10.0.0.0/23")),
            group(tcp(22, 22, "10.0.0.0/24"), tcp(22, 22, "10.0.1.0/24")),
        ),
        (
            group(tcp(1, 9, "10.0.0.0/23")),
            group(tcp(1, 6, "10.0.0.0/24"), tcp(5, 9, "10.0.0.0/24"), tcp(1, 9, "10.0.1.0/24")),
        ),
        (
            group({"IpProtocol": "-1", "CidrIp": "10.0.0.0/8"}),
            group({"IpProtocol": "-1", "CidrIp": "10.0.0.0/8"}, tcp(22, 22, "10.1.0.0/16")),
        ),
    ],
)
def test_rules_that_let_the_same_through_are_no_change(one: Any, other: Any) -> None:
    assert compare(one, other) == []
    assert compare(other, one) == []


def test_ports_that_no_template_tells_cover_nothing() -> None:
    unknown: Any = {"Ref": "Port"}
    base = group(tcp(unknown, unknown, "10.0.0.0/8"))
    assert compare(base, deepcopy(base)) == []
    assert [c.kind for c in widenings(base, group(tcp(0, 65535, "10.0.0.0/8")))] == ["widening"]


def test_ports_of_one_range_do_not_count_for_another() -> None:
    base = group(tcp(22, 22, "10.0.0.0/24"), tcp(80, 80, "10.0.1.0/24"))
    head = group(tcp(22, 22, "10.0.0.0/23"), tcp(80, 80, "10.0.1.0/24"))
    assert [c.rule for c in widenings(base, head)] == ["wider CIDR"]


# Order, weight and words


def test_widening_comes_first_and_the_heaviest_of_it() -> None:
    base, head = group(tcp(22, 22, "10.0.0.0/8")), group(tcp(22, 22, "0.0.0.0/0"))
    base["s"]["Resources"] |= policy_on(["a", "b"])["s"]["Resources"]
    head["s"]["Resources"] |= policy_on(["b", "c"])["s"]["Resources"]
    head["s"]["Resources"]["U"] = {
        "Type": "AWS::IAM::ServiceLinkedRole",
        "Properties": {"AWSServiceName": "fsx.amazonaws.com"},
    }
    found = security_changes(base, head, None)
    assert [(c.kind, c.rule) for c in found] == [
        ("widening", "open to everyone"),
        ("widening", "statement added"),
        ("change", "service-linked role added"),
        ("narrowing", "statement removed"),
    ]


def test_long_lists_are_shortened_with_their_number() -> None:
    assert shorten("abcdefg") == "a, b, c, d and 3 more"
    assert shorten("abcde") == "a, b, c, d, e"


def test_a_stack_without_termination_protection_is_told_of() -> None:
    found = termination_protection_changes(
        {"a": True, "b": False, "gone": True}, {"a": False, "b": True, "new": False}
    )
    assert [(c.kind, c.sentence) for c in found] == [
        ("widening", "stack a has lost its termination protection"),
        ("narrowing", "stack b now has termination protection"),
    ]


@pytest.mark.parametrize(
    "broken",
    [
        {"Resources": {"R": {"Type": "AWS::IAM::Role"}}},
        {"Resources": {"R": {"Type": "AWS::IAM::Role", "Properties": {"Policies": "x"}}}},
        {"Resources": {"R": {"Type": "AWS::IAM::ManagedPolicy", "Properties": {}}}},
        {"Resources": {"R": {"Type": "Custom::PclusterCluster", "Properties": {}}}},
        {"Resources": {"R": {"Type": "AWS::EC2::SecurityGroup", "Properties": {}}}},
        {"Resources": {"R": {"Type": "AWS::IAM::Role", "Properties": {"Path": {"Fn::Sub": []}}}}},
        {"Resources": {"R": {"Type": "AWS::IAM::Role", "Properties": {"Path": {"Fn::GetAtt": 5}}}}},
        {"Resources": {"R": {"Type": "AWS::IAM::Role", "Properties": {"Path": {"Fn::If": ["a"]}}}}},
        {"Resources": None},
        {},
    ],
)
def test_a_template_of_another_shape_is_compared_as_far_as_it_goes(broken: Stack) -> None:
    other = policy_on("a")
    assert security_changes({"s": broken}, {"s": deepcopy(broken)}, None) == []
    security_changes({"s": broken}, other, None)
    security_changes(other, {"s": broken}, None)


# Patterns, against every text of a small alphabet


def matches(pattern: str, text: str) -> bool:
    if not pattern:
        return not text
    if pattern[0] == "*":
        return any(matches(pattern[1:], text[n:]) for n in range(len(text) + 1))
    return bool(text) and pattern[0] in ("?", text[0]) and matches(pattern[1:], text[1:])


PATTERNS = ["".join(p) for size in range(4) for p in itertools.product("ab*?", repeat=size)]
TEXTS = ["".join(t) for size in range(6) for t in itertools.product("abc", repeat=size)]


@pytest.fixture(scope="module")
def matched() -> dict[str, frozenset[str]]:
    """Return for each pattern the short texts that it matches."""
    return {p: frozenset(t for t in TEXTS if matches(p, t)) for p in PATTERNS}


def test_a_pattern_never_covers_what_it_does_not_match(matched: dict[str, frozenset[str]]) -> None:
    wrong = [
        (one, other)
        for one, other in itertools.product(PATTERNS, repeat=2)
        if pattern_covers(one, other) and not matched[one] >= matched[other]
    ]
    assert wrong == []


def test_a_pattern_covers_all_that_it_matches(matched: dict[str, frozenset[str]]) -> None:
    # Patterns such as `*?` are not followed so far; they alarm once more than they have to.
    plain = [pattern for pattern in PATTERNS if "?" not in pattern]
    wrong = [
        (one, other)
        for one, other in itertools.product(plain, repeat=2)
        if matched[one] >= matched[other] and not pattern_covers(one, other)
    ]
    assert wrong == []


def test_patterns_meet_where_some_text_matches_both(matched: dict[str, frozenset[str]]) -> None:
    wrong = [
        (one, other)
        for one, other in itertools.product(PATTERNS, repeat=2)
        if patterns_meet(one, other) != bool(matched[one] & matched[other])
    ]
    assert wrong == []
