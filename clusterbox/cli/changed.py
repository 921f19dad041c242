"""`clusterbox environments`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

FORMATS = ("lines", "json", "github", "gitlab")


def add_arguments(parser: argparse.ArgumentParser, command: str) -> None:
    """Add the arguments."""
    parser.add_argument(
        "--changed-since", metavar="REF", help="only those that a change since REF touches"
    )
    parser.add_argument("--head", default="HEAD", metavar="REF", help="until REF (default: HEAD)")
    parser.add_argument(
        "--format",
        choices=FORMATS,
        default="lines",
        help="names as lines or JSON; or what a pipeline of GitHub or GitLab reads, with only the "
        "environments that it deploys",
    )
    parser.epilog = f"example: clusterbox {command} --changed-since main"
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace, root: Path) -> int:
    import json

    from clusterbox.review.changed import changed_sites, read_sites
    from clusterbox.review.deployments import render_child_pipeline, render_matrix

    if options.changed_since:
        sites = changed_sites(root, options.changed_since, options.head)
    else:
        sites = read_sites(root, options.head)
    names = [site.name for site in sites]
    text = {
        "lines": lambda: "".join(f"{name}\n" for name in names),
        "json": lambda: json.dumps(names) + "\n",
        "github": lambda: f"environments={render_matrix(sites)}\n",
        "gitlab": lambda: render_child_pipeline(sites),
    }[options.format]()
    sys.stdout.write(text)
    return 0
