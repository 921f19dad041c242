"""A cluster for comparisons: native configuration with most sections written out."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import yaml

Config = dict[str, Any]
Edit = Callable[[Config], object]

BASE: Config = yaml.safe_load("""
Region: us-west-2
CustomS3Bucket: cluster-bucket
Image: {Os: alinux2023, CustomAmi: ami-00000000000000001}
HeadNode:
  InstanceType: t3.medium
  Networking:
    SubnetId: subnet-00000000000000001
    SecurityGroups: [sg-00000000000000001, sg-00000000000000002]
  Ssh: {KeyName: key}
  Iam:
    S3Access: [{BucketName: results, EnableWriteAccess: true}]
Scheduling:
  Scheduler: slurm
  SlurmSettings:
    ScaledownIdletime: 10
    QueueUpdateStrategy: DRAIN
    CustomSlurmSettings: [{MaxJobCount: 20000}]
  SlurmQueues:
    - Name: eco
      CapacityType: ONDEMAND
      ComputeResources:
        - Name: small
          Instances: [{InstanceType: t3a.2xlarge}, {InstanceType: m5.2xlarge}]
          MinCount: 1
          MaxCount: 3
      Networking:
        SubnetIds: [subnet-00000000000000001, subnet-00000000000000002]
        SecurityGroups: [sg-00000000000000001]
    - Name: hpc
      ComputeResources:
        - {Name: big, InstanceType: c6i.32xlarge, MaxCount: 10}
      Networking:
        SubnetIds: [subnet-00000000000000001]
        PlacementGroup: {Enabled: true}
LoginNodes:
  Pools:
    - Name: login
      InstanceType: t3.small
      Count: 1
      Networking: {SubnetIds: [subnet-00000000000000001]}
SharedStorage:
  - Name: data
    StorageType: Efs
    MountDir: /data
    EfsSettings: {FileSystemId: fs-00000000000000001, EncryptionInTransit: true}
Monitoring:
  DetailedMonitoring: false
  Logs: {CloudWatch: {Enabled: true, RetentionInDays: 30}}
Tags:
  - {Key: Project, Value: test}
DeploymentSettings:
  LambdaFunctionsVpcConfig:
    SecurityGroupIds: [sg-00000000000000001]
    SubnetIds: [subnet-00000000000000001, subnet-00000000000000002]
""")


def edited(*edits: Edit, base: Config = BASE) -> Config:
    """Return a copy of the configuration with the edits made."""
    config = copy.deepcopy(base)
    for edit in edits:
        edit(config)
    return config


def put(*path: str | int, value: Any) -> Edit:
    """Return the edit that sets a value at a location, with the sections that it needs."""

    def edit(config: Config) -> None:
        section: Any = config
        for part in path[:-1]:
            section = section[part] if isinstance(part, int) else section.setdefault(part, {})
        section[path[-1]] = value

    return edit


def drop(*path: str | int) -> Edit:
    """Return the edit that removes the value at a location."""

    def edit(config: Config) -> None:
        section: Any = config
        for part in path[:-1]:
            section = section[part]
        del section[path[-1]]

    return edit


def add(*path: str | int, item: Any) -> Edit:
    """Return the edit that appends an item to a list, which it makes where there is none."""

    def edit(config: Config) -> None:
        section: Any = config
        for part in path[:-1]:
            section = section[part]
        section.setdefault(path[-1], []).append(item)

    return edit


def turn(*path: str | int) -> Edit:
    """Return the edit that reverses the order of a list."""

    def edit(config: Config) -> None:
        section: Any = config
        for part in path:
            section = section[part]
        section.reverse()

    return edit


def as_delivered(config: Config) -> Config:
    """Return the configuration as CloudFormation delivers it: every scalar is a text."""

    def text(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: text(item) for key, item in value.items()}
        if isinstance(value, list):
            return [text(item) for item in value]
        return str(value).lower() if isinstance(value, bool) else str(value)

    delivered: Config = text(config)
    return delivered
