"""Generate the CloudFormation that ParallelCluster itself would create for a cluster, offline.

The texts are the same in every run with the same input, so that a difference is one of the
configuration or of ParallelCluster's release.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from clusterbox.clusters.composed import ComposedCluster
from clusterbox.clusters.facts import account_facts
from clusterbox.clusters.process import ask_library
from clusterbox.errors import ClusterboxError, InputError, Problem, ProblemsError
from clusterbox.pcluster import Pcluster
from clusterbox.site.yaml_file import render_path

FORMATS = ("yaml", "json")

# jsii's parameters of an asset, which has the name of its content's SHA-256.
_ASSET_PARAMETER = re.compile(
    r"AssetParameters([0-9a-f]{64})([A-Za-z0-9]+?)[0-9A-F]{8}(?![0-9A-F])"
)


@dataclass(frozen=True)
class GeneratedTemplate:
    """What ParallelCluster would create for one cluster.

    `template` is the cluster's stack and `nested` the stacks in it by their logical id.
    `configuration` is what the nodes read and make Slurm's configuration of: the cluster's with
    all defaults. `code` has the SHA-256 of each file of ParallelCluster's own Lambda functions.
    `assumed` says what the template rests on and nobody has stated.
    """

    template: Mapping[str, Any]
    nested: Mapping[str, Mapping[str, Any]]
    configuration: Mapping[str, Any]
    code: Mapping[str, str]
    assumed: tuple[str, ...]

    def render(self, form: str) -> dict[str, str]:
        """Return the texts by file name, in one of FORMATS."""
        documents = {
            "template": self.template,
            **{f"nested-{name}": nested for name, nested in self.nested.items()},
            "cluster-config": self.configuration,
            "custom-resources": {"Sha256": self.code},
        }
        return {f"{name}.{form}": _render(data, form) for name, data in documents.items()}


def generate_template(
    pcluster: Pcluster, node: Path, cluster: ComposedCluster
) -> GeneratedTemplate:
    """Return what ParallelCluster would create for a cluster; it takes some 5 s.

    `node` is the Node that ParallelCluster's CDK runs on. Raises ProblemsError with what
    ParallelCluster refuses in the configuration, ClusterboxError when it cannot make a template
    of it, and PclusterError when its process fails.
    """
    asked = {
        "name": cluster.name,
        "configuration": cluster.configuration,
        "facts": account_facts(cluster),
    }
    answer = ask_library(_with_node(pcluster, node), "template", {cluster.name: asked})[
        cluster.name
    ]
    if "refused" in answer:
        raise ProblemsError([_problem(cluster, found) for found in answer["refused"]])
    if "failed" in answer:
        raise ClusterboxError(
            f"ParallelCluster cannot make a template of {cluster.name}: {answer['failed']}"
        )
    return name_assets(
        GeneratedTemplate(
            answer["template"],
            answer["nested"],
            answer["configuration"],
            answer["code"],
            tuple(answer["assumed"]),
        )
    )


def _with_node(pcluster: Pcluster, node: Path) -> Pcluster:
    settings = {
        "JSII_NODE": str(node),
        # The library's jsii warns of every Node that is newer than itself.
        "JSII_SILENCE_WARNING_UNTESTED_NODE_VERSION": "1",
        "JSII_SILENCE_WARNING_END_OF_LIFE_NODE_VERSION": "1",
        "JSII_SILENCE_WARNING_DEPRECATED_NODE_VERSION": "1",
    }
    return replace(pcluster, environment={**pcluster.environment, **settings})


def _problem(cluster: ComposedCluster, found: Mapping[str, Any]) -> Problem:
    location = tuple(found["location"])
    return Problem(
        cluster.file.name,
        render_path(location),
        f"{found['message']} ({found['rule']})",
        cluster.line_of(location),
    )


def name_assets(generated: GeneratedTemplate) -> GeneratedTemplate:
    """Return the same with nested stacks known by their logical id, and not by a hash.

    A hash would change with every change of what it stands for.
    """
    names: dict[str, str] = {}
    for logical_id, resource in sorted(generated.template["Resources"].items()):
        if resource["Type"] == "AWS::CloudFormation::Stack":
            used = _ASSET_PARAMETER.search(json.dumps(resource))
            if used is not None:
                names[used[1]] = logical_id
    text = _ASSET_PARAMETER.sub(
        lambda found: f"AssetParameters{names.get(found[1], found[1])}{found[2]}",
        json.dumps(generated.template),
    )
    for asset, logical_id in names.items():
        text = text.replace(asset, logical_id)
    nested = {names.get(asset, asset): data for asset, data in generated.nested.items()}
    return replace(generated, template=json.loads(text), nested=dict(sorted(nested.items())))


class _Dumper(yaml.SafeDumper):
    """YAML in which a text of several lines is one, so that its lines can be compared."""

    def ignore_aliases(self, _: Any) -> bool:
        """Write every value where it stands."""
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar(
        "tag:yaml.org,2002:str", text, style="|" if "\n" in text else None
    )


_Dumper.add_representer(str, _represent_text)


def _render(data: Any, form: str) -> str:
    if form == "json":
        return json.dumps(data, indent=2, sort_keys=True) + "\n"
    return yaml.dump(data, Dumper=_Dumper, sort_keys=True, width=100_000)


def check_folder(folder: Path, *, force: bool) -> None:
    """Raise InputError when the folder exists and `force` is not set, or is no folder."""
    if folder.exists() and not (force and folder.is_dir()):
        raise InputError(f"{folder} exists; name another folder, or replace it with --force")


def write_files(folder: Path, texts: Mapping[str, str], *, force: bool) -> None:
    """Write the texts to a folder of their own, which is replaced as a whole.

    Raises InputError as `check_folder` does.
    """
    check_folder(folder, force=force)
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        new, old = beside / "new", beside / "old"
        new.mkdir()
        for name, text in texts.items():
            (new / name).write_text(text, encoding="utf-8")
        if folder.exists():
            folder.rename(old)
        new.rename(folder)
    finally:
        shutil.rmtree(beside)
