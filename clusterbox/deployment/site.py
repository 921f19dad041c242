"""Deploy a whole site, and remove it: the same path for the embedded account and for AWS."""

from __future__ import annotations

import fcntl
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from clusterbox.deployment import bootstrap, limits, patch_day_source, pins, targets
from clusterbox.deployment.cdk import Assembly, CdkCli, synthesize
from clusterbox.deployment.inventory import (
    Item,
    fetch_inventory,
    fetch_stack_states,
    find_leftover_clusters,
    find_leftover_stacks,
)
from clusterbox.deployment.progress import Progress
from clusterbox.errors import ClusterboxError, InputError
from clusterbox.pcluster import Pcluster
from clusterbox.site import names
from clusterbox.site.environment import Environment
from clusterbox.site.load import Repository

# States of a stack whose creation failed: it never stood.
_FAILED_AT_FIRST = frozenset({"CREATE_FAILED", "ROLLBACK_COMPLETE", "ROLLBACK_FAILED"})

Confirm = Callable[[str], bool]


class BusyError(ClusterboxError):
    """Another run from this folder works on the same environment."""


class DeclinedError(ClusterboxError):
    """The user looked at the differences and said no; nothing was changed."""


@dataclass(frozen=True)
class Deployment:
    """What a deployment did: which stacks changed, and what exists now."""

    changed: dict[str, bool]
    seeded: int
    items: list[Item]
    # Clusters that stand though the environment does not name them any more.
    leftover: list[str]
    # Stacks of the site that stand though the environment has no section for them any more.
    leftover_stacks: list[str]
    # Limits of clusters that will not hold, a sentence each.
    warnings: tuple[str, ...] = ()

    @property
    def is_unchanged(self) -> bool:
        """Whether everything was as the repository says already."""
        return not any(self.changed.values())


@dataclass(frozen=True)
class Removal:
    """What a removal took away, and what it kept on purpose with the reason."""

    removed: list[str]
    kept: dict[str, str]
    items: list[Item]


@dataclass(frozen=True)
class Site:
    """One environment of the repository at `root`, to be deployed to one kind of target."""

    root: Path
    environment: Environment
    progress: Progress

    def deploy(
        self, target_name: str, confirm: Confirm, *, ignore_rollout: bool = False
    ) -> Deployment:
        """Bring the target to what the repository says.

        On AWS, `confirm` is shown the differences first and may say no (DeclinedError). What an
        interrupted run left half-made is taken up by the next one. Raises ClusterboxError, and
        RolloutAheadError where a rollout of images has made of the clusters what the repository
        does not say; with `ignore_rollout` the repository counts, and what was rolled out is
        forgotten.
        """
        with self._exclusively() as lock:
            target, seeded = self._open(target_name)
            if not ignore_rollout:
                locked = Repository(self.root).load_lock()
                pins.check_rollout(target.client("ssm"), self.environment, locked)
            assembly = self._synthesize()
            scripts = limits.render_scripts(self.root, self.environment)
            cli = self._cli(target, lock)
            if target.asks_first:
                with self.progress.step("diff"):
                    differences = cli.diff(assembly)
                if not confirm(differences):
                    raise DeclinedError("nothing was deployed")
            changed = self._deploy_boundary(cli, assembly)
            self._bootstrap(target, cli, assembly)
            self._clear_failed_clusters(target)
            with self.progress.step("deploy"), self._explaining(target):
                changed |= self._put_limits(target, cli, assembly, scripts, changed)
                rest = [stack for stack in assembly.stacks if stack not in changed]
                changed |= cli.deploy(assembly, rest, self.progress.note)
                patch_day_source.publish_source(self.root, target.client, self.environment)
            if ignore_rollout:
                pins.forget_published_pins(target.client("ssm"), self.environment)
            states = fetch_stack_states(target.client)
            leftover = find_leftover_clusters(states, self.environment)
            stacks = find_leftover_stacks(states, self.environment, assembly.stacks)
            warnings = tuple(script.warning for script in scripts if script.warning)
            items = self._read_back(target)
            return Deployment(changed, seeded, items, leftover, stacks, warnings)

    def deploy_clusters(self, target: targets.Target, clusters: Sequence[str]) -> dict[str, bool]:
        """Deploy the stacks of some clusters as the repository says now, and nothing else.

        Returns by stack whether it changed. Nobody is asked: a patch day's operator has agreed to
        its plan. Raises InputError for a cluster that the environment does not name, BusyError
        while another run is at work, and CdkError with the reasons when a stack fails.
        """
        with self._exclusively() as lock:
            scripts = limits.render_scripts(self.root, self.environment)
            stacks = [names.cluster_stack_name(self.environment, name) for name in clusters]
            limits_of = [script for script in scripts if script.cluster in clusters]
            return self._deploy_only(target, stacks, limits_of, lock)

    def deploy_admin_box(self, target: targets.Target) -> dict[str, bool]:
        """Deploy the stack of the admin box, and nothing else; another image makes it again.

        Returns by stack whether it changed. Nobody is asked. Raises as `deploy_clusters` does.
        """
        with self._exclusively() as lock:
            stack = names.stack_name(self.environment, "admin")
            return self._deploy_only(target, [stack], [], lock)

    def _deploy_only(
        self,
        target: targets.Target,
        stacks: Sequence[str],
        scripts: Sequence[limits.LimitScript],
        lock: int,
    ) -> dict[str, bool]:
        assembly = self._synthesize()
        unknown = [stack for stack in stacks if stack not in assembly.stacks]
        if unknown:
            raise InputError(
                f"{self.environment.name} has no stack {', '.join(unknown)}; it has: "
                f"{', '.join(assembly.stacks) or 'none'}"
            )
        with self.progress.step("deploy"), self._explaining(target):
            limits.upload_scripts(target.client, list(scripts))
            return self._cli(target, lock).deploy(assembly, list(stacks), self.progress.note)

    def show(self, target_name: str) -> list[Item]:
        """Return what exists of the site; an embedded account that does not run holds nothing."""
        target = self._find(target_name)
        return [] if target is None else self._read_back(target)

    def destroy(self, target_name: str, confirm: Confirm) -> Removal:
        """Remove clusters and stacks, but keep what is protected and what that needs.

        Clusters are deleted through ParallelCluster first: their stacks would leave them running.
        """
        with self._exclusively() as lock:
            target = self._require(target_name)
            assembly = self._synthesize()
            kept = _kept_stacks(assembly)
            doomed = [stack for stack in assembly.stacks if stack not in kept]
            states = fetch_stack_states(target.client)
            leftover = find_leftover_clusters(states, self.environment)
            clusters = [*(entry.name for entry in self.environment.clusters), *leftover]
            question = f"clusters {', '.join(clusters) or 'none'}; stacks {', '.join(doomed)}"
            if target.asks_first and not confirm(question):
                raise DeclinedError("nothing was removed")
            removed = self._delete_clusters(target, clusters)
            for cluster in leftover:
                removed.append(self._delete_cluster_stack(target, cluster))
            standing = _standing_stacks(target, doomed)
            with self.progress.step("destroy"), self._explaining(target):
                self._cli(target, lock).destroy(assembly, standing, self.progress.note)
            kept |= self._kept_buckets()
            return Removal([*removed, *standing], kept, self._read_back(target))

    def remove_cluster(self, target_name: str, cluster: str, confirm: Confirm) -> Removal:
        """Remove one cluster and its stack, whether the environment still names it or not.

        Raises InputError when the account has no such cluster of this site.
        """
        with self._exclusively():
            target = self._require(target_name)
            stack = names.cluster_stack_name(self.environment, cluster)
            if not _standing_stacks(target, [stack]):
                prefix = names.cluster_stack_name(self.environment, "")
                states = fetch_stack_states(target.client)
                standing = [name.removeprefix(prefix) for name in states if name.startswith(prefix)]
                raise InputError(
                    f"the site has no cluster {cluster}; it has: {', '.join(sorted(standing)) or 'none'}"
                )
            if target.asks_first and not confirm(f"cluster {cluster} and its stack {stack}"):
                raise DeclinedError("nothing was removed")
            removed = self._delete_clusters(target, [cluster])
            removed.append(self._delete_cluster_stack(target, cluster))
            return Removal(removed, {}, self._read_back(target))

    def _delete_cluster_stack(self, target: targets.Target, cluster: str) -> str:
        """Delete the stack of a cluster that is gone, and wait; return its name."""
        stack = names.cluster_stack_name(self.environment, cluster)
        with self.progress.step("stack"):
            cloudformation = target.client("cloudformation")
            cloudformation.delete_stack(StackName=stack)
            waiter = cloudformation.get_waiter("stack_delete_complete")
            waiter.wait(StackName=stack, WaiterConfig={"Delay": 2, "MaxAttempts": 900})
        return stack

    def _open(self, target_name: str) -> tuple[targets.Target, int]:
        """Return the target, ready to be deployed to, and how many things were seeded in it."""
        if target_name == "aws":
            return self._aws(), 0
        with self.progress.step("account"):
            target = targets.start_embedded(self.root, self.environment)
            images = Repository(self.root).load_seeded_images(self.environment)
            seeded = targets.seed_embedded(target, self.environment, images)
            self.progress.note(
                f"embedded account {self.environment.account} on port {target.account.port}"
            )
            if seeded:
                self.progress.note(f"{seeded} things made that the environment says exist")
        return target, seeded

    def _find(self, target_name: str) -> targets.Target | None:
        if target_name == "aws":
            return self._aws()
        return targets.find_embedded(self.root, self.environment)

    def _require(self, target_name: str) -> targets.Target:
        target = self._find(target_name)
        if target is None:
            raise ClusterboxError(
                f"no embedded account of {self.environment.name} runs: there is nothing to remove"
            )
        return target

    def _aws(self) -> targets.AwsTarget:
        target = targets.AwsTarget(self.root, self.environment)
        target.check_account()
        return target

    def _synthesize(self) -> Assembly:
        """Synthesize beside the folder of the last synth, and put the new one in its place."""
        with self.progress.step("synth"):
            final = self._folder / "cdk.out"
            final.parent.mkdir(parents=True, exist_ok=True)
            for interrupted in final.parent.glob(".cdk.out.*"):
                shutil.rmtree(interrupted, ignore_errors=True)
            beside = Path(tempfile.mkdtemp(prefix=".cdk.out.", dir=final.parent))
            try:
                assembly = synthesize(self.root, self.environment.name, beside)
                shutil.rmtree(final, ignore_errors=True)
                beside.rename(final)
            finally:
                shutil.rmtree(beside, ignore_errors=True)
            self.progress.note(f"{len(assembly.stacks)} stacks")
        return Assembly(final, assembly.dependencies, assembly.protected)

    def _deploy_boundary(self, cli: CdkCli, assembly: Assembly) -> dict[str, bool]:
        """Deploy the boundary, where the site makes it: the bootstrap's roles carry it too."""
        boundary = names.stack_name(self.environment, "boundary")
        if boundary not in assembly.stacks:
            return {}
        with self.progress.step("boundary"):
            return cli.deploy(assembly, [boundary], self.progress.note)

    def _bootstrap(self, target: targets.Target, cli: CdkCli, assembly: Assembly) -> None:
        """Bootstrap the account where it is not, or not under the bounds that hold now."""
        if fetch_stack_states(target.client).get(names.BOOTSTRAP_STACK) in bootstrap.READY:
            deployed = target.client("cloudformation").get_template(StackName=names.BOOTSTRAP_STACK)
            if bootstrap.is_bound(deployed["TemplateBody"], self.environment):
                return
        with self.progress.step("bootstrap"):
            template = bootstrap.bound_template(cli.bootstrap_template(), self.environment)
            path = self._folder / "bootstrap.yaml"
            path.write_text(template, encoding="utf-8")
            environment = self.environment
            where = f"aws://{environment.account}/{environment.region}"
            cli.bootstrap(assembly, where, path, self.progress.note)

    def _put_limits(
        self,
        target: targets.Target,
        cli: CdkCli,
        assembly: Assembly,
        scripts: list[limits.LimitScript],
        done: Mapping[str, bool],
    ) -> dict[str, bool]:
        """Put the scripts with limits where head nodes find them when they start or are updated.

        Returns the stacks that had to be deployed for it: the bucket is made by one of them.
        """
        changed: dict[str, bool] = {}
        if not scripts:
            return changed
        if not limits.bucket_exists(target.client, self.environment):
            storage = names.stack_name(self.environment, "storage")
            first = [stack for stack in assembly.with_dependencies([storage]) if stack not in done]
            changed = cli.deploy(assembly, first, self.progress.note)
        for cluster in limits.upload_scripts(target.client, scripts):
            self.progress.note(f"limits of {cluster} put into {scripts[0].bucket}")
        return changed

    def _clear_failed_clusters(self, target: targets.Target) -> None:
        """Delete clusters that failed when they were first made, with their whole stack.

        They never ran a job. Left alone they stand in the way of the next attempt: the provider
        would find the cluster there, and its instance profiles hold the roles of the old stack.
        """
        states = fetch_stack_states(target.client)
        failed = [
            entry.name
            for entry in self.environment.clusters
            if states.get(entry.name) in _FAILED_AT_FIRST
            and states.get(names.cluster_stack_name(self.environment, entry.name))
            in {None, "REVIEW_IN_PROGRESS", *_FAILED_AT_FIRST}
        ]
        if failed:
            self.progress.note(f"clusters that failed when they were made: {', '.join(failed)}")
            self._delete_clusters(target, failed)

    def _delete_clusters(self, target: targets.Target, clusters: list[str]) -> list[str]:
        pcluster = Pcluster(self.root / ".venv-pcluster", target.process_environment())
        deleted = []
        with self.progress.step("clusters"):
            for cluster in clusters:
                if pcluster.delete_cluster(cluster, self.environment.region):
                    deleted.append(cluster)
                    self.progress.note(f"cluster {cluster} deleted")
        return deleted

    def _read_back(self, target: targets.Target) -> list[Item]:
        with self.progress.step("read back"):
            return fetch_inventory(target.client, self.environment)

    def _kept_buckets(self) -> dict[str, str]:
        buckets = self.environment.storage.buckets
        named = [getattr(buckets, purpose) for purpose in type(buckets).model_fields]
        return {
            bucket.name: "bucket that exists outside of the site"
            for bucket in named
            if bucket.exists
        }

    def _cli(self, target: targets.Target, lock: int) -> CdkCli:
        log = self._folder / "cdk.log"
        return CdkCli(self.root, target.process_environment(), log, (lock,))

    @property
    def _folder(self) -> Path:
        return self.root / ".clusterbox" / "sites" / self.environment.name

    @contextmanager
    def _explaining(self, target: targets.Target) -> Iterator[None]:
        """Say so when work failed because the embedded account ended meanwhile."""
        try:
            yield
        except ClusterboxError as error:
            if isinstance(target, targets.EmbeddedTarget) and (
                targets.find_embedded(self.root, self.environment) is None
            ):
                log = targets.state_folder(self.root, self.environment.name) / "account.log"
                raise ClusterboxError(
                    f"the embedded account of {self.environment.name} ended during the run ({log}); "
                    "run the command again"
                ) from error
            raise

    @contextmanager
    def _exclusively(self) -> Iterator[int]:
        """Hold the site against a second run from this folder; yields the lock's descriptor."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise BusyError(
                    f"another run is at work on {self.environment.name}; wait until it has ended"
                ) from error
            # The CDK CLI holds the lock too: should this process be killed, its work goes on.
            yield lock.fileno()


def _kept_stacks(assembly: Assembly) -> dict[str, str]:
    """Return the stacks that stay: the protected ones, and those they stand on, with reasons."""
    kept = dict.fromkeys(assembly.protected, "protected: holds data, keys or what these need")
    for stack in assembly.with_dependencies(sorted(assembly.protected)):
        kept.setdefault(stack, "a protected stack depends on it")
    return {stack: kept[stack] for stack in assembly.stacks if stack in kept}


def _standing_stacks(target: targets.Target, stacks: list[str]) -> list[str]:
    """Return those of the named stacks that exist in the account."""
    states = fetch_stack_states(target.client)
    # A stack whose first change set was never executed is nothing yet.
    return [
        stack for stack in stacks if states.get(stack, "REVIEW_IN_PROGRESS") != "REVIEW_IN_PROGRESS"
    ]
