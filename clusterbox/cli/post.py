"""`clusterbox post`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser, command: str) -> None:
    """Add the arguments."""
    parser.add_argument("platform", choices=("github", "gitlab"), help="where to post")
    parser.add_argument("file", type=Path, metavar="FILE", help="the comment, as Markdown")
    parser.add_argument(
        "--name",
        default="clusterbox",
        help="which of several reviews of one change it is (default: clusterbox)",
    )
    parser.epilog = (
        f"example: clusterbox {command} github .clusterbox/review/comment.md\n"
        "The pull or merge request and the token come from the variables of the CI job."
    )
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace, _: Path) -> int:
    import os

    from clusterbox.errors import InputError
    from clusterbox.review.post import post_comment

    try:
        body = options.file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{options.file} cannot be read as text: {error}") from error
    if not body.strip():
        raise InputError(f"{options.file} is empty; there is nothing to post")
    url = post_comment(options.platform, body, environment=os.environ, name=options.name)
    sys.stdout.write(f"{url}\n")
    return 0
