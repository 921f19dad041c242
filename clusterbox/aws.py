"""The door to boto3 for reading accounts: who they are, their lists page by page, and what was refused.

Reading never stops at the first refusal. What was read is kept, and every call that was denied,
expired or failed leaves a `Gap`, so that a result can say that it is partial, and why.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from threading import Lock
from typing import Any, Literal

from clusterbox.errors import InputError

Client = Callable[[str], Any]
Reason = Literal["denied", "expired", "failed"]

SESSION_NAME = "clusterbox-report"
# botocore's own "standard" mode: throttling and broken connections are tried again, with pauses.
ATTEMPTS = 5
CONNECT_SECONDS = 10
READ_SECONDS = 60

_DENIED = {"AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "Forbidden", "403"}
_EXPIRED = {
    "AuthFailure",
    "ExpiredToken",
    "ExpiredTokenException",
    "InvalidClientTokenId",
    "InvalidToken",
    "RequestExpired",
    "TokenRefreshRequired",
    "UnrecognizedClientException",
}
# boto3's name of a service → the one that IAM's permissions start with.
_IAM_PREFIXES = {
    "efs": "elasticfilesystem",
    "elb": "elasticloadbalancing",
    "elbv2": "elasticloadbalancing",
}
# Calls whose permission is not called like them (service authorization reference, Amazon S3).
_IAM_ACTIONS = {"s3:ListBuckets": "s3:ListAllMyBuckets"}
_ROLE_ARN = re.compile(r"arn:aws[a-z-]*:iam::(\d{12}):role/\S+")


@dataclass(frozen=True, order=True)
class Gap:
    """A call that gave nothing, or not everything: where, why, and the permission it needs."""

    account: str
    region: str
    call: str
    reason: Reason
    message: str
    permission: str

    def __str__(self) -> str:
        """Return one sentence that says what to do."""
        todo = {
            "denied": f"allow {self.permission}",
            "expired": "sign in again",
            "failed": "try again later",
        }[self.reason]
        return f"{self.account} {self.region}: {self.call} {self.reason}: {self.message}; {todo}"


@dataclass
class Account:
    """One account in one region; threads may share it. `gaps` grows while it is read.

    `make_client` returns a boto3 client of a service.
    """

    account: str
    region: str
    make_client: Client = field(repr=False)
    gaps: list[Gap] = field(default_factory=list)
    _clients: dict[str, Any] = field(default_factory=dict, repr=False)
    _lock: Lock = field(default_factory=Lock, repr=False)

    def client(self, service: str) -> Any:
        """Return the client of a service; sessions make one at a time, clients serve all threads."""
        with self._lock:
            if service not in self._clients:
                self._clients[service] = self.make_client(service)
            return self._clients[service]

    def pages(
        self, service: str, operation: str, key: str, *, page_size: int | None = None, **words: Any
    ) -> Iterator[Mapping[str, Any]]:
        """Yield the entries under `key` of every page; one page is in memory at a time.

        A refusal ends the entries and is a gap; those of the pages before it have been yielded.
        """
        if self._signed_out(service, operation):
            return
        if page_size is not None:
            words["PaginationConfig"] = {"PageSize": page_size}
        try:
            for page in self.client(service).get_paginator(operation).paginate(**words):
                yield from page.get(key) or ()
        except _errors() as error:
            self._note(service, operation, error)

    def ask(
        self, service: str, operation: str, *, absent: tuple[str, ...] = (), **words: Any
    ) -> Mapping[str, Any] | None:
        """Return one answer; None when it is refused, which is a gap.

        Error codes of `absent` say that there is nothing: they give an empty answer and no gap.
        """
        if self._signed_out(service, operation):
            return None
        try:
            answer: Mapping[str, Any] = getattr(self.client(service), operation)(**words)
        except _errors() as error:
            if _code(error) in absent:
                return {}
            self._note(service, operation, error)
            return None
        return answer

    def lacks(self, *operations: str) -> bool:
        """Return whether any of these calls, such as `ec2:DescribeImages`, left a gap."""
        return any(gap.call in operations for gap in self.gaps)

    def _note(self, service: str, operation: str, error: Exception) -> None:
        self.gaps.append(_gap(self.account, self.region, service, operation, error))

    def _signed_out(self, service: str, operation: str) -> bool:
        """Return whether credentials have expired: every further call would fail alike."""
        expired = next((gap for gap in self.gaps if gap.reason == "expired"), None)
        if expired is None:
            return False
        call, permission = _names(service, operation)
        message = f"not asked, after {expired.call}"
        self.gaps.append(Gap(self.account, self.region, call, "expired", message, permission))
        return True


@dataclass(frozen=True)
class Login:
    """Credentials that are known to AWS: the account they belong to, and a way to its clients."""

    account: str
    session: Any = field(repr=False)

    def open(self, region: str) -> Account:
        """Return the account in a region."""
        return Account(self.account, region, lambda service: _client(self.session, service, region))


def sign_in(region: str, profile: str | None = None) -> Login:
    """Return the caller's own login; raises InputError where there is none that AWS knows."""
    from botocore.exceptions import ProfileNotFound

    try:
        session = _boto3_session(profile_name=profile)
    except ProfileNotFound as error:
        raise InputError(f"{error}; `aws configure list-profiles` lists them") from error
    try:
        identity = _client(session, "sts", region).get_caller_identity()
    except _errors() as error:
        raise InputError(f"AWS does not know who you are: {error}. Sign in first.") from error
    return Login(str(identity["Account"]), session)


def assume_role(login: Login, arn: str, region: str) -> Login | Gap:
    """Return the login of a role of another account, or what kept us out of it.

    Raises InputError for a text that is not the ARN of a role.
    """
    account = account_of_role(arn)
    try:
        answer = _client(login.session, "sts", region).assume_role(
            RoleArn=arn, RoleSessionName=SESSION_NAME
        )
    except _errors() as error:
        return _gap(account, region, "sts", "assume_role", error)
    keys = answer["Credentials"]
    session = _boto3_session(
        aws_access_key_id=keys["AccessKeyId"],
        aws_secret_access_key=keys["SecretAccessKey"],
        aws_session_token=keys["SessionToken"],
    )
    return Login(account, session)


def account_of_role(arn: str) -> str:
    """Return the account of a role's ARN; raises InputError where it is none."""
    found = _ROLE_ARN.fullmatch(arn)
    if found is None:
        raise InputError(f"{arn!r} is not the ARN of a role: arn:aws:iam::ACCOUNT:role/NAME")
    return found[1]


def tags_of(resource: Mapping[str, Any]) -> dict[str, str]:
    """Return the tags of a resource, whichever way its service lists them."""
    listed = resource.get("Tags") or resource.get("TagSet") or ()
    return {str(tag["Key"]): str(tag["Value"]) for tag in listed}


def read_times_quickly(session: Any) -> None:
    """Have a botocore session read ISO times with the standard library: a long list has thousands.

    What botocore does instead takes a quarter of the time in which a list is read.
    """
    factory = session.get_component("response_parser_factory")
    factory.set_parser_defaults(timestamp_parser=_parse_time)


def _parse_time(value: Any) -> datetime:
    from botocore.utils import parse_timestamp

    try:
        found = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return parse_timestamp(value)
    return found if found.tzinfo else parse_timestamp(value)


def _boto3_session(**words: Any) -> Any:
    import boto3
    import botocore.session

    core = botocore.session.get_session()
    read_times_quickly(core)
    return boto3.session.Session(botocore_session=core, **words)


def _client(session: Any, service: str, region: str) -> Any:
    from botocore.config import Config

    config = Config(
        retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
        connect_timeout=CONNECT_SECONDS,
        read_timeout=READ_SECONDS,
    )
    return session.client(service, region_name=region, config=config)


def _errors() -> tuple[type[Exception], ...]:
    """Return what calls raise for reasons outside of this program; loading botocore is slow."""
    from botocore.exceptions import BotoCoreError, ClientError

    return (BotoCoreError, ClientError)


def _gap(account: str, region: str, service: str, operation: str, error: Exception) -> Gap:
    from botocore.exceptions import ParamValidationError

    if isinstance(error, ParamValidationError):
        raise error  # The call itself is wrong, which no account can mend.
    call, permission = _names(service, operation)
    response = getattr(error, "response", {}).get("Error", {})
    message = " ".join(str(response.get("Message") or error).split())
    return Gap(account, region, call, refusal(error), message, permission)


def refusal(error: Exception) -> Reason:
    """Return why a call gave nothing: `denied`, `expired`, or `failed` for all else."""
    from botocore import exceptions

    signed_out = (
        exceptions.CredentialRetrievalError,
        exceptions.NoCredentialsError,
        exceptions.PartialCredentialsError,
        exceptions.SSOError,
        exceptions.TokenRetrievalError,
    )
    if isinstance(error, signed_out) or _code(error) in _EXPIRED:
        return "expired"
    return "denied" if _code(error) in _DENIED else "failed"


def _code(error: Exception) -> str:
    return str(getattr(error, "response", {}).get("Error", {}).get("Code", ""))


def _names(service: str, operation: str) -> tuple[str, str]:
    """Return a call as `ec2:DescribeVolumes`, and the permission that it needs."""
    method = "".join(part.title() for part in operation.split("_"))
    call = f"{service}:{method}"
    permission = f"{_IAM_PREFIXES.get(service, service)}:{method}"
    return call, _IAM_ACTIONS.get(permission, permission)
