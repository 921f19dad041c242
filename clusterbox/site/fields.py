"""The field types that the models of a site share; the message of each says what is allowed."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from decimal import Decimal
from ipaddress import AddressValueError, IPv4Network, NetmaskValueError
from typing import Annotated, Any, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
)
from pydantic_core import PydanticCustomError

from clusterbox.site.yaml_file import Location

WORLD = IPv4Network("0.0.0.0/0")
# The prefix of CIDRs that may reach SSH: anything wider than a class A is not an office or a VPN.
WIDEST_SOURCE_PREFIX = 8


class Section(BaseModel):
    """Base of every model: unknown keys are errors and values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Finding(tuple[Location, str, "object | None"]):
    """Where in a section something is wrong, what, and the value found there."""

    __slots__ = ()

    def __new__(cls, location: Location, message: str, value: object | None = None) -> Finding:
        """Return one finding."""
        return super().__new__(cls, (location, message, value))


def raise_findings(findings: Sequence[Finding]) -> None:
    """Raise all `findings` of a section as one pydantic error, which the reader takes apart."""
    if findings:
        raise PydanticCustomError(
            "findings", "{count} findings", {"count": len(findings), "all": list(findings)}
        )


def _allowed(message: str, value: Any) -> PydanticCustomError:
    return PydanticCustomError("allowed", "{allowed}", {"allowed": message, "found": repr(value)})


def matching(pattern: str, allowed: str) -> Callable[[Any], str]:
    """Return a validator for text that matches the whole `pattern`; `allowed` is its message.

    Letters and digits of the pattern are ASCII, as AWS has them, unless it says otherwise.
    """
    compiled = re.compile(pattern, re.ASCII)

    def check(value: Any) -> str:
        if not isinstance(value, str) or not compiled.fullmatch(value):
            raise _allowed(allowed, value)
        return value

    return check


_CIDR = re.compile(r"[0-9.]+/[0-9]{1,2}")


def _parse_network(value: Any) -> IPv4Network:
    if isinstance(value, IPv4Network):
        return value
    try:
        if not isinstance(value, str) or not _CIDR.fullmatch(value):
            raise ValueError
        network = IPv4Network(value)
    except (AddressValueError, NetmaskValueError, ValueError) as error:
        raise _allowed(
            "must be an IPv4 network in CIDR notation with no host bits set, such as 10.12.64.0/22",
            value,
        ) from error
    return network


def _parse_source(value: Any) -> IPv4Network:
    network = _parse_network(value)
    if network == WORLD or network.prefixlen < WIDEST_SOURCE_PREFIX:
        raise _allowed(
            f"must be a named range of /{WIDEST_SOURCE_PREFIX} or narrower: "
            "nothing of a site is open to 0.0.0.0/0 or to most of it",
            value,
        )
    return network


_MOST_USD = Decimal(100_000_000)


def _parse_money(value: Any) -> Decimal:
    if isinstance(value, Decimal):
        return value
    amount = None
    if isinstance(value, int | float) and not isinstance(value, bool):
        # The text of a number has the digits that were written; the number itself may not.
        amount = Decimal(str(value))
    if (
        amount is None
        or not amount.is_finite()
        or not 0 < amount <= _MOST_USD
        or amount != amount.quantize(Decimal("0.01"))
    ):
        raise _allowed(
            "must be an amount in USD of more than 0, with at most two decimals, such as 700", value
        )
    return amount


Money = Annotated[Decimal, BeforeValidator(_parse_money)]
Percent = Annotated[int, Field(ge=1, le=1000)]

Cidr = Annotated[IPv4Network, BeforeValidator(_parse_network), PlainSerializer(str)]
SourceCidr = Annotated[IPv4Network, BeforeValidator(_parse_source), PlainSerializer(str)]


def _text(pattern: str, allowed: str) -> Any:
    return BeforeValidator(matching(pattern, allowed))


def _refuse_truth(value: Any) -> Any:
    if isinstance(value, bool):
        raise _allowed("must be a whole number", value)
    return value


# Before a Literal of numbers: to Python `true` is the number 1.
WholeNumber = BeforeValidator(_refuse_truth)


def _find_repeated(values: tuple[Any, ...]) -> tuple[Any, ...]:
    repeated = [index for index, value in enumerate(values) if value in values[:index]]
    raise_findings(
        [
            Finding((index,), "must stand only once in the list", str(values[index]))
            for index in repeated
        ]
    )
    return values


Item = TypeVar("Item")
# A list of different items. The types of pydantic are strict here, and YAML has no tuples.
Once = Annotated[tuple[Item, ...], Field(strict=False), AfterValidator(_find_repeated)]


AccountId = Annotated[
    str,
    _text(r"\d{12}", 'must be the 12 digits of an AWS account in quotes, such as "427491229895"'),
]
Region = Annotated[
    str, _text(r"[a-z]{2}(-[a-z]+)+-\d", "must be the name of an AWS region, such as us-west-2")
]
ZoneLetter = Annotated[
    str, _text(r"[a-z]", "must be the letter of an availability zone, such as a")
]
Identifier = Annotated[
    str,
    _text(
        r"[a-z][a-z0-9_]{0,31}",
        "must start with a small letter and hold at most 32 small letters, digits and underscores",
    ),
]
DashedName = Annotated[
    str,
    _text(
        r"(?=.{1,30}\Z)[a-z](-?[a-z0-9])*",
        "must start with a small letter and hold at most 30 small letters, digits and single "
        "dashes, none of them at the end",
    ),
]
# 60 characters at the most; 40 where the cluster has a Slurm accounting database, which limits
# the names of tables (ParallelCluster's ClusterNameValidator).
ClusterName = Annotated[
    str,
    _text(
        r"[a-zA-Z][a-zA-Z0-9-]{0,39}",
        "must start with a letter and hold at most 40 letters, digits and dashes",
    ),
]
VpcId = Annotated[
    str, _text(r"vpc-[0-9a-f]{8,17}", "must be the id of a VPC: vpc- and 8 to 17 hex digits")
]
SubnetId = Annotated[
    str,
    _text(r"subnet-[0-9a-f]{8,17}", "must be the id of a subnet: subnet- and 8 to 17 hex digits"),
]
SecurityGroupId = Annotated[
    str,
    _text(r"sg-[0-9a-f]{8,17}", "must be the id of a security group: sg- and 8 to 17 hex digits"),
]
FileSystemId = Annotated[
    str,
    _text(r"fs-[0-9a-f]{8,17}", "must be the id of an EFS file system: fs- and 8 to 17 hex digits"),
]
AmiId = Annotated[
    str, _text(r"ami-[0-9a-f]{8,17}", "must be the id of an AMI: ami- and 8 to 17 hex digits")
]
HostedZoneId = Annotated[
    str,
    _text(r"Z[A-Z0-9]{1,31}", "must be the id of a Route 53 hosted zone, such as Z0123456789ABC"),
]
InstanceType = Annotated[
    str, _text(r"[a-z][a-z0-9-]*\.[a-z0-9-]+", "must be an EC2 instance type, such as t3a.medium")
]
BucketName = Annotated[
    str,
    _text(
        r"(?!.*\.\.)[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]",
        "must be the name of an S3 bucket: 3 to 63 small letters, digits, dashes and single dots, "
        "with a letter or digit at both ends",
    ),
]
PolicyName = Annotated[
    str, _text(r"[\w+=,.@-]{1,128}", "must be the name of an IAM policy, without path or ARN")
]
RoleArn = Annotated[
    str, _text(r"arn:aws[\w-]*:iam::\d{12}:role/[\w+=,.@/-]+", "must be the ARN of an IAM role")
]
SecretArn = Annotated[
    str,
    _text(
        r"arn:aws[\w-]*:secretsmanager:[a-z0-9-]+:\d{12}:secret:[\w/+=.@-]+",
        "must be the ARN of a secret of Secrets Manager",
    ),
]
KmsKeyArn = Annotated[
    str,
    _text(
        r"arn:aws[\w-]*:kms:[a-z0-9-]+:\d{12}:key/[\w-]+",
        "must be the ARN of a KMS key, not of an alias",
    ),
]
MysqlUser = Annotated[
    str,
    _text(
        r"[a-z][a-z0-9_]{0,15}",
        "must start with a small letter and hold at most 16 small letters, digits and underscores",
    ),
]
IamPath = Annotated[
    str,
    _text(
        r"/([\w+=,.@-]+/)*", "must be an IAM path that starts and ends with a slash, such as /ws/"
    ),
]
DnsName = Annotated[
    str,
    _text(
        r"([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]{2,63}",
        "must be a DNS name in small letters, such as ws.internal.example",
    ),
]
SubnetName = Annotated[
    str,
    _text(
        r"[a-z][a-z0-9_]{0,31}\.[a-z]",
        "must name a subnet of this file as GROUP.ZONE, such as compute.a",
    ),
]
EmailAddress = Annotated[
    str,
    _text(
        r"(?=.{3,254}\Z)[\w.!#$%&'*+/=?^`{|}~-]{1,64}@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+",
        "must be one mail address, such as ada@example.gov",
    ),
]
RuleName = Annotated[
    str,
    _text(r"[A-Z][A-Za-z]{2,99}", "must be the name of a rule, as `clusters validate` shows it"),
]
Reason = Annotated[
    str, _text(r"(?s:.{10,1000})", "must say in 10 characters or more why it is accepted")
]
SlurmName = Annotated[
    str,
    _text(
        r"[a-z][a-z0-9_-]{0,39}",
        "must start with a small letter and hold at most 40 small letters, digits, dashes and "
        "underscores",
    ),
]
TagValue = Annotated[
    str,
    _text(
        r"(?u:[\w .:/=+@-]){1,256}", "must be 1 to 256 letters, digits, spaces and . : / = + - @ _"
    ),
]
KeyPairName = Annotated[
    str, _text(r"[!-~]([ -~]{0,253}[!-~])?", "must be 1 to 255 ASCII characters, as EC2 has names")
]
NamePrefix = Annotated[
    str,
    _text(
        r"[a-zA-Z][\w-]{0,19}-",
        "must start with a letter, hold at most 20 letters, digits, dashes and underscores, and "
        "end with one more dash, such as ws-dev-",
    ),
]
ProjectPath = Annotated[
    str, _text(r"[\w.-]+(/[\w.-]+)+", "must be an owner and a name, such as lcnext/clusterbox")
]
Branch = Annotated[
    str, _text(r"[\w./-]+", "must hold only letters, digits, dots, slashes, dashes and underscores")
]
ConfigFile = Annotated[
    str, _text(r"[\w-]+\.yaml", "must be the name of a file in cluster_configs/, such as eco.yaml")
]
FolderPath = Annotated[
    str,
    _text(
        r"(/[\w.-]+)+",
        "must be a path from the root, such as /projects, of letters, digits, dots, dashes and "
        "underscores",
    ),
]
FileMode = Annotated[
    str, _text(r"[0-7]{3,4}", 'must be 3 or 4 octal digits in quotes, such as "1777"')
]
Version = Annotated[
    str, _text(r"[0-9]+\.[0-9]+\.[0-9]+", "must be three numbers with dots, such as 3.16.1")
]
