"""`clusterbox costs`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING

from clusterbox.cli.costs_limits import add_limits
from clusterbox.cli.costs_meter import add_meter
from clusterbox.cli.costs_report import add_report
from clusterbox.cli.costs_spot import add_spot, refresh_spot
from clusterbox.cli.tables import FORMATS, render_table

if TYPE_CHECKING:
    from clusterbox.clusters.composed import ComposedCluster
    from clusterbox.costs.estimate import Estimate
    from clusterbox.costs.lines import Line
    from clusterbox.costs.prices import Prices

PRICE_COLUMNS = ("product", "name", "usd", "unit", "usd_month", "confidence", "source")
ESTIMATE_COLUMNS = (
    "part",
    "item",
    "quantity",
    "idle_usd_month",
    "typical_usd_month",
    "worst_usd_month",
    "note",
)


def add_arguments(parser: argparse.ArgumentParser, command: str) -> None:
    """Add the arguments."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    _add_estimate(actions, command)
    add_limits(actions, command)
    add_meter(actions, command)
    add_report(actions, command)
    prices = actions.add_parser("prices", help="show prices, or fetch AWS's own")
    verbs = prices.add_subparsers(dest="verb", metavar="VERB", required=True)
    show = verbs.add_parser("show", help="print prices with their origin")
    show.add_argument("name", nargs="*", help="instance types or products (default: everything)")
    refresh = verbs.add_parser("refresh", help="write AWS's own price list to prices/REGION.csv")
    refresh.add_argument(
        "--source",
        choices=("api", "bulk"),
        default="api",
        help="AWS's query API, or an offer file that was downloaded (default: api)",
    )
    refresh.add_argument(
        "--file",
        type=Path,
        nargs="+",
        help="the offer files of --source bulk: AWS has one for each service",
    )
    add_spot(refresh)
    for verb, run in ((show, _show), (refresh, _refresh)):
        verb.add_argument("--region", help="AWS region (default: that of the environments)")
        verb.set_defaults(run=run)
    show.add_argument("--format", choices=FORMATS, default="table", help="how to print the prices")
    show.epilog = f"example: clusterbox {command} prices show t3a.2xlarge ebs"
    refresh.epilog = f"example: clusterbox {command} prices refresh --region us-west-2"
    parser.epilog = f"example: clusterbox {command} estimate ws-dev"


def _add_estimate(
    actions: argparse._SubParsersAction[argparse.ArgumentParser], command: str
) -> None:
    estimate = actions.add_parser("estimate", help="what an environment or a cluster will cost")
    estimate.add_argument("name", help="environment or cluster")
    estimate.add_argument(
        "--hours-a-day",
        type=_decimal_up_to(24),
        help="hours a day in which jobs run, for the typical cost (0 to 24)",
    )
    estimate.add_argument(
        "--utilisation",
        type=_decimal_up_to(1),
        help="share of all nodes that then run (0 to 1; default: 1)",
    )
    estimate.add_argument(
        "--history",
        type=Path,
        metavar="FILE",
        help="take the typical use of each cluster from what `costs meter --record` kept",
    )
    estimate.add_argument("--format", choices=FORMATS, default="table", help="how to print it")
    estimate.epilog = (
        f"example: clusterbox {command} estimate ws-eco --hours-a-day 8 --utilisation 0.5"
    )
    estimate.set_defaults(run=_estimate)


def _estimate(options: argparse.Namespace, root: Path) -> int:
    from clusterbox.clusters.composed import (
        UnknownClusterError,
        compose_environment,
        compose_repository,
    )
    from clusterbox.costs.estimate import estimate_cluster, estimate_environment
    from clusterbox.errors import InputError
    from clusterbox.site.load import Repository

    repository = Repository(root)
    if options.name in repository.environment_names():
        environment = repository.load_environment(options.name)
        prices = _load(environment.region, root)
        clusters = compose_environment(root, options.name)
        estimate = estimate_environment(environment, clusters, prices)
    else:
        try:
            clusters = [compose_repository(root, [options.name])[options.name]]
        except UnknownClusterError as error:
            names = ", ".join([*repository.environment_names(), *error.known])
            raise InputError(
                f"there is no environment or cluster {options.name}; known: {names}"
            ) from error
        prices = _load(str(clusters[0].configuration.get("Region")), root)
        estimate = estimate_cluster(clusters[0], prices)
    usage = _typical_use(options, clusters)
    # Sums would be counted twice by whoever adds up the rows of a CSV or JSON file.
    with_totals = options.format in ("table", "markdown")
    rows = _estimate_rows(estimate, usage, with_totals=with_totals)
    sys.stdout.write(render_table(ESTIMATE_COLUMNS, rows, options.format) + "\n")
    return 0


def _typical_use(
    options: argparse.Namespace, clusters: Sequence[ComposedCluster]
) -> Callable[[Line], Decimal | None] | None:
    """Return what gives a line's typical cost, by what was asked or by history; None without."""
    import time

    from clusterbox.costs.history import observed_share
    from clusterbox.costs.usage import read_usage
    from clusterbox.errors import InputError

    asked = options.hours_a_day is not None or options.utilisation is not None
    if options.history is None:
        hours = Decimal(24) if options.hours_a_day is None else options.hours_a_day
        share = Decimal(1) if options.utilisation is None else options.utilisation
        return (lambda line: line.typical(hours, share)) if asked else None
    if asked:
        raise InputError("give --history, or --hours-a-day and --utilisation, not both")
    usage = read_usage(options.history)
    now = int(time.time())
    shares: dict[str, Decimal] = {}
    missing = []
    for cluster in clusters:
        try:
            shares[cluster.name] = observed_share(usage, cluster.name, cluster.configuration, now)
        except InputError as error:
            missing.append(str(error))
    if not shares:
        raise InputError("; ".join(missing) or "there is no cluster")
    for text in missing:
        sys.stderr.write(f"clusterbox: {text}; its typical cost is unknown\n")

    def typical(line: Line) -> Decimal | None:
        if line.part in shares:
            return line.typical(Decimal(24), shares[line.part])
        # Nothing is recorded of the other parts; most cost the same at any time.
        return line.idle if line.idle == line.worst else None

    return typical


def _estimate_rows(
    estimate: Estimate, typical_of: Callable[[Line], Decimal | None] | None, *, with_totals: bool
) -> list[list[object]]:
    from clusterbox.costs.lines import usd

    rows: list[list[object]] = []
    for part in estimate.parts:
        lines = [line for line in estimate.lines if line.part == part]
        for line in lines:
            typical = usd(typical_of(line)) if typical_of else "not asked"
            notes = "; ".join(filter(None, [line.unknown, line.note]))
            rows.append(
                [part, line.item, line.quantity, usd(line.idle), typical, usd(line.worst), notes]
            )
        if with_totals:
            rows.append(_total_row(part, estimate, lines, typical_of))
    if with_totals and len(estimate.parts) != 1:
        rows.append(_total_row(None, estimate, estimate.lines, typical_of))
    return rows


def _total_row(
    part: str | None,
    estimate: Estimate,
    lines: Sequence[Line],
    typical_of: Callable[[Line], Decimal | None] | None,
) -> list[object]:
    from clusterbox.costs.estimate import add_amounts
    from clusterbox.costs.lines import usd

    total = estimate.total(part)
    typical = "not asked"
    if typical_of is not None:
        typical = usd(add_amounts(typical_of(line) for line in lines))
    noun = "item that is" if total.unpriced == 1 else "items that are"
    note = f"without {total.unpriced} {noun} not priced" if total.unpriced else ""
    return [part or "all", "total", "", usd(total.idle), typical, usd(total.worst), note]


def _show(options: argparse.Namespace, root: Path) -> int:
    from clusterbox.costs.price import Unknown
    from clusterbox.costs.snapshot import render_decimal

    prices = _load(_region(options, root), root)
    items = list(prices.items())
    rows: list[list[object]] = []
    for name in options.name or [None]:
        found = [(key, price) for key, price in items if name in (None, key.name, key.product)]
        for key, price in found:
            rows.append(
                [
                    key.product,
                    key.name,
                    render_decimal(price.usd),
                    price.unit,
                    render_decimal(price.month()),
                    str(price.confidence),
                    price.source,
                ]
            )
        if name is not None and not found:
            unknown = prices.instance(name)
            reason = str(unknown) if isinstance(unknown, Unknown) else ""
            rows.append(["", name, "unknown", "", "unknown", "", reason])
    sys.stdout.write(render_table(PRICE_COLUMNS, rows, options.format) + "\n")
    return 0


def _refresh(options: argparse.Namespace, root: Path) -> int:
    from clusterbox.costs.prices import FOLDER
    from clusterbox.costs.snapshot import write_snapshot
    from clusterbox.errors import InputError

    region = _region(options, root)
    if (options.source == "bulk") != (options.file is not None):
        raise InputError("--source bulk and --file FILE go together")
    if options.spot:
        return refresh_spot(options, root, region)
    if options.source == "bulk":
        from clusterbox.costs.bulk_file import read_bulk_files

        table = read_bulk_files(options.file, region)
    else:
        import boto3

        from clusterbox.costs.price_api import API_REGION, fetch_prices

        client = boto3.Session().client("pricing", region_name=API_REGION)
        table = fetch_prices(region, client, _say)
    path = root / FOLDER / f"{region}.csv"
    write_snapshot(table, path)
    _say(f"{path}: {len(table.prices)} prices of {table.published}")
    return 0


def _load(region: str, root: Path) -> Prices:
    """Return the prices of a region; old ones are said to be so on standard error."""
    from datetime import UTC, datetime

    from clusterbox.costs.prices import load_prices, warn_if_stale
    from clusterbox.costs.spot import load_spot_prices

    spot = load_spot_prices(root, region)
    prices = load_prices(region, root=root, spot=spot.histories() if spot else None)
    warn_if_stale(prices, datetime.now(UTC).date())
    return prices


def _region(options: argparse.Namespace, root: Path) -> str:
    from clusterbox.errors import InputError
    from clusterbox.site.load import Repository

    if options.region is not None:
        return str(options.region)
    repository = Repository(root)
    regions = {repository.load_environment(name).region for name in repository.environment_names()}
    if len(regions) != 1:
        found = ", ".join(sorted(regions)) or "none"
        raise InputError(f"--region must be given; regions of the environments: {found}")
    return regions.pop()


def _decimal_up_to(most: int) -> type[Decimal]:
    """Return a converter for argparse: a number from 0 to `most`."""

    def convert(text: str) -> Decimal:
        try:
            value = Decimal(text)
        except InvalidOperation:
            value = Decimal(-1)
        if not value.is_finite() or not 0 <= value <= most:
            raise argparse.ArgumentTypeError(f"must be a number from 0 to {most}")
        return value

    return convert  # type: ignore[return-value]


def _say(text: str) -> None:
    sys.stderr.write(f"clusterbox: {text}\n")
