"""The `${...}` references in cluster configurations: find them, and put values in their place.

A reference names a value that the site's stacks own. The same file is resolved several ways: to
CDK tokens at synth, to the ids of a live account, and to stand-in ids offline. Which references
exist is said once, in `reference_names`.
"""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

from clusterbox.errors import Problem, ProblemsError
from clusterbox.site import names
from clusterbox.site.environment import Environment
from clusterbox.site.yaml_file import Location, YamlFile

# `$${` stands for a literal `${`, for scripts that use shell variables.
_PATTERN = re.compile(r"\$\$\{|\$\{([^{}$]*)\}|(\$\{)")
_WHOLE = re.compile(r"\$\{([^{}$]*)\}")

# References of an environment with a server for Slurm's accounting.
ACCOUNTING = (
    "accounting.host",
    "accounting.user",
    "accounting.secret",
    "security_groups.accounting",
)


def reference_names(environment: Environment) -> tuple[str, ...]:
    """Return every reference that the cluster configurations of an environment may use."""
    return (
        "site.environment",
        "site.account",
        "site.region",
        "site.cluster",
        "site.tags",
        "hosting.permissions_boundary",
        "hosting.resource_prefix",
        "network.vpc",
        *(f"network.{name}" for name in environment.network.subnet_names),
        "security_groups.cluster",
        "security_groups.ssh",
        "ssh.key_pair",
        *(f"storage.{name}" for name in environment.storage.file_systems),
        *(
            f"storage.{name}.{point}"
            for name, file_system in environment.storage.file_systems.items()
            for point in file_system.access_points
        ),
        "buckets.cluster_config",
        "buckets.logs",
        "buckets.results",
        *(f"images.{image}" for image in environment.images),
        "roles.head_node",
        "roles.compute",
        "roles.login",
        "roles.cleanup",
        *(ACCOUNTING if environment.accounting_database is not None else ()),
        # Without budgets, too: a cluster that had one is updated to lose its limits.
        "limits.revision",
    )


def known_values(environment: Environment, cluster: str) -> dict[str, Any]:
    """Return the values of the references that the environment file itself states."""
    hosting = environment.hosting
    return {
        "site.environment": environment.name,
        "site.account": environment.account,
        "site.region": environment.region,
        "site.cluster": cluster,
        # CDK's tags stop at the resources of the stacks; the nodes get theirs from here.
        "site.tags": [
            {"Key": key, "Value": value}
            for key, value in {
                **environment.tags.model_dump(),
                names.TAG_ENVIRONMENT: environment.name,
                names.TAG_SITE_CLUSTER: cluster,
            }.items()
        ],
        "hosting.permissions_boundary": environment.boundary_arn,
        # ParallelCluster's ResourcePrefix: the IAM path where there is one, the start of names.
        "hosting.resource_prefix": f"{hosting.iam_path}{hosting.iam_name_prefix}"
        if hosting.iam_path != "/"
        else hosting.iam_name_prefix,
        "ssh.key_pair": environment.network.ssh.key_pair,
        "buckets.cluster_config": environment.storage.buckets.cluster_config.name,
        "buckets.logs": environment.storage.buckets.logs.name,
        "buckets.results": environment.storage.buckets.results.name,
        **_known_accounting(environment),
        "limits.revision": _revision(environment, cluster),
    }


def _known_accounting(environment: Environment) -> dict[str, str]:
    database = environment.accounting_database
    if database is None:
        return {}
    known = {"accounting.user": database.user}
    if database.host is not None and database.secret is not None:
        known["accounting.host"] = f"{database.host}:{database.port}"
        known["accounting.secret"] = database.secret
    return known


def _revision(environment: Environment, cluster: str) -> str:
    """Return a text that differs when a cluster's limits do: of its budget, but for what AWS does."""
    budget = environment.budgets.clusters.get(cluster) if environment.budgets else None
    if budget is None:
        return "none"
    text = budget.model_dump_json(exclude={"when_spent"})
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def resolve(config: YamlFile, values: Mapping[str, Any]) -> Any:
    """Return the configuration with every reference replaced by its value.

    A text that is one reference becomes the value itself, of whatever type; a reference inside a
    longer text must have a text as its value. Raises ProblemsError with all unknown or malformed
    references, each with the known ones that resemble it.
    """
    problems: list[Problem] = []

    def replace(text: str, location: Location) -> Any:
        whole = _WHOLE.fullmatch(text)
        if whole and whole[1] in values:
            return values[whole[1]]

        def substitute(match: re.Match[str]) -> str:
            if match[0] == "$${":
                return "${"
            name = match[1]
            if name is None:
                problems.append(
                    config.problem(
                        location,
                        "must close each reference and hold none in another: ${NAME}",
                        text,
                    )
                )
            elif name not in values:
                problems.append(config.problem(location, _unknown(name, values)))
            elif not isinstance(values[name], str):
                problems.append(
                    config.problem(
                        location, f"${{{name}}} is not text and must be the whole value", text
                    )
                )
            else:
                return str(values[name])
            return ""

        return _PATTERN.sub(substitute, text)

    resolved = _map_texts(config.data, (), replace)
    if problems:
        raise ProblemsError(problems)
    return resolved


def find_references(config: YamlFile) -> Iterator[tuple[Location, str]]:
    """Yield where each reference stands and its name, in the order of the file."""
    found: list[tuple[Location, str]] = []

    def collect(text: str, location: Location) -> str:
        found.extend(
            (location, match[1]) for match in _PATTERN.finditer(text) if match[1] is not None
        )
        return text

    _map_texts(config.data, (), collect)
    yield from found


def _map_texts(data: Any, location: Location, replace: Any) -> Any:
    if isinstance(data, dict):
        return {
            key: _map_texts(value, (*location, str(key)), replace) for key, value in data.items()
        }
    if isinstance(data, list):
        return [_map_texts(item, (*location, index), replace) for index, item in enumerate(data)]
    return replace(data, location) if isinstance(data, str) else data


def _unknown(name: str, values: Mapping[str, Any]) -> str:
    close = difflib.get_close_matches(name, values, n=3, cutoff=0.6)
    meant = " or ".join(f"${{{item}}}" for item in close)
    known = ", ".join(sorted(values))
    hint = f"did you mean {meant}? Known: {known}" if close else f"known: {known}"
    return f"${{{name}}} is not a known reference; {hint}"
