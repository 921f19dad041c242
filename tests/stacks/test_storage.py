from __future__ import annotations

import json
from pathlib import Path

from clusterbox.deployment.cdk import synthesize
from tests.conftest import Templates
from tests.stacks.resources import each, only

STATEFUL = {
    "AWS::Backup::BackupVault",
    "AWS::EFS::AccessPoint",
    "AWS::EFS::FileSystem",
    "AWS::KMS::Key",
    "AWS::RDS::DBCluster",
    "AWS::RDS::DBInstance",
    "AWS::S3::Bucket",
    "AWS::SecretsManager::Secret",
}


def test_the_logical_ids_of_what_holds_data_never_change(
    ws_dev: Templates, sandbox: Templates
) -> None:
    """A renamed id would replace the file system, the key or the bucket."""

    def ids(templates: Templates) -> dict[str, str]:
        return {
            f"{stack}/{logical_id}": resource["Type"].rsplit("::", 1)[-1]
            for stack, logical_id, resource in each(templates, *STATEFUL)
        }

    assert ids(ws_dev) == {
        "ws-dev-encryption/Key961B73FD": "Key",
        "ws-dev-storage/LogsBucket9C4D8843": "Bucket",
        "ws-dev-storage/Vault23237E5B": "BackupVault",
        "ws-dev-storage/Wspcefs": "FileSystem",
        "ws-dev-storage/WspcefsProjects": "AccessPoint",
    }
    assert ids(sandbox) == {
        "sandbox-accounting/Database": "DBCluster",
        "sandbox-accounting/Password": "Secret",
        "sandbox-accounting/Writer": "DBInstance",
        "sandbox-encryption/Key961B73FD": "Key",
        "sandbox-storage/ClusterConfigBucket4FA1F517": "Bucket",
        "sandbox-storage/LogsBucket9C4D8843": "Bucket",
        "sandbox-storage/ResultsBucketA95A2103": "Bucket",
        "sandbox-storage/Vault23237E5B": "BackupVault",
        "sandbox-storage/Wspcefs": "FileSystem",
        "sandbox-storage/WspcefsProjects": "AccessPoint",
    }


def test_what_holds_data_is_retained_when_it_leaves_a_stack_or_is_replaced(
    templates: Templates,
) -> None:
    for stack, logical_id, resource in each(templates, *STATEFUL):
        assert resource["DeletionPolicy"] == "Retain", (stack, logical_id)
        assert resource["UpdateReplacePolicy"] == "Retain", (stack, logical_id)


def test_file_systems_are_encrypted_with_the_site_s_key_and_refuse_clients_without_tls(
    templates: Templates,
) -> None:
    for _, _, system in each(templates, "AWS::EFS::FileSystem"):
        properties = system["Properties"]
        assert properties["Encrypted"] is True
        assert "Fn::ImportValue" in properties["KmsKeyId"]
        (statement,) = properties["FileSystemPolicy"]["Statement"]
        assert statement["Effect"] == "Deny"
        assert statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}


def test_there_is_a_mount_target_in_every_zone_that_the_environment_names(
    ws_dev: Templates, sandbox: Templates
) -> None:
    def targets(templates: Templates) -> list[str]:
        return [logical_id for _, logical_id, _ in each(templates, "AWS::EFS::MountTarget")]

    assert targets(ws_dev) == ["WspcefsInA"]
    assert targets(sandbox) == ["WspcefsInA", "WspcefsInB", "WspcefsInC"]


def test_file_systems_are_backed_up_daily_and_kept_as_long_as_configured(ws_dev: Templates) -> None:
    plan = only(ws_dev["ws-dev-storage"], "AWS::Backup::BackupPlan")
    (rule,) = plan["Properties"]["BackupPlan"]["BackupPlanRule"]
    assert rule["Lifecycle"] == {"DeleteAfterDays": 35}
    assert rule["ScheduleExpression"] == "cron(0 9 * * ? *)"


def test_files_that_nobody_reads_move_to_infrequent_access_and_back(ws_dev: Templates) -> None:
    system = only(ws_dev["ws-dev-storage"], "AWS::EFS::FileSystem")
    assert system["Properties"]["LifecyclePolicies"] == [
        {"TransitionToIA": "AFTER_30_DAYS"},
        {"TransitionToPrimaryStorageClass": "AFTER_1_ACCESS"},
    ]


def test_buckets_are_encrypted_versioned_private_and_reached_over_tls_alone(
    templates: Templates,
) -> None:
    policies = {
        json.dumps(policy["Properties"]["Bucket"]): json.dumps(
            policy["Properties"]["PolicyDocument"]
        )
        for _, _, policy in each(templates, "AWS::S3::BucketPolicy")
    }
    for _, logical_id, bucket in each(templates, "AWS::S3::Bucket"):
        properties = bucket["Properties"]
        assert properties["VersioningConfiguration"] == {"Status": "Enabled"}, logical_id
        assert "BucketEncryption" in properties, logical_id
        assert set(properties["PublicAccessBlockConfiguration"].values()) == {True}, logical_id
        assert properties["LifecycleConfiguration"]["Rules"], logical_id
        policy = policies[json.dumps({"Ref": logical_id})]
        assert '"aws:SecureTransport": "false"' in policy, logical_id


def test_stacks_that_hold_data_are_protected_from_deletion(root: Path, tmp_path: Path) -> None:
    assert synthesize(root, "sandbox", tmp_path).protected == {
        "sandbox-accounting",
        "sandbox-boundary",
        "sandbox-encryption",
        "sandbox-network",
        "sandbox-storage",
    }
