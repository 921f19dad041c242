"""The settings of an S3 bucket that ministack drops when CloudFormation makes the bucket.

Each is translated into the XML document of its S3 call, so that the call which reads it back
answers what a bucket on AWS answers.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from html import escape
from typing import Any

from ministack.services import s3
from ministack.services.cloudformation import provisioners

from clusterbox.embedded.server.ministack_api import (
    Properties,
    account_id,
    call,
    is_true,
    region,
    tag_list,
)


def _xml(name: str, value: Any) -> str:
    """Return an element: a mapping becomes its children, a list repeats the element."""
    if value is None:
        return ""
    if isinstance(value, list):
        return "".join(_xml(name, item) for item in value)
    if isinstance(value, dict):
        inner = "".join(_xml(key, item) for key, item in value.items())
    else:
        inner = escape(str(value).lower() if isinstance(value, bool) else str(value))
    return f"<{name}>{inner}</{name}>"


def _document(name: str, value: dict[str, Any]) -> bytes:
    return _xml(name, value).replace(f"<{name}>", f'<{name} xmlns="{s3.S3_NS}">', 1).encode()


def _encryption(properties: Properties) -> bytes:
    rules = [
        {
            "ApplyServerSideEncryptionByDefault": rule.get("ServerSideEncryptionByDefault"),
            "BucketKeyEnabled": is_true(rule.get("BucketKeyEnabled", False)),
        }
        for rule in properties["ServerSideEncryptionConfiguration"]
    ]
    return _document("ServerSideEncryptionConfiguration", {"Rule": rules})


def _transitions(rule: Properties, prefix: str) -> list[dict[str, Any]]:
    days, name = ("NoncurrentDays", "Noncurrent") if prefix else ("Days", "")
    single = rule.get(f"{name}VersionTransition" if name else "Transition")
    many = rule.get(f"{name}VersionTransitions" if name else "Transitions") or []
    return [
        {
            days: entry.get("TransitionInDays"),
            "Date": entry.get("TransitionDate"),
            "StorageClass": entry["StorageClass"],
            "NewerNoncurrentVersions": entry.get("NewerNoncurrentVersions"),
        }
        for entry in ([single] if single else []) + list(many)
    ]


def _filter(rule: Properties) -> dict[str, Any]:
    parts: dict[str, Any] = {
        name: rule[name]
        for name in ("Prefix", "ObjectSizeGreaterThan", "ObjectSizeLessThan")
        if name in rule
    }
    tags = [{"Key": tag["Key"], "Value": tag["Value"]} for tag in rule.get("TagFilters") or []]
    if tags:
        parts["Tag"] = tags
    if not parts:
        return {"Prefix": ""}
    return {"And": parts} if len(parts) + max(len(tags) - 1, 0) > 1 else parts


def _lifecycle_rule(rule: Properties, number: int) -> dict[str, Any]:
    expiration = {
        "Days": rule.get("ExpirationInDays"),
        "Date": rule.get("ExpirationDate"),
        "ExpiredObjectDeleteMarker": rule.get("ExpiredObjectDeleteMarker"),
    }
    noncurrent = rule.get("NoncurrentVersionExpiration")
    if days := rule.get("NoncurrentVersionExpirationInDays"):
        noncurrent = {"NoncurrentDays": days}
    return {
        "ID": rule.get("Id", f"rule-{number}"),
        "Status": rule["Status"],
        "Filter": _filter(rule),
        "Expiration": expiration if any(v is not None for v in expiration.values()) else None,
        "NoncurrentVersionExpiration": noncurrent,
        "Transition": _transitions(rule, ""),
        "NoncurrentVersionTransition": _transitions(rule, "Noncurrent"),
        "AbortIncompleteMultipartUpload": rule.get("AbortIncompleteMultipartUpload"),
    }


def _lifecycle(properties: Properties) -> bytes:
    rules = [_lifecycle_rule(rule, n) for n, rule in enumerate(properties["Rules"], 1)]
    return _document("LifecycleConfiguration", {"Rule": rules})


def _logging(properties: Properties) -> bytes:
    enabled = {
        "TargetBucket": properties.get("DestinationBucketName"),
        "TargetPrefix": properties.get("LogFilePrefix", ""),
    }
    on = {"LoggingEnabled": enabled} if properties.get("DestinationBucketName") else {}
    return _document("BucketLoggingStatus", on)


def _no_logging(bucket: str) -> None:
    s3._bucket_logging_config.pop(bucket, None)


def _ownership(properties: Properties) -> bytes:
    return _document("OwnershipControls", {"Rule": properties["Rules"]})


def _checked(put: Callable[[str, bytes], Any]) -> Callable[[str, bytes], None]:
    def put_or_fail(bucket: str, body: bytes) -> None:
        call(put, bucket, body)

    return put_or_fail


def set_tags(bucket: str, properties: Properties) -> None:
    """Set the tags a template gives a bucket, its stack's tags included."""
    tags = {tag["Key"]: tag["Value"] for tag in tag_list(properties)}
    if tags:
        s3._bucket_tags[bucket] = tags
    else:
        s3._bucket_tags.pop(bucket, None)


def set_versioning(bucket: str, old: Properties, new: Properties) -> None:
    """Set the declared versioning; dropping the declaration suspends it, as on AWS."""
    declared = (new.get("VersioningConfiguration") or {}).get("Status")
    if declared:
        s3._bucket_versioning[bucket] = declared
    elif old.get("VersioningConfiguration") and bucket in s3._bucket_versioning:
        s3._bucket_versioning[bucket] = "Suspended"


_SSE_HEADER = "x-amz-server-side-encryption"
_KEY_HEADER = "x-amz-server-side-encryption-aws-kms-key-id"


def _default_key(bucket: str) -> str:
    """Return the key an object gets that asks for KMS without naming one."""
    found = re.search(
        r"<KMSMasterKeyID>([^<]+)</KMSMasterKeyID>", s3._bucket_encryption.get(bucket) or ""
    )
    return found[1] if found else f"arn:aws:kms:{region()}:{account_id()}:alias/aws/s3"


def _with_default_key(resolve: Callable[[dict[str, str], str], Any]) -> Callable[..., Any]:
    def resolve_encryption(headers: dict[str, str], bucket: str) -> Any:
        if headers.get(_SSE_HEADER) == "aws:kms" and not headers.get(_KEY_HEADER):
            headers = {**headers, _KEY_HEADER: _default_key(bucket)}
        return resolve(headers, bucket)

    return resolve_encryption


def mend() -> None:
    """Apply every setting, and block public access of a new bucket as AWS does since 2023."""
    provisioners._S3_BUCKET_CONFIGURATIONS += (
        (
            "BucketEncryption",
            _encryption,
            _checked(s3._put_bucket_encryption),
            s3._delete_bucket_encryption,
        ),
        (
            "LifecycleConfiguration",
            _lifecycle,
            _checked(s3._put_bucket_lifecycle),
            s3._delete_bucket_lifecycle,
        ),
        ("LoggingConfiguration", _logging, _checked(s3._put_bucket_logging), _no_logging),
        (
            "OwnershipControls",
            _ownership,
            _checked(s3._put_bucket_ownership_controls),
            s3._delete_bucket_ownership_controls,
        ),
    )
    provisioners._STACK_TAG_PROPERTY["AWS::S3::Bucket"] = ("Tags", "list")
    # The CDK CLI asks for KMS encryption of its assets and leaves the key to the bucket.
    s3._resolve_sse_write_headers = _with_default_key(s3._resolve_sse_write_headers)
    blocked = {"_public_access_block": s3._NEW_BUCKET_PUBLIC_ACCESS_BLOCK}
    s3._new_bucket_public_access_block = lambda: dict(blocked)
