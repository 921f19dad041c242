"""From a machine that dies to the mail: real rules, a real Prometheus and a real Alertmanager."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

from clusterbox.observe.config import Places, prometheus_config
from clusterbox.site.environment import Environment
from tests.conftest import ROOT
from tests.monitoring.conftest import TOPIC
from tests.monitoring.servers import free_port, needs_prometheus, prometheus, wait_for
from tests.monitoring.test_mails import told

pytestmark = needs_prometheus
NODES = 40


@contextmanager
def node_exporter() -> Iterator[str]:
    """Answer scrapes with nothing to tell."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True).start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def write_quick_rules(folder: Path) -> None:
    """Write the rules of the site, whose alerts fire at once."""
    (folder / "rules").mkdir()
    for path in (ROOT / "monitoring/rules").glob("*.yml"):
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
        for group in found["groups"]:
            for rule in group["rules"]:
                # Compute nodes a little later, as with the times that the rules really have.
                if "for" in rule:
                    rule["for"] = "3s" if rule["alert"] == "NodeDown" else "0s"
        (folder / "rules" / path.name).write_text(yaml.safe_dump(found), encoding="utf-8")


def test_a_dead_head_node_and_its_forty_nodes_send_one_mail(
    tmp_path: Path, by_mail: Environment
) -> None:
    write_quick_rules(tmp_path)
    with ExitStack() as stack:
        server, sink = stack.enter_context(told(tmp_path, by_mail))
        alive = stack.enter_context(node_exporter())
        dead = f"127.0.0.1:{free_port()}"
        config = prometheus_config(by_mail, Places(topic=TOPIC, home=str(tmp_path)))
        labels = {"cluster": "ws-eco", "node_type": "Compute"}
        # One target for each node: a label of its own makes it another one.
        groups = [
            {"targets": [dead], "labels": {**labels, "node": f"eco-dy-a-{number}"}}
            for number in range(NODES)
        ]
        groups.append({"targets": [dead], "labels": {**labels, "node_type": "HeadNode"}})
        groups.append({"targets": [alive], "labels": {**labels, "cluster": "ws-well"}})
        config["global"] |= {"scrape_interval": "1s", "evaluation_interval": "1s"}
        config["scrape_configs"] = [{"job_name": "node", "static_configs": groups}]
        config["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"] = [
            server.url.removeprefix("http://")
        ]
        watching = stack.enter_context(prometheus(tmp_path, config))

        def firing() -> dict[str, int]:
            found: dict[str, int] = {}
            for alert in watching.get("/api/v1/alerts")["data"]["alerts"]:
                if alert["state"] == "firing" and alert["labels"].get("cluster"):
                    name = alert["labels"]["alertname"]
                    found[name] = found.get(name, 0) + 1
            return found

        wait_for("alerts", lambda: firing() == {"HeadNodeDown": 1, "NodeDown": NODES})
        wait_for("mail", lambda: any("HeadNodeDown" in subject for subject in sink.subjects))
        time.sleep(5)
        of_cluster = [subject for subject in sink.subjects if "ws-eco" in subject]
        assert of_cluster == ["[ws-dev] firing: ws-eco HeadNodeDown (1)"]
        assert not [subject for subject in sink.subjects if "ws-well" in subject]
