"""As much of S3 as a patch day uses, in memory: conditional writes, reads and listings."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

from botocore.exceptions import ClientError


class MemoryS3:
    """One bucket's objects; `now` is the server's clock, `refuse` the codes of the next answers."""

    def __init__(self) -> None:
        self.objects: dict[str, tuple[bytes, str, datetime]] = {}
        self.now = datetime(2026, 11, 22, 12, tzinfo=UTC)
        self.refuse: list[str] = []

    def put_object(self, **words: Any) -> dict[str, Any]:
        self._refuse("PutObject")
        key, body = words["Key"], words["Body"]
        found = self.objects.get(key)
        if words.get("IfNoneMatch") == "*" and found is not None:
            raise error("PreconditionFailed", "PutObject")
        if (wanted := words.get("IfMatch")) is not None:
            if found is None:
                raise error("NoSuchKey", "PutObject")
            if found[1] != wanted:
                raise error("PreconditionFailed", "PutObject")
        etag = hashlib.sha256(body + str(len(self.objects)).encode()).hexdigest()
        self.objects[key] = (body, etag, self.now)
        return {"ETag": etag}

    def get_object(self, **words: Any) -> dict[str, Any]:
        self._refuse("GetObject")
        if words["Key"] not in self.objects:
            raise error("NoSuchKey", "GetObject")
        body, etag, modified = self.objects[words["Key"]]
        return {
            "Body": io.BytesIO(body),
            "ETag": etag,
            "LastModified": modified,
            "ResponseMetadata": {"HTTPHeaders": {"date": format_datetime(self.now, usegmt=True)}},
        }

    def delete_object(self, **words: Any) -> None:
        self._refuse("DeleteObject")
        self.objects.pop(words["Key"], None)

    def get_paginator(self, operation: str) -> MemoryS3:
        assert operation == "list_objects_v2"
        return self

    def paginate(self, **words: Any) -> Iterator[dict[str, Any]]:
        prefix, delimiter = words["Prefix"], words["Delimiter"]
        folders = {
            prefix + key[len(prefix) :].split(delimiter)[0] + delimiter
            for key in self.objects
            if key.startswith(prefix) and delimiter in key[len(prefix) :]
        }
        yield {"CommonPrefixes": [{"Prefix": folder} for folder in sorted(folders)]}

    def pass_time(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    def _refuse(self, operation: str) -> None:
        if self.refuse and (code := self.refuse.pop(0)):
            raise error(code, operation)


def error(code: str, operation: str) -> ClientError:
    """Return the error that botocore raises for an answer of AWS."""
    return ClientError({"Error": {"Code": code, "Message": f"{code} for {operation}"}}, operation)
