"""Generate the CloudFormation that ParallelCluster would create for a cluster, offline.

Request: as for `validate`. Answer: `{"refused": [{rule, level, location, message}]}`, `{"failed":
message}`, or `{"template": {...}, "nested": {ASSET: {...}}, "configuration": {...}, "code": {FILE:
sha256}, "assumed": [reason]}`. The configuration is as the library completes it for the nodes; an
asset is the hash by which the template refers to that of a nested stack.

The library runs as in `pcluster create-cluster`. What it would upload is kept here, and what
differs from run to run has a fixed value.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
from datetime import datetime, tzinfo
from functools import cache
from typing import Any

import pcluster.models.cluster as cluster_model
import yaml
from botocore.exceptions import ClientError
from pcluster.config.common import AllValidatorsSuppressor
from pcluster.constants import PCLUSTER_BUCKET_REQUIRED_BOOTSTRAP_FEATURES
from pcluster.models.s3_bucket import S3Bucket

from clusterbox.clusters.library import account, validate
from clusterbox.clusters.library.account import Account
from clusterbox.clusters.library.assumptions import Assumed, AssumedText, assume, listening


def answer(cluster: str, asked: dict[str, Any]) -> dict[str, Any]:
    """Return what ParallelCluster would create, or why it would refuse to."""
    judged = validate.answer(cluster, asked)
    refused = [found for found in judged["findings"] if found["level"] == "ERROR"]
    if refused:
        return {"refused": refused}
    _prepare()
    os.environ["AWS_DEFAULT_REGION"] = asked["facts"]["region"]
    recorder = _Recorder(asked["facts"])
    account.enter(recorder)
    assumed: list[str] = []
    made = cluster_model.Cluster(asked["name"], config=yaml.safe_dump(asked["configuration"]))
    try:
        with listening(assumed.append):
            # The validators have run above, where they know what the account has made up.
            made.create(validator_suppressors={AllValidatorsSuppressor()})
    except cluster_model.ClusterActionError as error:
        return {"failed": str(error)}
    return {**recorder.documents(), "assumed": list(dict.fromkeys(assumed))}


class _Recorder(Account):
    """The account that keeps what the library would upload, and creates no stack."""

    def __init__(self, facts: dict[str, Any]) -> None:
        super().__init__(facts)
        self._objects: dict[str, bytes] = {}

    def answer(self, service: str, operation: str, asked: dict[str, Any]) -> dict[str, Any]:
        """Return the answer to a call; raises ClientError as AWS does."""
        match f"{service}:{operation}":
            case "s3:PutObject":
                self._objects[asked["Key"]] = _read(asked["Body"])
                return {"VersionId": "1"}
            case "s3:HeadBucket" | "s3:HeadObject" if self._is_own(asked["Bucket"]):
                return {}  # the library makes the bucket when it is not there
            case "s3:GetObject" if self._is_own(asked["Bucket"]):
                features = {"bootstrapped_features": PCLUSTER_BUCKET_REQUIRED_BOOTSTRAP_FEATURES}
                return {"Body": io.BytesIO(json.dumps(features).encode())}
            case "s3:ListObjectVersions":
                return {}  # the library removes its uploads when it has failed
            case "cloudformation:DescribeStacks":
                raise _error("ValidationError", "the stack does not exist", operation)
            case "cloudformation:CreateStack":
                return {"StackId": asked["StackName"]}
        stated: dict[str, Any] = _plain(super().answer(service, operation, asked))
        return stated

    def _is_own(self, bucket: str) -> bool:
        """Whether a bucket is the one that the library makes in each account and region."""
        return bucket == str(S3Bucket.get_bucket_name(self.facts["account"], self.region))

    def documents(self) -> dict[str, Any]:
        """Return what was uploaded, by what it is."""
        return {
            "template": self._document("aws-parallelcluster.cfn.yaml"),
            "nested": {
                key.rpartition("/")[2]: json.loads(body)
                for key, body in self._objects.items()
                if "/assets/" in key
            },
            "configuration": self._document("cluster-config-with-implied-values.yaml"),
            "code": _hashes(self._object("custom_resources/artifacts.zip")),
        }

    def _object(self, end: str) -> bytes:
        return next(body for key, body in self._objects.items() if key.endswith(f"/{end}"))

    def _document(self, end: str) -> Any:
        return yaml.safe_load(self._object(end))


def _plain(value: Any) -> Any:
    """Return an answer as values that can be copied; of those made up it is told here and now."""
    if isinstance(value, Assumed | AssumedText):
        assume(value.reason)
    if isinstance(value, dict):
        return {key: _plain(dict.__getitem__(value, key)) for key in value}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return str.__str__(value) if isinstance(value, AssumedText) else value


def _error(code: str, message: str, operation: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": message}}, operation)


def _read(body: Any) -> bytes:
    if isinstance(body, bytes):
        return body
    return body.encode() if isinstance(body, str) else bytes(body.read())


def _hashes(archive: bytes) -> dict[str, str]:
    """Return the SHA-256 of each file: the archive itself has time stamps."""
    with zipfile.ZipFile(io.BytesIO(archive)) as files:
        return {
            name: hashlib.sha256(files.read(name)).hexdigest() for name in sorted(files.namelist())
        }


class _FixedTime(datetime):
    """A clock that stands still: ParallelCluster puts the time into names of resources."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> _FixedTime:
        return cls(2000, 1, 1, tzinfo=tz)


@cache
def _prepare() -> None:
    cluster_model.generate_random_name_with_prefix = lambda name: f"{name}-0000000000000000"
    # It takes seconds to import, and starts Node.
    from pcluster.templates import cluster_stack

    cluster_stack.datetime = _FixedTime
