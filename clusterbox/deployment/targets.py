"""Where a site is deployed to: the embedded account on this machine, or AWS."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clusterbox.deployment.cdk import node
from clusterbox.embedded.account import EmbeddedAccount
from clusterbox.embedded.existing import existing_resources
from clusterbox.embedded.provider.template import provider_objects
from clusterbox.errors import ClusterboxError, InputError
from clusterbox.site.environment import Environment
from clusterbox.site.image_definitions import load_image_definitions
from clusterbox.site.images import LockedImage


class Target(ABC):
    """An account that a site can be deployed to."""

    name: str
    asks_first: bool

    @abstractmethod
    def process_environment(self) -> dict[str, str]:
        """Return the whole environment for processes that talk to the account."""

    @abstractmethod
    def client(self, service: str) -> Any:
        """Return a boto3 client of the account."""


@dataclass(frozen=True)
class AwsTarget(Target):
    """AWS itself, with the caller's own credentials."""

    root: Path
    environment: Environment
    name = "aws"
    asks_first = True

    def process_environment(self) -> dict[str, str]:
        """Return this process's environment, with the site's region and the repository's Node."""
        region = self.environment.region
        return _with_tools(
            self.root, {**os.environ, "AWS_REGION": region, "AWS_DEFAULT_REGION": region}
        )

    def client(self, service: str) -> Any:
        """Return a client in the environment's region."""
        import boto3

        make: Any = boto3.session.Session(region_name=self.environment.region).client
        return make(service)

    def check_account(self) -> None:
        """Raise InputError when the credentials are absent or belong to another account."""
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            account = self.client("sts").get_caller_identity()["Account"]
        except (BotoCoreError, ClientError) as error:
            raise InputError(f"AWS does not know who you are: {error}. Sign in first.") from error
        if account != self.environment.account:
            raise InputError(
                f"your credentials belong to account {account}, but {self.environment.name} is in "
                f"{self.environment.account}; sign in to that one"
            )


@dataclass(frozen=True)
class EmbeddedTarget(Target):
    """The embedded account of one environment, on loopback."""

    root: Path
    account: EmbeddedAccount
    name = "embedded"
    asks_first = False

    def process_environment(self) -> dict[str, str]:
        """Return an environment that reaches the embedded account and nothing else of AWS."""
        return _with_tools(self.root, self.account.process_environment())

    def client(self, service: str) -> Any:
        """Return a client of the embedded account."""
        return self.account.client(service)


def state_folder(root: Path, environment_name: str) -> Path:
    """Return where the embedded account of an environment keeps its state and logs."""
    if Path(environment_name).name != environment_name or environment_name.startswith("."):
        raise InputError(f"{environment_name!r} is not the name of an environment")
    return root / ".clusterbox" / "embedded" / environment_name


def find_embedded(root: Path, environment: Environment) -> EmbeddedTarget | None:
    """Return the environment's embedded account where it runs, None otherwise.

    Raises InputError when one runs that was made for another account or region.
    """
    account = EmbeddedAccount.attach(state_folder(root, environment.name))
    if account is None:
        return None
    if (account.account, account.region) != (environment.account, environment.region):
        raise InputError(
            f"the embedded account of {environment.name} is {account.account} in {account.region}, "
            f"and the environment now says {environment.account} in {environment.region}; "
            f"end it with `clusterbox embedded down {environment.name}`"
        )
    return EmbeddedTarget(root, account)


def start_embedded(root: Path, environment: Environment) -> EmbeddedTarget:
    """Return the environment's embedded account, started where it does not run."""
    running = find_embedded(root, environment)
    if running is not None:
        return running
    pcluster_python = root / ".venv-pcluster" / "bin" / "python"
    if not pcluster_python.exists():
        raise ClusterboxError(f"{pcluster_python} is missing; run `make setup`")
    account = EmbeddedAccount.start(
        state_folder(root, environment.name),
        account=environment.account,
        region=environment.region,
        extra_env=_with_tools(
            root,
            {
                "PATH": os.environ.get("PATH", os.defpath),
                # AWS's Node runtime has the SDK; the functions of CDK's own resources use it.
                "NODE_PATH": str(root / "node_modules"),
                "CLUSTERBOX_PCLUSTER_PYTHON": str(pcluster_python),
            },
        ),
    )
    return EmbeddedTarget(root, account)


def seed_embedded(
    target: EmbeddedTarget, environment: Environment, images: Mapping[str, LockedImage]
) -> int:
    """Make what the environment says already exists; return how many things were made."""
    objects = provider_objects(environment.region)
    definitions = load_image_definitions(target.root).values()
    document = existing_resources(environment, images, objects, definitions)
    return len(target.account.seed(document).made)


def _with_tools(root: Path, environment: Mapping[str, str]) -> dict[str, str]:
    """Return an environment in which the repository's Node and CDK settings come first."""
    tools = node(root).parent
    return {
        **environment,
        "PATH": f"{tools}{os.pathsep}{environment.get('PATH', os.defpath)}",
        "JSII_NODE": str(node(root)),
        "CDK_DISABLE_VERSION_CHECK": "1",
        "CDK_DISABLE_CLI_TELEMETRY": "true",
    }
