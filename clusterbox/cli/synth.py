"""`clusterbox synth`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from clusterbox.errors import InputError


def add_arguments(parser: argparse.ArgumentParser, command: str) -> None:
    """Add the arguments."""
    parser.add_argument("environment", nargs="*", help="environments to synthesize")
    parser.add_argument("--all", action="store_true", help="all environments")
    parser.add_argument("--rules", action="store_true", help="fail on unexplained cdk-nag findings")
    parser.add_argument(
        "--validation", action="store_true", help="run CDK's CloudFormation rules and cfn-lint"
    )
    parser.add_argument("--output", type=Path, help="folder for the assemblies (default: cdk.out)")
    parser.epilog = f"example: clusterbox {command} ws-dev --rules"
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace, root: Path) -> int:
    from clusterbox.cli.steps import ShownProgress
    from clusterbox.deployment.cdk import synthesize
    from clusterbox.deployment.lint import lint_templates
    from clusterbox.site.load import Repository

    chosen = Repository(root).environment_names() if options.all else options.environment
    if not chosen:
        raise InputError("name an environment, or give --all")
    progress = ShownProgress()
    for name in chosen:
        outdir = (options.output or root / "cdk.out") / name
        with progress.step(name):
            assembly = synthesize(
                root, name, outdir, rules=options.rules, validation=options.validation
            )
            if options.validation:
                lint_templates(assembly)
        for stack in assembly.stacks:
            sys.stdout.write(f"{outdir / stack}.template.json\n")
    return 0
