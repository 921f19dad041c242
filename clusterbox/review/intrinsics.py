"""Resolve CloudFormation's functions as far as a template tells, and the rest to readable text."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

Template = Mapping[str, Any]
# The stack and the logical id of a resource.
Place = tuple[str, str]
# What `Ref: AWS::NoValue` stands for: the property is left out.
NO_VALUE = object()
_IN_SUB = re.compile(r"\$\{([^${}]+)\}")
_FUNCTIONS = re.compile(r"^(Ref|Condition|Fn::\w+)$")
# A template nests far less; a value that refers to itself ends here.
_DEEPEST = 60


def as_list(value: object) -> list[Any]:
    """Return a list as it is, nothing as an empty list, and anything else as a list of it."""
    if value is None or value is NO_VALUE:
        return []
    return list(value) if isinstance(value, list) else [value]


def as_dict(value: object) -> dict[str, Any]:
    """Return a mapping as a dict, text that holds a JSON object parsed, and else an empty dict."""
    if isinstance(value, str) and value.lstrip().startswith("{"):
        try:
            value = json.loads(value)
        except ValueError:
            return {}
    return dict(value) if isinstance(value, Mapping) else {}


def canonical(value: object) -> str:
    """Return text that is equal for equal values, whatever the order of their keys."""
    if isinstance(value, str):
        return value
    return json.dumps(value, sort_keys=True, default=str)


@dataclass
class Resolver:
    """Resolves values of the templates of one environment.

    `truths` says whether a condition of a stack holds. `reference` says what `Ref` or an attribute
    of a resource is; without an answer it is named by its place.
    """

    templates: Mapping[str, Template]
    account: str | None
    truths: Callable[[str, str], bool]
    reference: Callable[[Place, str], str | None] = lambda _place, _attribute: None
    _exports: dict[str, Place] = field(default_factory=dict)
    _depth: int = 0

    def __post_init__(self) -> None:
        for stack, template in self.templates.items():
            for output, body in as_dict(template.get("Outputs")).items():
                name = as_dict(as_dict(body).get("Export")).get("Name")
                if name is not None:
                    self._exports[canonical(self.resolve(stack, name))] = (stack, output)

    def resolve(self, stack: str, value: Any) -> Any:
        """Return the value with every function resolved, or NO_VALUE."""
        if self._depth > _DEEPEST:
            return f"${{{canonical(value)}}}"
        self._depth += 1
        try:
            return self._resolve(stack, value)
        finally:
            self._depth -= 1

    def _resolve(self, stack: str, value: Any) -> Any:
        if isinstance(value, list):
            items = [self.resolve(stack, item) for item in value]
            return [item for item in items if item is not NO_VALUE]
        if not isinstance(value, Mapping):
            return value
        if len(value) == 1 and _FUNCTIONS.match(str(next(iter(value)))):
            name, argument = next(iter(value.items()))
            return self._call(stack, name, argument)
        pairs = {str(key): self.resolve(stack, item) for key, item in value.items()}
        return {key: item for key, item in pairs.items() if item is not NO_VALUE}

    def _call(self, stack: str, name: str, argument: Any) -> Any:
        match name:
            case "Ref":
                return self._ref(stack, str(argument))
            case "Fn::GetAtt" if len(parts := _parts(argument)) == 2:
                attribute = canonical(self.resolve(stack, parts[1]))
                return self._attribute((stack, str(parts[0])), attribute)
            case "Fn::If" if isinstance(argument, list) and len(argument) == 3:
                chosen = argument[1] if self.truths(stack, str(argument[0])) else argument[2]
                return self.resolve(stack, chosen)
            case "Fn::ImportValue":
                return self._import(canonical(self.resolve(stack, argument)))
            case "Fn::Sub" if isinstance(argument, str) or len(_parts(argument)) == 2:
                return self._sub(stack, argument)
            case "Fn::Base64":
                return self.resolve(stack, argument)
            case "Condition":
                # Not a function outside of `Conditions`: the `Condition` of a policy's statement.
                return {name: self.resolve(stack, argument)}
        resolved = self.resolve(stack, argument)
        done = _compute(name, resolved) if isinstance(resolved, list) else None
        if name == "Fn::FindInMap" and isinstance(resolved, list):
            done = self._find_in_map(stack, resolved)
        return f"${{{name} {canonical(resolved)}}}" if done is None else done

    def _ref(self, stack: str, name: str) -> Any:
        if name == "AWS::NoValue":
            return NO_VALUE
        if name == "AWS::Partition":
            # The literal ARNs of a site name its partition; `aws` keeps both spellings equal.
            return "aws"
        if name == "AWS::AccountId" and self.account:
            return self.account
        if name == "AWS::StackName":
            return stack
        template = self.templates.get(stack, {})
        if name in as_dict(template.get("Resources")):
            return self._attribute((stack, name), "")
        parameter = as_dict(as_dict(template.get("Parameters")).get(name))
        if "Default" not in parameter or str(parameter.get("NoEcho", "")).lower() == "true":
            return f"${{{name}}}"
        kind, default = str(parameter.get("Type", "String")), parameter["Default"]
        if kind.startswith("AWS::SSM::Parameter"):
            return f"{{{{resolve:ssm:{default}}}}}"
        is_list = "List" in kind and isinstance(default, str)
        return [item.strip() for item in default.split(",")] if is_list else default

    def _attribute(self, place: Place, attribute: str) -> str:
        known = self.reference(place, attribute)
        if known is not None:
            return known
        return f"${{{'/'.join(place)}{'.' if attribute else ''}{attribute}}}"

    def _import(self, name: str) -> Any:
        if name not in self._exports:
            return f"${{import {name}}}"
        stack, output = self._exports[name]
        return self.resolve(stack, self.templates[stack]["Outputs"][output].get("Value"))

    def _sub(self, stack: str, argument: Any) -> Any:
        text, variables = argument if isinstance(argument, list) else (argument, {})

        def replace(match: re.Match[str]) -> str:
            name = match[1].strip()
            if name.startswith("!"):
                return f"${{{name[1:]}}}"
            if name in as_dict(variables):
                return canonical(self.resolve(stack, variables[name]))
            resource, _, attribute = name.partition(".")
            if attribute:
                return self._attribute((stack, resource), attribute)
            return canonical(self._ref(stack, name))

        return _IN_SUB.sub(replace, str(text))

    def _find_in_map(self, stack: str, keys: list[Any]) -> Any:
        found: Any = self.templates.get(stack, {}).get("Mappings", {})
        for key in keys[:3]:
            found = as_dict(found).get(str(key))
        return found


def _parts(argument: Any) -> list[Any]:
    """Return the two parts of an argument: a list, or text with a dot; or what else it is."""
    return argument.split(".", 1) if isinstance(argument, str) else as_list(argument)


def _compute(name: str, argument: list[Any]) -> Any:
    """Return the result of a function of plain values, or None where they are not plain."""
    if len(argument) != 2:
        return None
    first, second = argument
    match name:
        case "Fn::Join" if isinstance(second, list):
            return str(first).join(canonical(item) for item in second)
        case "Fn::Select" if isinstance(second, list) and str(first).isdigit():
            return second[int(first)] if int(first) < len(second) else None
        case "Fn::Split" if isinstance(second, str) and "${" not in second:
            return second.split(str(first))
    return None
