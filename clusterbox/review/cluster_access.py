"""Compare what a ParallelCluster configuration allows: policies, buckets, SSH, groups, encryption.

Defaults are those of ParallelCluster 3.16 (`pcluster/config/cluster_config.py`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from clusterbox.review.changes import Grade, Kind, SecurityChange, shorten
from clusterbox.review.grants import Holder
from clusterbox.review.groups import is_everywhere, parse_network, within
from clusterbox.review.iam import managed_policy_change, policy_name
from clusterbox.review.intrinsics import as_dict, as_list, canonical
from clusterbox.review.patterns import pattern_covers
from clusterbox.review.resources import Resource, Sides
from clusterbox.review.settings import item_is_gone, leaves

# A name and password in an address are not for a report.
_USER = re.compile(r"//[^/@]*@")
_MADE = "one that ParallelCluster makes"
_EVERYWHERE = "0.0.0.0/0"
# Settings that protect with `true`, by the end of the path, with the default of each.
_SWITCHES: dict[tuple[str, ...], tuple[bool, str]] = {
    ("RootVolume", "Encrypted"): (True, "encryption of the root volume"),
    ("EbsSettings", "Encrypted"): (True, "encryption"),
    ("EfsSettings", "Encrypted"): (False, "encryption"),
    ("EfsSettings", "EncryptionInTransit"): (False, "encryption in transit"),
    ("EfsSettings", "IamAuthorization"): (False, "IAM authorization of mounts"),
    ("Imds", "Secured"): (True, "IMDS for root only"),
    ("DeploymentSettings", "DisableSudoAccessForDefaultUser"): (
        False,
        "the ban of sudo for the default user",
    ),
    ("CloudWatch", "Enabled"): (True, "logging to CloudWatch"),
}
# Strength of the check of the directory's certificate; `hard` is the default.
_TLS_CHECKS = {"never": 0, "allow": 1, "try": 2, "demand": 3, "hard": 3}


@dataclass
class _Place:
    """Machines of one kind in a cluster: the head node, a queue or a pool of login nodes."""

    name: str
    section: dict[str, Any] = field(default_factory=dict)

    @property
    def iam(self) -> dict[str, Any]:
        return as_dict(self.section.get("Iam"))

    @property
    def networking(self) -> dict[str, Any]:
        return as_dict(self.section.get("Networking"))


def compare_clusters(sides: Sides, boundary_arn: str | None) -> Iterator[SecurityChange]:
    """Yield what the configurations of the clusters allow other than before."""
    for old, new in sides.both("Custom::PclusterCluster"):
        if new is None:
            continue
        before = as_dict(old.properties.get("ClusterConfiguration")) if old else None
        after = as_dict(new.properties.get("ClusterConfiguration"))
        yield from _Cluster(new, before, after).changes(boundary_arn)


@dataclass
class _Cluster:
    """One cluster's configuration before (None for a new cluster) and after."""

    resource: Resource
    before: dict[str, Any] | None
    after: dict[str, Any]

    def changes(self, boundary_arn: str | None) -> Iterator[SecurityChange]:
        """Yield all changes of the cluster."""
        yield from self._boundary(boundary_arn)
        yield from self._own_roles()
        old = {} if self.before is None else _places(self.before)
        new = _places(self.after)
        for name, place in new.items():
            # A queue or pool that comes is compared with one that has nothing.
            former = old.get(name)
            yield from self._policies(former, place)
            yield from self._buckets(former, place)
            yield from self._roles(former, place)
            yield from self._ssh(former, place)
            yield from self._groups(former, place)
            yield from self._public(former, place)
            yield from self._scripts(former, place)
        yield from self._switches()
        yield from self._imds()
        yield from self._directory()

    def _say(
        self, kind: Kind, rule: str, text: str, grade: Grade = Grade.STATEMENT
    ) -> SecurityChange:
        title = f"{'new ' if self.before is None else ''}cluster {self.resource.name}"
        sentence = f"{title}: {text}"
        return SecurityChange(*self.resource.place, self.resource.name, kind, rule, sentence, grade)

    def _boundary(self, boundary_arn: str | None) -> Iterator[SecurityChange]:
        new = as_dict(self.after.get("Iam")).get("PermissionsBoundary")
        if self.before is None:
            if boundary_arn and not new:
                text = "roles that ParallelCluster makes have no permissions boundary"
                yield self._say("widening", "boundary missing", text, Grade.ALARM)
            elif boundary_arn and canonical(new) != boundary_arn:
                text = f"roles that ParallelCluster makes get the boundary {policy_name(canonical(new))}"
                text += f", and the environment asks for {policy_name(boundary_arn)}"
                yield self._say("widening", "boundary changed", text, Grade.ALARM)
            return
        old = as_dict(self.before.get("Iam")).get("PermissionsBoundary")
        if old == new:
            return
        names = [policy_name(canonical(value)) for value in (old, new) if value]
        if not new:
            text = f"roles that ParallelCluster makes have lost the permissions boundary {names[0]}"
            yield self._say("widening", "boundary lost", text, Grade.ALARM)
        elif not old:
            text = f"roles that ParallelCluster makes now have the permissions boundary {names[0]}"
            yield self._say("narrowing", "boundary added", text)
        else:
            text = f"roles that ParallelCluster makes now have the boundary {canonical(new)}"
            yield self._say(
                "widening", "boundary changed", f"{text} (before: {canonical(old)})", Grade.ALARM
            )

    def _own_roles(self) -> Iterator[SecurityChange]:
        """Yield roles of ParallelCluster's own functions that are other than before."""
        if self.before is None:
            return
        old, new = (as_dict(as_dict(c.get("Iam")).get("Roles")) for c in (self.before, self.after))
        for key in sorted({**old, **new}):
            if old.get(key) != new.get(key):
                names = [canonical(r.get(key) or _MADE) for r in (new, old)]
                text = f"{key} is {names[0]} (before: {names[1]})"
                yield self._say("widening", "role changed", text, Grade.PRINCIPAL)

    def _policies(self, old: _Place | None, new: _Place) -> Iterator[SecurityChange]:
        before, after = (_policies_of(place) for place in (old, new))
        who = f"{new.name} of cluster {self.resource.name}"
        holder = Holder(*self.resource.place, self.resource.name, who)
        for arn in sorted(after - before):
            yield managed_policy_change(holder, arn, added=True)
        for arn in sorted(before - after):
            yield managed_policy_change(holder, arn, added=False)

    def _buckets(self, old: _Place | None, new: _Place) -> Iterator[SecurityChange]:
        before, after = _buckets_of(old), _buckets_of(new)
        for way in ("read", "write"):
            for target in sorted(after.get(way, set()) - before.get(way, set())):
                bucket = target.partition("/")[0]
                if _is_bucket_covered(target, before.get(way, set())):
                    continue
                loud = bucket == "*"
                said = "every bucket" if loud else f"the bucket path {target}"
                text = f"{new.name} may now {way} {said}"
                if way == "write" and target in before.get("read", set()):
                    text += " (before: only read)"
                rule = "new wildcard" if loud else "bucket access added"
                yield self._say("widening", rule, text, Grade.WILDCARD if loud else Grade.STATEMENT)
            for target in sorted(before.get(way, set()) - after.get(way, set())):
                if not _is_bucket_covered(target, after.get(way, set())):
                    text = f"{new.name} may no longer {way} the bucket path {target}"
                    yield self._say("narrowing", "bucket access removed", text)

    def _roles(self, old: _Place | None, new: _Place) -> Iterator[SecurityChange]:
        for key in ("InstanceRole", "InstanceProfile"):
            before = (canonical(old.iam[key]) if key in old.iam else "") if old else None
            after = canonical(new.iam[key]) if key in new.iam else ""
            if before is None or before == after:
                continue
            text = f"{new.name} works with the {'role' if 'Role' in key else 'profile'}"
            text += f" {after or _MADE} (before: {before or _MADE})"
            yield self._say("widening", "role changed", text, Grade.PRINCIPAL)

    def _ssh(self, old: _Place | None, new: _Place) -> Iterator[SecurityChange]:
        for what, key, port in (("SSH", "Ssh", "tcp 22"), ("remote desktops", "Dcv", "its port")):
            before = _allowed(old, key)
            after = _allowed(new, key)
            if before == after:
                continue
            networks = [n for n in (parse_network(text) for text in before) if n]
            for peer in sorted(after - before):
                network = parse_network(peer)
                if network and within(network, networks):
                    continue
                known = f" (before: {shorten(sorted(before))})" if before else ""
                text = f"{new.name} accepts {what} ({port}) from {peer}{known}"
                rule = "open to everyone" if is_everywhere(peer) else "wider CIDR"
                grade = Grade.ALARM if is_everywhere(peer) else Grade.WILDCARD
                yield self._say("widening", rule, text, grade)
            now = [n for n in (parse_network(text) for text in after) if n]
            for peer in sorted(before - after):
                network = parse_network(peer)
                if not (network and within(network, now)):
                    text = f"{new.name} no longer accepts {what} from {peer}"
                    yield self._say("narrowing", "narrower CIDR", text)

    def _groups(self, old: _Place | None, new: _Place) -> Iterator[SecurityChange]:
        if old is None:
            return
        for key in ("SecurityGroups", "AdditionalSecurityGroups"):
            before, after = (
                set(map(canonical, as_list(place.networking.get(key)))) for place in (old, new)
            )
            for group in sorted(after - before):
                text = f"{new.name} is now also in the security group {group}"
                yield self._say("widening", "security group added", text, Grade.PRINCIPAL)
            for group in sorted(before - after):
                text = f"{new.name} is no longer in the security group {group}"
                yield self._say("narrowing", "security group left", text)

    def _public(self, old: _Place | None, new: _Place) -> Iterator[SecurityChange]:
        before, after = (_has_public_address(place) for place in (old, new))
        if after and not before:
            text = f"{new.name} gets a public address"
            yield self._say("widening", "public access", text, Grade.ALARM)
        elif before and not after:
            text = f"{new.name} no longer gets a public address"
            yield self._say("narrowing", "protection added", text)

    def _scripts(self, old: _Place | None, new: _Place) -> Iterator[SecurityChange]:
        if old is None:
            return
        before, after = (_scripts_of(place) for place in (old, new))
        for script in sorted(after - before):
            text = f"{new.name} now runs {script} as root"
            yield self._say("change", "script added", text)

    def _switches(self) -> Iterator[SecurityChange]:
        before = None if self.before is None else _switches_of(self.before)
        after = _switches_of(self.after)
        after_leaves = dict(leaves(self.after))
        for path, value in {**dict.fromkeys(before or {}), **after}.items():
            if item_is_gone(path, after_leaves):
                continue
            default, what = _SWITCHES[path[-2:]]
            now = default if value is None else value
            was = default if before is None else before.get(path, default)
            where = " of ".join(_where(path))
            says = f"{what}{f' of {where}' if where else ''}"
            # What ParallelCluster leaves off by itself is told only where it was on.
            if was and not now:
                rule, grade = _weigh(what)
                yield self._say("widening", rule, f"{says} is off now", grade)
            elif now and not was and before is not None:
                yield self._say("narrowing", "protection added", f"{says} is on now")
            elif value is False and not default and before is not None and path not in before:
                yield self._say("change", "protection off", f"{says} is off", Grade.MINOR)
        yield from self._lost_keys()

    def _lost_keys(self) -> Iterator[SecurityChange]:
        before = dict(leaves(self.before or {}))
        after = dict(leaves(self.after))
        for path, key in before.items():
            if path[-1] == "KmsKeyId" and after.get(path) != key:
                if path in after:
                    text = f"{' of '.join(_where(path))} is encrypted with the key {after[path]}"
                    yield self._say("change", "key changed", f"{text} (before: {key})")
                elif any(other[: len(path) - 2] == path[:-2] for other in after):
                    text = f"{' of '.join(_where(path))} is no longer encrypted with the key {key}"
                    yield self._say("widening", "key lost", text, Grade.ALARM)

    def _imds(self) -> Iterator[SecurityChange]:
        before, after = (
            canonical(as_dict((c or {}).get("Imds")).get("ImdsSupport", "v2.0"))
            for c in (self.before, self.after)
        )
        if before != after:
            if after == "v1.0":
                text = "nodes answer IMDSv1 too (Imds.ImdsSupport v1.0)"
                yield self._say("widening", "IMDSv1 allowed", text, Grade.ALARM)
            else:
                yield self._say("narrowing", "protection added", "nodes require IMDSv2")

    def _directory(self) -> Iterator[SecurityChange]:
        if self.before is None and "DirectoryService" not in self.after:
            return
        old, new = (as_dict((c or {}).get("DirectoryService")) for c in (self.before, self.after))
        if not new:
            return
        before, after = (
            _TLS_CHECKS.get(canonical(d.get("LdapTlsReqCert", "hard")).lower(), 3)
            for d in (old, new)
        )
        if after < before:
            text = f"the directory's certificate is checked less (LdapTlsReqCert {new['LdapTlsReqCert']})"
            yield self._say("widening", "TLS weakened", text, Grade.ALARM)
        plain = [
            any(
                part.strip().startswith("ldap://")
                for part in canonical(d.get("DomainAddr", "")).split(",")
            )
            for d in (old, new)
        ]
        if plain == [False, True]:
            text = "the directory is asked without TLS (DomainAddr ldap://)"
            yield self._say("widening", "TLS weakened", text, Grade.ALARM)


def _places(configuration: Mapping[str, Any]) -> dict[str, _Place]:
    """Return the head node, the queues and the login pools by what a sentence calls them."""
    found = {"the head node": _Place("the head node", as_dict(configuration.get("HeadNode")))}
    lists = (
        ("queue", as_dict(configuration.get("Scheduling")).get("SlurmQueues")),
        ("login pool", as_dict(configuration.get("LoginNodes")).get("Pools")),
    )
    for what, sections in lists:
        for index, section in enumerate(as_list(sections)):
            body = as_dict(section)
            name = f"{what} {canonical(body.get('Name', index))}"
            if what == "login pool" and "AllowedIps" not in as_dict(body.get("Ssh")):
                # A pool without ranges of its own has those of the head node.
                head = as_dict(as_dict(configuration.get("HeadNode")).get("Ssh"))
                if "AllowedIps" in head:
                    ssh = {**as_dict(body.get("Ssh")), "AllowedIps": head["AllowedIps"]}
                    body = {**body, "Ssh": ssh}
            found[name] = _Place(name, body)
    return found


def _policies_of(place: _Place | None) -> set[str]:
    if place is None:
        return set()
    items = as_list(place.iam.get("AdditionalIamPolicies"))
    return {canonical(as_dict(item).get("Policy", item)) for item in items}


def _buckets_of(place: _Place | None) -> dict[str, set[str]]:
    """Return the bucket paths that may be read, and those that may be written."""
    found: dict[str, set[str]] = {"read": set(), "write": set()}
    for item in as_list(place.iam.get("S3Access")) if place else []:
        access = as_dict(item)
        bucket, key = canonical(access.get("BucketName", "")), access.get("KeyName")
        target = f"{bucket}/{canonical(key) if key else '*'}"
        found["read"].add(target)
        if str(access.get("EnableWriteAccess", "")).lower() == "true":
            found["write"].add(target)
    return found


def _is_bucket_covered(target: str, others: set[str]) -> bool:
    return any(pattern_covers(other, target) for other in others)


def _allowed(place: _Place | None, key: str) -> set[str]:
    """Return the ranges that ParallelCluster's own security group lets in.

    It makes one only where the configuration names no groups; the range is then everyone.
    """
    if place is None or not place.section or place.networking.get("SecurityGroups"):
        return set()
    section = as_dict(place.section.get(key))
    is_queue = place.name.startswith("queue ")
    if is_queue or (key == "Dcv" and str(section.get("Enabled", "")).lower() != "true"):
        return set()
    peer = canonical(section.get("AllowedIps", _EVERYWHERE))
    return {str(parse_network(peer) or peer)}


def _has_public_address(place: _Place | None) -> bool:
    if place is None:
        return False
    assigned = str(place.networking.get("AssignPublicIp", "")).lower() == "true"
    elastic = canonical(place.networking.get("ElasticIp", "false")).lower() != "false"
    return assigned or elastic


def _scripts_of(place: _Place) -> set[str]:
    """Return the addresses of custom scripts, without query strings, which may hold a token."""
    actions = as_dict(place.section.get("CustomActions"))
    return {
        _USER.sub("//", canonical(value).partition("?")[0])
        for path, value in leaves(actions)
        if path and path[-1] == "Script"
    }


def _switches_of(configuration: Mapping[str, Any]) -> dict[tuple[str, ...], bool]:
    return {
        path: str(value).lower() == "true"
        for path, value in leaves(configuration)
        if path[-2:] in _SWITCHES and "Dashboards" not in path
    }


def _weigh(what: str) -> tuple[str, Grade]:
    if "logging" in what:
        return "logging off", Grade.PRINCIPAL
    return "encryption off" if "encryption" in what else "protection lost", Grade.ALARM


def _where(path: tuple[str, ...]) -> list[str]:
    """Return where a setting stands: names of items, or else the first section."""
    names = [part.strip("[]") for part in reversed(path) if part.startswith("[")]
    if names:
        return names
    return ["the head node"] if path[0] == "HeadNode" else []
