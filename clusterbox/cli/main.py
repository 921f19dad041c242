"""The entry point of the `clusterbox` command."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from clusterbox.errors import ClusterboxError, InputError
from clusterbox.tracing import run_traced

EXIT_FAILED = 1
EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130

# Each module adds its own arguments and has a `run`; it is imported only when it is called, and
# imports what is slow (boto3) in `run`, so that `clusterbox --help` answers at once.
COMMANDS = {
    "deploy": ("site", "deploy a site and show what exists"),
    "destroy": ("site", "remove all of a site but what is kept on purpose"),
    "show": ("site", "read back what exists of a site"),
    "synth": ("synth", "synthesize environments, with all rules on request"),
    "check": ("environments", "check environment files and show their address budget"),
    "clusters": ("clusters", "compose, validate and compare cluster configurations"),
    "review": ("review", "judge a change before it is merged, as one comment"),
    "environments": ("changed", "list environments, and which of them a change touches"),
    "post": ("post", "write the comment of a review, or update it"),
    "costs": ("costs", "prices, estimates, the daily report, the taxi meter and limits"),
    "images": ("images", "patch day: bake, verify, promote, roll out, roll back machine images"),
    "patch-day": ("images", "the same as images"),
    "rehearse": ("rehearse", "whole days of a site on this machine, with real Slurms"),
    "observe": ("observe", "exporters, dashboards, alert rules and tables of what clusters do"),
    "logs": ("logs", "logs of a cluster, of a node or of a job, from CloudWatch"),
    "diagnose": ("logs", "explain what is wrong with a cluster, and say the next step"),
    "embedded": ("embedded", "AWS accounts and Slurm clusters on this machine"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0, 1 for a failed job, 2 for bad input."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(
        prog="clusterbox",
        description="An AWS ParallelCluster site as one repository.",
        epilog="example: clusterbox deploy ws-dev",
    )
    parser.add_argument(
        "--root", type=Path, help="folder of the repository (default: found from here upwards)"
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    called = next((word for word in words if word in COMMANDS), None)
    for name, (module, text) in COMMANDS.items():
        subparser = commands.add_parser(
            name,
            help=text,
            description=text[0].upper() + text[1:] + ".",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if name == called:
            importlib.import_module(f"clusterbox.cli.{module}").add_arguments(subparser, name)
    options = parser.parse_args(words)
    try:
        root = _root_of(options)
        code = run_traced(
            options.command,
            _attributes(options),
            os.environ,
            lambda: options.run(options, root),
        )
    except InputError as error:
        return _complain(error, EXIT_BAD_INPUT)
    except ClusterboxError as error:
        return _complain(error, EXIT_FAILED)
    except KeyboardInterrupt:
        sys.stderr.write("\nclusterbox: interrupted; what was begun can be run again\n")
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has seen enough.
        sys.stderr.close()
        return EXIT_FAILED
    except OSError as error:
        return _complain(
            ClusterboxError(f"{error.filename or 'a file'}: {error.strerror}"), EXIT_FAILED
        )
    except Exception as error:
        # botocore's errors have no base that could be named without loading it, which is slow.
        if type(error).__module__.startswith("botocore"):
            return _complain(ClusterboxError(f"AWS cannot be asked: {error}"), EXIT_FAILED)
        raise
    return code


def find_root(given: Path | None) -> Path:
    """Return the folder of the repository: the given one, or the nearest one from here upwards."""
    start = (given or Path.cwd()).resolve()
    candidates = [start] if given else [start, *start.parents]
    for folder in candidates:
        if (folder / "environments").is_dir() and (folder / "cdk.json").is_file():
            return folder
    raise InputError(
        f"{start} is not in a clusterbox repository: it has no environments/ and cdk.json"
    )


def _root_of(options: argparse.Namespace) -> Path | None:
    """Return the folder of the repository; None outside of one, if the action works there too."""
    try:
        return find_root(options.root)
    except InputError:
        if options.root is None and not getattr(options, "needs_root", True):
            return None
        raise


def _attributes(options: argparse.Namespace) -> dict[str, str]:
    """Return what a trace says of the command; other arguments may be secrets or files."""
    words = vars(options)
    told = ("command", "action", "environment", "cluster", "target")
    return {f"clusterbox.{name}": word for name in told if isinstance(word := words.get(name), str)}


def _complain(error: ClusterboxError, code: int) -> int:
    sys.stderr.write(f"clusterbox: {error}\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
