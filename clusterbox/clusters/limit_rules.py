"""The rule of budgets: what a cluster's configuration needs for their limits in Slurm to hold."""

from __future__ import annotations

from collections.abc import Iterator

from clusterbox.clusters.general_rules import Found
from clusterbox.clusters.sections import section, values_of
from clusterbox.clusters.site_rules import SiteCluster
from clusterbox.site import names
from clusterbox.site.budgets import ClusterBudget
from clusterbox.site.environment import Environment
from clusterbox.site.references import known_values

# Keys of a budget that nothing but Slurm can hold; AWS holds the others, hours later.
_OF_SLURM = ("accounts", "max_wall_hours", "max_submit_jobs", "max_array_size")


def find_limits_that_do_not_hold(site: SiteCluster) -> Iterator[Found]:
    """Yield a budget whose limits nothing applies in the cluster's Slurm.

    A budget that asks for no more than what AWS does is left alone where the site has no accounting
    database, and one that only warns everywhere.
    """
    # The name in references is without the environment that may precede it.
    cluster = site.cluster.name.rpartition("/")[2]
    budgets = site.environment.budgets
    budget = budgets.clusters.get(cluster) if budgets else None
    if budget is None or not _wants_slurm(budget, site.environment):
        return
    slurm = section(site.configuration, "Scheduling", "SlurmSettings")
    if not slurm.at("Database") and not slurm.at("ExternalSlurmdbd"):
        yield (
            slurm.where("Database"),
            f"The cluster has a budget of {budget.monthly_usd} USD a month, and its Slurm no accounting "
            f"database: no job is refused that the budget does not pay for.",
        )
        return
    bucket = site.environment.storage.buckets.cluster_config.name
    script = f"s3://{bucket}/{names.limits_script_key(cluster)}"
    actions = section(site.configuration, "HeadNode", "CustomActions")
    for action in ("OnNodeConfigured", "OnNodeUpdated"):
        named = [value for _, value in values_of(actions.at(action), "Script")]
        if script not in named:
            yield (
                actions.where(action),
                f"The limits of the budget are not applied by it: {script} is not named.",
            )
    updated = actions.at("OnNodeUpdated")
    revision = known_values(site.environment, cluster)["limits.revision"]
    if updated is not None and revision not in [text for _, text in values_of(updated, "Args")]:
        yield (
            actions.where("OnNodeUpdated"),
            "A changed budget is not applied: without ${limits.revision} among its arguments nothing "
            "of the configuration changes, and no update runs the script.",
        )


def _wants_slurm(budget: ClusterBudget, environment: Environment) -> bool:
    given = budget.model_fields_set.intersection(_OF_SLURM)
    return bool(given) or (
        environment.accounting_database is not None and budget.when_spent != "warn"
    )
