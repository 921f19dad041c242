"""The configuration of Prometheus, Alertmanager and Grafana."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from clusterbox.cli.main import main
from clusterbox.errors import InputError
from clusterbox.observe.config import (
    Places,
    alertmanager_config,
    grafana_config,
    monitoring_of,
    prometheus_config,
    write_configuration,
)
from clusterbox.site import names
from clusterbox.site.environment import Environment
from clusterbox.site.load import Repository
from tests.monitoring.conftest import TOPIC
from tests.monitoring.servers import needs_prometheus, run_tool

PLACES = Places(topic=TOPIC)


def job(config: dict[str, Any], name: str) -> dict[str, Any]:
    (found,) = [one for one in config["scrape_configs"] if one["job_name"] == name]
    return dict(found)


def test_an_environment_without_the_section_says_what_to_write(root: Path) -> None:
    environment = (
        Repository(root).load_environment("ws-dev").model_copy(update={"monitoring": None})
    )
    with pytest.raises(InputError, match=r"ws-dev.yaml has no section monitoring"):
        monitoring_of(environment)


def test_nodes_are_found_by_parallelclusters_tags_in_this_environment(
    by_topic: Environment,
) -> None:
    (discovery,) = job(prometheus_config(by_topic, PLACES), "node")["ec2_sd_configs"]
    assert discovery["filters"] == [
        {"name": "tag:Environment", "values": ["ws-dev"]},
        {"name": "tag:parallelcluster:node-type", "values": ["HeadNode", "Compute", "LoginNode"]},
        {"name": "instance-state-name", "values": ["running"]},
    ]


def test_no_credentials_stand_in_the_configuration(by_mail: Environment) -> None:
    text = yaml.safe_dump(prometheus_config(by_mail, PLACES))
    text += yaml.safe_dump(alertmanager_config(by_mail, PLACES))
    for word in ("access_key", "secret_key", "profile", "smtp_auth_password:"):
        assert word not in text


def test_each_job_asks_the_port_that_the_security_groups_open(by_topic: Environment) -> None:
    config = prometheus_config(by_topic, PLACES)
    for name, port in names.SCRAPE_PORTS.items():
        assert [one["port"] for one in job(config, name)["ec2_sd_configs"]] == [port]


def test_slurms_exporter_is_asked_on_head_nodes_alone(by_topic: Environment) -> None:
    (discovery,) = job(prometheus_config(by_topic, PLACES), "slurm")["ec2_sd_configs"]
    assert {"name": "tag:parallelcluster:node-type", "values": ["HeadNode"]} in discovery["filters"]


def test_metrics_go_to_the_managed_workspace_with_the_roles_signature(
    by_mail: Environment,
) -> None:
    url = "https://aps-workspaces.us-west-2.amazonaws.com/workspaces/ws-1/api/v1/remote_write"
    config = prometheus_config(by_mail, Places(topic=TOPIC, remote_write=url))
    assert config["remote_write"] == [{"url": url, "sigv4": {"region": "us-west-2"}}]


def test_mails_need_tls_and_a_password_from_a_file(by_mail: Environment) -> None:
    found = alertmanager_config(by_mail, Places(topic=TOPIC, mail_user="hpc"))["global"]
    assert found["smtp_require_tls"] is True
    assert found["smtp_auth_password_file"] == "/etc/clusterbox-monitoring/secrets/mail-password"


def test_critical_alerts_also_go_to_the_topic(by_mail: Environment) -> None:
    receivers = {one["name"]: one for one in alertmanager_config(by_mail, PLACES)["receivers"]}
    assert "sns_configs" not in receivers["people"]
    assert receivers["urgent"]["sns_configs"][0]["topic_arn"] == TOPIC
    assert receivers["urgent"]["email_configs"] == receivers["people"]["email_configs"]


def test_grafana_knows_prometheus_and_the_dashboards_and_nobody_changes_them() -> None:
    found = grafana_config(PLACES)
    (source,) = found["datasources/prometheus.yaml"]["datasources"]
    assert source["url"] == "http://127.0.0.1:9090"
    (provider,) = found["dashboards/clusterbox.yaml"]["providers"]
    assert provider["allowUiUpdates"] is False


def test_the_command_writes_the_rules_and_takes_away_those_that_are_gone(
    root: Path, by_topic: Environment, tmp_path: Path
) -> None:
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "gone.yml").write_text("groups: []\n", encoding="utf-8")
    write_configuration(root, tmp_path, by_topic, PLACES)
    found = {path.name for path in (tmp_path / "rules").iterdir()}
    assert found == {path.name for path in (root / "monitoring" / "rules").glob("*.yml")}
    arguments = (tmp_path / "prometheus.arguments").read_text(encoding="utf-8")
    assert arguments == "RETENTION_TIME=90d\nRETENTION_SIZE=42949672960B\n"


def test_the_command_refuses_an_environment_without_the_section(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if Repository(root).load_environment("ws-dev").monitoring is not None:
        pytest.fail("ws-dev has the section now; take another environment here")
    command = ["observe", "config", "ws-dev", "--output", str(tmp_path), "--topic", TOPIC]
    assert main(["--root", str(root), *command]) == 2
    assert "has no section monitoring" in capsys.readouterr().err


class TestOnTheirOwnTools:
    """What the programs' own checks say."""

    pytestmark = needs_prometheus

    @pytest.mark.parametrize("kind", ["by_topic", "by_mail"])
    def test_both_programs_accept_their_configuration(
        self, kind: str, root: Path, tmp_path: Path, request: pytest.FixtureRequest
    ) -> None:
        environment: Environment = request.getfixturevalue(kind)
        places = Places(
            topic=TOPIC,
            home=str(tmp_path),
            mail_user="hpc",
            mail_password_file=f"{tmp_path}/password",
            remote_write="https://aps.example/api/v1/remote_write" if kind == "by_mail" else None,
        )
        write_configuration(root, tmp_path, environment, places)
        said = run_tool("promtool", "check", "config", str(tmp_path / "prometheus.yml"))
        rules = len(list((root / "monitoring" / "rules").glob("*.yml")))
        assert f"{rules} rule files found" in said
        run_tool("amtool", "check-config", str(tmp_path / "alertmanager.yml"))
