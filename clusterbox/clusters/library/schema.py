"""Load a configuration in ParallelCluster's schema, and say what the schema refuses.

Request of `answer`: the configuration. Answer: `[[location, message], ...]`, empty when it loads.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from typing import Any

from marshmallow import Schema, ValidationError, fields
from pcluster.schemas.cluster_schema import ClusterSchema

from clusterbox.clusters.library.locations import Location, keys, value_at

SchemaFinding = tuple[Location, str]


def load(cluster: str, configuration: dict[str, Any]) -> tuple[Any, list[SchemaFinding]]:
    """Return the loaded configuration, or None and what the schema refuses and where."""
    try:
        return ClusterSchema(cluster_name=cluster).load(configuration), []
    except ValidationError as error:
        refused = list(_flatten(error.messages, ()))
        return None, [_explain(configuration, *item) for item in refused]
    except Exception as error:  # the library's own checks fail where a section below is refused
        schema = ClusterSchema(cluster_name=cluster)
        refused = list(_below_failure(schema, configuration, (), error))
        return None, [_explain(configuration, *item) for item in refused]


def _below_failure(
    schema: Schema, section: Any, location: Location, failure: Exception
) -> Iterator[SchemaFinding]:
    """Yield what the schema refuses below a section on which it fails instead of refusing it.

    The failure itself is told of the innermost section that has it, when nothing is refused there.
    """
    found: list[SchemaFinding] = []
    for place, inner, part in _nested(schema, section, location):
        try:
            inner.load(part, many=False)
        except ValidationError as error:
            found += _flatten(error.messages, place)
        except Exception as error:  # it is told where it comes from
            found += _below_failure(inner, part, place, error)
    yield from found or [(location, f"Cannot be read: {failure}.")]


def _nested(
    schema: Schema, section: Any, location: Location
) -> Iterator[tuple[Location, Schema, Any]]:
    """Yield the sections below a section: where each stands, its schema, and what it holds."""
    for name, item in schema.fields.items():
        key = str(item.data_key or name)
        below = _below(schema, key)
        value = section.get(key) if isinstance(section, dict) else None
        if below is None or value is None:
            continue
        if isinstance(value, list):
            for index, part in enumerate(value):
                yield (*location, key, index), below, part
        else:
            yield (*location, key), below, value


def _explain(configuration: dict[str, Any], location: Location, message: str) -> SchemaFinding:
    if message == "Unknown field.":
        return location, message + _meant(location)
    return _narrow(configuration, location, message), message


def _flatten(messages: Any, location: Location) -> Iterator[SchemaFinding]:
    """Yield the messages of marshmallow's nested answer with their locations."""
    if isinstance(messages, dict):
        for key, value in messages.items():
            # "_schema" is marshmallow's name for the section as a whole.
            yield from _flatten(value, location if key == "_schema" else (*location, key))
    else:
        for text in messages if isinstance(messages, list) else [messages]:
            yield location, str(text)


def _meant(location: Location) -> str:
    """Return which key may have been meant by an unknown one."""
    known = known_keys(location[:-1])
    close = difflib.get_close_matches(str(location[-1]), known, n=2, cutoff=0.7)
    if close:
        return f" Did you mean {' or '.join(close)}?"
    return f" Known here: {', '.join(known)}." if known else ""


def known_keys(location: Location) -> list[str]:
    """Return the keys that the schema knows in a section."""
    schema: Schema | None = ClusterSchema(cluster_name="any")
    for part in location:
        if isinstance(part, int):
            continue
        schema = _below(schema, part) if schema is not None else None
    if schema is None:
        return []
    return sorted(str(item.data_key or name) for name, item in schema.fields.items())


def _below(schema: Schema, key: str) -> Schema | None:
    for name, item in schema.fields.items():
        if (item.data_key or name) == key:
            inner = item.inner if isinstance(item, fields.List) else item
            return inner.schema if isinstance(inner, fields.Nested) else None
    return None


def _narrow(configuration: dict[str, Any], location: Location, message: str) -> Location:
    """Return the key of a section that a message about the section names, if it names one."""
    section = value_at(configuration, location)
    if not isinstance(section, dict):
        return location
    named = [
        place
        for place in keys(section, location)
        if len(place) == len(location) + 1
        and re.search(rf"\b{re.escape(str(place[-1]))}\b", message)
    ]
    return named[0] if len(named) == 1 else location
