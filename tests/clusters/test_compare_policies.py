from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

import pytest

from clusterbox.clusters.update_policies import UPDATE_POLICIES, find_policy
from clusterbox.errors import ClusterboxError
from clusterbox.pcluster import Pcluster

# Prints every field of the library's schema with the name of its policy, and all policies there are.
_WALK = """
import json, os
os.environ["AWS_DEFAULT_REGION"] = "us-west-2"
from pcluster.config.update_policy import UpdatePolicy
from pcluster.schemas.cluster_schema import ClusterSchema

def walk(schema, path):
    for field in schema.declared_fields.values():
        policy = field.metadata.get("update_policy")
        name = f"{path}.{field.data_key}" if path else field.data_key
        yield name, policy.name if policy else None
        if hasattr(field, "nested"):
            yield from walk(field.schema, name)

print(json.dumps({
    "fields": list(walk(ClusterSchema(cluster_name="any"), "")),
    "policies": [p.name for p in vars(UpdatePolicy).values() if isinstance(p, UpdatePolicy)],
}))
"""

# Fields by policy in ParallelCluster 3.16.1, 326 in all.
_FIELDS = {
    "UNSUPPORTED": 123,
    "SUPPORTED": 86,
    "QUEUE_UPDATE_STRATEGY": 45,
    "LOGIN_NODES_POOL_STOP": 15,
    "COMPUTE_AND_LOGIN_NODES_STOP": 12,
    "COMPUTE_FLEET_STOP": 11,
    "IGNORED": 10,
    "MANAGED_PLACEMENT_GROUP": 9,
    "RESIZE_UPDATE_STRATEGY_ON_REMOVE": 4,
    "SUPPORTED_UNLESS_ADC": 3,
    "SHARED_STORAGE_UPDATE_POLICY": 2,
    "LOGIN_NODES_STOP": 1,
    "LOGIN_NODES_POOLS_UPDATE_POLICY": 1,
    "COMPUTE_FLEET_STOP_ON_REMOVE": 1,
    "MANAGED_FSX": 1,
    "READ_ONLY_RESOURCE_BUCKET": 1,
    "EXTRA_CHEF_ATTRIBUTES": 1,
}


@pytest.mark.integration
def test_every_field_of_the_library_s_schema_has_a_policy_that_is_classified(root: Path) -> None:
    done = Pcluster(root / ".venv-pcluster", os.environ).run_python("-c", _WALK)
    found = json.loads(done.stdout)
    unmarked = [field for field, policy in found["fields"] if policy is None]
    assert unmarked == []
    counts = Counter(policy for _, policy in found["fields"])
    assert set(counts) <= set(UPDATE_POLICIES)
    assert set(found["policies"]) == set(UPDATE_POLICIES)
    assert counts == _FIELDS
    assert len(found["fields"]) == 326


def test_an_unknown_policy_says_where_to_add_it() -> None:
    with pytest.raises(ClusterboxError, match=r"NEW_POLICY is not classified; add it to .*\.py"):
        find_policy("NEW_POLICY")


def test_the_documentation_has_every_policy_as_it_is_classified(root: Path) -> None:
    text = (root / "docs" / "cluster-changes.md").read_text(encoding="utf-8")
    for policy in UPDATE_POLICIES.values():
        needs = "; ".join(policy.needs)
        row = f"| `{policy.name}` | {_FIELDS.get(policy.name, 0)} | {policy.says} | {needs} |"
        assert row in text
