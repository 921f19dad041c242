"""The database that Slurm keeps its accounting in: made here, or existing."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Self

from pydantic import Field, model_validator

from clusterbox.site.fields import (
    DnsName,
    Finding,
    KmsKeyArn,
    MysqlUser,
    Once,
    SecretArn,
    Section,
    SecurityGroupId,
    SubnetName,
    raise_findings,
)

# slurmdbd keeps its connection, so that a server which may pause at 0 never would.
MIN_ACU = Decimal("0.5")
# Keys that only a database that exists has, and those that only one that is made here has.
_EXISTING = ("secret", "secret_key", "security_group")
_MADE = ("subnets", "max_acu", "backup_days")


class AccountingDatabase(Section):
    """A MySQL server for Slurm's accounting: made here, or existing where it has a host.

    Each cluster that names it has a database of its own on it, called like the cluster.
    """

    host: DnsName | None = Field(None, description="host name, where the server already exists")
    port: int = Field(3306, ge=1150, le=65535, description="TCP port of the server")
    user: MysqlUser = Field("slurm", description="MySQL user that slurmdbd signs in with")
    secret: SecretArn | None = Field(
        None,
        description="ARN of the secret with the user's password as its whole text; of an existing server",
    )
    secret_key: KmsKeyArn | None = Field(
        None, description="ARN of the KMS key of that secret, where it is not AWS's own"
    )
    security_group: SecurityGroupId | None = Field(
        None, description="group of an existing server; gets the rule that lets head nodes in"
    )
    subnets: Once[SubnetName] = Field(
        (), description="subnets that the server may stand in, of two or more zones"
    )
    max_acu: int = Field(
        2, ge=1, le=128, description="most Aurora capacity units, of 2 GiB of memory each"
    )
    backup_days: int = Field(
        35, ge=1, le=35, description="days in which the database can be restored to any second"
    )

    @property
    def is_made_here(self) -> bool:
        """Whether the site makes the server."""
        return self.host is None

    @property
    def min_acu(self) -> Decimal:
        """Fewest Aurora capacity units, which are there when nobody asks for anything."""
        return MIN_ACU

    @model_validator(mode="after")
    def _check(self) -> Self:
        findings: list[Finding] = []
        if self.host is None:
            if not self.subnets:
                findings.append(
                    Finding(
                        ("subnets",),
                        "must name subnets of two zones, or give host and secret of a server that exists",
                    )
                )
            findings += self._foreign(
                _EXISTING, "must be left out, or host be given: the server is made here"
            )
        else:
            findings += [
                Finding((key,), "must be given: head nodes reach an existing server with it")
                for key in ("secret", "security_group")
                if getattr(self, key) is None
            ]
            findings += self._foreign(_MADE, "must be left out: the server exists")
        raise_findings(findings)
        return self

    def _foreign(self, keys: tuple[str, ...], message: str) -> list[Finding]:
        given: dict[str, Any] = {key: getattr(self, key) for key in keys}
        return [
            Finding((key,), message, str(value))
            for key, value in given.items()
            if key in self.model_fields_set
        ]
