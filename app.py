"""The CDK app: `cdk synth -c env=NAME`."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from clusterbox.errors import InputError
from stacks import build_app


def main() -> int:
    """Synthesize the environment that the context names; return 2 when its files are wrong."""
    context = json.loads(os.environ.get("CDK_CONTEXT_JSON", "{}"))
    rules = context.get("rules") == "true"
    try:
        if "env" not in context:
            raise InputError("name an environment: -c env=NAME")
        build_app(Path(__file__).parent, context["env"], rules=rules).synth()
    except InputError as error:
        sys.stderr.write(f"clusterbox: {error}\n")
        return 2
    return 0


sys.exit(main())
