from __future__ import annotations

import json
from typing import Any

import pytest

from clusterbox.embedded.account import EmbeddedAccount
from tests.embedded.stack_driver import ACCOUNT, Stack


@pytest.fixture(scope="module")
def efs(account: EmbeddedAccount) -> Any:
    return account.client("efs")


@pytest.fixture(scope="module")
def s3(account: EmbeddedAccount) -> Any:
    return account.client("s3")


def file_system(**properties: Any) -> dict[str, Any]:
    return {"Type": "AWS::EFS::FileSystem", "Properties": {"Encrypted": True, **properties}}


def test_a_file_system_keeps_its_policy_lifecycle_backup_and_key(stack: Stack, efs: Any) -> None:
    tls_only = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Deny",
                "Principal": {"AWS": "*"},
                "Action": "elasticfilesystem:ClientMount",
                "Resource": "*",
                "Condition": {"Bool": {"aws:SecureTransport": "false"}},
            }
        ],
    }
    key = f"arn:aws:kms:us-west-2:{ACCOUNT}:key/1234abcd"
    home = file_system(
        KmsKeyId=key,
        ThroughputMode="elastic",
        FileSystemPolicy=tls_only,
        BackupPolicy={"Status": "ENABLED"},
        LifecyclePolicies=[{"TransitionToIA": "AFTER_30_DAYS"}],
        FileSystemTags=[{"Key": "Name", "Value": "home"}],
    )
    resources = {"Home": home}
    assert stack.create(resources) == "CREATE_COMPLETE"
    fs_id = stack.ids()["Home"]
    found = efs.describe_file_systems(FileSystemId=fs_id)["FileSystems"][0]
    assert (found["Encrypted"], found["KmsKeyId"], found["Name"]) == (True, key, "home")
    assert found["ThroughputMode"] == "elastic"
    (kept,) = json.loads(efs.describe_file_system_policy(FileSystemId=fs_id)["Policy"])["Statement"]
    assert kept["Effect"] == "Deny"
    assert kept["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
    backup = efs.describe_backup_policy(FileSystemId=fs_id)["BackupPolicy"]
    assert backup["Status"] == "ENABLED"
    lifecycle = efs.describe_lifecycle_configuration(FileSystemId=fs_id)["LifecyclePolicies"]
    assert lifecycle == [{"TransitionToIA": "AFTER_30_DAYS"}]

    home["Properties"]["LifecyclePolicies"] = [{"TransitionToIA": "AFTER_90_DAYS"}]
    assert stack.update(resources) == "UPDATE_COMPLETE"
    assert stack.ids()["Home"] == fs_id
    lifecycle = efs.describe_lifecycle_configuration(FileSystemId=fs_id)["LifecyclePolicies"]
    assert lifecycle == [{"TransitionToIA": "AFTER_90_DAYS"}]
    assert stack.delete() == "DELETE_COMPLETE"


def test_an_encrypted_file_system_without_a_key_has_the_accounts_own(
    stack: Stack, efs: Any
) -> None:
    assert stack.create({"Home": file_system()}) == "CREATE_COMPLETE"
    found = efs.describe_file_systems(FileSystemId=stack.ids()["Home"])["FileSystems"][0]
    assert found["KmsKeyId"] == f"arn:aws:kms:us-west-2:{ACCOUNT}:key/aws/elasticfilesystem"
    stack.delete()


def test_a_mount_target_has_groups_and_an_address_no_instance_has(
    stack: Stack, efs: Any, account: EmbeddedAccount
) -> None:
    resources = {
        "Vpc": {"Type": "AWS::EC2::VPC", "Properties": {"CidrBlock": "10.200.0.0/16"}},
        "Subnet": {
            "Type": "AWS::EC2::Subnet",
            "Properties": {"VpcId": {"Ref": "Vpc"}, "CidrBlock": "10.200.3.0/24"},
        },
        "Group": {
            "Type": "AWS::EC2::SecurityGroup",
            "Properties": {"GroupDescription": "nfs", "VpcId": {"Ref": "Vpc"}},
        },
        "Box": {"Type": "AWS::EC2::Instance", "Properties": {"SubnetId": {"Ref": "Subnet"}}},
        "Home": file_system(),
        "Target": {
            "Type": "AWS::EFS::MountTarget",
            "DependsOn": "Box",
            "Properties": {
                "FileSystemId": {"Ref": "Home"},
                "SubnetId": {"Ref": "Subnet"},
                "SecurityGroups": [{"Ref": "Group"}],
            },
        },
    }
    assert stack.create(resources) == "CREATE_COMPLETE"
    ids = stack.ids()
    target = efs.describe_mount_targets(FileSystemId=ids["Home"])["MountTargets"][0]
    assert (target["IpAddress"], target["SubnetId"]) == ("10.200.3.5", ids["Subnet"])
    groups = efs.describe_mount_target_security_groups(MountTargetId=target["MountTargetId"])
    assert groups["SecurityGroups"] == [ids["Group"]]
    assert stack.delete() == "DELETE_COMPLETE"


def test_a_buckets_settings_are_read_back_as_they_were_declared(stack: Stack, s3: Any) -> None:
    rule = {"Id": "old", "Status": "Enabled", "Prefix": "logs/", "ExpirationInDays": 90}
    data = {
        "BucketName": "site-data-settings",
        "BucketEncryption": {
            "ServerSideEncryptionConfiguration": [
                {
                    "BucketKeyEnabled": True,
                    "ServerSideEncryptionByDefault": {
                        "SSEAlgorithm": "aws:kms",
                        "KMSMasterKeyID": "alias/site",
                    },
                }
            ]
        },
        "VersioningConfiguration": {"Status": "Enabled"},
        "PublicAccessBlockConfiguration": {
            "BlockPublicAcls": True,
            "BlockPublicPolicy": True,
            "IgnorePublicAcls": True,
            "RestrictPublicBuckets": True,
        },
        "LifecycleConfiguration": {"Rules": [rule]},
        "LoggingConfiguration": {
            "DestinationBucketName": {"Ref": "Logs"},
            "LogFilePrefix": "data/",
        },
        "OwnershipControls": {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]},
        "Tags": [{"Key": "project", "Value": "hpc"}],
    }
    resources = {
        "Logs": {"Type": "AWS::S3::Bucket", "Properties": {"BucketName": "site-logs-settings"}},
        "Data": {"Type": "AWS::S3::Bucket", "Properties": data},
    }
    assert stack.create(resources) == "CREATE_COMPLETE"
    name = {"Bucket": "site-data-settings"}
    (encryption,) = s3.get_bucket_encryption(**name)["ServerSideEncryptionConfiguration"]["Rules"]
    assert encryption["ApplyServerSideEncryptionByDefault"] == {
        "SSEAlgorithm": "aws:kms",
        "KMSMasterKeyID": "alias/site",
    }
    assert encryption["BucketKeyEnabled"] is True
    assert s3.get_bucket_versioning(**name)["Status"] == "Enabled"
    block = s3.get_public_access_block(**name)["PublicAccessBlockConfiguration"]
    assert set(block.values()) == {True}
    (lifecycle,) = s3.get_bucket_lifecycle_configuration(**name)["Rules"]
    assert (lifecycle["ID"], lifecycle["Expiration"]["Days"]) == ("old", 90)
    (owner,) = s3.get_bucket_ownership_controls(**name)["OwnershipControls"]["Rules"]
    assert owner["ObjectOwnership"] == "BucketOwnerEnforced"
    logging = s3.get_bucket_logging(**name)["LoggingEnabled"]
    assert (logging["TargetBucket"], logging["TargetPrefix"]) == ("site-logs-settings", "data/")
    assert {"Key": "project", "Value": "hpc"} in s3.get_bucket_tagging(**name)["TagSet"]

    rule["ExpirationInDays"] = 30
    del data["VersioningConfiguration"]
    assert stack.update(resources) == "UPDATE_COMPLETE"
    (lifecycle,) = s3.get_bucket_lifecycle_configuration(**name)["Rules"]
    assert lifecycle["Expiration"]["Days"] == 30
    assert s3.get_bucket_versioning(**name)["Status"] == "Suspended"
    assert stack.delete() == "DELETE_COMPLETE"


def test_a_new_bucket_blocks_public_access_whoever_made_it(stack: Stack, s3: Any) -> None:
    bucket = {"Type": "AWS::S3::Bucket", "Properties": {"BucketName": "site-blocks-stack"}}
    assert stack.create({"Data": bucket}) == "CREATE_COMPLETE"
    s3.create_bucket(
        Bucket="site-blocks-call",
        CreateBucketConfiguration={"LocationConstraint": "us-west-2"},
    )
    for name in ("site-blocks-stack", "site-blocks-call"):
        block = s3.get_public_access_block(Bucket=name)["PublicAccessBlockConfiguration"]
        assert set(block.values()) == {True}
    stack.delete()


def test_lifecycle_rules_keep_filters_transitions_and_noncurrent_versions(
    stack: Stack, s3: Any
) -> None:
    rule = {
        "Status": "Enabled",
        "Prefix": "runs/",
        "TagFilters": [{"Key": "keep", "Value": "no"}],
        "Transitions": [{"StorageClass": "GLACIER_IR", "TransitionInDays": 30}],
        "NoncurrentVersionExpiration": {"NoncurrentDays": 60},
        "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 7},
    }
    properties = {
        "BucketName": "site-lifecycle",
        "LifecycleConfiguration": {"Rules": [rule]},
    }
    assert stack.create({"Data": {"Type": "AWS::S3::Bucket", "Properties": properties}}) == (
        "CREATE_COMPLETE"
    )
    (found,) = s3.get_bucket_lifecycle_configuration(Bucket="site-lifecycle")["Rules"]
    both = found["Filter"]["And"]
    assert (both["Prefix"], both["Tags"]) == ("runs/", [{"Key": "keep", "Value": "no"}])
    assert found["Transitions"] == [{"Days": 30, "StorageClass": "GLACIER_IR"}]
    assert found["NoncurrentVersionExpiration"] == {"NoncurrentDays": 60}
    assert found["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 7}
    stack.delete()


def test_an_object_that_asks_for_kms_without_a_key_gets_the_buckets(stack: Stack, s3: Any) -> None:
    rule = {"ServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": "k-1"}}
    properties = {
        "BucketName": "site-asks-for-kms",
        "BucketEncryption": {"ServerSideEncryptionConfiguration": [rule]},
    }
    stack.create({"Data": {"Type": "AWS::S3::Bucket", "Properties": properties}})
    put = {"Bucket": "site-asks-for-kms", "Key": "asset", "ServerSideEncryption": "aws:kms"}
    assert s3.put_object(**put)["SSEKMSKeyId"] == "k-1"
    s3.delete_object(Bucket="site-asks-for-kms", Key="asset")
    stack.delete()


def test_a_bucket_that_holds_objects_is_not_deleted(stack: Stack, s3: Any) -> None:
    bucket = {"Type": "AWS::S3::Bucket", "Properties": {"BucketName": "site-holds-objects"}}
    assert stack.create({"Data": bucket}) == "CREATE_COMPLETE"
    s3.put_object(Bucket="site-holds-objects", Key="result", Body=b"42")
    assert stack.delete() == "DELETE_FAILED"
    assert "BucketNotEmpty" in stack.failures()["Data"]
    s3.delete_object(Bucket="site-holds-objects", Key="result")
    assert stack.delete() == "DELETE_COMPLETE"


def test_a_volume_that_a_call_makes_keeps_its_throughput_and_key(account: EmbeddedAccount) -> None:
    ec2 = account.client("ec2")
    key = f"arn:aws:kms:us-west-2:{ACCOUNT}:key/1234abcd"
    made = ec2.create_volume(
        AvailabilityZone="us-west-2a",
        Size=100,
        VolumeType="gp3",
        Throughput=250,
        Encrypted=True,
        KmsKeyId=key,
    )
    (found,) = ec2.describe_volumes(VolumeIds=[made["VolumeId"]])["Volumes"]
    assert (found["Throughput"], found["KmsKeyId"]) == (250, key)
