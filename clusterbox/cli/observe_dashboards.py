"""`clusterbox observe dashboards`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def add_dashboards(
    actions: argparse._SubParsersAction[argparse.ArgumentParser], command: str
) -> None:
    """Add the action `dashboards`."""
    parser = actions.add_parser(
        "dashboards", help="write Grafana's dashboards, or draw them as pages from a Prometheus"
    )
    parser.add_argument(
        "--check", action="store_true", help="write nothing; fail where a file is not current"
    )
    parser.add_argument(
        "--pages", type=Path, metavar="FOLDER", help="write pages of what they show now instead"
    )
    parser.add_argument(
        "--prometheus",
        default="http://127.0.0.1:9090",
        metavar="URL",
        help="Prometheus that --pages asks (default: http://127.0.0.1:9090)",
    )
    parser.add_argument("--cluster", help="cluster that --pages shows (default: all)")
    parser.add_argument(
        "--since", default="3h", metavar="SPAN", help="span that --pages shows (default: 3h)"
    )
    parser.epilog = f"example: clusterbox {command} dashboards --check"
    parser.set_defaults(run=_dashboards)


def _dashboards(options: argparse.Namespace, root: Path) -> int:
    from clusterbox.errors import InputError
    from clusterbox.observe.dashboards import DASHBOARDS, render

    if options.pages is not None:
        if options.check:
            raise InputError("--check is of the files, --pages draws: choose one")
        return _pages(options)
    if options.check:
        render.check(root, DASHBOARDS)
        sys.stdout.write(f"{len(DASHBOARDS)} dashboards are current\n")
        return 0
    for path in render.write(root, DASHBOARDS):
        sys.stdout.write(f"{path.relative_to(root)}\n")
    return 0


def _pages(options: argparse.Namespace) -> int:
    from clusterbox.files import write_whole
    from clusterbox.observe.dashboards import DASHBOARDS
    from clusterbox.observe.dashboards.page import pages
    from clusterbox.observe.frames import parse_since
    from clusterbox.observe.prometheus import Prometheus, now

    prometheus = Prometheus(options.prometheus)
    end = now()
    start = parse_since(options.since, end)
    values = {} if options.cluster is None else {"cluster": options.cluster}
    options.pages.mkdir(parents=True, exist_ok=True)
    for name, text in pages(DASHBOARDS, prometheus, start, end, values):
        path = options.pages / name
        write_whole(path, text)
        sys.stdout.write(f"{path}\n")
    return 0
