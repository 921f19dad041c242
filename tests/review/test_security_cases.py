"""What each kind of change is called, in which direction, and in which words."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from clusterbox.review.security import SecurityChange, security_changes

BOUNDARY = "arn:aws:iam::427491229895:policy/csr-Developer-Permissions-Boundary"
EC2 = {"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"Service": "ec2.amazonaws.com"}}
Resources = dict[str, Any]


def allow(action: Any, resource: Any, **more: Any) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": action, "Resource": resource, **more}


def deny(action: Any, resource: Any, **more: Any) -> dict[str, Any]:
    return {**allow(action, resource, **more), "Effect": "Deny"}


def resource(kind: str, properties: Mapping[str, Any], **attributes: Any) -> dict[str, Any]:
    return {"Type": kind, "Properties": dict(properties), **attributes}


def role(*statements: Any, **properties: Any) -> Resources:
    """A role `worker` with the boundary and one inline policy."""
    body = {
        "RoleName": "worker",
        "PermissionsBoundary": BOUNDARY,
        "AssumeRolePolicyDocument": {"Statement": [EC2]},
        "Policies": [{"PolicyName": "p", "PolicyDocument": {"Statement": list(statements)}}],
        **properties,
    }
    kept = {key: value for key, value in body.items() if value is not None}
    return {"Worker": resource("AWS::IAM::Role", kept)}


def trusted_by(*statements: Any) -> Resources:
    return role(AssumeRolePolicyDocument={"Statement": list(statements)})


def bucket_policy(*statements: Any, **bucket: Any) -> Resources:
    return {
        "B": resource("AWS::S3::Bucket", {"BucketName": "data", **bucket}),
        "P": resource(
            "AWS::S3::BucketPolicy",
            {"Bucket": {"Ref": "B"}, "PolicyDocument": {"Statement": list(statements)}},
        ),
    }


def bucket(**properties: Any) -> Resources:
    return {"B": resource("AWS::S3::Bucket", {"BucketName": "data", **properties})}


def group(*ingress: Any, **properties: Any) -> Resources:
    body = {"GroupName": "ssh", "SecurityGroupIngress": list(ingress), **properties}
    return {"G": resource("AWS::EC2::SecurityGroup", body)}


def tcp(first: int, last: int, **peer: str) -> dict[str, Any]:
    return {"IpProtocol": "tcp", "FromPort": first, "ToPort": last, **peer}


def boundary_policy(*statements: Any) -> Resources:
    return {
        "Limit": resource(
            "AWS::IAM::ManagedPolicy",
            {
                "ManagedPolicyName": "csr-Developer-Permissions-Boundary",
                "PolicyDocument": {"Statement": list(statements)},
            },
        ),
        **role(allow("ec2:Go", "r")),
    }


def efs(**properties: Any) -> Resources:
    return {"F": resource("AWS::EFS::FileSystem", {"Encrypted": True, **properties})}


def template_data(**data: Any) -> Resources:
    return {"T": resource("AWS::EC2::LaunchTemplate", {"LaunchTemplateData": data})}


def disk(**ebs: Any) -> dict[str, Any]:
    return {
        "BlockDeviceMappings": [{"DeviceName": "/dev/xvda", "Ebs": ebs}],
        "MetadataOptions": {"HttpTokens": "required"},
    }


def cluster(**changes: Any) -> Resources:
    """A cluster `eco`; a key such as `HeadNode__Ssh` replaces a part, None takes it away."""
    configuration: dict[str, Any] = {
        "Imds": {"ImdsSupport": "v2.0"},
        "Iam": {"PermissionsBoundary": BOUNDARY},
        "DeploymentSettings": {"DisableSudoAccessForDefaultUser": True},
        "HeadNode": {
            "Networking": {"SubnetId": "subnet-1"},
            "Ssh": {"AllowedIps": "10.12.0.0/16"},
            "LocalStorage": {"RootVolume": {"Encrypted": True}},
            "Iam": {"InstanceRole": "arn:aws:iam::427491229895:role/head"},
        },
        "Scheduling": {
            "SlurmQueues": [{"Name": "eco", "Networking": {"SecurityGroups": ["sg-1"]}}]
        },
        "SharedStorage": [
            {
                "Name": "share",
                "EfsSettings": {"EncryptionInTransit": True, "IamAuthorization": True},
            }
        ],
    }
    for path, value in changes.items():
        *parents, last = path.split("__")
        section = configuration
        for key in parents:
            section = section.setdefault(key, {})
        if value is None:
            del section[last]
        else:
            section[last] = value
    body = {"ClusterName": "eco", "ClusterConfiguration": configuration}
    return {"C": resource("Custom::PclusterCluster", body)}


def changes(base: Resources, head: Resources) -> list[SecurityChange]:
    return security_changes({"s": {"Resources": base}}, {"s": {"Resources": head}}, BOUNDARY)


GET = allow("s3:GetObject", "arn:aws:s3:::ws-out/*")
TLS = {"Bool": {"aws:SecureTransport": "false"}}
KEY = "arn:aws:kms:us-west-2:427491229895:key/k"
OPEN = "0.0.0.0/0"
PUBLIC_BLOCK = dict.fromkeys(
    ("BlockPublicAcls", "BlockPublicPolicy", "IgnorePublicAcls", "RestrictPublicBuckets"), True
)
ROOT = {"AWS": "arn:aws:iam::427491229895:root"}
KMS = [{"ServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms"}}]
AES = [{"ServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}]
ADMIN = "arn:aws:iam::aws:policy/AdministratorAccess"


def lambda_permission(**properties: Any) -> Resources:
    body = {"Action": "lambda:InvokeFunction", "FunctionName": "f", **properties}
    return {"L": resource("AWS::Lambda::Permission", body)}


# name: before, after, kind of the first change, its rule, its sentence
CASES: dict[str, tuple[Resources, Resources, str, str, str]] = {
    # Statements of a role
    "an action more": (
        role(GET),
        role(allow(["s3:GetObject", "s3:PutObject"], "arn:aws:s3:::ws-out/*")),
        "widening",
        "statement added",
        "role worker may now s3:PutObject on arn:aws:s3:::ws-out/* (before: only s3:GetObject)",
    ),
    "an action less": (
        role(allow(["s3:GetObject", "s3:PutObject"], "arn:aws:s3:::ws-out/*")),
        role(GET),
        "narrowing",
        "statement removed",
        "role worker may no longer s3:PutObject on arn:aws:s3:::ws-out/*",
    ),
    "every action of a service": (
        role(GET),
        role(allow("s3:*", "arn:aws:s3:::ws-out/*")),
        "widening",
        "new wildcard",
        "role worker may now s3:* on arn:aws:s3:::ws-out/* (before: only s3:GetObject)",
    ),
    "every action of a service no longer": (
        role(allow("s3:*", "arn:aws:s3:::ws-out/*")),
        role(GET),
        "narrowing",
        "statement removed",
        "role worker may no longer s3:* on arn:aws:s3:::ws-out/* (now only s3:GetObject)",
    ),
    "every resource": (
        role(GET),
        role(allow("s3:GetObject", "*")),
        "widening",
        "new wildcard",
        "role worker may now s3:GetObject on every resource"
        " (before: only on arn:aws:s3:::ws-out/*)",
    ),
    "a wider resource": (
        role(allow("s3:GetObject", "arn:aws:s3:::ws-out/a/*")),
        role(GET),
        "widening",
        "new wildcard",
        "role worker may now s3:GetObject on arn:aws:s3:::ws-out/*"
        " (before: only on arn:aws:s3:::ws-out/a/*)",
    ),
    "a resource more": (
        role(allow("sqs:Send", "a")),
        role(allow("sqs:Send", ["a", "b"])),
        "widening",
        "statement added",
        "role worker may now sqs:Send on b (before: only on a)",
    ),
    "everything": (
        role(GET),
        role(GET, allow("*", "*")),
        "widening",
        "new wildcard",
        "role worker may now do everything on every resource",
    ),
    "all actions but some": (
        role(GET),
        role(GET, {"Effect": "Allow", "NotAction": "iam:*", "Resource": "*"}),
        "widening",
        "new wildcard",
        "role worker may now do everything but iam:* on every resource",
    ),
    "fewer actions excepted": (
        role({"Effect": "Allow", "NotAction": ["iam:*", "sts:*"], "Resource": "*"}),
        role({"Effect": "Allow", "NotAction": ["iam:*"], "Resource": "*"}),
        "widening",
        "new wildcard",
        "role worker may now do everything but iam:* on every resource"
        " (before: only everything but iam:*, sts:*)",
    ),
    "more actions excepted": (
        role({"Effect": "Allow", "NotAction": ["iam:*"], "Resource": "*"}),
        role({"Effect": "Allow", "NotAction": ["iam:*", "sts:*"], "Resource": "*"}),
        "narrowing",
        "statement removed",
        "role worker may no longer do everything but iam:* on every resource"
        " (now only everything but iam:*, sts:*)",
    ),
    "all resources but some": (
        role(GET),
        role(GET, {"Effect": "Allow", "Action": "s3:PutObject", "NotResource": "a"}),
        "widening",
        "new wildcard",
        "role worker may now s3:PutObject on everything but a (before: only s3:GetObject)",
    ),
    "a denial removed": (
        role(GET, deny("s3:DeleteObject", "*")),
        role(GET),
        "widening",
        "Deny removed",
        "role worker is no longer denied s3:DeleteObject on every resource",
    ),
    "a denial with a condition now": (
        role(deny("s3:DeleteObject", "*")),
        role(deny("s3:DeleteObject", "*", Condition=TLS)),
        "widening",
        "Deny removed",
        "role worker is no longer denied s3:DeleteObject on every resource"
        " (now only if aws:SecureTransport is false)",
    ),
    "a denial added": (
        role(GET),
        role(GET, deny("s3:DeleteObject", "*")),
        "narrowing",
        "Deny added",
        "role worker is now denied s3:DeleteObject on every resource",
    ),
    "a condition removed": (
        role(allow("ec2:TerminateInstances", "i", Condition={"StringEquals": {"aws:t": "eco"}})),
        role(allow("ec2:TerminateInstances", "i")),
        "widening",
        "condition removed",
        "role worker may now ec2:TerminateInstances on i (before: only if aws:t is eco)",
    ),
    "a condition changed": (
        role(allow("ec2:Stop", "i", Condition={"StringEquals": {"aws:t": "eco"}})),
        role(allow("ec2:Stop", "i", Condition={"StringEquals": {"aws:t": "big"}})),
        "widening",
        "condition changed",
        "role worker may now ec2:Stop on i if aws:t is big (before: only if aws:t is eco)",
    ),
    "a value more in a condition": (
        role(allow("ec2:Stop", "i", Condition={"StringEquals": {"aws:t": ["eco"]}})),
        role(allow("ec2:Stop", "i", Condition={"StringEquals": {"aws:t": ["eco", "big"]}})),
        "widening",
        "condition changed",
        "role worker may now ec2:Stop on i if aws:t is big or eco (before: only if aws:t is eco)",
    ),
    "a condition added": (
        role(allow("ec2:Stop", "i")),
        role(allow("ec2:Stop", "i", Condition={"StringEquals": {"aws:t": "eco"}})),
        "narrowing",
        "statement removed",
        "role worker may no longer ec2:Stop on i (now only if aws:t is eco)",
    ),
    "a value less in a condition": (
        role(allow("ec2:Stop", "i", Condition={"StringEquals": {"aws:t": ["eco", "big"]}})),
        role(allow("ec2:Stop", "i", Condition={"StringEquals": {"aws:t": ["eco"]}})),
        "narrowing",
        "statement removed",
        "role worker may no longer ec2:Stop on i if aws:t is big or eco (now only if aws:t is eco)",
    ),
    "a smaller range of addresses": (
        role(allow("s3:Get", "b", Condition={"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}})),
        role(allow("s3:Get", "b", Condition={"IpAddress": {"aws:SourceIp": "10.12.0.0/16"}})),
        "narrowing",
        "statement removed",
        "role worker may no longer s3:Get on b if aws:SourceIp is in 10.0.0.0/8"
        " (now only if aws:SourceIp is in 10.12.0.0/16)",
    ),
    "a secret of a condition": (
        role(
            allow("sts:AssumeRole", "r", Condition={"StringEquals": {"sts:ExternalId": "hunter2"}})
        ),
        role(
            allow("sts:AssumeRole", "r", Condition={"StringEquals": {"sts:ExternalId": "hunter3"}})
        ),
        "widening",
        "condition changed",
        "role worker may now sts:AssumeRole on r if sts:ExternalId is (not shown)"
        " (before: only if sts:ExternalId is (not shown))",
    ),
    # Policies by their ARN, boundaries, trust
    "administrator": (
        role(),
        role(ManagedPolicyArns=[ADMIN]),
        "widening",
        "managed policy added",
        "role worker now has the managed policy AdministratorAccess of AWS",
    ),
    "administrator no longer": (
        role(ManagedPolicyArns=[ADMIN]),
        role(),
        "narrowing",
        "managed policy removed",
        "role worker no longer has the managed policy AdministratorAccess of AWS",
    ),
    "a denying policy of AWS removed": (
        role(ManagedPolicyArns=["arn:aws:iam::aws:policy/AWSDenyAll"]),
        role(),
        "widening",
        "managed policy removed",
        "role worker no longer has the managed policy AWSDenyAll of AWS",
    ),
    "the boundary lost": (
        role(),
        role(PermissionsBoundary=None),
        "widening",
        "boundary lost",
        "role worker has lost its permissions boundary csr-Developer-Permissions-Boundary",
    ),
    "the boundary changed": (
        role(),
        role(PermissionsBoundary=ADMIN),
        "widening",
        "boundary changed",
        "role worker now has the permissions boundary AdministratorAccess"
        " (before: csr-Developer-Permissions-Boundary)",
    ),
    "the boundary added": (
        role(PermissionsBoundary=None),
        role(),
        "narrowing",
        "boundary added",
        "role worker now has the permissions boundary csr-Developer-Permissions-Boundary",
    ),
    "a new role without the boundary": (
        {},
        role(PermissionsBoundary=None),
        "widening",
        "boundary missing",
        "new role worker has no permissions boundary",
    ),
    "the boundary allows more": (
        boundary_policy(allow("ec2:Run", "*")),
        boundary_policy(allow(["ec2:Run", "iam:CreateUser"], "*")),
        "widening",
        "boundary: new wildcard",
        "boundary csr-Developer-Permissions-Boundary, which bounds 1 roles, now lets its roles be"
        " allowed iam:CreateUser on every resource",
    ),
    "the boundary denies less": (
        boundary_policy(allow("ec2:Run", "*"), deny("iam:CreateUser", "*")),
        boundary_policy(allow("ec2:Run", "*")),
        "widening",
        "boundary: Deny removed",
        "boundary csr-Developer-Permissions-Boundary, which bounds 1 roles, no longer denies its"
        " roles iam:CreateUser on every resource",
    ),
    "another account may assume": (
        trusted_by(EC2),
        trusted_by(EC2, {**EC2, "Principal": {"AWS": "111122223333"}}),
        "widening",
        "trust: principal added",
        "role worker may now be assumed by account 111122223333"
        " (before: service ec2.amazonaws.com)",
    ),
    "everyone may assume": (
        trusted_by(EC2),
        trusted_by({**EC2, "Principal": "*"}),
        "widening",
        "trust: new wildcard",
        "role worker may now be assumed by everyone (before: service ec2.amazonaws.com)",
    ),
    "a service may no longer assume": (
        trusted_by(EC2, {**EC2, "Principal": {"Service": "lambda.amazonaws.com"}}),
        trusted_by(EC2),
        "narrowing",
        "trust: statement removed",
        "role worker may no longer be assumed by service lambda.amazonaws.com",
    ),
    "longer sessions": (
        role(),
        role(MaxSessionDuration=43200),
        "widening",
        "session duration",
        "sessions of role worker may now last 43200 s (before: 3600 s)",
    ),
    "a user gets a group": (
        {"U": resource("AWS::IAM::User", {"UserName": "dopey"})},
        {"U": resource("AWS::IAM::User", {"UserName": "dopey", "Groups": ["admins"]})},
        "widening",
        "group joined",
        "user dopey is now in the group admins",
    ),
    "an access key": (
        {},
        {"K": resource("AWS::IAM::AccessKey", {"UserName": "dopey"})},
        "widening",
        "access key added",
        "new access key of user dopey",
    ),
    "an instance profile with another role": (
        {"I": resource("AWS::IAM::InstanceProfile", {"Roles": ["reader"]})},
        {"I": resource("AWS::IAM::InstanceProfile", {"Roles": ["writer"]})},
        "widening",
        "role changed",
        "instance profile I now works with the permissions of writer (before: reader)",
    ),
    # Resource policies
    "a bucket without its denial": (
        bucket_policy(deny("s3:*", "arn:aws:s3:::data/*", Principal="*", Condition=TLS)),
        bucket(),
        "widening",
        "resource policy: Deny removed",
        "bucket data no longer denies everyone s3:* on arn:aws:s3:::data/*"
        " if aws:SecureTransport is false",
    ),
    "a bucket for everyone": (
        bucket(),
        bucket_policy(allow("s3:GetObject", "arn:aws:s3:::data/*", Principal={"AWS": "*"})),
        "widening",
        "resource policy: new wildcard",
        "bucket data now lets everyone s3:GetObject on arn:aws:s3:::data/*",
    ),
    "a bucket for another account": (
        bucket(),
        bucket_policy(
            allow("s3:GetObject", "arn:aws:s3:::data/*", Principal={"AWS": "111122223333"})
        ),
        "widening",
        "resource policy: principal added",
        "bucket data now lets account 111122223333 s3:GetObject on arn:aws:s3:::data/*",
    ),
    "a key for another role": (
        {"K": resource("AWS::KMS::Key", {"KeyPolicy": {"Statement": []}})},
        {
            "K": resource(
                "AWS::KMS::Key",
                {
                    "KeyPolicy": {
                        "Statement": [
                            allow("kms:Decrypt", "*", Principal={"AWS": "arn:aws:iam::1:role/x"})
                        ]
                    }
                },
            )
        },
        "widening",
        "resource policy: principal added",
        "key K now lets arn:aws:iam::1:role/x kms:Decrypt",
    ),
    "a function for a service": (
        lambda_permission(Principal="events.amazonaws.com"),
        lambda_permission(Principal="s3.amazonaws.com", SourceAccount="427491229895"),
        "widening",
        "resource policy: principal added",
        "function f now lets service s3.amazonaws.com lambda:InvokeFunction"
        " if aws:SourceAccount is 427491229895",
    ),
    "an endpoint without its policy": (
        {
            "E": resource(
                "AWS::EC2::VPCEndpoint",
                {"PolicyDocument": {"Statement": [allow("s3:Get", "b", Principal=ROOT)]}},
            )
        },
        {"E": resource("AWS::EC2::VPCEndpoint", {})},
        "widening",
        "resource policy: new wildcard",
        "VPC endpoint E now lets everyone do everything",
    ),
    # Security groups
    "open to everyone": (
        group(tcp(22, 22, CidrIp="10.12.0.0/16")),
        group(tcp(22, 22, CidrIp=OPEN)),
        "widening",
        "open to everyone",
        "security group ssh now accepts tcp 22 from 0.0.0.0/0 (before: 10.12.0.0/16)",
    ),
    "a wider range": (
        group(tcp(22, 22, CidrIp="10.12.64.0/22")),
        group(tcp(22, 22, CidrIp="10.12.0.0/16")),
        "widening",
        "wider CIDR",
        "security group ssh now accepts tcp 22 from 10.12.0.0/16 (before: 10.12.64.0/22)",
    ),
    "a narrower range": (
        group(tcp(22, 22, CidrIp="10.12.0.0/16")),
        group(tcp(22, 22, CidrIp="10.12.64.0/22")),
        "narrowing",
        "rule removed",
        "security group ssh no longer accepts tcp 22 from 10.12.0.0/16",
    ),
    "every address of IPv6": (
        group(tcp(22, 22, CidrIp="10.12.0.0/16")),
        group(tcp(22, 22, CidrIp="10.12.0.0/16"), tcp(22, 22, CidrIpv6="::/0")),
        "widening",
        "open to everyone",
        "security group ssh now accepts tcp 22 from ::/0 (before: 10.12.0.0/16)",
    ),
    "more ports": (
        group(tcp(22, 22, SourceSecurityGroupId="sg-1")),
        group(tcp(0, 65535, SourceSecurityGroupId="sg-1")),
        "widening",
        "wider ports",
        "security group ssh now accepts every tcp port from sg-1 (before: only tcp 22)",
    ),
    "every protocol": (
        group(tcp(22, 22, SourceSecurityGroupId="sg-1")),
        group({"IpProtocol": "-1", "SourceSecurityGroupId": "sg-1"}),
        "widening",
        "wider ports",
        "security group ssh now accepts every protocol and port from sg-1 (before: only tcp 22)",
    ),
    "another group": (
        group(tcp(22, 22, SourceSecurityGroupId="sg-1")),
        group(
            tcp(22, 22, SourceSecurityGroupId="sg-1"),
            tcp(22, 22, SourcePrefixListId="pl-1"),
        ),
        "widening",
        "peer added",
        "security group ssh now accepts tcp 22 from pl-1 (before: sg-1)",
    ),
    "everything may go out": (
        group(SecurityGroupEgress=[tcp(443, 443, CidrIp="10.0.0.0/8")]),
        group(),
        "widening",
        "open to everyone",
        "members of security group ssh may now reach 0.0.0.0/0 on every protocol and port",
    ),
    "a group removed": (
        group(tcp(22, 22, CidrIp=OPEN)),
        {},
        "narrowing",
        "security group removed",
        "security group ssh is removed",
    ),
    "a network ACL allows": (
        {},
        {
            "N": resource(
                "AWS::EC2::NetworkAclEntry",
                {"RuleAction": "allow", "CidrBlock": OPEN, "RuleNumber": 100, "Protocol": -1},
            )
        },
        "widening",
        "network ACL entry",
        "network ACL entry N allows protocol -1 all ports in from 0.0.0.0/0 (rule 100)",
    ),
    # Settings that protect
    "a file system without encryption": (
        efs(),
        efs(Encrypted=False),
        "widening",
        "encryption off",
        "file system F: encryption is off now",
    ),
    "a file system without its key": (
        efs(KmsKeyId=KEY),
        efs(),
        "widening",
        "key lost",
        f"file system F is no longer encrypted with the key {KEY}",
    ),
    "a new file system without encryption": (
        {},
        {"F": resource("AWS::EFS::FileSystem", {})},
        "widening",
        "encryption off",
        "new file system F: encryption is off",
    ),
    "a disk without encryption": (
        template_data(**disk(Encrypted=True)),
        template_data(**disk()),
        "widening",
        "encryption off",
        "launch template T (/dev/xvda): encryption is off now",
    ),
    "a bucket with weaker encryption": (
        bucket(BucketEncryption={"ServerSideEncryptionConfiguration": KMS}),
        bucket(BucketEncryption={"ServerSideEncryptionConfiguration": AES}),
        "widening",
        "encryption off",
        "bucket data is now encrypted with AES256 (before: aws:kms)",
    ),
    "a log group without its key": (
        {"L": resource("AWS::Logs::LogGroup", {"LogGroupName": "l", "KmsKeyId": KEY})},
        {"L": resource("AWS::Logs::LogGroup", {"LogGroupName": "l"})},
        "widening",
        "key lost",
        f"log group l is no longer encrypted with the key {KEY}",
    ),
    "public access no longer blocked": (
        bucket(PublicAccessBlockConfiguration=PUBLIC_BLOCK),
        bucket(PublicAccessBlockConfiguration={**PUBLIC_BLOCK, "BlockPublicPolicy": False}),
        "widening",
        "public access",
        "bucket data: blocking of public policies is off now",
    ),
    "a public access control list": (
        bucket(),
        bucket(AccessControl="PublicRead"),
        "widening",
        "public access",
        "bucket data: the access control list is public now",
    ),
    "data no longer kept": (
        {"F": resource("AWS::EFS::FileSystem", {"Encrypted": True}, DeletionPolicy="Retain")},
        efs(),
        "widening",
        "protection lost",
        "file system F is no longer kept when it is deleted (DeletionPolicy Retain before)",
    ),
    "a database may be deleted": (
        {"D": resource("AWS::RDS::DBCluster", {"DeletionProtection": True})},
        {"D": resource("AWS::RDS::DBCluster", {"DeletionProtection": False})},
        "widening",
        "protection lost",
        "database cluster D: deletion protection is off now",
    ),
    "IMDSv1 again": (
        template_data(MetadataOptions={"HttpTokens": "required"}),
        template_data(MetadataOptions={"HttpTokens": "optional"}),
        "widening",
        "IMDSv1 allowed",
        "launch template T: IMDSv2 is no longer required now",
    ),
    "a public address": (
        template_data(NetworkInterfaces=[{"DeviceIndex": 0}]),
        template_data(NetworkInterfaces=[{"DeviceIndex": 0, "AssociatePublicIpAddress": True}]),
        "widening",
        "public access",
        "launch template T: gets a public address now",
    ),
    "a function that anyone calls": (
        {"U": resource("AWS::Lambda::Url", {"AuthType": "AWS_IAM"})},
        {"U": resource("AWS::Lambda::Url", {"AuthType": "NONE"})},
        "widening",
        "public access",
        "url U may be called by everyone without credentials (AuthType NONE)",
    ),
    # Clusters
    "a cluster without the boundary": (
        cluster(),
        cluster(Iam__PermissionsBoundary=None),
        "widening",
        "boundary lost",
        "cluster eco: roles that ParallelCluster makes have lost the permissions boundary"
        " csr-Developer-Permissions-Boundary",
    ),
    "SSH from everywhere": (
        cluster(),
        cluster(HeadNode__Ssh__AllowedIps=None),
        "widening",
        "open to everyone",
        "cluster eco: the head node accepts SSH (tcp 22) from 0.0.0.0/0 (before: 10.12.0.0/16)",
    ),
    "SSH from less": (
        cluster(),
        cluster(HeadNode__Ssh__AllowedIps="10.12.64.0/22"),
        "narrowing",
        "narrower CIDR",
        "cluster eco: the head node no longer accepts SSH from 10.12.0.0/16",
    ),
    "full access to S3": (
        cluster(),
        cluster(
            HeadNode__Iam__AdditionalIamPolicies=[
                {"Policy": "arn:aws:iam::aws:policy/AmazonS3FullAccess"}
            ]
        ),
        "widening",
        "managed policy added",
        "the head node of cluster eco now has the managed policy AmazonS3FullAccess of AWS",
    ),
    "every bucket": (
        cluster(),
        cluster(HeadNode__Iam__S3Access=[{"BucketName": "*"}]),
        "widening",
        "new wildcard",
        "cluster eco: the head node may now read every bucket",
    ),
    "write access": (
        cluster(HeadNode__Iam__S3Access=[{"BucketName": "ws-out"}]),
        cluster(HeadNode__Iam__S3Access=[{"BucketName": "ws-out", "EnableWriteAccess": True}]),
        "widening",
        "bucket access added",
        "cluster eco: the head node may now write the bucket path ws-out/* (before: only read)",
    ),
    "a role that ParallelCluster makes": (
        cluster(),
        cluster(HeadNode__Iam__InstanceRole=None),
        "widening",
        "role changed",
        "cluster eco: the head node works with the role one that ParallelCluster makes"
        " (before: arn:aws:iam::427491229895:role/head)",
    ),
    "another group of a queue": (
        cluster(),
        cluster(
            Scheduling__SlurmQueues=[
                {"Name": "eco", "Networking": {"SecurityGroups": ["sg-1", "sg-2"]}}
            ]
        ),
        "widening",
        "security group added",
        "cluster eco: queue eco is now also in the security group sg-2",
    ),
    "a root volume without encryption": (
        cluster(),
        cluster(HeadNode__LocalStorage__RootVolume__Encrypted=False),
        "widening",
        "encryption off",
        "cluster eco: encryption of the root volume of the head node is off now",
    ),
    "mounts without TLS": (
        cluster(),
        cluster(SharedStorage=[{"Name": "share", "EfsSettings": {"IamAuthorization": True}}]),
        "widening",
        "encryption off",
        "cluster eco: encryption in transit of share is off now",
    ),
    "IMDSv1 on nodes": (
        cluster(),
        cluster(Imds__ImdsSupport="v1.0"),
        "widening",
        "IMDSv1 allowed",
        "cluster eco: nodes answer IMDSv1 too (Imds.ImdsSupport v1.0)",
    ),
    "sudo for the default user": (
        cluster(),
        cluster(DeploymentSettings=None),
        "widening",
        "protection lost",
        "cluster eco: the ban of sudo for the default user is off now",
    ),
    "a directory without TLS": (
        cluster(DirectoryService={"DomainAddr": "ldaps://d"}),
        cluster(DirectoryService={"DomainAddr": "ldap://d"}),
        "widening",
        "TLS weakened",
        "cluster eco: the directory is asked without TLS (DomainAddr ldap://)",
    ),
    "a script more": (
        cluster(),
        cluster(
            HeadNode__CustomActions={
                "OnNodeStart": {"Script": "https://me:hunter2@host/a.sh?token=hunter2"}
            }
        ),
        "change",
        "script added",
        "cluster eco: the head node now runs https://host/a.sh as root",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_change_is_told(name: str) -> None:
    base, head, kind, rule, sentence = CASES[name]
    found = changes(base, head)
    assert [(c.kind, c.rule, c.sentence) for c in found][:1] == [(kind, rule, sentence)]


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case[2] == "narrowing"])
def test_what_only_narrows_does_not_widen(name: str) -> None:
    base, head, *_ = CASES[name]
    assert {change.kind for change in changes(base, head)} == {"narrowing"}


@pytest.mark.parametrize("name", CASES)
def test_templates_that_are_equal_have_no_changes(name: str) -> None:
    for side in CASES[name][:2]:
        other = {"Z": resource("AWS::SSM::Parameter", {"Value": "v"}), **side}
        assert changes(side, other) == []


def test_every_rule_is_documented(root: Path) -> None:
    page = (root / "docs" / "security-review.md").read_text(encoding="utf-8")
    told = {c.rule for base, head, *_ in CASES.values() for c in changes(base, head)}
    rules = {rule.rpartition(": ")[2] for rule in told}
    assert sorted(rule for rule in rules if f"`{rule}`" not in page) == []


def test_no_sentence_has_a_secret() -> None:
    told = [c for base, head, *_ in CASES.values() for c in changes(base, head)]
    assert [c.sentence for c in told if "hunter" in c.sentence] == []
