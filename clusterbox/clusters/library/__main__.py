"""Answer one request: JSON on stdin, one line of JSON for each cluster on stdout.

Request: `{"operation": MODULE, "clusters": {NAME: request}}`. Line: `{"cluster": NAME, "answer":
...}`. What the library prints goes to stderr.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import warnings
from contextlib import redirect_stdout


def main() -> None:
    """Answer the request on stdin."""
    # The library wants to know a region when it is imported, and must not find the caller's AWS.
    for key in [key for key in os.environ if key.startswith("AWS_")]:
        del os.environ[key]
    os.environ["AWS_DEFAULT_REGION"] = "us-east-1"
    warnings.filterwarnings("ignore")
    request = json.load(sys.stdin)
    out = sys.stdout
    with redirect_stdout(sys.stderr):
        operation = importlib.import_module(f"clusterbox.clusters.library.{request['operation']}")
        for cluster, asked in request["clusters"].items():
            answer = operation.answer(cluster, asked)
            out.write(json.dumps({"cluster": cluster, "answer": answer}, default=str) + "\n")
            out.flush()


if __name__ == "__main__":
    main()
    sys.stderr.flush()
    # The library loads its CDK in a thread for some seconds; the interpreter would wait for it.
    os._exit(0)
