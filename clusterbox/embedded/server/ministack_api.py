"""The narrow door to ministack's private interfaces.

ministack has neither types nor a public extension interface. What the rest of this package
uses of it is gathered here, so that a new ministack version has one file to be checked
against, and the contract tests in ``tests/embedded`` to check it with.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NotRequired, TypedDict

from ministack.core import responses
from ministack.services.cloudformation import provisioners

# Values a template carries are JSON: they have no narrower type than this.
Properties = dict[str, Any]
Attributes = dict[str, Any]
Resource = tuple[str, Attributes]  # physical id, and what Fn::GetAtt answers

CreateHandler = Callable[[str, Properties, str], Resource]
UpdateHandler = Callable[[str, Properties, Properties, str], Resource]
DeleteHandler = Callable[[str, Properties], None]


class ResourceType(TypedDict):
    """How one CloudFormation type is provisioned."""

    create: CreateHandler  # (logical id, properties, stack name)
    update: NotRequired[UpdateHandler]  # (physical id, old, new, stack name)
    delete: DeleteHandler  # (physical id, properties)
    # Properties whose change replaces the resource. The engine then creates the successor and
    # deletes the predecessor after the stack's update, and `update` is not called.
    replacing: NotRequired[tuple[str, ...]]
    # The name of the list property that holds tags: the engine adds the stack's tags to it.
    tags: NotRequired[str]


class ResourceFailedError(ValueError):
    """A resource cannot be created, changed or deleted; the text becomes the event's reason."""


def register(types: Mapping[str, ResourceType]) -> None:
    """Teach CloudFormation these types, replacing a type it knows already."""
    for name, kind in types.items():
        entry: dict[str, Any] = {"create": kind["create"], "delete": kind["delete"]}
        if "update" in kind:
            entry["update"] = kind["update"]
        provisioners._RESOURCE_HANDLERS[name] = entry
        if "replacing" in kind:
            provisioners._REPLACING_PROPERTIES[name] = kind["replacing"]
        if "tags" in kind:
            provisioners._STACK_TAG_PROPERTY[name] = (kind["tags"], "list")


def native_handler(resource_type: str) -> dict[str, Any]:
    """Return ministack's own entry of a type, to be changed in place."""
    entry: dict[str, Any] = provisioners._RESOURCE_HANDLERS[resource_type]
    return entry


def account_id() -> str:
    """Return the account of the request being served."""
    return str(responses.get_account_id())


def region() -> str:
    """Return the region of the request being served."""
    return str(responses.get_region())


def new_id(prefix: str) -> str:
    """Return an id in EC2's form: the prefix, a dash and 17 hexadecimal digits."""
    return f"{prefix}-{str(responses.new_uuid()).replace('-', '')[:17]}"


def new_uuid() -> str:
    """Return a random UUID."""
    return str(responses.new_uuid())


def physical_name(stack: str, logical_id: str, max_length: int = 128) -> str:
    """Return CloudFormation's generated name: stable over updates of the same resource."""
    return str(provisioners._physical_name(stack, logical_id, max_len=max_length))


class Answer:
    """A successful answer of one of ministack's API functions."""

    def __init__(self, body: bytes) -> None:
        self.text = body.decode()

    def value(self, element: str) -> str:
        """Return the text of the first XML element of that name, or raise KeyError."""
        found = re.search(rf"<{element}>([^<]*)</{element}>", self.text)
        if found is None:
            raise KeyError(f"{element} is not in the answer: {self.text[:200]}")
        return found.group(1)

    def values(self, element: str) -> list[str]:
        """Return the texts of all XML elements of that name."""
        return re.findall(rf"<{element}>([^<]*)</{element}>", self.text)


def call(function: Callable[..., Any], *arguments: Any) -> Answer:
    """Call an API function of ministack; raise ResourceFailedError with the AWS error it gives."""
    status, _headers, body = function(*arguments)
    data = body if isinstance(body, bytes) else str(body).encode()
    if status >= 400:
        raise ResourceFailedError(_error_of(data.decode()))
    return Answer(data)


def _error_of(text: str) -> str:
    found = [
        re.search(rf'<{name}>([^<]*)<|"(?:__)?{other}"\s*:\s*"((?:[^"\\]|\\.)*)"', text, re.I)
        for name, other in (("Message", "message"), ("Code", "type"))
    ]
    message, code = ((m.group(1) or m.group(2)) if m else "" for m in found)
    return f"{message} ({code})" if code else message or text[:300]


def query_parameters(values: Mapping[str, Any]) -> dict[str, list[str]]:
    """Flatten nested values into EC2 query parameters: ``{"A": [{"B": 1}]}`` is ``A.1.B=1``."""
    flat: dict[str, list[str]] = {}

    def put(name: str, value: Any) -> None:
        if isinstance(value, Mapping):
            for key, inner in value.items():
                put(f"{name}.{key}", inner)
        elif isinstance(value, list | tuple):
            for number, inner in enumerate(value, 1):
                put(f"{name}.{number}", inner)
        elif isinstance(value, bool):
            flat[name] = ["true" if value else "false"]
        elif value is not None:
            flat[name] = [str(value)]

    for key, value in values.items():
        put(key, value)
    return flat


def is_true(value: Any) -> bool:
    """Return a template's boolean, which may be written as text."""
    return str(value).lower() == "true"


def tag_list(properties: Properties, name: str = "Tags") -> list[dict[str, str]]:
    """Return a property's tags with text values, in the template's order."""
    return [{"Key": str(t["Key"]), "Value": str(t["Value"])} for t in properties.get(name) or []]
