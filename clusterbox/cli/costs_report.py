"""`clusterbox costs report`."""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from clusterbox.cli.costs_cells import safe_rows
from clusterbox.cli.tables import FORMATS, render_table

if TYPE_CHECKING:
    from clusterbox.aws import Account, Gap, Login
    from clusterbox.costs.prices import Prices
    from clusterbox.costs.report import Report
    from clusterbox.site.environment import Environment

REPORT_FORMATS = (*FORMATS, "html")


def add_report(actions: argparse._SubParsersAction[argparse.ArgumentParser], command: str) -> None:
    """Add the action `report`."""
    report = actions.add_parser(
        "report", help="what is in accounts, what it costs a month, and what could go"
    )
    report.add_argument(
        "--target",
        choices=("embedded", "aws"),
        default="embedded",
        help="embedded: the AWS accounts on this machine (default); aws: AWS itself",
    )
    for flag, metavar, text in (
        ("--environment", "NAME", "only what is of this environment; may be given again"),
        ("--account", "ID", "only this account; may be given again"),
        ("--region", "REGION", "this region (default: those of the environments)"),
        ("--prefix", "TEXT", "only names that start so; may be given again"),
        ("--role-arn", "ARN", "role of another account to read it with (aws)"),
    ):
        report.add_argument(flag, action="append", default=[], metavar=metavar, help=text)
    report.add_argument(
        "--tag",
        action="append",
        default=[],
        type=_tag,
        metavar="KEY=VALUE",
        help="only what carries this tag; may be given again",
    )
    report.add_argument("--profile", help="profile of your AWS configuration (aws)")
    report.add_argument("--format", choices=REPORT_FORMATS, default="table", help="how to print it")
    report.add_argument(
        "--output", type=Path, metavar="FILE", help="file to write (default: standard output)"
    )
    report.add_argument(
        "--history", type=Path, metavar="FOLDER", help="keep the day's totals there, for the chart"
    )
    report.epilog = (
        f"example: clusterbox {command} report --prefix ws- --format html --output costs.html"
    )
    report.set_defaults(run=_report)


def _report(options: argparse.Namespace, root: Path) -> int:
    from datetime import UTC, datetime

    from clusterbox.costs.report import make_report
    from clusterbox.costs.report_files import read_used_ids
    from clusterbox.costs.report_history import write_day
    from clusterbox.costs.report_selection import Selection
    from clusterbox.files import write_whole
    from clusterbox.site.load import Repository

    repository = Repository(root)
    environments = [repository.load_environment(name) for name in repository.environment_names()]
    _check_names(options.environment, environments)
    accounts, gaps = _open_accounts(options, root, environments)
    report = make_report(
        accounts,
        prices=functools.cache(functools.partial(_load_prices, root)),
        environments=environments,
        used=read_used_ids(root)
        | {
            image.ami
            for environment in environments
            # A lock that is damaged or missing is an error, and not one without images.
            for image in repository.load_images(environment).values()
        },
        selection=Selection(tuple(options.prefix), tuple(options.tag), tuple(options.environment)),
        made=datetime.now(UTC),
        gaps=gaps,
        tell=_tell,
    )
    if options.history is not None:
        write_day(options.history, report)
    text = _render(report, options.format, options.history) + "\n"
    if options.output is None:
        sys.stdout.write(text)
    else:
        write_whole(options.output, text)
    if report.is_partial:
        sys.stderr.write("clusterbox: the report is partial:\n")
        sys.stderr.writelines(f"  {gap}\n" for gap in report.gaps)
    return 1 if report.is_partial else 0


def _render(report: Report, form: str, history: Path | None) -> str:
    from clusterbox.costs.report import RECORD_COLUMNS
    from clusterbox.costs.report_history import read_days
    from clusterbox.costs.report_page import render_page
    from clusterbox.costs.report_tables import (
        make_heading,
        make_records,
        make_sections,
        render_json,
    )

    if form == "html":
        return render_page(report, read_days(history) if history else ()).rstrip("\n")
    if form == "json":
        return render_json(report)
    if form == "csv":
        return render_table(RECORD_COLUMNS, safe_rows(make_records(report), form), form)
    mark = "## " if form == "markdown" else ""
    parts = ["\n\n".join(make_heading(report)) if mark else "\n".join(make_heading(report))]
    for section in make_sections(report):
        parts.append(f"{mark}{section.title}")
        parts.append(render_table(section.columns, safe_rows(section.rows, form), form))
    return "\n\n".join(parts)


def _open_accounts(
    options: argparse.Namespace, root: Path, environments: Sequence[Environment]
) -> tuple[list[Account], list[Gap]]:
    """Return the accounts to read, each in one region, and those that nobody lets us into."""
    from clusterbox.errors import InputError

    if options.target == "embedded":
        if options.role_arn or options.profile:
            raise InputError("--role-arn and --profile are of --target aws")
        accounts: list[Account] = list(_open_embedded(options, root, environments))
        gaps: list[Gap] = []
    else:
        accounts, gaps = _open_aws(options, environments)
    known = {found.account for found in accounts} | {gap.account for gap in gaps}
    if unknown := [account for account in options.account if account not in known]:
        raise InputError(
            f"--account {', '.join(unknown)}: there is no way into it; "
            f"known: {', '.join(sorted(known))}; on AWS, give --role-arn"
        )
    if options.account:
        accounts = [found for found in accounts if found.account in options.account]
        gaps = [gap for gap in gaps if gap.account in options.account]
    return accounts, gaps


def _open_embedded(
    options: argparse.Namespace, root: Path, environments: Sequence[Environment]
) -> Iterator[Account]:
    from clusterbox.aws import Account
    from clusterbox.deployment.targets import find_embedded
    from clusterbox.errors import ClusterboxError

    found = False
    for environment in environments:
        if options.environment and environment.name not in options.environment:
            continue
        target = find_embedded(root, environment)
        if target is None and not options.environment:
            continue
        if target is None:
            raise ClusterboxError(
                f"no embedded account of {environment.name} runs; start it with "
                f"`clusterbox embedded up {environment.name}`, or ask --target aws"
            )
        found = True
        for region in options.region or [environment.region]:
            account = replace(target.account, region=region)
            yield Account(account.account, region, account.client)
    if not found:
        raise ClusterboxError(
            "no embedded account runs; start one with `clusterbox embedded up ENVIRONMENT`, "
            "or ask --target aws"
        )


def _open_aws(
    options: argparse.Namespace, environments: Sequence[Environment]
) -> tuple[list[Account], list[Gap]]:
    from clusterbox.aws import Gap, account_of_role, assume_role, sign_in
    from clusterbox.errors import InputError

    wanted = [item for item in environments if item.name in options.environment] or environments
    regions = options.region or sorted({environment.region for environment in wanted})
    if not regions:
        raise InputError("--region must be given: there is no environment that says one")
    for arn in options.role_arn:
        account_of_role(arn)
    login = sign_in(regions[0], options.profile)
    opened = [assume_role(login, arn, regions[0]) for arn in options.role_arn]
    gaps = [found for found in opened if isinstance(found, Gap)]
    logins = {login.account: login}
    logins |= {found.account: found for found in opened if not isinstance(found, Gap)}
    if options.environment:
        _check_accounts(wanted, logins, {gap.account for gap in gaps})
    accounts = []
    for account, found in sorted(logins.items()):
        own = {item.region for item in wanted if item.account == account}
        if options.environment and not own:
            continue
        for region in options.region or sorted(own or regions):
            accounts.append(found.open(region))
    return accounts, gaps


def _check_accounts(
    wanted: Sequence[Environment], logins: dict[str, Login], refused: set[str]
) -> None:
    from clusterbox.errors import InputError

    for environment in wanted:
        if environment.account not in {*logins, *refused}:
            raise InputError(
                f"{environment.name} is in account {environment.account}, and your credentials are "
                f"of {', '.join(sorted(logins))}: sign in to it, or give --role-arn"
            )


def _check_names(names: Sequence[str], environments: Sequence[Environment]) -> None:
    from clusterbox.errors import InputError

    known = [environment.name for environment in environments]
    if unknown := [name for name in names if name not in known]:
        raise InputError(
            f"there is no environment {', '.join(unknown)}; known: {', '.join(known) or 'none'}"
        )


def _load_prices(root: Path, region: str) -> Prices:
    from datetime import UTC, datetime

    from clusterbox.costs.prices import load_prices, warn_if_stale

    prices = load_prices(region, root=root)
    warn_if_stale(prices, datetime.now(UTC).date())
    return prices


def _tag(text: str) -> tuple[str, str]:
    key, found, value = text.partition("=")
    if not (key and found):
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=VALUE")
    return key, value


def _tell(text: str) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"clusterbox: {text}\n")
