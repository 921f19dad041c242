"""Load configurations in ParallelCluster's schema: JSON on stdin, JSON on stdout.

Run by path in the environment that has `aws-parallelcluster` and nothing of this project.
Request: `{CLUSTER: configuration}`. Answer: `{CLUSTER: {PATH: [message]}}`, empty when it loads.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

# The schema itself calls nothing, but the library wants to know a region when it is imported.
os.environ.setdefault("AWS_DEFAULT_REGION", "us-east-1")

from marshmallow import ValidationError
from pcluster.schemas.cluster_schema import ClusterSchema


def check(cluster: str, configuration: dict[str, Any]) -> dict[str, list[str]]:
    """Return the messages of the schema by path, none when the configuration loads."""
    try:
        ClusterSchema(cluster_name=cluster).load(configuration)
    except ValidationError as error:
        messages: dict[str, list[str]] = {}
        flatten(error.messages, "", messages)
        return messages
    return {}


def flatten(messages: Any, path: str, into: dict[str, list[str]]) -> None:
    """Fill `into` with the messages of marshmallow's nested answer by dotted path."""
    if isinstance(messages, dict):
        for key, value in messages.items():
            step = f"[{key}]" if isinstance(key, int) else f".{key}" if path else str(key)
            # "_schema" is marshmallow's name for the section as a whole.
            flatten(value, path if key == "_schema" else path + step, into)
    else:
        texts = messages if isinstance(messages, list) else [messages]
        into.setdefault(path, []).extend(str(text) for text in texts)


def main() -> None:
    """Answer the request on stdin."""
    configurations: dict[str, dict[str, Any]] = json.load(sys.stdin)
    answers = {cluster: check(cluster, config) for cluster, config in configurations.items()}
    json.dump(answers, sys.stdout)


if __name__ == "__main__":
    main()
