"""cfn-lint over the templates of an assembly."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from clusterbox.deployment.cdk import Assembly
from clusterbox.errors import ClusterboxError


def lint_templates(assembly: Assembly) -> None:
    """Raise ClusterboxError with everything that cfn-lint finds in the assembly's templates."""
    templates = [str(assembly.folder / f"{stack}.template.json") for stack in assembly.stacks]
    cfn_lint = Path(sys.executable).with_name("cfn-lint")
    if not cfn_lint.exists():
        raise ClusterboxError(f"cfn-lint is not installed ({cfn_lint}); run `make setup`")
    done = subprocess.run(
        [str(cfn_lint), "--non-zero-exit-code", "warning", "--", *templates],
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        raise ClusterboxError(f"cfn-lint finds:\n{(done.stdout + done.stderr).strip()}")
