"""A real Slurm with jobs, its exporter, a node exporter and a real Prometheus that scrapes them.

Cost, containers, images and GPUs are served from figures of ours under the names that their exporters
have: what is tested is that panels ask for what there is.
"""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from clusterbox.embedded.slurm import Options, SlurmCluster
from clusterbox.observe.metrics import CONTAINERS, COST, METRICS
from clusterbox.observe.prometheus import Prometheus
from clusterbox.observe.serve import MetricsServer
from clusterbox.observe.slurm_collector import SlurmCollector
from tests.slurm_cluster import needs_slurm, wait_for, wait_for_job, wait_for_node, write_cluster

PROGRAMS = ("prometheus", "prometheus-node-exporter")
_MISSING = [name for name in PROGRAMS if shutil.which(name) is None]
needs_prometheus = [
    *needs_slurm,
    pytest.mark.skipif(bool(_MISSING), reason=f"packages are missing: {' '.join(_MISSING)}"),
]

CLUSTER = "ws-eco"
NODE = "eco-st-n8c32g-1"
IMAGE = "ws-base"


@dataclass(frozen=True)
class Watched:
    """The Slurm, the Prometheus, when the world began, and ids of jobs by what became of them."""

    slurm: SlurmCluster
    prometheus: Prometheus
    since: float
    jobs: dict[str, str]

    @property
    def conf(self) -> Path:
        """slurm.conf of the Slurm."""
        return Path(self.slurm.environment["SLURM_CONF"])

    def wait_for_rows(self, promql: str) -> None:
        """Wait until Prometheus has something for an expression."""
        wait_for(promql, lambda: self.prometheus.query(promql) or None)


class Figures(Collector):
    """The metrics of the other exporters, with one value for each combination of labels."""

    def describe(self) -> Iterator[Family]:
        """Yield nothing."""
        return iter(())

    def collect(self) -> Iterator[Family]:
        """Yield all metrics of cost and containers, image ages, and two of DCGM's."""
        for metric in (*COST, *CONTAINERS, METRICS["clusterbox_image_age_seconds"]):
            make = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
            family = make(metric.name, metric.help, labels=list(metric.labels))
            for index, labels in enumerate(_PLACES):
                values = [labels.get(name, "") for name in metric.labels]
                # As a counter does: it grows.
                value = (
                    time.time() % 10_000 if metric.kind == "counter" else _value(metric.name, index)
                )
                family.add_metric(values, value)
            yield family
        gpus = GaugeMetricFamily("DCGM_FI_DEV_GPU_UTIL", "GPU utilization", labels=["gpu"])
        gpus.add_metric(["0"], 87)
        yield gpus


# One of each; those that a metric does not have are left out of it.
_PLACES = (
    {
        "cluster": CLUSTER,
        "component": "compute",
        "queue": "eco",
        "purchase_option": "spot",
        "engine": "docker",
        "container": "tiles",
        "image": "landsat:2",
        "job": "17",
        "user": "nobody",
        "region": "us-west-2",
        "prices": "spot",
        "result": "good",
    },
    {
        "cluster": "ws-other",
        "component": "head node",
        "purchase_option": "on-demand",
        "engine": "apptainer",
        "container": "mosaic",
        "image": IMAGE,
        "user": "root",
        "region": "us-west-2",
        "prices": "on-demand",
        "result": "failed",
    },
)


def _value(name: str, index: int) -> float:
    fixed = {
        "clusterbox_cost_up": 1,
        "clusterbox_cost_usd_per_hour": (3.25, 0.41)[index],
        "clusterbox_cost_month_usd": (412.5, 190.0)[index],
        "clusterbox_cost_unknown": (0, 2)[index],
        "clusterbox_budget_usd": 800,
        "clusterbox_budget_spent_usd": (412.5, 690.0)[index],
        "clusterbox_budget_forecast_usd": (780.0, 910.0)[index],
        "clusterbox_container_engine_up": 1,
        "clusterbox_container_memory_bytes": (3.2e9, 7.5e8)[index],
        "clusterbox_image_age_seconds": (12 * 86_400, 36 * 86_400)[index],
    }
    return float(fixed.get(name, 1))


@contextmanager
def watch(folder: Path) -> Iterator[Watched]:
    """Start everything, run some jobs, and end all of it at the end."""
    since = time.time()
    options = Options(boot_seconds=0.5, idle_seconds=60, settings={"Licenses": "matlab:4"})
    cluster = write_cluster(folder, CLUSTER, EnableMemoryBasedScheduling=True)
    with ExitStack() as stack:
        slurm = stack.enter_context(SlurmCluster.start(cluster, folder / "state", options))
        collector = SlurmCollector(slurm.door, refresh_seconds=1.0)
        stack.enter_context(_polling(collector))
        ports = {
            "slurm": stack.enter_context(_served(collector)),
            "others": stack.enter_context(_served(Figures())),
            "node": stack.enter_context(_node_exporter(folder)),
        }
        prometheus = stack.enter_context(_prometheus(folder, ports))
        watched = Watched(slurm, prometheus, since, {})
        watched.jobs.update(_run_jobs(watched))
        # The last that is counted, and by the slowest question.
        watched.wait_for_rows('sum(increase(slurm_jobs_ended_total{state="completed"}[1m])) > 0')
        watched.wait_for_rows('slurm_jobs{state="running"} > 0')
        watched.wait_for_rows("sum(slurm_launch_failed_nodes) > 0")
        yield watched


# Two seconds of CPU time.
BUSY = "timeout 2 sh -c 'while :; do :; done'; true"


def _run_jobs(watched: Watched) -> dict[str, str]:
    """Run a job of each kind; nodes of the queue `spot` cannot be launched, one of `eco` drains."""
    slurm, door = watched.slurm, watched.slurm.door

    def submit(script: str, *options: str) -> str:
        # Little memory: all of them fit on the node that is up.
        return door.submit(script, "--mem=100", *options)

    slurm.fail_launches("spot-dy")
    jobs = {"first": submit("sleep 1", "-p", "eco"), "failed": submit("exit 3", "-p", "eco")}
    # Prometheus sees how much counters grow once they have a value.
    watched.wait_for_rows('slurm_jobs_ended_total{state="completed"} > 0')
    watched.wait_for_rows('slurm_jobs_ended_total{state="failed"} > 0')
    jobs["running"] = submit("sleep 600", "-p", "eco", "-L", "matlab:1", "-n", "2")
    jobs["array"] = submit("sleep 600", "-p", "eco", "--array=1-40%1", "-n", "2")
    jobs["dependent"] = submit("sleep 1", "-p", "eco", f"--dependency=afterok:{jobs['running']}")
    jobs["unlaunched"] = submit("sleep 1", "-p", "spot")
    jobs["busy"] = submit(BUSY, "-p", "eco", "--time=10")
    wait_for_job(slurm, jobs["busy"])
    jobs["waiting"] = submit("sleep 1", "-p", "eco", "-n", "8", f"--nodelist={NODE}")
    wait_for(
        "a launch that failed",
        lambda: any(node.reason and "Code:" in node.reason for node in door.fetch_nodes()) or None,
    )
    door.update_nodes([NODE], state="drain", reason="disk")
    wait_for_node(slurm, NODE, "DRAIN")
    watched.wait_for_rows("slurm_oldest_pending_job_seconds > 0")
    return jobs


@contextmanager
def _polling(collector: SlurmCollector) -> Iterator[None]:
    """Ask for what changes seldom each second, and not each minute."""
    is_over = threading.Event()

    def poll() -> None:
        while not is_over.is_set():
            collector.poll()
            is_over.wait(1)

    thread = threading.Thread(target=poll)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


@contextmanager
def _served(collector: Collector) -> Iterator[int]:
    registry = CollectorRegistry()
    registry.register(collector)
    server = MetricsServer(("127.0.0.1", 0), registry)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server.port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def _node_exporter(folder: Path) -> Iterator[int]:
    port = free_port()
    words = [PROGRAMS[1], f"--web.listen-address=127.0.0.1:{port}"]
    with _running(words, folder / "node-exporter.log"):
        yield port


@contextmanager
def _prometheus(folder: Path, ports: dict[str, int]) -> Iterator[Prometheus]:
    port = free_port()
    jobs = [
        _scrape("slurm", ports["slurm"], cluster=CLUSTER),
        _scrape("node", ports["node"], cluster=CLUSTER, queue="eco", node=NODE),
        # The cost exporter says the cluster itself; containers and GPUs are those of a node.
        {**_scrape("others", ports["others"], cluster=CLUSTER, node=NODE), "honor_labels": False},
    ]
    # What has no cluster of its own takes that of its target, and keeps its own otherwise.
    jobs[2]["metric_relabel_configs"] = [
        {
            "source_labels": ["exported_cluster"],
            "regex": "(.+)",
            "target_label": "cluster",
        }
    ]
    settings = {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s"},
        "scrape_configs": jobs,
    }
    path = folder / "prometheus.yml"
    # JSON is YAML.
    path.write_text(json.dumps(settings), encoding="utf-8")
    words = [
        PROGRAMS[0],
        f"--config.file={path}",
        f"--storage.tsdb.path={folder / 'tsdb'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--query.lookback-delta=30s",
    ]
    with _running(words, folder / "prometheus.log"):
        door = Prometheus(f"http://127.0.0.1:{port}")
        wait_for("Prometheus", lambda: door.is_up() or None)
        yield door


def _scrape(name: str, port: int, **labels: str) -> dict[str, object]:
    target = {"targets": [f"127.0.0.1:{port}"], "labels": labels}
    return {"job_name": name, "static_configs": [target]}


@contextmanager
def _running(words: list[str], log: Path) -> Iterator[None]:
    with log.open("wb") as file:
        process = subprocess.Popen(words, stdout=file, stderr=file, cwd=log.parent)
        try:
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
