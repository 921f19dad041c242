"""`clusterbox images status`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from clusterbox.cli.tables import FORMATS, render_table

if TYPE_CHECKING:
    from clusterbox.images.status import Account, ImageStatus, PartStatus, Status
    from clusterbox.site.environment import Environment

IMAGE_COLUMNS = (
    "environment",
    "image",
    "ami",
    "name",
    "age_days",
    "newer_parent",
    "versions",
    "verified",
)
PART_COLUMNS = ("environment", "cluster", "part", "image", "repository", "live", "state")
_KINDS = {"head": "head node", "queue": "queue", "login": "login pool", "admin-box": "admin box"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("environment", nargs="*", help="environments (default: all)")
    parser.add_argument(
        "--target",
        choices=("embedded", "aws"),
        default="embedded",
        help="embedded: the account on this machine, if it runs (default); aws: AWS itself",
    )
    parser.add_argument(
        "--offline", action="store_true", help="ask no account: what the repository alone knows"
    )
    parser.add_argument(
        "--fail-on",
        action="append",
        choices=("drift", "age"),
        default=[],
        help="exit with 1 if anything drifts, or if an image is too old or of unknown age; "
        "can be given twice",
    )
    parser.add_argument(
        "--only", choices=("images", "parts"), help="print one of the two tables, as for csv"
    )
    parser.add_argument("--format", choices=FORMATS, default="table", help="how to print it")
    parser.epilog = "example: clusterbox images status ws-dev --fail-on age --format markdown"


def run(options: argparse.Namespace, root: Path) -> int:
    """Print how the images stand, and what uses them; return 1 for what `--fail-on` names."""
    from datetime import UTC, datetime

    from clusterbox.errors import InputError
    from clusterbox.images.status import find_status
    from clusterbox.site.load import Repository

    if options.offline and "drift" in options.fail_on:
        raise InputError("--fail-on drift needs an account; leave out --offline")
    repository = Repository(root)
    found: list[Status] = []
    unasked: list[str] = []
    for name in options.environment or repository.environment_names():
        environment = repository.load_environment(name)
        account = None if options.offline else _ask(options, root, environment)
        if account is None:
            unasked.append(name)
        found.append(find_status(root, environment, account, datetime.now(UTC)))
    images = [image for status in found for image in status.images]
    parts = [part for status in found for part in status.parts]
    _print(images, parts, options.format, options.only)
    if unasked:
        why = "" if options.offline else ": no embedded account of it runs"
        _tell(f"{', '.join(unasked)}: no account was asked{why}; live AMIs are not known")
    return _judge(options, images, parts, unasked)


def _ask(options: argparse.Namespace, root: Path, environment: Environment) -> Account | None:
    from clusterbox.deployment import targets
    from clusterbox.images.status import fetch_account

    target: targets.Target | None
    if options.target == "aws":
        aws = targets.AwsTarget(root, environment)
        aws.check_account()
        target = aws
    else:
        target = targets.find_embedded(root, environment)
    return None if target is None else fetch_account(root, environment, target)


def _print(
    images: Sequence[ImageStatus], parts: Sequence[PartStatus], form: str, only: str | None
) -> None:
    if form == "json":
        data = {"images": [*map(asdict, images)], "parts": [*map(asdict, parts)]}
        chosen = data if only is None else data[only]
        sys.stdout.write(json.dumps(chosen, indent=2, ensure_ascii=False) + "\n")
        return
    tables = {
        "images": render_table(IMAGE_COLUMNS, [*map(_image_row, images)], form),
        "parts": render_table(PART_COLUMNS, [*map(_part_row, parts)], form),
    }
    sys.stdout.write("\n\n".join(tables.values() if only is None else [tables[only]]) + "\n")
    sys.stdout.flush()


def _image_row(image: ImageStatus) -> list[object]:
    return [
        image.environment,
        image.image,
        image.ami,
        image.name,
        "unknown" if image.age_days is None else image.age_days,
        f"yes: {image.parent}" if image.newer_parent == "yes" else image.newer_parent,
        image.versions,
        image.verified,
    ]


def _part_row(part: PartStatus) -> list[object]:
    return [
        part.environment,
        part.cluster,
        f"{_KINDS[part.kind]} {part.name}".rstrip(),
        part.image,
        part.repository,
        "not asked" if part.live is None else " ".join(part.live),
        part.state,
    ]


def _judge(
    options: argparse.Namespace,
    images: Sequence[ImageStatus],
    parts: Sequence[PartStatus],
    unasked: Sequence[str],
) -> int:
    failures: list[str] = []
    if "age" in options.fail_on:
        failures += [
            f"{image.environment}: {image.image} is "
            + (
                "of unknown age: the lock has no `baked`"
                if image.age_days is None
                else f"{image.age_days} days old, and may be {image.max_age_days}"
            )
            for image in images
            if image.is_old
        ]
    if "drift" in options.fail_on:
        failures += [f"{name}: drift is not known without an account" for name in unasked]
        failures += [
            f"{part.environment}: {_name(part)}: {part.state}" for part in parts if part.is_drift
        ]
    for failure in failures:
        _tell(failure)
    return 1 if failures else 0


def _name(part: PartStatus) -> str:
    return " ".join(filter(None, (part.cluster, _KINDS[part.kind], part.name)))


def _tell(text: str) -> None:
    sys.stderr.write(f"clusterbox: {text}\n")
