"""Run ParallelCluster's validators over a loaded configuration, and keep which one said what.

The library runs them resource by resource and returns a flat list. Here each runs by itself, in
the library's order, so that a finding keeps its resource and a look at a made-up value is charged
to the validator that looked.
"""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pcluster.config.common import Resource
from pcluster.validators import s3_validators
from pcluster.validators.common import AsyncValidator, FailureLevel, ValidatorContext

from clusterbox.clusters.library.assumptions import listening, reasons_in, refuse
from clusterbox.clusters.library.locations import (
    Location,
    calling_resources,
    locate_resources,
    refine,
    value_at,
)
from clusterbox.clusters.library.validators import VALIDATORS

# A finding that rests on the configuration alone, although its validator looks at the account
# before it makes it.
INDEPENDENT = {
    "CapacityReservationValidator": re.compile("cannot be used with Instances"),
    "CapacityReservationResourceGroupValidator": re.compile("cannot be used with"),
    "QueueSubnetsValidator": re.compile("specified multiple times"),
}

# Where findings about the whole cluster stand, when neither arguments nor message say it.
PLACES: dict[str, Location] = {
    "ClusterNameValidator": (),
    "HeadNodeMemorySizeValidator": ("HeadNode", "InstanceType"),
    "KeyPairValidator": ("HeadNode", "Ssh", "KeyName"),
    "ManagedFsxMultiAzValidator": ("SharedStorage",),
    "MixedSecurityGroupOverwriteValidator": ("HeadNode", "Networking"),
    "RegionValidator": ("Region",),
}
# The key that the findings of a rule are about, of the resource or of a section around it, where
# the message quotes other values. With a pattern it holds for the messages that match.
KEYS: tuple[tuple[str, str, Location], ...] = (
    ("CapacityTypeValidator", "", ("CapacityType",)),
    ("ComputeResourceTagsValidator", "", ("Tags",)),
    ("DcvValidator", "", ("Dcv",)),
    ("EbsVolumeIopsValidator", "", ("Iops",)),
    ("EbsVolumeTypeSizeValidator", "", ("Size",)),
    ("EfaMultiAzValidator", "", ("Networking", "SubnetIds")),
    (
        "FsxStorageTypeOptionsValidator",
        "per unit storage throughput",
        ("FsxLustreSettings", "PerUnitStorageThroughput"),
    ),
    ("InstancesAllocationStrategyValidator", "", ("AllocationStrategy",)),
    ("InstancesEFAValidator", "", ("Efa", "Enabled")),
    ("InstancesMemorySchedulingWarningValidator", "", ("Instances",)),
    ("MaxCountValidator", "LoginNodePools", ("LoginNodes", "Pools")),
    ("MultiAzPlacementGroupValidator", "", ("Networking", "PlacementGroup")),
    ("SingleInstanceTypeSubnetValidator", "", ("Networking", "SubnetIds")),
)


@dataclass(frozen=True)
class SuiteFinding:
    """What one validator found, and where it stands."""

    rule: str
    level: FailureLevel
    message: str
    location: Location


@dataclass
class Registration:
    """One validator with its arguments, and what its arguments rest on."""

    rule: type[Any]
    arguments: dict[str, Any]
    about: list[Resource]
    reasons: list[str] = field(default_factory=list)


class Suite:
    """One run of the validators over one configuration."""

    def __init__(self, config: Resource, configuration: Mapping[str, Any]) -> None:
        self._config = config
        self._configuration = configuration
        self._located = locate_resources(config, configuration)
        self._registered: list[Registration] = []
        self._pending: list[str] = []
        self.findings: list[SuiteFinding] = []
        # Rule and reason, in the order of their appearance.
        self.not_checked: dict[tuple[str, str], None] = {}

    def run(self) -> None:
        """Run every validator that the resources of the configuration register."""
        for resource in _with_nested(self._config):
            self._register(resource)
            for registration in self._registered:
                self._execute(resource, registration)

    def note_registration(self, rule: type[Any], arguments: dict[str, Any]) -> None:
        """Keep a validator that a resource registers, and what its arguments have looked at."""
        about = calling_resources(sys._getframe(2))
        reasons = [*self._pending, *reasons_in(list(arguments.values()))]
        self._registered.append(Registration(rule, arguments, about, reasons))
        self._pending = []

    def _register(self, resource: Resource) -> None:
        self._registered, self._pending = [], []
        _run.suite = self
        try:
            with listening(lambda reason: self._pending.append(reason)):
                resource._register_validators(ValidatorContext())
        except Exception as error:  # the library's own words for it follow
            if self._pending:
                self._leave_unchecked("Validators", self._pending)
                return
            location = self._located.get(id(resource), ())
            text = f"Invalid cluster configuration: {error}"
            self.findings.append(SuiteFinding("Validators", FailureLevel.ERROR, text, location))

    def _execute(self, resource: Resource, registration: Registration) -> None:
        validator = registration.rule()
        rule = validator.type.removeprefix("AsyncTimed")
        reasons = list(registration.reasons)
        sure = 0 if reasons else None

        def looked(reason: str) -> None:
            nonlocal sure
            sure = len(validator._failures) if sure is None else sure
            reasons.append(reason)

        failures: list[tuple[FailureLevel, str]] = []
        with listening(looked):
            try:
                found = _call(validator, registration)
                failures = [(failure.level, failure.message) for failure in found]
            except Exception as error:  # as the library does: a validator's crash is its finding
                failures = [(item.level, item.message) for item in validator._failures]
                if not reasons:
                    failures.append((FailureLevel.ERROR, str(error)))
        if rule not in VALIDATORS:
            reasons.append("this validator is not known here; nobody has said what it asks of AWS")
        self._leave_unchecked(rule, reasons)
        independent = INDEPENDENT.get(rule)
        for index, (level, message) in enumerate(failures):
            if sure is None or index < sure or (independent and independent.search(message)):
                location = self._place(resource, registration, message)
                self.findings.append(SuiteFinding(rule, level, message, location))

    def _place(self, resource: Resource, registration: Registration, message: str) -> Location:
        arguments = registration.arguments
        rule = registration.rule.__name__
        if rule in PLACES:
            return PLACES[rule]
        own = self._located.get(id(resource), ())
        about = [
            *registration.about,
            *(value for value in arguments.values() if isinstance(value, Resource)),
        ]
        nearest = [
            location
            for item in about
            if (location := self._located.get(id(item), ())) and location[: len(own)] == own
        ]
        nearest.sort(key=len, reverse=True)
        section = nearest[0] if nearest else own
        if "root_volume_size" in arguments or "volume_size" in arguments:
            section = self._root_volume(section)
        meant = self._meant_key(rule, section, message)
        return meant or refine(self._configuration, section, arguments, message)

    def _meant_key(self, rule: str, section: Location, message: str) -> Location | None:
        """Return the key that a rule's findings are about, of the nearest section that has it."""
        for name, pattern, key in KEYS:
            if name == rule and re.search(pattern, message):
                around = [section[:length] for length in range(len(section), -1, -1)]
                for place in (*around, ("HeadNode",)):
                    for inner in ((), ("EbsSettings",)):
                        if value_at(self._configuration, (*place, *inner, *key)) is not None:
                            return (*place, *inner, *key)
        return None

    def _root_volume(self, section: Location) -> Location:
        """Return where the root volume stands that the whole cluster's validators are about."""
        inner: Location = ("LocalStorage", "RootVolume")
        if section == ():
            return ("HeadNode", *inner)
        return (
            (*section, "ComputeSettings", *inner) if section[-2:-1] == ("SlurmQueues",) else section
        )

    def _leave_unchecked(self, rule: str, reasons: list[str]) -> None:
        for reason in reasons:
            self.not_checked.setdefault((rule, reason))


@dataclass
class _Run:
    suite: Suite | None = None


_run = _Run()
_loop = asyncio.new_event_loop()


def prepare() -> None:
    """Let resources register with the suite that runs, and keep validators off the network."""
    asyncio.set_event_loop(_loop)

    def register(_resource: Resource, validator_class: type[Any], **arguments: Any) -> None:
        if _run.suite is not None:
            _run.suite.note_registration(validator_class, arguments)

    resource_class: Any = Resource
    resource_class._register_validator = register

    def open_url(url: str) -> Any:
        raise refuse(f"whether {url} answers")

    s3_validators.urlopen = open_url
    # The library remembers a URL's judgement for 10 s, longer than a cluster takes here.
    cached = s3_validators.UrlValidator._validate_async
    s3_validators.UrlValidator._validate_async = cached.__wrapped__


def _call(validator: Any, registration: Registration) -> list[Any]:
    if isinstance(validator, AsyncValidator):
        failures: list[Any] = _loop.run_until_complete(
            validator.execute_async(**registration.arguments)
        )
        return failures
    found: list[Any] = validator.execute(**registration.arguments)
    return found


def _with_nested(resource: Resource) -> Iterator[Resource]:
    """Yield the resources in the order in which the library validates them."""
    for nested in resource._nested_resources():
        yield from _with_nested(nested)
    yield resource
