"""What people forget, as metrics: the age of images and backups, certificates, EFS's credits.

Each source is asked at its own pace in a thread; a scrape asks AWS nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from clusterbox.aws import Account, tags_of
from clusterbox.errors import ClusterboxError
from clusterbox.observe.background import Background
from clusterbox.observe.metrics import METRICS
from clusterbox.site.names import TAG_ENVIRONMENT

REFRESH_SECONDS = 300.0
# How far back EFS's figures are looked for: CloudWatch has them some minutes late.
_FIGURES = timedelta(minutes=15)

Sample = tuple[tuple[str, ...], float]
# Metric → its samples.
Samples = Mapping[str, Iterable[Sample]]
Clock = Callable[[], datetime]


def now() -> datetime:
    """Return the time."""
    return datetime.now(UTC)


@dataclass(frozen=True)
class SiteSources:
    """How each source is read; `images` is the locked id by the name of an image.

    `open_account` signs in anew for each read: credentials of a role expire.
    """

    environment: str
    open_account: Callable[[], Account]
    images: Mapping[str, str]
    clock: Clock = field(default=now)

    def sources(self) -> dict[str, Callable[[], Samples]]:
        """Return what reads each source; each raises ClusterboxError for what AWS refuses."""
        return {
            "images": lambda: self._checked(self._images),
            "backups": lambda: self._checked(self._backups),
            "certificates": lambda: self._checked(self._certificates),
            "file_systems": lambda: self._checked(self._file_systems),
        }

    def _checked(self, read: Callable[[Account], Samples]) -> Samples:
        account = self.open_account()
        found = read(account)
        if account.gaps:
            # Half an answer would look like images and backups that are not there.
            raise ClusterboxError(str(account.gaps[0]))
        return found

    def _images(self, account: Account) -> Samples:
        ids = sorted(set(self.images.values()))
        answer = account.ask("ec2", "describe_images", ImageIds=ids) if ids else None
        made = {
            image["ImageId"]: _parse_time(image["CreationDate"])
            for image in (answer or {}).get("Images", ())
        }
        ages = [((name,), self._age(made[ami])) for name, ami in self.images.items() if ami in made]
        return {"clusterbox_image_age_seconds": ages}

    def _backups(self, account: Account) -> Samples:
        """Return the age of the last backup of each file system that has backups switched on."""
        last = {
            found["ResourceArn"].rpartition("/")[2]: found["LastBackupTime"]
            for found in account.pages("backup", "list_protected_resources", "Results")
            if found.get("ResourceType") == "EFS" and "LastBackupTime" in found
        }
        systems = [system["FileSystemId"] for system in self._systems(account)]
        return {
            "clusterbox_backup_age_seconds": [
                ((system,), self._age(last[system])) for system in systems if system in last
            ],
            "clusterbox_backup_missing": [
                ((system,), float(system not in last)) for system in systems
            ],
        }

    def _certificates(self, account: Account) -> Samples:
        found = account.pages("acm", "list_certificates", "CertificateSummaryList")
        # Of several for one name the last one counts: the others wait to be deleted.
        last: dict[str, float] = {}
        for one in found:
            if one.get("InUse", True) and "NotAfter" in one:
                end = one["NotAfter"].timestamp()
                last[one["DomainName"]] = max(end, last.get(one["DomainName"], end))
        expiry = "clusterbox_certificate_expiry_timestamp_seconds"
        return {expiry: [((domain,), end) for domain, end in last.items()]}

    def _file_systems(self, account: Account) -> Samples:
        systems = self._systems(account)
        # Those with elastic or provisioned throughput have no credits to lose.
        bursting = [s["FileSystemId"] for s in systems if s.get("ThroughputMode") == "bursting"]
        general = [
            s["FileSystemId"] for s in systems if s.get("PerformanceMode") == "generalPurpose"
        ]
        return {
            "clusterbox_efs_burst_credit_bytes": self._figures(
                account, "BurstCreditBalance", "Minimum", bursting
            ),
            "clusterbox_efs_io_limit_ratio": [
                (labels, percent / 100)
                for labels, percent in self._figures(account, "PercentIOLimit", "Maximum", general)
            ],
        }

    def _systems(self, account: Account) -> list[Mapping[str, Any]]:
        """Return the file systems of the environment: the account may have others."""
        return [
            system
            for system in account.pages("efs", "describe_file_systems", "FileSystems")
            if tags_of(system).get(TAG_ENVIRONMENT) == self.environment
        ]

    def _figures(
        self, account: Account, metric: str, statistic: str, systems: list[str]
    ) -> list[Sample]:
        """Return the newest figure of each file system that has one."""
        if not systems:
            return []
        end = self.clock()
        queries = [
            {
                "Id": f"m{number}",
                "MetricStat": {
                    "Metric": {
                        "Namespace": "AWS/EFS",
                        "MetricName": metric,
                        "Dimensions": [{"Name": "FileSystemId", "Value": system}],
                    },
                    "Period": 60,
                    "Stat": statistic,
                },
            }
            for number, system in enumerate(systems)
        ]
        results = account.pages(
            "cloudwatch",
            "get_metric_data",
            "MetricDataResults",
            MetricDataQueries=queries,
            StartTime=end - _FIGURES,
            EndTime=end,
            ScanBy="TimestampDescending",
        )
        newest: dict[str, float] = {}
        for result in results:
            if result["Values"]:
                newest.setdefault(systems[int(result["Id"][1:])], float(result["Values"][0]))
        return [((system,), value) for system, value in newest.items()]

    def _age(self, made: datetime) -> float:
        return max((self.clock() - made).total_seconds(), 0.0)


class SiteCollector(Collector):
    """Tells what is known of each source; a source that fails is told, and has no figures."""

    def __init__(self, backgrounds: Mapping[str, Background[Samples]]) -> None:
        self._backgrounds = backgrounds

    def describe(self) -> Iterator[Metric]:
        """Yield nothing, so that registering it asks nothing."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics."""
        up = _family("clusterbox_site_source_up")
        for source, background in self._backgrounds.items():
            state = background.state()
            if state.was_asked:
                up.add_metric([source], float(state.answer is not None))
            for name, samples in (state.answer or {}).items():
                family = _family(name)
                for labels, value in samples:
                    family.add_metric(labels, value)
                yield family
        yield up


def make_collector(
    sources: SiteSources, *, refresh_seconds: float, report: Callable[[str], None]
) -> tuple[SiteCollector, list[Background[Samples]]]:
    """Return the collector, and what it reads from, which the caller starts or refreshes."""

    def background(name: str, read: Callable[[], Samples]) -> Background[Samples]:
        return Background(read, refresh_seconds, report=lambda text: report(f"{name}: {text}"))

    backgrounds = {name: background(name, read) for name, read in sources.sources().items()}
    return SiteCollector(backgrounds), list(backgrounds.values())


def _family(name: str) -> GaugeMetricFamily:
    metric = METRICS[name]
    return GaugeMetricFamily(name, metric.help, labels=metric.labels)


def _parse_time(text: Any) -> datetime:
    return datetime.fromisoformat(str(text).replace("Z", "+00:00"))
