"""`clusterbox clusters template`."""

from __future__ import annotations

import argparse
import os
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import clusterbox
from clusterbox.errors import InputError


def add_action(actions: argparse._SubParsersAction[Any]) -> None:
    """Add the action and its arguments."""
    parser = actions.add_parser(
        "template",
        help="generate the CloudFormation that ParallelCluster would create",
        description="Generate the CloudFormation that ParallelCluster itself would create for a"
        " cluster, offline, and the same in every run.",
        epilog="example: clusterbox clusters template ws-eco --output /tmp/templates",
    )
    chosen = parser.add_mutually_exclusive_group(required=True)
    chosen.add_argument("name", nargs="?", help="cluster")
    chosen.add_argument("--file", type=Path, help="native ParallelCluster configuration")
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FOLDER",
        help="write all files to FOLDER/CLUSTER; without it the cluster's own stack is printed",
    )
    parser.add_argument("--force", action="store_true", help="replace FOLDER/CLUSTER")
    parser.add_argument("--format", choices=("yaml", "json"), default="yaml")
    parser.set_defaults(run=_template, needs_root=False)


def _template(options: argparse.Namespace, root: Path | None) -> int:
    from clusterbox.clusters.composed import compose_repository, read_native
    from clusterbox.clusters.template import check_folder, generate_template, write_files
    from clusterbox.pcluster import Pcluster

    if options.file is not None:
        cluster = read_native(options.file)
        # A cluster's name, unlike a file's, has letters, digits and hyphens only.
        cluster = replace(cluster, name=re.sub(r"[^A-Za-z0-9]", "-", cluster.name))
    elif root is None:
        raise InputError("here is no clusterbox repository; name a configuration with --file")
    else:
        cluster = compose_repository(root, [options.name])[options.name]
    folder = None if options.output is None else options.output / cluster.name
    if folder is not None:
        check_folder(folder, force=options.force)
    installed = root or Path(clusterbox.__file__).parents[1]
    generated = generate_template(
        Pcluster(installed / ".venv-pcluster", os.environ),
        installed / ".venv" / "bin" / "node",
        cluster,
    )
    for reason in generated.assumed:
        sys.stderr.write(f"assumed: {reason}\n")
    texts = generated.render(options.format)
    if folder is None:
        sys.stdout.write(texts[f"template.{options.format}"])
    else:
        write_files(folder, texts, force=options.force)
        sys.stdout.write("".join(f"{folder / name}\n" for name in texts))
    return 0
