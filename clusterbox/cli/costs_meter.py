"""`clusterbox costs meter` and `clusterbox costs jobs`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from clusterbox.cli.costs_cells import safe_rows
from clusterbox.cli.tables import FORMATS, render_table
from clusterbox.costs.meter_jobs import GROUPS

if TYPE_CHECKING:
    from datetime import tzinfo
    from decimal import Decimal

    from clusterbox.costs.meter import Meter, MeterRow
    from clusterbox.costs.meter_amount import Amount
    from clusterbox.costs.meter_jobs import JobCosts
    from clusterbox.costs.meter_live import Records
    from clusterbox.costs.meter_rates import Rates

METER_COLUMNS = ("section", "name", "usd_hour", "today_usd", "month_usd", "note")
JOB_COLUMNS = ("jobs", "starts", "cpu_hours", "usd", "overhead_usd", "total_usd")
JOB_DETAILS = ("name", "user", "account", "queue", "state")
# USD are shown with these digits after the point, and rounded so that what is shown adds up.
HOUR_DIGITS = 4
USD_DIGITS = 2
JOB_DIGITS = 4
LEAST_WATCH_SECONDS = 5
_CLEAR = "\x1b[2J\x1b[H"


def add_meter(actions: argparse._SubParsersAction[argparse.ArgumentParser], command: str) -> None:
    """Add the actions `meter` and `jobs`."""
    meter = actions.add_parser("meter", help="what a cluster costs now, today and this month")
    _add_sources(meter)
    meter.add_argument(
        "--watch",
        type=_watch_seconds,
        metavar="SECONDS",
        help=f"print it again every so many seconds ({LEAST_WATCH_SECONDS} at least)",
    )
    meter.epilog = f"example: clusterbox {command} meter ws-eco --timezone America/Denver"
    meter.set_defaults(run=_meter)
    jobs = actions.add_parser("jobs", help="what jobs cost, by job, user, account, queue, day, ...")
    _add_sources(jobs)
    jobs.add_argument("--user", help="only jobs of this user")
    jobs.add_argument("--account", help="only jobs of this Slurm account")
    jobs.add_argument(
        "--since", metavar="TIME", help="from this date or time on (default: this month)"
    )
    jobs.add_argument("--until", metavar="TIME", help="up to this date or time (default: now)")
    jobs.add_argument("--group-by", choices=GROUPS, default="job", help="(default: job)")
    jobs.epilog = f"example: clusterbox {command} jobs ws-eco --since 2026-11-01 --group-by user"
    jobs.set_defaults(run=_jobs)


def _add_sources(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("cluster")
    parser.add_argument(
        "--target",
        choices=("embedded", "aws"),
        default="embedded",
        help="embedded: what runs on this machine (default); aws: AWS, and the Slurm of this host",
    )
    parser.add_argument(
        "--usage", type=Path, metavar="FILE", help="records of instances and disks, not EC2's"
    )
    parser.add_argument(
        "--accounting", type=Path, metavar="FILE", help="output of `sacct` in UTC, not Slurm's"
    )
    parser.add_argument(
        "--record", type=Path, metavar="FILE", help="keep what is seen: EC2 forgets after an hour"
    )
    parser.add_argument("--region", help="AWS region (default: that of the cluster)")
    parser.add_argument("--timezone", default="UTC", help="where days begin (default: UTC)")
    parser.add_argument("--at", metavar="TIME", help="instead of now, with --usage")
    parser.add_argument("--format", choices=FORMATS, default="table", help="how to print it")


def _meter(options: argparse.Namespace, root: Path) -> int:
    import time

    from clusterbox.costs.meter import TREND_SECONDS, meter_now
    from clusterbox.costs.meter_time import month_of

    case = _Case(options, root)
    while True:
        at = case.now()
        since = min(month_of(at, case.timezone).start, at - TREND_SECONDS)
        records = case.read(since, at)
        meter = meter_now(
            records.usage,
            records.jobs,
            case.rates,
            cluster=case.name,
            at=at,
            timezone=case.timezone,
            budget_usd=case.budget,
        )
        meter = replace(meter, notes=(*records.notes, *meter.notes))
        if options.watch and options.format == "table" and sys.stdout.isatty():
            sys.stdout.write(_CLEAR)
        rows = safe_rows(_meter_rows(meter), options.format)
        sys.stdout.write(render_table(METER_COLUMNS, rows, options.format) + "\n")
        _say_notes(meter.notes)
        if not options.watch:
            return 0
        sys.stdout.flush()
        time.sleep(options.watch)


def _jobs(options: argparse.Namespace, root: Path) -> int:
    from clusterbox.costs.meter_jobs import price_jobs
    from clusterbox.costs.meter_time import Period, month_of, parse_moment
    from clusterbox.errors import InputError

    case = _Case(options, root)
    at = case.now()
    since = month_of(at, case.timezone).start
    if options.since is not None:
        since = parse_moment(options.since, case.timezone)
    until = at if options.until is None else parse_moment(options.until, case.timezone)
    if since >= until:
        raise InputError(f"--since {options.since} is not before --until {options.until or 'now'}")
    records = case.read(since, at)
    costs = price_jobs(
        records.usage,
        records.jobs,
        case.rates,
        Period(since, until),
        cluster=case.name,
        group_by=options.group_by,
        at=at,
        timezone=case.timezone,
        user=options.user,
        account=options.account,
    )
    details = JOB_DETAILS if options.group_by == "job" else ()
    columns = (options.group_by, *details, *JOB_COLUMNS)
    rows = _job_rows(costs, details, with_total=options.format in ("table", "markdown"))
    shown = safe_rows(rows, options.format)
    sys.stdout.write(render_table(columns, shown, options.format) + "\n")
    _say_notes([*records.notes, *costs.notes])
    return 0


class _Case:
    """What the options mean: which cluster, its prices and budget, and where its records are."""

    def __init__(self, options: argparse.Namespace, root: Path) -> None:
        from datetime import UTC, datetime

        from clusterbox.clusters.composed import compose_repository
        from clusterbox.costs.meter_rates import Rates
        from clusterbox.costs.meter_time import find_timezone
        from clusterbox.costs.prices import load_prices, warn_if_stale
        from clusterbox.costs.spot import load_spot_prices
        from clusterbox.errors import InputError

        if options.at and not options.usage:
            raise InputError("--at needs --usage: EC2 and Slurm only know what is now")
        if options.usage and not options.accounting:
            raise InputError("--usage needs --accounting: an empty one has only sacct's header")
        if options.usage and options.record:
            raise InputError("--usage and --record do not go together")
        self.options = options
        self.root = root
        self.name: str = options.cluster
        self.timezone: tzinfo = find_timezone(options.timezone)
        self.cluster = None
        # Records of files can be of a cluster that is not in the repository, in a given region.
        if options.usage is None or options.region is None:
            self.cluster = compose_repository(root, [options.cluster])[options.cluster]
            self.name = self.cluster.name
        region = options.region or str(self.cluster and self.cluster.configuration.get("Region"))
        prices = load_prices(region, root=root)
        warn_if_stale(prices, datetime.now(UTC).date())
        self.rates: Rates = Rates(prices, load_spot_prices(root, region))

    @property
    def budget(self) -> Decimal | None:
        """The cluster's budget in USD a month."""
        environment = self.cluster.environment if self.cluster else None
        if environment is None or environment.budgets is None:
            return None
        budget = environment.budgets.clusters.get(self.name)
        return budget.monthly_usd if budget else None

    def now(self) -> int:
        """Return the time that is asked about, in seconds since 1970."""
        import time

        from clusterbox.costs.meter_time import parse_moment

        at = self.options.at
        return int(time.time()) if at is None else parse_moment(at, self.timezone)

    def read(self, since: int, at: int) -> Records:
        """Return the records of a time, from files where they are given."""
        from clusterbox.costs.jobs import parse_sacct
        from clusterbox.costs.meter_live import Records, fetch_records, open_doors
        from clusterbox.costs.snapshot import read_text
        from clusterbox.costs.usage import read_usage
        from clusterbox.errors import InputError

        jobs = None
        if self.options.accounting:
            path = self.options.accounting
            jobs = parse_sacct(read_text(path), name=str(path))
        if self.options.usage:
            return Records(read_usage(self.options.usage), jobs or ())
        if self.cluster is None:
            raise InputError("--region is for records of --usage")
        doors = open_doors(self.root, self.cluster, self.options.cluster, self.options.target)
        return fetch_records(
            doors,
            self.cluster,
            self.rates.prices,
            since=since,
            at=at,
            jobs=jobs,
            keep=self.options.record,
        )


def _meter_rows(meter: Meter) -> list[list[object]]:
    """Return the rows of all sections; each section adds up to the total, also as it is shown."""
    from clusterbox.costs.meter import SECTIONS
    from clusterbox.costs.meter_amount import render_amount, to_decimal

    rows = _meter_section([meter.total])
    projected = to_decimal(meter.projected.usd, USD_DIGITS)
    share = meter.budget_share
    note = "no budget in the environment"
    if meter.budget_usd is not None:
        percent = "unknown" if share is None else f"{to_decimal(share * 100, 0)} %"
        note = f"{percent} of the budget of {meter.budget_usd} USD"
    shown = render_amount(meter.projected, projected)
    rows.append(["total", "projected month", None, None, shown, note])
    for section in SECTIONS:
        rows += _meter_section(meter.section(section))
    return rows


def _meter_section(rows: Sequence[MeterRow]) -> list[list[object]]:
    hours = _shown([row.hour for row in rows], HOUR_DIGITS)
    days = _shown([row.today for row in rows], USD_DIGITS)
    months = _shown([row.month for row in rows], USD_DIGITS)
    return [
        [row.section, row.name, hour, day, month, None]
        for row, hour, day, month in zip(rows, hours, days, months, strict=True)
    ]


def _job_rows(costs: JobCosts, details: Sequence[str], *, with_total: bool) -> list[list[object]]:
    groups = costs.groups
    own = _shown([group.own for group in groups], JOB_DIGITS)
    overhead = _shown([group.overhead for group in groups], JOB_DIGITS)
    total = _shown([group.total for group in groups], JOB_DIGITS)
    rows: list[list[object]] = [
        [
            group.name,
            *(getattr(group.last, name) for name in details),
            group.jobs,
            group.runs,
            f"{float(group.cpu_seconds / 3600):.2f}",
            own[at],
            # Its part of the overhead follows from its price, which is not known.
            overhead[at] if group.own.is_known or group.own.usd else "unknown",
            total[at],
        ]
        for at, group in enumerate(groups)
    ]
    if with_total:
        rows.append(_job_total(costs, details))
    return rows


def _job_total(costs: JobCosts, details: Sequence[str]) -> list[object]:
    from clusterbox.costs.meter_amount import add_amounts

    groups = costs.groups
    own = add_amounts(group.own for group in groups)
    overhead = add_amounts(group.overhead for group in groups)
    amounts = [_shown([amount], JOB_DIGITS)[0] for amount in (own, overhead, own + overhead)]
    hours = float(sum(group.cpu_seconds for group in groups) / 3600)
    starts = sum(group.runs for group in groups)
    return ["total", *([None] * len(details)), None, starts, f"{hours:.2f}", *amounts]


def _shown(amounts: Sequence[Amount], digits: int) -> list[str]:
    from clusterbox.costs.meter_amount import render_amount, round_parts

    rounded = round_parts([amount.usd for amount in amounts], digits)
    return [render_amount(amount, value) for amount, value in zip(amounts, rounded, strict=True)]


def _say_notes(notes: Sequence[str]) -> None:
    for note in dict.fromkeys(notes):
        sys.stderr.write(f"clusterbox: {note}\n")


def _watch_seconds(text: str) -> int:
    if not text.isdigit() or int(text) < LEAST_WATCH_SECONDS:
        raise argparse.ArgumentTypeError(f"must be a whole number from {LEAST_WATCH_SECONDS} on")
    return int(text)
