"""When ParallelCluster's daemon of the head node last said that it lives."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from clusterbox.observe.metrics import METRICS

# clustermgtd writes it with every cycle, once a minute; nodes end themselves when it is 10 minutes
# old (heartbeat_file_path and clustermgtd_timeout in ParallelCluster's node package).
CLUSTERMGTD = Path("/opt/slurm/etc/pcluster/.slurm_plugin/clustermgtd_heartbeat")


class HeartbeatCollector(Collector):
    """Tells when the file was written; nothing where there is none, as on another Slurm."""

    def __init__(self, path: Path = CLUSTERMGTD) -> None:
        self._path = path

    def collect(self) -> Iterator[Metric]:
        """Yield the time as seconds since 1970."""
        try:
            written = self._path.stat().st_mtime
        except OSError:
            return
        metric = METRICS["clusterbox_daemon_heartbeat_timestamp_seconds"]
        family = GaugeMetricFamily(metric.name, metric.help, labels=metric.labels)
        family.add_metric(["clustermgtd"], written)
        yield family
