"""A Slurm cluster on this machine: start it from a composed cluster, find it again, end it."""

from __future__ import annotations

import contextlib
import fcntl
import getpass
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clusterbox.embedded.slurm import (
    daemons,
    database,
    marked,
    ports,
    programs,
    requests,
    settings,
)
from clusterbox.embedded.slurm.daemons import EmbeddedSlurmError
from clusterbox.embedded.slurm.launches import LaunchPlan
from clusterbox.embedded.slurm.queues import Queue, plan_queues
from clusterbox.embedded.slurm.settings import Layout, Machine, Options
from clusterbox.embedded.slurm.state import State, make_folders, read_state, write_program
from clusterbox.instance_types import read_sizes
from clusterbox.slurm import Slurm

if TYPE_CHECKING:
    from types import TracebackType

    from clusterbox.clusters.composed import ComposedCluster
    from clusterbox.embedded.account import EmbeddedAccount

_IMPORT_ROOT = Path(__file__).resolve().parents[3]
_STATIC_SECONDS = 60.0
_INTERRUPTED = "Backing instance is terminated"


@dataclass(frozen=True)
class Mail:
    """A mail that Slurm sent; `job` holds the variables that Slurm gave about the job."""

    to: str
    subject: str
    job: Mapping[str, str]


@dataclass(frozen=True)
class SlurmCluster:
    """A running cluster; as a context manager it is ended at the end."""

    folder: Path
    state: State

    @classmethod
    def start(
        cls,
        cluster: ComposedCluster,
        folder: Path,
        options: Options | None = None,
        *,
        pcluster_folder: Path = _IMPORT_ROOT / ".venv-pcluster",
        account: EmbeddedAccount | None = None,
    ) -> SlurmCluster:
        """Start a cluster whose state is in `folder` and return it once its static nodes are idle.

        `pcluster_folder` is the second Python environment, which knows the instance types. With
        `account`, in which the cluster is deployed, its nodes are instances there. Raises
        InputError where the configuration cannot be rehearsed, ClusterboxError when packages are
        missing, and EmbeddedSlurmError when a daemon does not start or one runs in the folder
        already.
        """
        options = options or Options()
        folder = folder.resolve()
        programs.require(accounting=options.accounting)
        queues = plan_queues(cluster.configuration, read_sizes(pcluster_folder))
        folder.mkdir(parents=True, exist_ok=True)
        with _only_one(folder):
            if (running := cls.attach(folder)) is not None:
                raise EmbeddedSlurmError(
                    f"{running.state.cluster} already runs in {folder}; end it first"
                )
            _remove(folder)
            return _Start(cluster, queues, folder, options, account).run()

    @classmethod
    def attach(cls, folder: Path) -> SlurmCluster | None:
        """Return the cluster of a state folder; None when none runs there."""
        state = read_state(folder.resolve())
        if state is None or not state.is_ready:
            return None
        found = cls(folder.resolve(), state)
        return found if found.door.is_up() else None

    @classmethod
    def stop(cls, folder: Path) -> bool:
        """End the cluster of a state folder with all its jobs, and remove the folder.

        Returns whether there was one, also one that is broken or whose start was killed. A folder
        that is not a cluster's is left alone.
        """
        if not folder.is_dir():
            return False
        with _only_one(folder.resolve()):
            found = _remove(folder.resolve())
            if found:
                with contextlib.suppress(FileNotFoundError):
                    shutil.rmtree(folder)
            return found

    @property
    def layout(self) -> Layout:
        """Where its files are."""
        return self.state.layout(self.folder)

    @property
    def environment(self) -> dict[str, str]:
        """The variables with which Slurm's commands reach this cluster."""
        return {"SLURM_CONF": str(self.layout.slurm_conf), "PATH": programs.search_path()}

    @property
    def door(self) -> Slurm:
        """Slurm's commands against this cluster."""
        # What jobs print is in the state folder, and goes with it.
        return Slurm(self.environment, folder=self.folder if self.folder.is_dir() else None)

    def pids(self) -> list[int]:
        """Return the ids of all its processes: daemons, nodes, jobs."""
        return marked.find(self.state.mark, self.layout.slurm_conf)

    def node_pids(self, node: str) -> list[int]:
        """Return the ids of the processes of a node; none when it is powered down."""
        return marked.find(self.state.mark, self.layout.slurm_conf, node)

    def instances(self) -> dict[str, str]:
        """Return the instance in the account of each node that is powered up; by node."""
        path = self.folder / requests.FLEET_FOLDER / "instances.json"
        return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}

    def mails(self) -> list[Mail]:
        """Return the mails that Slurm has sent, the oldest first."""
        sink = self.folder / "mail.jsonl"
        lines = sink.read_text(encoding="utf-8").splitlines() if sink.exists() else []
        records = [json.loads(line) for line in lines]
        return [Mail(record["to"], record["subject"], record["job"]) for record in records]

    def fail_launches(self, *names: str) -> None:
        """Let launches of nodes, compute resources or queues fail from now on; of none: no more."""
        replace(LaunchPlan.read(self.folder), fail=names).write(self.folder)

    def interrupt(self, node: str) -> None:
        """End a node with its jobs, as when EC2 takes back a Spot instance.

        Its jobs end as NODE_FAIL and are requeued; the node is powered down and can be used again.
        """
        marked.end(self.state.mark, self.layout.slurm_conf, node)
        self.door.update_nodes([node], state="down", reason=_INTERRUPTED)
        self.door.update_nodes([node], state="power_down")

    def __enter__(self) -> SlurmCluster:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End it."""
        self.stop(self.folder)


class _Start:
    """The steps of one start."""

    def __init__(
        self,
        cluster: ComposedCluster,
        queues: tuple[Queue, ...],
        folder: Path,
        options: Options,
        account: EmbeddedAccount | None,
    ) -> None:
        self.name = cluster.name.lower()
        self.stack = cluster.name
        self.account = account
        self.settings: Mapping[str, Any] = (
            cluster.configuration["Scheduling"].get("SlurmSettings") or {}
        )
        self.queues = queues
        self.folder = folder
        self.options = options
        self.static = [
            node for queue in queues for g in queue.groups if g.is_static for node in g.names
        ]

    def run(self) -> SlurmCluster:
        """Start everything; what was begun is ended on a failure, and the logs stay."""
        address, binds_to_loopback = _own_address()
        count = settings.count_ports(self.queues)
        first_port = ports.reserve(self.folder, count, address)
        names = [name for queue in self.queues for g in queue.groups for name in g.names]
        self.layout = make_folders(self.folder, max(len(name) for name in names))
        self.machine = Machine(getpass.getuser(), address, first_port, binds_to_loopback)
        self.state = State(
            cluster=self.name,
            mark=secrets.token_hex(16),
            sockets=str(self.layout.sockets),
            first_port=first_port,
            ports=count,
            accounting=self.options.accounting,
            account_dir=str(self.account.state_dir.resolve()) if self.account else "",
            stack=self.stack if self.account else "",
        )
        # Before the first process: whoever comes after a kill finds all of them.
        self.state.write(self.folder)
        try:
            self._write_files()
            self._start_daemons()
        except BaseException:
            marked.end(self.state.mark, self.layout.slurm_conf)
            ports.release(self.folder)
            raise
        ready = replace(self.state, is_ready=True)
        ready.write(self.folder)
        return SlurmCluster(self.folder, ready)

    @property
    def _environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("SLURM")}
        return {
            **kept,
            "PATH": programs.search_path(),
            "SLURM_CONF": str(self.layout.slurm_conf),
            "MYSQL_UNIX_PORT": str(self.layout.database_socket),
            **marked.environment(self.state.mark),
        }

    def _write_files(self) -> None:
        key = self.folder / "etc" / "munge.key"
        key.write_bytes(secrets.token_bytes(1024))
        key.chmod(0o400)
        conf = settings.render_slurm_conf(
            self.name, self.queues, self.settings, self.options, self.layout, self.machine
        )
        self.layout.slurm_conf.write_text(conf, encoding="utf-8")
        gres = settings.render_gres_conf(self.queues)
        self.layout.slurm_conf.with_name("gres.conf").write_text(gres, encoding="utf-8")
        dbd = self.layout.slurmdbd_conf
        dbd.write_text(settings.render_slurmdbd_conf(self.layout, self.machine), encoding="utf-8")
        dbd.chmod(0o600)  # slurmdbd refuses another mode.
        self._write_programs()
        if self.account is not None:
            (self.folder / requests.FLEET_FOLDER).mkdir()
        LaunchPlan(
            boot=self.options.boot_seconds,
            static_nodes=tuple(self.static),
            fail=self.options.fail_launch,
            failed_seconds=self.options.failed_launch_seconds,
        ).write(self.folder)

    def _write_programs(self) -> None:
        # Without `site`, which takes longer to start: they need the standard library only.
        python = [sys.executable, "-S", "-P"]
        needed = {"PATH", "SLURM_CONF", "PYTHONPATH", *marked.environment(self.state.mark)}
        environment = {**self._environment, "PYTHONPATH": str(_IMPORT_ROOT)}
        environment = {name: environment[name] for name in sorted(needed)}
        for action in ("resume", "suspend"):
            words = [*python, "-m", "clusterbox.embedded.slurm.power", action]
            words += [str(self.folder), self.state.mark]
            write_program(self.folder / "bin" / action, words, environment)
        mail = [*python, str(Path(__file__).with_name("mail.py"))]
        write_program(self.folder / "bin" / "mail", [*mail, str(self.folder / "mail.jsonl")], {})

    def _start_daemons(self) -> None:
        munged = self._launch_munged()
        if self.options.accounting:
            self._start_accounting(munged)
        self._wait_for_munged(munged)
        log = self.layout.start_log("slurmctld")
        slurmctld = daemons.launch(["slurmctld", "-D"], log, self._environment)
        daemons.wait_until("slurmctld", slurmctld, self._door.is_up, log)
        if self.options.accounting and self.machine.user != "root":
            self._add_user()
        if self.account is not None:
            self._join(self.account)
        if self.static:
            self._door.update_nodes(self.static, state="power_up")
            self._wait_for_static(log)

    def _join(self, account: EmbeddedAccount) -> None:
        """Make the head node's instance this Slurm's, and start the daemon that launches nodes."""
        # It takes long to import, and is needed for this only.
        from clusterbox.embedded.slurm import fleet

        fleet.leave(self.state.account_dir, self.stack)
        fleet.join(account, self.stack, SlurmCluster(self.folder, self.state).environment)
        log = self.layout.start_log("fleet")
        words = [sys.executable, "-P", "-m", fleet.__name__, str(self.folder)]
        environment = {**self._environment, "PYTHONPATH": str(_IMPORT_ROOT)}
        daemon = daemons.launch(words, log, environment)
        ready = self.folder / requests.FLEET_FOLDER / fleet.READY_FILE
        daemons.wait_until("the daemon of the fleet", daemon, ready.exists, log)

    @property
    def _door(self) -> Slurm:
        return SlurmCluster(self.folder, self.state).door

    def _launch_munged(self) -> subprocess.Popen[bytes]:
        sockets = self.layout.sockets
        words = ["munged", "--foreground", "--force", f"--socket={self.layout.munge_socket}"]
        words += [f"--key-file={self.folder / 'etc' / 'munge.key'}"]
        words += [f"--pid-file={sockets / 'munged.pid'}", f"--seed-file={sockets / 'munge.seed'}"]
        return daemons.launch(words, self.layout.log("munged"), self._environment)

    def _wait_for_munged(self, munged: subprocess.Popen[bytes]) -> None:
        ready = self.layout.munge_socket.is_socket
        daemons.wait_until("munged", munged, ready, self.layout.log("munged"))

    def _start_accounting(self, munged: subprocess.Popen[bytes]) -> None:
        if not database.copy_template(self.layout, self.name):
            self._make_template(munged)
        database.start(self.layout, self._environment)
        self._wait_for_munged(munged)
        self._start_slurmdbd()

    def _make_template(self, munged: subprocess.Popen[bytes]) -> None:
        """Let slurmdbd make its tables and those of the cluster, and keep them in the cache."""
        database.install(self.layout)
        mariadbd = database.start(self.layout, self._environment)
        self._wait_for_munged(munged)
        slurmdbd = self._start_slurmdbd()
        self._door.change_accounting("add", "cluster", self.name)

        def stop() -> None:
            for process in (slurmdbd, mariadbd):
                process.send_signal(signal.SIGTERM)
                process.wait(timeout=60)
            self.layout.database_socket.unlink(missing_ok=True)

        database.save_template(self.layout, self.name, stop)

    def _start_slurmdbd(self) -> subprocess.Popen[bytes]:
        log = self.layout.start_log("slurmdbd")
        slurmdbd = daemons.launch(["slurmdbd", "-D"], log, self._environment)
        daemons.wait_until("slurmdbd", slurmdbd, self._slurmdbd_listens, log)
        return slurmdbd

    def _slurmdbd_listens(self) -> bool:
        try:
            where = (self.machine.address, self.machine.first_port + 1)
            with socket.create_connection(where, timeout=1):
                return True
        except OSError:
            return False

    def _add_user(self) -> None:
        """Let an ordinary user submit, who starts a cluster: root always may."""
        self._door.change_accounting("add", "account", self.machine.user)
        user = ("user", self.machine.user, f"account={self.machine.user}", "adminlevel=Admin")
        self._door.change_accounting("add", *user)

    def _wait_for_static(self, log: Path) -> None:
        limit = time.monotonic() + _STATIC_SECONDS
        waiting: Sequence[str] = self.static
        while waiting:
            if time.monotonic() > limit:
                node_log = self.layout.log(f"slurmd-{waiting[0]}")
                raise EmbeddedSlurmError(
                    f"the static nodes {', '.join(waiting)} did not come up within "
                    f"{_STATIC_SECONDS:g} s; the end of {node_log}:\n{daemons.tail(node_log)}\n"
                    f"and of {log}:\n{daemons.tail(log)}"
                )
            nodes = {node.name: node.states for node in self._door.fetch_nodes()}
            pending = {"POWERED_DOWN", "POWERING_UP", "NOT_RESPONDING"}
            waiting = [n for n in self.static if "IDLE" not in nodes[n] or pending & nodes[n]]
            time.sleep(0.1 if waiting else 0)


def _own_address() -> tuple[str, bool]:
    """Return the address of all daemons, and whether they can be held to the loopback.

    Slurm binds to the address of the host's name when it is told not to bind to all.
    """
    try:
        address = socket.gethostbyname(socket.gethostname())
    except OSError:
        address = ""
    return (address, True) if address.startswith("127.") else ("127.0.0.1", False)


def _remove(folder: Path) -> bool:
    """End what is left of a cluster in a folder and empty it; return whether it is a cluster's."""
    state = read_state(folder)
    if state is None:
        return False
    marked.end(state.mark, state.layout(folder).slurm_conf)
    if state.account_dir:
        from clusterbox.embedded.slurm import fleet

        fleet.leave(state.account_dir, state.stack)
    shutil.rmtree(state.sockets, ignore_errors=True)
    ports.release(folder)
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    return True


@contextlib.contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    """Hold a state folder, so that one start or stop works on it at a time."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise EmbeddedSlurmError(f"another command works on {folder}; wait for it") from error
        yield
    finally:
        os.close(descriptor)
