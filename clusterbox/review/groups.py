"""Compare who may reach whom: rules of security groups, and entries of network ACLs."""

from __future__ import annotations

import ipaddress
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from clusterbox.review.changes import Grade, Kind, SecurityChange, shorten
from clusterbox.review.intrinsics import as_list, canonical
from clusterbox.review.resources import Resource, Side, Sides

_DIRECTIONS = {"ingress": "SecurityGroupIngress", "egress": "SecurityGroupEgress"}
# Protocol numbers of IANA that have a name in EC2.
_PROTOCOLS = {"6": "tcp", "17": "udp", "1": "icmp", "58": "icmpv6", "all": "-1"}
_PORTS = (0, 65535)
# What CDK writes for a group that lets nothing out (`allow_all_outbound=False`).
_NOTHING = ("icmp", "255.255.255.255/32")
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True)
class Rule:
    """One peer that may be reached, or may reach, on one range of ports of a protocol.

    The ports of ICMP are its types; `-1` is every protocol.
    """

    direction: str
    protocol: str
    first: int
    last: int
    peer: str

    @property
    def network(self) -> Network | None:
        """Return the peer as a range of addresses, or None where it is a group or a list."""
        return parse_network(self.peer)

    @property
    def is_open(self) -> bool:
        """Return whether the peer is every address."""
        return is_everywhere(self.peer)

    @property
    def ports(self) -> str:
        """Return protocol and ports for a sentence: `tcp 22`."""
        if self.protocol == "-1":
            return "every protocol and port"
        if (self.first, self.last) == _PORTS:
            return (
                f"every {self.protocol} port" if self.protocol in ("tcp", "udp") else self.protocol
            )
        ports = str(self.first) if self.first == self.last else f"{self.first}-{self.last}"
        return f"{self.protocol} {ports}"


def parse_network(text: str) -> Network | None:
    """Return a range of addresses, or None where the text is none."""
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None


def is_everywhere(text: str) -> bool:
    """Return whether the text is the range of every address."""
    network = parse_network(text)
    return network is not None and network.prefixlen == 0


def within(inner: Network, outers: Iterable[Network]) -> bool:
    """Return whether a range of addresses lies in the others together."""
    same = [outer for outer in outers if outer.version == inner.version]
    merged = ipaddress.collapse_addresses(same)  # type: ignore[type-var]
    return any(inner.subnet_of(outer) for outer in merged)  # type: ignore[arg-type]


@dataclass
class _Group:
    name: str
    place: tuple[str, str]
    resource: Resource | None = None
    rules: set[Rule] = field(default_factory=set)


def compare_groups(sides: Sides) -> Iterator[SecurityChange]:
    """Yield what the rules of security groups and network ACLs let through other than before."""
    base, head = _groups(sides.base), _groups(sides.head)
    for key in {**base, **head}:
        old, new = base.get(key), head.get(key)
        if new is None and old is not None and old.resource is not None:
            text = f"security group {old.name} is removed"
            yield _change(old, "narrowing", "security group removed", text)
            continue
        group = new or old
        assert group is not None  # noqa: S101 (the key is of one of them)
        yield from _compare_rules(
            group, old.rules if old else set(), new.rules if new else set(), is_new=old is None
        )
    yield from _compare_acls(sides)


def _groups(side: Side) -> dict[str, _Group]:
    """Return the groups by what a reference to them resolves to."""
    found: dict[str, _Group] = {}
    for resource in side.of_type("AWS::EC2::SecurityGroup"):
        group = _Group(resource.name, resource.place, resource)
        found[side.reference(resource.place)] = group
        for direction, key in _DIRECTIONS.items():
            for rule in as_list(resource.properties.get(key)):
                group.rules |= parse_rule(direction, rule)
    apart: set[str] = set()
    for resource in side.of_type(*(f"AWS::EC2::{key}" for key in _DIRECTIONS.values())):
        properties = resource.properties
        key = canonical(properties.get("GroupId", properties.get("GroupName", "")))
        group = found.setdefault(key, _Group(key, resource.place))
        direction = "ingress" if resource.type.endswith("Ingress") else "egress"
        group.rules |= parse_rule(direction, properties)
        if direction == "egress":
            apart.add(key)
    for key, group in found.items():
        inline = group.resource and group.resource.properties.get(_DIRECTIONS["egress"])
        if group.resource and not inline and key not in apart:
            # EC2's default for a group without a rule for what goes out.
            group.rules.add(Rule("egress", "-1", *_PORTS, "0.0.0.0/0"))
    return found


def parse_rule(direction: str, rule: Mapping[str, Any]) -> set[Rule]:
    """Return the rules of one entry, in either form; an entry that lets nothing through has none."""
    if not isinstance(rule, Mapping):
        return set()
    protocol = str(rule.get("IpProtocol", "-1")).lower()
    protocol = _PROTOCOLS.get(protocol, protocol)
    ports = _ports(protocol, rule.get("FromPort"), rule.get("ToPort"))
    if ports is None:
        # Ports that no template tells are equal only to themselves.
        protocol += f" {canonical(rule.get('FromPort'))}-{canonical(rule.get('ToPort'))}"
        ports = _PORTS
    peers = [
        canonical(rule[key])
        for key in (
            "CidrIp",
            "CidrIpv6",
            "SourcePrefixListId",
            "DestinationPrefixListId",
            "SourceSecurityGroupId",
            "DestinationSecurityGroupId",
            "SourceSecurityGroupName",
        )
        if rule.get(key)
    ]
    return {
        Rule(direction, protocol, *ports, str(parse_network(peer) or peer))
        for peer in peers
        if (protocol, peer) != _NOTHING
    }


def _ports(protocol: str, first: object, last: object) -> tuple[int, int] | None:
    """Return the range of ports, or None where it is not known."""
    if protocol == "-1" or (first is None and last is None):
        return _PORTS
    try:
        low, high = int(str(first)), int(str(last))
    except ValueError:
        return None
    if low == -1:
        return _PORTS
    # FromPort of ICMP is the type, ToPort the code; a code narrows less than anyone looks for.
    return (low, low) if protocol in ("icmp", "icmpv6") else (low, high)


def uncovered_rules(rules: set[Rule], by: set[Rule]) -> list[Rule]:
    """Return the rules that let through something that the others together do not."""
    return [rule for rule in rules - by if not _is_covered(rule, by)]


def _is_covered(rule: Rule, by: set[Rule]) -> bool:
    """Cut the ports where another rule begins or ends; in each piece the addresses must be let in."""
    usable = [
        other
        for other in by
        if other.direction == rule.direction
        and other.protocol in ("-1", rule.protocol)
        and other.first <= rule.last
        and rule.first <= other.last
    ]
    cuts = {rule.first, *(o.first for o in usable), *(o.last + 1 for o in usable)}
    for start in sorted(cut for cut in cuts if rule.first <= cut <= rule.last):
        here = [other for other in usable if other.first <= start <= other.last]
        if any(other.peer == rule.peer for other in here):
            continue
        network = rule.network
        networks = [other.network for other in here]
        if network is None or not within(network, [n for n in networks if n is not None]):
            return False
    return True


def _compare_rules(
    group: _Group, old: set[Rule], new: set[Rule], *, is_new: bool
) -> Iterator[SecurityChange]:
    title = f"{'new ' if is_new else ''}security group {group.name}"
    for rules in _by_peers(uncovered_rules(new, old)):
        one = rules[0]
        verb = "accepts" if one.direction == "ingress" else "may reach"
        text = f"{title}{'' if is_new else ' now'} {verb} {_what(rules)}"
        if one.direction == "egress" and not is_new:
            text = f"members of {title} may now reach {_peers(rules)} on {one.ports}"
        before = {
            rule.peer
            for rule in old
            if rule.direction == one.direction
            and rule.protocol in (one.protocol, "-1")
            and rule.first <= one.first
            and one.last <= rule.last
        }
        if before:
            text += f" (before: {shorten(sorted(before), 3)})"
        elif narrower := _ports_before(rules, old):
            text += f" (before: only {shorten(narrower)})"
        if is_new and one.direction == "egress":
            # Nobody could use the group before; what it lets out is told without alarm.
            text = f"members of {title} may reach {_peers(rules)} on {one.ports}"
            yield _change(group, "change", "egress rule", text, Grade.MINOR)
        else:
            rule, grade = _weigh(rules, old)
            yield _change(group, "widening", rule, text, grade)
    for rules in _by_peers(uncovered_rules(old, new)):
        if rules[0].direction == "ingress":
            text = f"{title} no longer accepts {_what(rules)}"
        else:
            text = f"members of {title} may no longer reach {_peers(rules)} on {rules[0].ports}"
        yield _change(group, "narrowing", "rule removed", text)


def _weigh(rules: list[Rule], old: set[Rule]) -> tuple[str, Grade]:
    """Return the rule's name and the grade of what is let through now."""
    one = rules[0]
    ingress = one.direction == "ingress"
    if any(rule.is_open for rule in rules):
        return "open to everyone", Grade.ALARM if ingress else Grade.PRINCIPAL
    for rule in rules:
        network = rule.network
        known = [other.network for other in old if other.direction == rule.direction]
        if network and any(n and n != network and within(n, [network]) for n in known):
            return "wider CIDR", Grade.WILDCARD if ingress else Grade.STATEMENT
    peers = {other.peer for other in old if other.direction == one.direction}
    if all(rule.peer in peers for rule in rules):
        return "wider ports", Grade.STATEMENT
    return "peer added", Grade.PRINCIPAL if ingress else Grade.STATEMENT


def _ports_before(rules: list[Rule], old: set[Rule]) -> list[str]:
    peers = {rule.peer for rule in rules}
    found = {r.ports for r in old if r.direction == rules[0].direction and r.peer in peers}
    return sorted(found)


def _by_peers(rules: Iterable[Rule]) -> list[list[Rule]]:
    """Return the rules in groups of the same direction, protocol and ports; everyone is apart."""
    found: dict[tuple[object, ...], list[Rule]] = defaultdict(list)
    for rule in sorted(rules, key=lambda r: (r.direction, r.protocol, r.first, r.last, r.peer)):
        found[rule.direction, rule.protocol, rule.first, rule.last, rule.is_open].append(rule)
    return list(found.values())


def _what(rules: list[Rule]) -> str:
    return f"{rules[0].ports} from {_peers(rules)}"


def _peers(rules: list[Rule]) -> str:
    return shorten(rule.peer for rule in rules)


def _change(
    group: _Group, kind: Kind, rule: str, text: str, grade: Grade = Grade.STATEMENT
) -> SecurityChange:
    return SecurityChange(*group.place, group.name, kind, rule, text, grade)


def _compare_acls(sides: Sides) -> Iterator[SecurityChange]:
    """Yield entries of network ACLs that allow more, or deny less, than before."""
    for old, new in sides.both("AWS::EC2::NetworkAclEntry"):
        before, after = (_entry(r) if r else None for r in (old, new))
        resource = new or old
        if before == after or resource is None:
            continue
        loses_deny = before is not None and before.startswith("denies")
        adds_allow = after is not None and after.startswith("allows")
        kind: Kind = "widening" if loses_deny or adds_allow else "narrowing"
        text = f"network ACL entry {resource.name} {after or 'is removed'}"
        text += f" (before: {before})" if before else ""
        yield SecurityChange(
            *resource.place, resource.name, kind, "network ACL entry", text, Grade.MINOR
        )


def _entry(resource: Resource) -> str:
    properties = resource.properties
    ports = properties.get("PortRange")
    verb = "allows" if str(properties.get("RuleAction", "")).lower() == "allow" else "denies"
    way = "out to" if str(properties.get("Egress", "")).lower() == "true" else "in from"
    peer = canonical(properties.get("CidrBlock", properties.get("Ipv6CidrBlock", "?")))
    number = canonical(properties.get("RuleNumber", "?"))
    protocol = canonical(properties.get("Protocol", "-1"))
    return (
        f"{verb} protocol {protocol} {canonical(ports or 'all ports')} {way} {peer} (rule {number})"
    )
