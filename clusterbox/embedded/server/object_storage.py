"""S3: template URLs with the bucket in the host name, and buckets that are not empty."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from ministack.services import s3
from ministack.services.cloudformation import helpers

from clusterbox.embedded.server import bucket_settings
from clusterbox.embedded.server.ministack_api import (
    Properties,
    Resource,
    ResourceFailedError,
    ResourceType,
    native_handler,
)

RESOURCE_TYPES: dict[str, ResourceType] = {}

_VIRTUAL_HOST = re.compile(
    r"https?://(?P<bucket>[^/]+?)\.s3[.-](?:[a-z0-9-]+\.)?amazonaws\.com(?:\.cn)?/(?P<key>[^?]+)"
)


def path_style(url: str) -> str:
    """Return an S3 URL with the bucket in its path; any other URL unchanged."""
    found = _VIRTUAL_HOST.match(url)
    return f"http://localhost/{found['bucket']}/{found['key']}" if found else url


def _with_path_style(resolve: Callable[..., Any]) -> Callable[..., Any]:
    def resolve_document(
        parameters: Mapping[str, Any], body_key: str, url_key: str, label: str
    ) -> Any:
        given = parameters.get(url_key)
        url = given[0] if isinstance(given, list) and given else given
        if url:
            parameters = {**parameters, url_key: [path_style(str(url))]}
        return resolve(parameters, body_key, url_key, label)

    return resolve_document


def _mend_buckets() -> None:
    entry = native_handler("AWS::S3::Bucket")
    create, update, delete = entry["create"], entry["update"], entry["delete"]

    def create_bucket(logical_id: str, properties: Properties, stack: str) -> Resource:
        name, attributes = create(logical_id, properties, stack)
        bucket_settings.set_versioning(name, {}, properties)
        bucket_settings.set_tags(name, properties)
        return name, attributes

    def update_bucket(name: str, old: Properties, new: Properties, stack: str) -> Resource:
        name, attributes = update(name, old, new, stack)
        bucket_settings.set_versioning(name, old, new)
        bucket_settings.set_tags(name, new)
        return name, attributes

    def delete_bucket(name: str, properties: Properties) -> None:
        if s3._buckets.get(name, {}).get("objects"):
            raise ResourceFailedError(
                f"The bucket {name} you tried to delete is not empty (BucketNotEmpty)"
            )
        delete(name, properties)
        s3._bucket_logging_config.pop(name, None)

    entry |= {"create": create_bucket, "update": update_bucket, "delete": delete_bucket}


def mend() -> None:
    """Fetch templates from the account's own S3, and keep buckets that hold objects."""
    helpers._resolve_document = _with_path_style(helpers._resolve_document)
    bucket_settings.mend()
    _mend_buckets()
