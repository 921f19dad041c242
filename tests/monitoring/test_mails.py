"""Alerts through a real Alertmanager into a mail server."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from clusterbox.observe.config import Places, alertmanager_config
from clusterbox.site.environment import Environment
from tests.monitoring.conftest import TOPIC
from tests.monitoring.servers import (
    MailSink,
    Server,
    alertmanager,
    mail_sink,
    needs_prometheus,
    wait_for,
)

pytestmark = needs_prometheus
QUIET_SECONDS = 3.0


@contextmanager
def told(folder: Path, environment: Environment) -> Iterator[tuple[Server, MailSink]]:
    """Run Alertmanager as the site has it, but quick, without TLS, and with mail alone."""
    config = alertmanager_config(environment, Places(topic=TOPIC))
    with mail_sink() as sink:
        config["global"] = {
            "smtp_smarthost": f"127.0.0.1:{sink.port}",
            "smtp_from": "hpc@example.gov",
            "smtp_require_tls": False,
        }
        config["route"] |= {"group_wait": "1s", "group_interval": "1s"}
        for receiver in config["receivers"]:
            receiver.pop("sns_configs", None)
        with alertmanager(folder, config) as server:
            yield server, sink


def alert(name: str, severity: str = "warning", **labels: str) -> dict[str, Any]:
    now = datetime.now(UTC)
    return {
        "labels": {"alertname": name, "severity": severity, **labels},
        "annotations": {
            "summary": f"{name} of {labels.get('node', labels.get('cluster'))}",
            "description": "In words.",
            "runbook_url": f"docs/alerts.md#{name.lower()}",
        },
        "startsAt": now.isoformat(),
        "endsAt": (now + timedelta(minutes=10)).isoformat(),
    }


def raise_alerts(server: Server, *alerts: dict[str, Any]) -> None:
    server.post("/api/v2/alerts", list(alerts))


def nodes_down(cluster: str, count: int) -> list[dict[str, Any]]:
    return [
        alert("NodeDown", cluster=cluster, node=f"ip-10-0-0-{number}") for number in range(count)
    ]


def test_forty_nodes_that_are_down_make_one_mail_a_cluster(
    tmp_path: Path, by_mail: Environment
) -> None:
    with told(tmp_path, by_mail) as (server, sink):
        raise_alerts(server, *nodes_down("ws-eco", 40), *nodes_down("ws-other", 3))
        wait_for("second mail", lambda: len(sink.mails) >= 2)
        time.sleep(QUIET_SECONDS)
        assert sorted(sink.subjects) == [
            "[ws-dev] firing: ws-eco NodeDown (40)",
            "[ws-dev] firing: ws-other NodeDown (3)",
        ]


def test_a_mail_says_what_and_what_to_do_and_when_it_is_over(
    tmp_path: Path, by_mail: Environment
) -> None:
    raised = alert("ProtectedMode", "critical", cluster="ws-eco", partition="eco")
    with told(tmp_path, by_mail) as (server, sink):
        raise_alerts(server, raised)
        (mail,) = wait_for("mail", lambda: list(sink.mails))
        assert mail["To"] == "ada@example.gov"
        body = mail.get_body(("plain",))
        assert body is not None
        text = body.get_content()
        assert "ProtectedMode of ws-eco" in text
        assert "What to do: docs/alerts.md#protectedmode" in text
        raise_alerts(server, {**raised, "endsAt": datetime.now(UTC).isoformat()})
        wait_for("mail that it is over", lambda: len(sink.mails) == 2)
        assert sink.subjects[1].startswith("[ws-dev] resolved: ws-eco ProtectedMode")


def test_a_head_node_that_is_down_holds_back_what_follows_from_it_alone(
    tmp_path: Path, by_mail: Environment
) -> None:
    with told(tmp_path, by_mail) as (server, sink):
        raise_alerts(server, alert("HeadNodeDown", "critical", cluster="ws-eco"))
        wait_for("mail", lambda: list(sink.mails))
        raise_alerts(
            server,
            *nodes_down("ws-eco", 40),
            alert("ExporterDown", cluster="ws-eco", job="slurm"),
            alert("DaemonHeartbeatStale", "critical", cluster="ws-eco"),
            alert("BudgetSpent", "critical", cluster="ws-eco"),
            *nodes_down("ws-other", 1),
            alert("ImageTooOld", image="compute"),
        )
        wait_for("fourth mail", lambda: len(sink.mails) >= 4)
        time.sleep(QUIET_SECONDS)
        assert sorted(sink.subjects) == [
            "[ws-dev] firing:  ImageTooOld (1)",
            "[ws-dev] firing: ws-eco BudgetSpent (1)",
            "[ws-dev] firing: ws-eco HeadNodeDown (1)",
            "[ws-dev] firing: ws-other NodeDown (1)",
        ]
