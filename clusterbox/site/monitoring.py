"""The machine that watches the site: Prometheus, Alertmanager, Grafana, and who is told."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BeforeValidator, Field, model_validator

from clusterbox.site.fields import (
    EmailAddress,
    Finding,
    Identifier,
    InstanceType,
    Once,
    Section,
    SubnetName,
    matching,
    raise_findings,
)
from clusterbox.site.patch_day import SecretName

MailHost = Annotated[
    str,
    BeforeValidator(
        matching(
            r"([a-z0-9]([a-z0-9-]*[a-z0-9])?\.)+[a-z]{2,63}:\d{2,5}",
            "must be host and port of a mail server, such as smtp.example.gov:587",
        )
    ),
]


class Mail(Section):
    """A mail server that takes alerts over TLS; without one, SNS sends the mails."""

    server: MailHost = Field(description="host and port of the mail server, which has to offer TLS")
    sender: EmailAddress = Field(description="address that the mails come from")
    secret: SecretName | None = Field(
        None,
        description="secret with the keys username and password; none where no one has to sign in",
    )


class Monitoring(Section):
    """A machine of its own: the admin box stops itself, and what watches must not."""

    instance_type: InstanceType = Field("t3a.medium", description="EC2 instance type")
    image: Identifier = Field(description="image of ami/images.lock.yaml")
    subnet: SubnetName = Field(description="subnet as GROUP.ZONE")
    root_gib: int = Field(30, ge=8, le=1024, description="size of the encrypted root volume in GiB")
    volume_gib: int = Field(
        50, ge=10, le=16384, description="size of the encrypted volume with the data in GiB"
    )
    retention_days: int = Field(90, ge=1, le=1825, description="days for which metrics are kept")
    notify: Once[EmailAddress] = Field(min_length=1, description="who gets the alerts")
    mail: Mail | None = Field(
        None, description="mail server for the alerts; without one, SNS sends them"
    )
    managed: bool = Field(
        False, description="whether the metrics also go to Amazon Managed Service for Prometheus"
    )

    @property
    def retention_bytes(self) -> int:
        """Most bytes that Prometheus keeps: four fifths of the volume, so that it never fills."""
        return self.volume_gib * 2**30 * 4 // 5

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.mail is not None and not 1 <= int(self.mail.server.rpartition(":")[2]) <= 65535:
            raise_findings(
                [Finding(("mail", "server"), "must have a port up to 65535", self.mail.server)]
            )
        return self
