"""Judge a configuration by ParallelCluster's schema and all its validators, offline.

Request: `{"name": ..., "configuration": ..., "facts": ...}`. Answer: `{"findings": [{rule, level,
location, message}], "not_checked": [[rule, reason]]}`, where a location is a list of keys and
positions. A cluster's stack is never made, and nothing leaves the process.
"""

from __future__ import annotations

import json
import logging
import os
from functools import cache
from typing import Any

from pcluster.aws.aws_api import AWSApi

from clusterbox.clusters.library import account, schema, suite
from clusterbox.clusters.library.account import Account

_SCHEMA_FIRST = "the validators run on a configuration that ParallelCluster's schema accepts"


def answer(_cluster: str, asked: dict[str, Any]) -> dict[str, Any]:
    """Return the findings of the schema, or those of the validators once it accepts."""
    _prepare()
    facts, configuration = asked["facts"], asked["configuration"]
    os.environ["AWS_DEFAULT_REGION"] = facts["region"]
    account.enter(Account(facts))
    _take_instance_types(configuration)
    config, refused = schema.load(asked["name"], configuration)
    if config is None:
        return {
            "findings": [
                {"rule": "Schema", "level": "ERROR", "location": location, "message": message}
                for location, message in refused
            ],
            "not_checked": [["Validators", _SCHEMA_FIRST]],
        }
    judged = suite.Suite(config, configuration)
    judged.run()
    return {
        "findings": [
            {
                "rule": found.rule,
                "level": found.level.name,
                "location": found.location,
                "message": found.message,
            }
            for found in judged.findings
        ],
        "not_checked": [list(item) for item in judged.not_checked],
    }


def _take_instance_types(configuration: dict[str, Any]) -> None:
    """Take the facts of instance types that a configuration brings for developers."""
    given = configuration.get("DevSettings")
    text = given.get("InstanceTypesData") if isinstance(given, dict) else None
    if isinstance(text, str):
        try:
            AWSApi.instance().ec2.additional_instance_types_data = dict(json.loads(text))
        except ValueError:
            return  # the schema says so


@cache
def _prepare() -> None:
    logging.disable(logging.ERROR)
    account.prepare()
    suite.prepare()
