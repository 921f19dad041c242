"""Write a review as JSON, for what comes after."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from decimal import Decimal
from enum import Enum
from typing import Any

from pydantic import BaseModel

from clusterbox.review.consequences import find_consequences
from clusterbox.review.redaction import redact
from clusterbox.review.review import Review


def render_json(review: Review) -> str:
    """Return the review as JSON: the consequences first, then all that led to them."""
    document = {
        "consequences": [
            {"severity": item.severity.name.lower(), "sentence": redact(item.sentence)}
            for item in find_consequences(review)
        ],
        **_plain(review),
    }
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return _plain(value.model_dump(mode="json"))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)
        }
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    if isinstance(value, Enum):
        return value.name.lower() if isinstance(value.value, int) else value.value
    if isinstance(value, Decimal):
        return str(value)
    return redact(value) if isinstance(value, str) else value
