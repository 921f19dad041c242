"""Deploy a site to the embedded account, with a Slurm joined to every cluster."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from clusterbox.clusters.composed import ComposedCluster, compose_environment
from clusterbox.deployment.progress import Progress
from clusterbox.deployment.site import Site
from clusterbox.deployment.targets import EmbeddedTarget, find_embedded, state_folder
from clusterbox.embedded.account import EmbeddedAccount
from clusterbox.embedded.slurm import Options, SlurmCluster
from clusterbox.errors import ClusterboxError
from clusterbox.site.environment import Environment
from clusterbox.site.load import Repository

# Nodes boot at once, and stay for as long as a rehearsal needs them.
QUICK = Options(accounting=False, boot_seconds=0.3, idle_seconds=120)


@dataclass(frozen=True)
class RehearsedSite:
    """A deployed site whose clusters are really scheduled; everything is on this machine."""

    root: Path
    environment: Environment
    target: EmbeddedTarget
    slurms: dict[str, SlurmCluster]


@contextmanager
def rehearse_site(
    root: Path, environment_name: str, progress: Progress, options: Options = QUICK
) -> Iterator[RehearsedSite]:
    """Deploy the site of the repository at `root` and join Slurms; all of it ends with the block.

    Raises ClusterboxError where Slurm's packages are missing or the deployment fails.
    """
    repository = Repository(root)
    environment = repository.load_environment(environment_name)
    try:
        Site(root, environment, progress).deploy("embedded", _nobody_asks)
        target = find_embedded(root, environment)
        if target is None:
            raise ClusterboxError(f"the embedded account of {environment.name} ended again")
        with ExitStack() as stack:
            with progress.step("slurm"):
                slurms = _start_all(root, target, environment, options, stack)
            yield RehearsedSite(root, environment, target, slurms)
    finally:
        EmbeddedAccount.stop(state_folder(root, environment.name))


def _start_all(
    root: Path, target: EmbeddedTarget, environment: Environment, options: Options, stack: ExitStack
) -> dict[str, SlurmCluster]:
    """Start the Slurms of all clusters side by side; those that did start end with the stack."""
    slurms: dict[str, SlurmCluster] = {}
    failures: list[BaseException] = []
    with ThreadPoolExecutor() as pool:
        started = {
            cluster.name: pool.submit(_start, root, cluster, target, options)
            for cluster in compose_environment(root, environment.name)
        }
        for name, future in started.items():
            if (error := future.exception()) is not None:
                failures.append(error)
            else:
                slurms[name] = stack.enter_context(future.result())
    if failures:
        raise failures[0]
    return slurms


def _start(
    root: Path, cluster: ComposedCluster, target: EmbeddedTarget, options: Options
) -> SlurmCluster:
    folder = root / ".clusterbox" / "slurm" / cluster.name
    return SlurmCluster.start(
        cluster,
        folder,
        options,
        pcluster_folder=root / ".venv-pcluster",
        account=target.account,
    )


def _nobody_asks(_question: str) -> bool:
    return True
