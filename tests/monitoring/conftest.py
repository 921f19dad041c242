"""Environments with a section `monitoring`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from clusterbox.site.environment import Environment
from clusterbox.site.load import Repository
from clusterbox.site.monitoring import Monitoring

TOPIC = "arn:aws:sns:us-west-2:427491229895:ws-dev-alerts"


def with_monitoring(root: Path, **words: Any) -> Environment:
    """Return ws-dev with a section `monitoring`, changed by `words`."""
    environment = Repository(root).load_environment("ws-dev")
    section = {"image": "admin", "subnet": "compute.a", "notify": ["ada@example.gov"], **words}
    return environment.model_copy(update={"monitoring": Monitoring.model_validate(section)})


@pytest.fixture(scope="session")
def by_topic(root: Path) -> Environment:
    """An environment whose alerts go to the topic alone."""
    return with_monitoring(root)


@pytest.fixture(scope="session")
def by_mail(root: Path) -> Environment:
    """An environment with a mail server."""
    mail = {"server": "smtp.example.gov:587", "sender": "hpc@example.gov", "secret": "smtp/hpc"}
    return with_monitoring(root, mail=mail, managed=True)
