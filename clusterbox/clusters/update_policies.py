"""What ParallelCluster's update policies mean: in words, and for what runs on a cluster."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, StrEnum

from clusterbox.errors import ClusterboxError


class Need(StrEnum):
    """What a change needs before it can be applied, from the least to the most; some need two."""

    NOTHING = "nothing"
    LOGIN_TO_ZERO = "login pools to 0"
    DRAIN = "QueueUpdateStrategy: DRAIN"
    TERMINATE = "QueueUpdateStrategy: TERMINATE"
    FLEET_STOPPED = "stop the compute fleet"
    NEW_CLUSTER = "new cluster, or revert"
    REVERT = "revert"


class Verdict(Enum):
    """What an update does to what runs on a cluster, from the least to the most.

    `REMOVED` stands last, because nothing is left of the cluster once it is destroyed.
    """

    UNCHANGED = "unchanged"
    ADDED = "added"
    LIVE = "live"
    STOPS_LOGIN = "stops login nodes"
    DRAINS = "drains nodes"
    TERMINATES = "terminates nodes"
    STOPS = "stops the fleet"
    REPLACES = "replaces the cluster"
    REMOVED = "removed"
    UNKNOWN = "cannot be compared"

    @property
    def rank(self) -> int:
        """How much it does, from 0; for sorting the worst first."""
        return list(Verdict).index(self)


@dataclass(frozen=True)
class UpdatePolicy:
    """One of the library's policies: its name there, what it says, what changes may need.

    `needs` are the needs that a change of this policy can have, depending on the change.
    """

    name: str
    says: str
    needs: tuple[Need, ...]


_NOTHING, _LOGIN, _DRAIN = Need.NOTHING, Need.LOGIN_TO_ZERO, Need.DRAIN
_TERMINATE, _FLEET = Need.TERMINATE, Need.FLEET_STOPPED
_NEW, _REVERT = Need.NEW_CLUSTER, Need.REVERT

# Source: pcluster/config/update_policy.py of ParallelCluster 3.16.1. A test walks the library's
# schema and fails on a policy that is not here.
UPDATE_POLICIES = {
    policy.name: policy
    for policy in (
        UpdatePolicy(
            "IGNORED",
            "not a change by itself: what is inside is judged, or it counts with other changes",
            (_NOTHING,),
        ),
        UpdatePolicy("SUPPORTED", "can be changed at any time", (_NOTHING,)),
        UpdatePolicy(
            "SUPPORTED_UNLESS_ADC",
            "can be changed at any time, but not in the isolated regions us-iso*",
            (_NOTHING, _NEW),
        ),
        UpdatePolicy(
            "EXTRA_CHEF_ATTRIBUTES",
            "only a few attributes can be changed, at any time; the others never",
            (_NOTHING, _REVERT),
        ),
        UpdatePolicy(
            "QUEUE_UPDATE_STRATEGY",
            "nodes must be replaced: QueueUpdateStrategy says how; outside a queue only a stopped"
            " fleet helps",
            (_DRAIN, _FLEET),
        ),
        UpdatePolicy(
            "RESIZE_UPDATE_STRATEGY_ON_REMOVE",
            "more is possible at any time; less needs TERMINATE or a stopped fleet",
            (_NOTHING, _TERMINATE),
        ),
        UpdatePolicy(
            "MANAGED_PLACEMENT_GROUP",
            "nodes must be replaced; a placement group that ParallelCluster made can be deleted"
            " only with a stopped fleet",
            (_DRAIN, _FLEET),
        ),
        UpdatePolicy(
            "MANAGED_FSX",
            "subnets can be added at any time and replaced like nodes; never while the cluster has"
            " an FSx for Lustre file system of its own",
            (_NOTHING, _DRAIN, _NEW),
        ),
        UpdatePolicy(
            "SHARED_STORAGE_UPDATE_POLICY",
            "a file system that exists outside the cluster can be mounted and unmounted at any"
            " time (not EBS); others need new nodes and no login nodes; a mount point needs a"
            " stopped fleet and no login nodes; /home never changes",
            (_NOTHING, _LOGIN, _DRAIN, _FLEET, _REVERT),
        ),
        UpdatePolicy(
            "COMPUTE_FLEET_STOP_ON_REMOVE",
            "can be added at any time; removing needs a stopped fleet",
            (_NOTHING, _FLEET),
        ),
        UpdatePolicy("COMPUTE_FLEET_STOP", "needs a stopped fleet", (_FLEET,)),
        UpdatePolicy(
            "COMPUTE_AND_LOGIN_NODES_STOP",
            "needs a stopped fleet and no login nodes",
            (_FLEET, _LOGIN),
        ),
        UpdatePolicy(
            "LOGIN_NODES_POOLS_UPDATE_POLICY",
            "a pool can be added at any time; removing one needs all pools at 0",
            (_NOTHING, _LOGIN),
        ),
        UpdatePolicy("LOGIN_NODES_STOP", "needs all login pools at 0", (_NOTHING, _LOGIN)),
        UpdatePolicy("LOGIN_NODES_POOL_STOP", "needs its login pool at 0", (_NOTHING, _LOGIN)),
        UpdatePolicy(
            "READ_ONLY_RESOURCE_BUCKET",
            "never changes: the cluster's files are in this bucket",
            (_REVERT,),
        ),
        UpdatePolicy("UNSUPPORTED", "never changes on a cluster that exists", (_NEW,)),
        # Defined by the library, and used by no field of this version.
        UpdatePolicy("HEAD_NODE_STOP", "needs a stopped head node", (_NEW,)),
        UpdatePolicy("UNKNOWN", "never changes: its effect is not known", (_NEW,)),
    )
}


def find_policy(name: str) -> UpdatePolicy:
    """Return the policy of this name; raises ClusterboxError for one that is not classified."""
    try:
        return UPDATE_POLICIES[name]
    except KeyError:
        raise ClusterboxError(
            f"ParallelCluster's update policy {name} is not classified; add it to"
            " clusterbox/clusters/update_policies.py"
        ) from None
