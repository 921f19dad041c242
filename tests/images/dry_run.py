"""Judge configurations of build-image with ParallelCluster's own library; runs in .venv-pcluster.

Reads {name: configuration} as JSON and prints {name: {"messages", "template"}}: what the schema and
the validators say, and what `pcluster build-image` would deploy where they find nothing, on an
account in memory.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import boto3
from moto import mock_aws  # type: ignore[import-not-found] # of the other environment

REGION = "us-west-2"
ANYTHING = {"Effect": "Allow", "Action": "*", "Resource": "*"}


def seed(configuration: dict[str, Any]) -> dict[str, Any]:
    """Make what the configuration names; return it with the ids that the account gave."""
    build = configuration["Build"]
    s3: Any = boto3.client("s3")
    bucket = configuration["CustomS3Bucket"]
    s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION})
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    iam: Any = boto3.client("iam")
    for key in ("InstanceRole", "CleanupLambdaRole"):
        path, _, role = build["Iam"][key].partition(":role")[2].rpartition("/")
        iam.create_role(RoleName=role, Path=f"{path}/", AssumeRolePolicyDocument="{}")
    document = {"Version": "2012-10-17", "Statement": [ANYTHING]}
    boundary = build["Iam"]["PermissionsBoundary"].rpartition("/")[2]
    iam.create_policy(PolicyName=boundary, PolicyDocument=json.dumps(document))
    ec2: Any = boto3.client("ec2")
    # One that moto knows: what it registers itself has no architecture.
    images = ec2.describe_images(Filters=[{"Name": "architecture", "Values": ["x86_64"]}])
    build["ParentImage"] = images["Images"][0]["ImageId"]
    volume = configuration["Image"]["RootVolume"]
    if "KmsKeyId" in volume:
        volume["KmsKeyId"] = boto3.client("kms").create_key()["KeyMetadata"]["KeyId"]
    subnet = ec2.describe_subnets()["Subnets"][0]
    build["SubnetId"] = subnet["SubnetId"]
    groups = ec2.describe_security_groups(Filters=[{"Name": "vpc-id", "Values": [subnet["VpcId"]]}])
    build["SecurityGroupIds"] = [groups["SecurityGroups"][0]["GroupId"]]
    return configuration


def judge(configuration: dict[str, Any]) -> dict[str, Any]:
    """Return what the library's schema and validators say, and the template it would deploy."""
    with mock_aws():
        from pcluster.aws.aws_api import AWSApi
        from pcluster.models.imagebuilder import ImageBuilder
        from pcluster.templates.cdk_builder import CDKTemplateBuilder

        AWSApi.reset()
        builder = ImageBuilder(image_id="image-1", config=json.dumps(seed(configuration)))
        builder._generate_artifact_dir()  # as its `create` does first
        found = builder.config.validate()
        if found:
            return {"messages": [f"{each.level.name}: {each.message}" for each in found]}
        template = CDKTemplateBuilder().build_imagebuilder_template(
            image_config=builder.config, image_id="image-1", bucket=builder.bucket
        )
        return {"messages": [], "template": template}


if __name__ == "__main__":
    answers = {name: judge(value) for name, value in json.load(sys.stdin).items()}
    json.dump(answers, sys.stdout)
