"""`clusterbox observe show` and `clusterbox observe query`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clusterbox.cli.tables import FORMATS, render_table

if TYPE_CHECKING:
    import pandas

    from clusterbox.observe.frames import Sources
    from clusterbox.observe.plots import Plot

# What is asked for → the frame.
FRAMES = {
    "jobs": "jobs",
    "nodes": "nodes",
    "users": "users",
    "queues": "queues",
    "cost": "costs",
    "efficiency": "efficiency",
}
_PICTURES = (".png", ".html")
# Columns of the widest frames that a table for people leaves out.
_DETAILS = {
    "jobs": {
        "account",
        "exit_code",
        "submitted",
        "limit_seconds",
        "memory_used_bytes",
        "cpu_seconds",
    }
}


def add_show(actions: argparse._SubParsersAction[argparse.ArgumentParser], command: str) -> None:
    """Add the actions `show` and `query`."""
    show = actions.add_parser("show", help="what clusters do, as a table and a plot")
    show.add_argument("what", choices=tuple(FRAMES))
    _add_sources(show)
    show.add_argument(
        "--since", default="24h", metavar="SPAN", help="such as 90m, 24h, 7d (default: 24h)"
    )
    show.add_argument(
        "--plot",
        metavar="terminal|FILE.png|FILE.html",
        help="draw it too: below the table, or into a file",
    )
    show.add_argument("--force", action="store_true", help="replace the FILE of --plot")
    show.epilog = f"example: clusterbox {command} show users --since 7d --plot terminal"
    show.set_defaults(run=_show, needs_root=False)
    query = actions.add_parser("query", help="what Prometheus answers to an expression, as a table")
    query.add_argument("promql", metavar="EXPRESSION")
    query.add_argument(
        "--prometheus", default="http://127.0.0.1:9090", metavar="URL", help="Prometheus to ask"
    )
    query.add_argument("--format", choices=FORMATS, default="table", help="how to print it")
    query.add_argument(
        "--since", metavar="SPAN", help="values of a span such as 24h (default: those of now)"
    )
    query.add_argument("--step", type=float, metavar="SECONDS", help="between two values of it")
    query.epilog = f"example: clusterbox {command} query 'sum by (cluster) (slurm_cpus_alloc)'"
    query.set_defaults(run=_query, needs_root=False)


def _add_sources(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--cluster", help="name of a cluster in Prometheus (default: all)")
    parser.add_argument(
        "--prometheus",
        metavar="URL",
        help="Prometheus to ask, or `none` (default: http://127.0.0.1:9090 if it answers)",
    )
    parser.add_argument(
        "--slurm-conf",
        metavar="FILE",
        help="slurm.conf of the Slurm to ask, or `none` (default: that of this host if it answers)",
    )
    parser.add_argument("--format", choices=FORMATS, default="table", help="how to print it")


def _show(options: argparse.Namespace, _root: Path | None) -> int:
    from clusterbox.observe import frames

    picture = _picture(options)
    name = FRAMES[options.what]
    frame = getattr(frames, name)(since=options.since, sources=_sources(options))
    columns = list(frame.columns)
    if options.format == "table":
        columns = _telling(frame, _DETAILS.get(options.what, set()))
    _print(frame[columns], options.format)
    for note in frame.attrs["notes"]:
        sys.stderr.write(f"clusterbox: {note}\n")
    if options.plot is not None:
        from clusterbox.observe.plots import make_plot

        _draw(make_plot(name, frame), frame, picture)
    return 0


def _query(options: argparse.Namespace, _root: Path | None) -> int:
    from clusterbox.observe import frames
    from clusterbox.observe.prometheus import Prometheus

    frame = frames.query(
        options.promql,
        since=options.since,
        step_seconds=options.step,
        sources=frames.Sources(prometheus=Prometheus(options.prometheus)),
    )
    _print(frame, options.format)
    return 0


def _sources(options: argparse.Namespace) -> Sources:
    """Return the sources that were named, and those that answer here for what was not."""
    from clusterbox.errors import InputError
    from clusterbox.observe.frames import Sources, find_prometheus, find_slurm
    from clusterbox.observe.prometheus import Prometheus
    from clusterbox.slurm import Slurm

    if options.slurm_conf is None and options.prometheus is None:
        return Sources.here(options.cluster)
    slurm = find_slurm() if options.slurm_conf is None else None
    if options.slurm_conf not in (None, "none"):
        path = Path(options.slurm_conf).resolve()
        if not path.is_file():
            raise InputError(f"--slurm-conf {path}: there is no such file")
        slurm = Slurm({"SLURM_CONF": str(path)})
    prometheus = find_prometheus() if options.prometheus is None else None
    if options.prometheus not in (None, "none"):
        prometheus = Prometheus(options.prometheus)
    if slurm is None and prometheus is None:
        raise InputError("no source is left: name one with --prometheus or --slurm-conf")
    return Sources(slurm, prometheus, options.cluster)


def _picture(options: argparse.Namespace) -> Path | None:
    """Return the file of --plot; raises InputError before anything is asked."""
    from clusterbox.errors import InputError

    if options.plot in (None, "terminal"):
        return None
    path = Path(options.plot)
    if path.suffix not in _PICTURES:
        raise InputError(f"--plot is `terminal`, FILE.png or FILE.html, not {options.plot}")
    if path.exists() and not options.force:
        raise InputError(f"{path} exists; --force replaces it")
    if not path.resolve().parent.is_dir():
        raise InputError(f"{path}: its folder is missing")
    return path


def _draw(plot: Plot, frame: pandas.DataFrame, path: Path | None) -> None:
    import shutil

    from clusterbox.files import write_whole
    from clusterbox.observe import plots

    if path is None:
        encoding = (sys.stdout.encoding or "").lower()
        width = shutil.get_terminal_size((80, 24)).columns
        text = plots.render_terminal(plot, width, ascii_only=not encoding.startswith("utf"))
        sys.stdout.write(f"\n{text}\n")
        return
    if path.suffix == ".html":
        write_whole(path, plots.render_page(plot, list(frame.columns), _rows(frame, "csv")))
    else:
        beside = path.with_name(f".{path.name}.beside")
        beside.write_bytes(plots.render_png(plot))
        beside.replace(path)
    sys.stderr.write(f"clusterbox: wrote {path}\n")


def _telling(frame: pandas.DataFrame, details: set[str]) -> list[str]:
    """Return the columns for people: without those of which nothing is known, and details."""
    return [
        name
        for name in frame.columns
        if name not in details and (frame[name].notna().any() or not len(frame))
    ]


def _print(frame: pandas.DataFrame, form: str) -> None:
    from clusterbox.cli.costs_cells import safe_rows

    rows = safe_rows(_rows(frame, form), form)
    sys.stdout.write(render_table(list(frame.columns), rows, form) + "\n")


def _rows(frame: pandas.DataFrame, form: str) -> list[list[object]]:
    return [[_cell(value, form) for value in row] for row in frame.itertuples(index=False)]


def _cell(value: Any, form: str) -> object:
    import pandas

    if pandas.isna(value):
        return None
    if isinstance(value, pandas.Timestamp):
        return f"{value:%Y-%m-%dT%H:%M:%SZ}"
    if isinstance(value, float):
        return f"{value:.3f}" if form in ("table", "markdown") else float(value)
    if isinstance(value, int) or hasattr(value, "item"):
        return int(value)
    return value
