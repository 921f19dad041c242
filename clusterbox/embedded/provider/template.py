"""The stand-in provider's CloudFormation template and the S3 objects that publish it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clusterbox.site.names import PARALLELCLUSTER_VERSION

TEMPLATE_KEY = "parallelcluster/{version}/templates/custom_resource/cluster.yaml"
# Where the official provider keeps the layer with the library; ours is one readable file.
LIBRARY_KEY = "parallelcluster/{version}/layers/aws-parallelcluster/library.py"
# Lambda's upper limit: one invocation waits for the whole operation, see `function_resource`.
FUNCTION_TIMEOUT_SECONDS = 900

_HERE = Path(__file__).parent


def provider_template(version: str = PARALLELCLUSTER_VERSION) -> str:
    """Return the template's text (JSON): the official one's parameters and outputs."""
    template = {
        "AWSTemplateFormatVersion": "2010-09-09",
        "Description": "STAND-IN for the AWS ParallelCluster Cluster Custom Resource Provider "
        f"{version}, for the embedded account only",
        "Parameters": {
            "CustomLambdaRole": {
                "Type": "String",
                "Default": "",
                "Description": "ARN of the role of the provider's functions",
            },
            "AdditionalIamPolicies": {
                "Type": "CommaDelimitedList",
                "Default": "",
                "Description": "Policies of the provider's own role, without a CustomLambdaRole",
            },
            "CustomBucket": {
                "Type": "String",
                "Default": "",
                "Description": "Bucket to take the provider's files from, instead of the region's",
            },
        },
        "Conditions": {
            "OwnRole": {"Fn::Equals": [{"Ref": "CustomLambdaRole"}, ""]},
            "MorePolicies": {
                "Fn::Not": [
                    {"Fn::Equals": [{"Fn::Join": ["", {"Ref": "AdditionalIamPolicies"}]}, ""]}
                ]
            },
            "OtherBucket": {"Fn::Not": [{"Fn::Equals": [{"Ref": "CustomBucket"}, ""]}]},
        },
        "Resources": {
            "PclusterLambdaRole": own_role_resource(),
            "PclusterLayer": layer_resource(version),
            "PclusterCfnFunction": function_resource(version),
            "PclusterCfnFunctionLogGroup": {
                "Type": "AWS::Logs::LogGroup",
                "DeletionPolicy": "Retain",
                "UpdateReplacePolicy": "Retain",
                "Properties": {
                    "LogGroupName": {"Fn::Sub": "/aws/lambda/${PclusterCfnFunction}"},
                    "RetentionInDays": 90,
                },
            },
        },
        "Outputs": {
            "ServiceToken": {"Value": {"Fn::GetAtt": ["PclusterCfnFunction", "Arn"]}},
            "LogGroupArn": {"Value": {"Fn::GetAtt": ["PclusterCfnFunctionLogGroup", "Arn"]}},
            "LambdaLayerArn": {"Value": {"Ref": "PclusterLayer"}},
        },
    }
    return json.dumps(template, indent=1)


def own_role_resource() -> Mapping[str, Any]:
    """Return the role that the provider makes when it is given none."""
    basic = "arn:${AWS::Partition}:iam::aws:policy/service-role/AWSLambdaBasicExecutionRole"
    return {
        "Type": "AWS::IAM::Role",
        "Condition": "OwnRole",
        "Properties": {
            "AssumeRolePolicyDocument": {
                "Version": "2012-10-17",
                "Statement": [
                    {
                        "Effect": "Allow",
                        "Action": "sts:AssumeRole",
                        "Principal": {"Service": "lambda.amazonaws.com"},
                    }
                ],
            },
            "ManagedPolicyArns": {
                "Fn::If": [
                    "MorePolicies",
                    {"Ref": "AdditionalIamPolicies"},
                    [{"Fn::Sub": basic}],
                ]
            },
        },
    }


def layer_resource(version: str) -> Mapping[str, Any]:
    """Return the layer: the published ``library.py``, which the function fetches itself."""
    return {
        "Type": "AWS::Lambda::LayerVersion",
        "Properties": {
            "LayerName": {"Fn::Sub": ["PCLayer-${Suffix}", {"Suffix": _stack_suffix()}]},
            "Description": "STAND-IN: the script that runs the installed aws-parallelcluster",
            "CompatibleRuntimes": ["python3.12"],
            "Content": {"S3Bucket": _bucket(), "S3Key": LIBRARY_KEY.format(version=version)},
        },
    }


def function_resource(version: str) -> Mapping[str, Any]:
    """Return the function that serves ``Custom::PclusterCluster``.

    The official one is called again by a schedule until the cluster is ready; this one waits,
    because nothing boots in the embedded account and the operation takes seconds.
    """
    return {
        "Type": "AWS::Lambda::Function",
        "Properties": {
            "FunctionName": {"Fn::Sub": ["pcluster-cfn-${Suffix}", {"Suffix": _stack_suffix()}]},
            "Description": "STAND-IN for ParallelCluster's provider function",
            "Handler": "index.handler",
            "Runtime": "python3.12",
            "MemorySize": 2048,
            "Timeout": FUNCTION_TIMEOUT_SECONDS,
            "Role": {
                "Fn::If": [
                    "OwnRole",
                    {"Fn::GetAtt": ["PclusterLambdaRole", "Arn"]},
                    {"Ref": "CustomLambdaRole"},
                ]
            },
            "Environment": {
                "Variables": {
                    "LIBRARY_BUCKET": _bucket(),
                    "LIBRARY_KEY": LIBRARY_KEY.format(version=version),
                }
            },
            "Tags": [
                {"Key": "parallelcluster:version", "Value": version},
                {"Key": "parallelcluster:custom_resource", "Value": "cluster"},
            ],
            "Code": {"ZipFile": (_HERE / "function.py").read_text(encoding="utf-8")},
        },
    }


def provider_objects(region: str, version: str = PARALLELCLUSTER_VERSION) -> list[dict[str, str]]:
    """Return what publishes the provider in a region of the embedded account's S3.

    Each object has ``bucket``, ``key`` and its text as ``body``. The cluster stacks' template
    address of that region and version then leads to the stand-in.
    """
    bucket = f"{region}-aws-parallelcluster"
    library = (_HERE / "library.py").read_text(encoding="utf-8")
    return [
        {
            "bucket": bucket,
            "key": TEMPLATE_KEY.format(version=version),
            "body": provider_template(version),
        },
        {"bucket": bucket, "key": LIBRARY_KEY.format(version=version), "body": library},
    ]


def _bucket() -> Mapping[str, Any]:
    regional = {"Fn::Sub": "${AWS::Region}-aws-parallelcluster"}
    return {"Fn::If": ["OtherBucket", {"Ref": "CustomBucket"}, regional]}


def _stack_suffix() -> Mapping[str, Any]:
    """Return the last part of the stack's id, which makes names unique in the account."""
    return {"Fn::Select": [2, {"Fn::Split": ["/", {"Ref": "AWS::StackId"}]}]}
