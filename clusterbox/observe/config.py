"""The configuration of Prometheus, Alertmanager and Grafana, from an environment's file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clusterbox.errors import InputError
from clusterbox.site import names
from clusterbox.site.environment import Environment
from clusterbox.site.monitoring import Monitoring

# Ports of the loopback address of the monitoring machine.
LOCAL_PORTS = {"prometheus": 9090, "alertmanager": 9093, "cost": 9342, "site": 9344}
SCRAPE_SECONDS = 15
DISCOVERY_SECONDS = 30

_HOME = "/etc/clusterbox-monitoring"
# What DCGM finds GPUs of NVIDIA in: the P and G families but for those with GPUs of AMD (g4ad).
_GPU_TYPES = "(p[0-9]|g4dn|g[5-9]).*"
_TAG = "__meta_ec2_tag_parallelcluster_{}"


@dataclass(frozen=True)
class Places:
    """Where things are that the environment's file does not say.

    `topic` is the ARN of the SNS topic; `remote_write` the address of a workspace of Amazon Managed
    Service for Prometheus. `ec2_endpoint` is another address of EC2, for tests and rehearsals.
    `mail_user` belongs to the password in the file `mail_password_file`.
    """

    topic: str
    home: str = _HOME
    remote_write: str | None = None
    ec2_endpoint: str | None = None
    mail_user: str | None = None
    mail_password_file: str = f"{_HOME}/secrets/mail-password"


def monitoring_of(environment: Environment) -> Monitoring:
    """Return the section `monitoring`; raises InputError where there is none."""
    if environment.monitoring is None:
        raise InputError(
            f"environments/{environment.name}.yaml has no section monitoring: docs/environments.md "
            "says what it takes"
        )
    return environment.monitoring


def prometheus_config(environment: Environment, places: Places) -> dict[str, Any]:
    """Return prometheus.yml; every series gets the labels of the node that it is from.

    Credentials stand nowhere in it: Prometheus asks the instance's role, whose keys rotate.
    """
    jobs = [_local_job(name, honor=name in ("cost", "site")) for name in LOCAL_PORTS]
    jobs += [_node_job(environment, places, name) for name in names.SCRAPE_PORTS]
    found: dict[str, Any] = {
        "global": {
            "scrape_interval": f"{SCRAPE_SECONDS}s",
            "evaluation_interval": f"{SCRAPE_SECONDS}s",
            "external_labels": {"environment": environment.name},
        },
        "rule_files": [f"{places.home}/rules/*.yml"],
        "alerting": {
            "alertmanagers": [
                {"static_configs": [{"targets": [_local("alertmanager")]}]},
            ]
        },
        "scrape_configs": jobs,
    }
    if places.remote_write is not None:
        found["remote_write"] = [
            {"url": places.remote_write, "sigv4": {"region": environment.region}}
        ]
    return found


def _local(name: str) -> str:
    return f"127.0.0.1:{LOCAL_PORTS[name]}"


def _local_job(name: str, *, honor: bool) -> dict[str, Any]:
    """Return a job on this machine; `honor` where its own label `cluster` counts."""
    job: dict[str, Any] = {"job_name": name, "static_configs": [{"targets": [_local(name)]}]}
    if honor:
        job["honor_labels"] = True
    return job


def _node_job(environment: Environment, places: Places, name: str) -> dict[str, Any]:
    """Return a job on the machines of the environment's clusters, as EC2 lists them."""
    node_types = {"slurm": ["HeadNode"], "gpu": ["Compute"], "containers": ["Compute"]}
    discovery: dict[str, Any] = {
        "region": environment.region,
        "port": names.SCRAPE_PORTS[name],
        "refresh_interval": f"{DISCOVERY_SECONDS}s",
        "filters": [
            {"name": f"tag:{names.TAG_ENVIRONMENT}", "values": [environment.name]},
            {
                "name": f"tag:{names.TAG_NODE_TYPE}",
                "values": node_types.get(name, ["HeadNode", "Compute", "LoginNode"]),
            },
            {"name": "instance-state-name", "values": ["running"]},
        ],
    }
    if places.ec2_endpoint is not None:
        discovery["endpoint"] = places.ec2_endpoint
    return {
        "job_name": name,
        "ec2_sd_configs": [discovery],
        "relabel_configs": _labels(name),
    }


def _labels(name: str) -> list[dict[str, Any]]:
    """Return how labels are made of what EC2 tells.

    Slurm's exporter tells of all nodes, in a label of its own: the machine that it runs on would
    hide that one.
    """
    sources = {"cluster": _TAG.format("cluster_name"), "node_type": _TAG.format("node_type")}
    if name != "slurm":
        sources |= {
            "queue": _TAG.format("queue_name"),
            "compute_resource": _TAG.format("compute_resource_name"),
            "instance_type": "__meta_ec2_instance_type",
            "instance_id": "__meta_ec2_instance_id",
        }
    found: list[dict[str, Any]] = [
        {"source_labels": [source], "target_label": label} for label, source in sources.items()
    ]
    if name != "slurm":
        found.append(
            {
                "source_labels": ["__meta_ec2_private_dns_name"],
                "regex": r"([^.]+)(\..*)?",
                "target_label": "node",
            }
        )
    if name == "gpu":
        found.append(
            {
                "source_labels": ["__meta_ec2_instance_type"],
                "regex": _GPU_TYPES,
                "action": "keep",
            }
        )
    return found


def alertmanager_config(environment: Environment, places: Places) -> dict[str, Any]:
    """Return alertmanager.yml: one mail a cluster and kind of alert, and none for consequences.

    A head node that is down holds back what follows from it in the same cluster.
    """
    monitoring = monitoring_of(environment)
    found: dict[str, Any] = {
        "route": {
            "receiver": "people",
            "group_by": ["cluster", "alertname"],
            "group_wait": "30s",
            "group_interval": "5m",
            "repeat_interval": "12h",
            "routes": [
                {
                    "matchers": ['severity="critical"'],
                    "receiver": "urgent",
                    "repeat_interval": "4h",
                },
                {"matchers": ['severity="info"'], "receiver": "people", "repeat_interval": "7d"},
            ],
        },
        "inhibit_rules": [
            {
                "source_matchers": ['alertname="HeadNodeDown"'],
                "target_matchers": [
                    'alertname!~"HeadNodeDown|Budget.+|CostRateAnomaly|CostUnknown"',
                    'cluster!=""',
                ],
                "equal": ["cluster"],
            },
            {
                # Without slurmctld nothing that it would tell counts.
                "source_matchers": ['alertname="SlurmctldDown"'],
                "target_matchers": ['alertname=~"SlurmAccountingDown|CostFiguresMissing"'],
                "equal": ["cluster"],
            },
        ],
        "receivers": _receivers(environment, monitoring, places),
    }
    if monitoring.mail is not None:
        found["global"] = {
            "smtp_smarthost": monitoring.mail.server,
            "smtp_from": monitoring.mail.sender,
            "smtp_require_tls": True,
        }
        if monitoring.mail.secret is not None:
            found["global"] |= {
                "smtp_auth_username": places.mail_user or "",
                "smtp_auth_password_file": places.mail_password_file,
            }
    return found


# SNS refuses a subject of more than 100 characters.
_SUBJECT = (
    '{{ printf "%%.99s" (printf "[%s] %%s: %%s %%s (%%d)" .Status .CommonLabels.cluster '
    ".CommonLabels.alertname (len .Alerts)) }}"
)
_TEXT = (
    '{{ range .Alerts }}{{ .Status }} since {{ .StartsAt.UTC.Format "2006-01-02 15:04 MST" }}: '
    "{{ .Annotations.summary }}\n{{ .Annotations.description }}\n"
    "What to do: {{ .Annotations.runbook_url }}\n\n{{ end }}"
)


def _receivers(
    environment: Environment, monitoring: Monitoring, places: Places
) -> list[dict[str, Any]]:
    """Return who is told: by mail, and by the topic what is critical or where there is no mail."""
    topic = {
        "topic_arn": places.topic,
        "sigv4": {"region": environment.region},
        "subject": _SUBJECT % environment.name,
        "message": _TEXT,
        "send_resolved": True,
    }
    if monitoring.mail is None:
        return [{"name": name, "sns_configs": [topic]} for name in ("people", "urgent")]
    mail = {
        "to": ", ".join(monitoring.notify),
        "headers": {"Subject": _SUBJECT % environment.name},
        "text": _TEXT,
        "html": "",
        "send_resolved": True,
    }
    return [
        {"name": "people", "email_configs": [mail]},
        {"name": "urgent", "email_configs": [mail], "sns_configs": [topic]},
    ]


def grafana_config(places: Places) -> dict[str, dict[str, Any]]:
    """Return Grafana's provisioning files by their path below its folder."""
    return {
        "datasources/prometheus.yaml": {
            "apiVersion": 1,
            "datasources": [
                {
                    "name": "Prometheus",
                    "uid": "prometheus",
                    "type": "prometheus",
                    "access": "proxy",
                    "url": f"http://{_local('prometheus')}",
                    "isDefault": True,
                    "editable": False,
                    "jsonData": {"timeInterval": f"{SCRAPE_SECONDS}s"},
                }
            ],
        },
        "dashboards/clusterbox.yaml": {
            "apiVersion": 1,
            "providers": [
                {
                    "name": "clusterbox",
                    "type": "file",
                    "disableDeletion": True,
                    "allowUiUpdates": False,
                    "options": {"path": f"{places.home}/grafana/dashboards"},
                }
            ],
        },
    }


def render_configuration(environment: Environment, places: Places) -> dict[str, str]:
    """Return all files of the configuration by their path below the folder that they go to."""
    import yaml

    monitoring = monitoring_of(environment)
    grafana = {
        f"grafana/provisioning/{path}": found for path, found in grafana_config(places).items()
    }
    written: dict[str, dict[str, Any]] = {
        "prometheus.yml": prometheus_config(environment, places),
        "alertmanager.yml": alertmanager_config(environment, places),
        **grafana,
    }
    files = {path: yaml.safe_dump(found, sort_keys=False) for path, found in written.items()}
    files["prometheus.arguments"] = _prometheus_arguments(monitoring)
    return files


def _prometheus_arguments(monitoring: Monitoring) -> str:
    """Return the environment file of Prometheus's unit."""
    return f"RETENTION_TIME={monitoring.retention_days}d\nRETENTION_SIZE={monitoring.retention_bytes}B\n"


def write_configuration(root: Path, folder: Path, environment: Environment, places: Places) -> None:
    """Write the configuration with the rules and dashboards of the repository at `root`."""
    from clusterbox.files import write_whole

    files = render_configuration(environment, places)
    rules = sorted((root / "monitoring" / "rules").glob("*.yml"))
    files |= {f"rules/{path.name}": path.read_text(encoding="utf-8") for path in rules}
    dashboards = sorted((root / "monitoring" / "grafana" / "dashboards").glob("*.json"))
    files |= {
        f"grafana/dashboards/{path.name}": path.read_text(encoding="utf-8") for path in dashboards
    }
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, text)
    for stale in {*(folder / "rules").glob("*.yml")} - {folder / name for name in files}:
        stale.unlink()
