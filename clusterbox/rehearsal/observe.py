"""Rehearse how a cluster is watched: a real Slurm with jobs, exporters, Prometheus, an alert, its mail."""

from __future__ import annotations

import shutil
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import yaml

from clusterbox.clusters.composed import ComposedCluster, compose_repository
from clusterbox.costs.meter_live import Doors
from clusterbox.deployment.progress import Progress
from clusterbox.embedded.slurm import Options, SlurmCluster
from clusterbox.errors import ClusterboxError, InputError
from clusterbox.files import write_whole
from clusterbox.observe.background import Background
from clusterbox.observe.config import Places, alertmanager_config, prometheus_config
from clusterbox.observe.cost_collector import CostCollector
from clusterbox.observe.cost_reader import CostReader, PriceFiles
from clusterbox.observe.dashboards import DASHBOARDS
from clusterbox.observe.dashboards.page import pages
from clusterbox.observe.prometheus import Prometheus
from clusterbox.observe.slurm_collector import SlurmCollector
from clusterbox.rehearsal import servers
from clusterbox.site.environment import Environment
from clusterbox.site.monitoring import Mail, Monitoring
from clusterbox.slurm import Slurm

# The alert that is brought about: EC2 has no machine for one node.
ALERT = "InsufficientCapacity"
# How long something has to be wrong here before its alert fires; the rules say minutes to hours.
FOR_SECONDS = 5
# Everything is asked each second, so that half a minute is a line and not two points.
SCRAPE_SECONDS = 1
_LEAST_PLOTTED_SECONDS = 30.0
_STEP_SECONDS = 40.0
_PAGES = ("site", "cluster", "queue", "users", "cost", "node")
# A failed launch stays one until the end of the rehearsal.
_OPTIONS = Options(boot_seconds=0.5, idle_seconds=120, failed_launch_seconds=600)
# Stand in for a section `monitoring` that an environment does not have; nothing leaves the machine.
_TOPIC = "arn:aws:sns:us-west-2:000000000000:rehearsal"
_MONITORING = Monitoring(image="admin", subnet="compute.a", notify=("people@example.gov",))
_MAIL = Mail(server="smtp.example.gov:587", sender="clusterbox@example.gov")


@dataclass(frozen=True)
class Observed:
    """What a rehearsal saw.

    `jobs` counts them by state; `rule_for` is how long the alert waits with the site's own rules;
    `alerts` are the names of all that fired; `pages` are the files that were written.
    """

    jobs: dict[str, int]
    rule_for: str
    alerts: tuple[str, ...]
    mail: EmailMessage
    pages: tuple[Path, ...]


def rehearse_observe(root: Path, name: str, folder: Path, progress: Progress) -> Observed:
    """Watch a cluster of the repository at `root` run jobs until the mail of an alert has come.

    Pages of its dashboards and the mail are written to `folder`, and everything that was started
    is ended. Raises InputError where programs are missing or the cluster cannot be used for it,
    ClusterboxError where the mail does not come; what the servers said is below `folder` then.
    """
    servers.require_programs()
    cluster = compose_repository(root, [name])[name]
    environment = _with_mail(cluster)
    work = folder / "work"
    work.mkdir(parents=True, exist_ok=True)
    try:
        with ExitStack() as stack:
            with progress.step("slurm"):
                # The first: it refuses a second rehearsal in this folder.
                pcluster = root / ".venv-pcluster"
                slurm = stack.enter_context(
                    SlurmCluster.start(cluster, work / "slurm", _OPTIONS, pcluster_folder=pcluster)
                )
            with progress.step("servers"):
                rule_for = _write_rules(root, work / "rules")
                prometheus, sink = stack.enter_context(
                    _servers(root, cluster, environment, slurm.door, work)
                )
            watched = _Watched(cluster.name, slurm, prometheus, sink, rule_for, time.time())
            found = _watch(watched, folder, progress)
    except InputError:
        raise
    except ClusterboxError as error:
        raise ClusterboxError(f"{error}\nwhat the servers said is in {work}/*.log") from error
    shutil.rmtree(work, ignore_errors=True)
    return found


@dataclass(frozen=True)
class _Watched:
    """What runs, and since when, in seconds since 1970."""

    cluster: str
    slurm: SlurmCluster
    prometheus: Prometheus
    sink: servers.MailSink
    rule_for: str
    since: float


def _watch(watched: _Watched, folder: Path, progress: Progress) -> Observed:
    with progress.step("jobs"):
        _run_jobs(watched.slurm.door, watched.slurm)
    with progress.step("alert"):
        servers.wait_for(f"alert {ALERT}", lambda: ALERT in _firing(watched), _STEP_SECONDS)
    with progress.step("mail"):
        mail = servers.wait_for(f"mail of {ALERT}", lambda: _mail_of(watched.sink), _STEP_SECONDS)
    with progress.step("pages"):
        # Shorter lines show nothing.
        time.sleep(max(0.0, watched.since + _LEAST_PLOTTED_SECONDS - time.time()))
        written = _write_pages(watched, folder)
    write_whole(folder / "mail.txt", _text(mail))
    jobs = {
        series.labels["state"]: int(series.value)
        for series in watched.prometheus.query("sum by (state) (slurm_jobs) > 0")
    }
    return Observed(jobs, watched.rule_for, _firing(watched), mail, written)


def _run_jobs(door: Slurm, slurm: SlurmCluster) -> None:
    """Let a job of each kind run, end, fail or wait, and one for a node that EC2 does not have."""
    dynamic = [node for node in door.fetch_nodes() if "POWERED_DOWN" in node.states]
    if len(dynamic) < 2:
        raise InputError("a cluster to watch needs two nodes or more that are not static")
    first, last = dynamic[0], dynamic[-1]
    slurm.fail_launches(last.name)
    door.submit("sleep 1", f"--partition={last.partitions[0]}", f"--nodelist={last.name}")
    # Elsewhere, so that one launch fails and the other jobs are as they are meant.
    elsewhere = (f"--partition={first.partitions[0]}", f"--exclude={last.name}")
    ended = door.submit("timeout 2 sh -c 'while :; do :; done'; true", *elsewhere)
    door.submit("exit 3", *elsewhere)
    running = door.submit("sleep 600", *elsewhere)
    door.submit("sleep 600", *elsewhere, "--array=1-8%1")
    door.submit("sleep 1", *elsewhere, f"--dependency=afterok:{running}")
    servers.wait_for("job that ended", lambda: _has_completed(door, ended), _STEP_SECONDS)


def _has_completed(door: Slurm, job: str) -> bool:
    return any(each.state == "COMPLETED" for each in door.fetch_accounted("--jobs", job))


def _firing(watched: _Watched) -> tuple[str, ...]:
    """Return the names of the alerts that fire, each once."""
    found = servers.fetch_json(f"{watched.prometheus.url}/api/v1/alerts")["data"]["alerts"]
    return tuple(sorted({a["labels"]["alertname"] for a in found if a["state"] == "firing"}))


def _mail_of(sink: servers.MailSink) -> EmailMessage | None:
    return next((mail for mail in list(sink.mails) if ALERT in str(mail["Subject"])), None)


def _text(mail: EmailMessage) -> str:
    body = mail.get_body(("plain",))
    heads = "".join(f"{name}: {mail[name]}\n" for name in ("From", "To", "Subject"))
    return f"{heads}\n{body.get_content() if body is not None else ''}"


def _write_pages(watched: _Watched, folder: Path) -> tuple[Path, ...]:
    shown = [board for board in DASHBOARDS if board.uid.removeprefix("clusterbox-") in _PAGES]
    values = {"cluster": watched.cluster}
    written = []
    for name, text in pages(shown, watched.prometheus, watched.since, time.time(), values):
        write_whole(folder / name, text)
        written.append(folder / name)
    return tuple(written)


@contextmanager
def _servers(
    root: Path, cluster: ComposedCluster, environment: Environment, door: Slurm, work: Path
) -> Iterator[tuple[Prometheus, servers.MailSink]]:
    """Run exporters, mail server, Alertmanager and Prometheus, in this order."""
    with ExitStack() as stack:
        slurm = SlurmCollector(door, refresh_seconds=SCRAPE_SECONDS)
        # What changes seldom, each second as well, and not each minute.
        stack.enter_context(servers.repeating(slurm.poll, SCRAPE_SECONDS))
        sink = stack.enter_context(servers.mail_sink())
        urls = {
            "slurm": stack.enter_context(servers.exporter(slurm)),
            "cost": stack.enter_context(_cost_exporter(root, cluster, door)),
            "node": stack.enter_context(servers.node_exporter(work)),
            "alertmanager": stack.enter_context(
                servers.alertmanager(work, _alertmanager_config(environment, sink))
            ),
        }
        config = _prometheus_config(environment, work, cluster.name, urls)
        yield Prometheus(stack.enter_context(servers.prometheus(work, config))), sink


@contextmanager
def _cost_exporter(root: Path, cluster: ComposedCluster, door: Slurm) -> Iterator[str]:
    """Serve what Slurm alone tells of the cost: jobs and idle nodes, without head node and disks."""
    prices = PriceFiles(root, str(cluster.configuration.get("Region")))
    reader = CostReader(cluster, prices, lambda: Doors(None, door))
    background = Background(reader.read, 5.0, report=lambda _: None)
    with (
        servers.repeating(background.refresh, 5.0),
        servers.exporter(CostCollector({cluster.name: background})) as url,
    ):
        yield url


def _prometheus_config(
    environment: Environment, work: Path, cluster: str, urls: Mapping[str, str | None]
) -> dict[str, Any]:
    """Return the site's configuration with what runs here instead of what EC2 lists."""
    config = prometheus_config(environment, Places(topic=_TOPIC, home=str(work)))
    every = f"{SCRAPE_SECONDS}s"
    config["global"] |= {
        "scrape_interval": every,
        "scrape_timeout": every,
        "evaluation_interval": every,
    }
    # The node exporter tells of this machine, which the head node's programs run on.
    head = {"cluster": cluster, "node_type": "HeadNode"}
    labels = {"slurm": head, "node": {**head, "node": socket.gethostname()}}
    jobs = []
    for name, url in urls.items():
        if url is not None:
            target = {"targets": [_address(url)], "labels": labels.get(name, {})}
            jobs.append(
                {"job_name": name, "static_configs": [target], "honor_labels": name == "cost"}
            )
    config["scrape_configs"] = jobs
    managers = [_address(str(urls["alertmanager"]))]
    config["alerting"] = {"alertmanagers": [{"static_configs": [{"targets": managers}]}]}
    return config


def _address(url: str) -> str:
    return url.removeprefix("http://")


def _alertmanager_config(environment: Environment, sink: servers.MailSink) -> dict[str, Any]:
    """Return the site's routes and receivers, at once and to the mail server here alone."""
    config = alertmanager_config(environment, Places(topic=_TOPIC))
    config["global"] = {
        "smtp_smarthost": sink.address,
        "smtp_from": config["global"]["smtp_from"],
        "smtp_require_tls": False,
    }
    config["route"] |= {"group_wait": "1s", "group_interval": "5s"}
    for receiver in config["receivers"]:
        receiver.pop("sns_configs", None)
    return config


def _with_mail(cluster: ComposedCluster) -> Environment:
    """Return the environment of a cluster with a section `monitoring` that has a mail server."""
    if cluster.environment is None:
        raise InputError(f"{cluster.name} belongs to no environment, so nobody is told of alerts")
    given = cluster.environment.monitoring or _MONITORING
    monitoring = given.model_copy(update={"mail": given.mail or _MAIL, "managed": False})
    return cluster.environment.model_copy(update={"monitoring": monitoring})


def _write_rules(root: Path, folder: Path) -> str:
    """Write the site's rules with a short `for`; return the one that ALERT has in the site."""
    folder.mkdir(exist_ok=True)
    rule_for = ""
    for path in sorted((root / "monitoring" / "rules").glob("*.yml")):
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
        for rule in (rule for group in found["groups"] for rule in group["rules"]):
            if rule.get("alert") == ALERT:
                rule_for = str(rule["for"])
            if "for" in rule:
                rule["for"] = f"{FOR_SECONDS}s"
        write_whole(folder / path.name, yaml.safe_dump(found, sort_keys=False))
    if not rule_for:
        raise InputError(f"monitoring/rules/ has no alert {ALERT} to wait for")
    return rule_for
