"""The deployment units of a site. `build_app` shows the whole graph on one screen."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aws_cdk as cdk

from clusterbox.site import names
from clusterbox.site.addresses import plan_addresses
from clusterbox.site.environment import Environment
from clusterbox.site.load import Repository
from clusterbox.site.yaml_file import YamlFile
from stacks.accounting import AccountingStack
from stacks.admin import AdminStack
from stacks.boundary import BoundaryStack
from stacks.cluster import ClusterStack
from stacks.costs import CostsStack
from stacks.encryption import EncryptionStack
from stacks.identity import IdentityStack
from stacks.images import ImagesStack
from stacks.monitoring import MonitoringStack
from stacks.network import NetworkStack
from stacks.rules import add_rules
from stacks.security import SecurityStack
from stacks.storage import StorageStack
from stacks.tags import add_tags


def build_app(root: Path, name: str, *, rules: bool = False, outdir: Path | None = None) -> cdk.App:
    """Return the app of environment `name` of the repository at `root`, ready for synth.

    `rules` adds cdk-nag's rule packs. Nothing is looked up: neither network nor credentials are
    used. Raises ProblemsError for everything wrong in the environment and its clusters, an
    address budget that cannot fit included.
    """
    repository = Repository(root)
    environment = repository.load_environment(name)
    images = repository.load_images(environment)
    configs = {entry.name: repository.load_cluster(entry) for entry in environment.clusters}
    pins = {cluster: repository.load_pins(environment, cluster) for cluster in configs}
    plan_addresses(environment, configs)
    app = _make_app(root, environment, outdir)

    def unit(purpose: str) -> str:
        return names.stack_name(environment, purpose)

    key = EncryptionStack(app, unit("encryption"), environment=environment).key
    network = NetworkStack(app, unit("network"), environment=environment, key=key)
    storage = StorageStack(app, unit("storage"), environment=environment, network=network, key=key)
    security = SecurityStack(
        app, unit("security"), environment=environment, network=network, storage=storage
    )
    identity = IdentityStack(app, unit("identity"), environment=environment, key=key)
    ImagesStack(
        app,
        unit("images"),
        environment=environment,
        images=images,
        key=key,
        identity=identity,
    )
    if environment.admin_box is not None:
        AdminStack(
            app,
            unit("admin"),
            environment=environment,
            box=environment.admin_box,
            image=images[environment.admin_box.image],
            root=root,
            key=key,
            network=network,
            storage=storage,
            security=security,
        )
    if environment.budgets is not None:
        CostsStack(
            app,
            unit("costs"),
            environment=environment,
            budgets=environment.budgets,
            named_ids=_named_ids(configs),
            root=root,
            key=key,
            identity=identity,
        )
    if environment.monitoring is not None:
        MonitoringStack(
            app,
            unit("monitoring"),
            environment=environment,
            plan=environment.monitoring,
            image=images[environment.monitoring.image],
            root=root,
            key=key,
            network=network,
            security=security,
        )
    accounting = None
    if environment.accounting_database is not None:
        accounting = AccountingStack(
            app,
            unit("accounting"),
            environment=environment,
            plan=environment.accounting_database,
            network=network,
            key=key,
        )
    for cluster, config in configs.items():
        ClusterStack(
            app,
            names.cluster_stack_name(environment, cluster),
            environment=environment,
            cluster=cluster,
            config=config,
            images=images,
            pins=pins[cluster],
            key=key,
            network=network,
            storage=storage,
            security=security,
            identity=identity,
            accounting=accounting,
        )
    if not environment.hosting.permissions_boundary.exists:
        _deploy_first(app, BoundaryStack(app, unit("boundary"), environment=environment))
    add_tags(app, environment)
    if rules:
        add_rules(app)
    return app


def _named_ids(configs: Mapping[str, YamlFile]) -> list[str]:
    """Return the ids of images, disks and addresses that configurations name as they are."""
    text = json.dumps([config.data for config in configs.values()], default=str)
    return sorted(set(re.findall(r"\b(?:ami|snap|vol|eipalloc)-[0-9a-f]{8,17}\b", text)))


def _make_app(root: Path, environment: Environment, outdir: Path | None) -> cdk.App:
    context: dict[str, Any] = json.loads((root / "cdk.json").read_text())["context"]
    return cdk.App(
        analytics_reporting=False,
        # The boundary on every principal of every stack, custom resources included.
        context={**context, "@aws-cdk/core:permissionsBoundary": {"arn": environment.boundary_arn}},
        default_stack_synthesizer=cdk.DefaultStackSynthesizer(
            cloud_formation_execution_role=environment.hosting.cloudformation_execution_role
        ),
        outdir=None if outdir is None else str(outdir),
    )


def _deploy_first(app: cdk.App, boundary: BoundaryStack) -> None:
    """Let every other stack wait for the boundary, which has to stand before the first role."""
    for stack in app.node.children:
        if isinstance(stack, cdk.Stack) and stack is not boundary:
            stack.add_stack_dependency(boundary)
