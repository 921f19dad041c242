"""Prometheus finds nodes of clusters by EC2's list, with credentials that rotate."""

from __future__ import annotations

import json
import re
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from clusterbox.embedded.account import EmbeddedAccount
from clusterbox.observe.config import Places, prometheus_config
from clusterbox.site.environment import Environment
from tests.monitoring.conftest import TOPIC
from tests.monitoring.servers import Server, needs_prometheus, prometheus, wait_for

pytestmark = needs_prometheus

# Prometheus asks for new credentials so long before the old ones end (aws-sdk-go's default chain).
EARLY = timedelta(minutes=5)


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedAccount]:
    state = tmp_path_factory.mktemp("discovery")
    yield EmbeddedAccount.start(state, account="427491229895", region="us-west-2")
    EmbeddedAccount.stop(state)


@dataclass
class Role:
    """The role of the machine: its keys of now, those that EC2 still takes, and who asked."""

    key: str = "AKIAFIRST0000000"
    lasts: timedelta = timedelta(hours=6)
    valid: set[str] = field(default_factory=lambda: {"AKIAFIRST0000000"})
    given: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    accepted: list[str] = field(default_factory=list)


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


class Quiet(BaseHTTPRequestHandler):
    def answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


def metadata_service(role: Role) -> type[Quiet]:
    """Return IMDSv2, which gives the keys of a role to who has a token."""

    class Handler(Quiet):
        def do_PUT(self) -> None:
            self.answer(200, b"token", X_Aws_Ec2_Metadata_Token_Ttl_Seconds="21600")

        def do_GET(self) -> None:
            credentials = "/latest/meta-data/iam/security-credentials/"
            if self.headers.get("X-aws-ec2-metadata-token") != "token":
                self.answer(401, b"")
            elif self.path == credentials:
                self.answer(200, b"ws-dev-monitoring")
            elif self.path == f"{credentials}ws-dev-monitoring":
                role.given.append(role.key)
                self.answer(200, json.dumps(self.keys()).encode())
            else:
                self.answer(404, b"")

        def keys(self) -> dict[str, str]:
            now = datetime.now(UTC)
            return {
                "Code": "Success",
                "Type": "AWS-HMAC",
                "AccessKeyId": role.key,
                "SecretAccessKey": "secret",
                "Token": "session",
                "LastUpdated": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
                "Expiration": (now + role.lasts).strftime("%Y-%m-%dT%H:%M:%SZ"),
            }

    return Handler


def strict_ec2(role: Role, account: EmbeddedAccount) -> type[Quiet]:
    """Return the account's EC2 behind a door that refuses keys which have expired."""

    class Handler(Quiet):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            found = re.search(r"Credential=([^/]+)/", self.headers.get("Authorization", ""))
            key = found[1] if found else ""
            if key not in role.valid:
                role.refused.append(key)
                self.answer(
                    400,
                    b"<Response><Errors><Error><Code>RequestExpired</Code><Message>Request has "
                    b"expired.</Message></Error></Errors></Response>",
                )
                return
            role.accepted.append(key)
            headers = {
                "Content-Type": self.headers["Content-Type"],
                "Authorization": self.headers["Authorization"].replace(key, account.account),
            }
            request = urllib.request.Request(account.endpoint_url, body, headers)  # noqa: S310
            try:
                with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
                    self.answer(answer.status, answer.read(), Content_Type="text/xml")
            except urllib.error.HTTPError as error:
                self.answer(error.code, error.read(), Content_Type="text/xml")

    return Handler


@contextmanager
def discovering(
    folder: Path, environment: Environment, account: EmbeddedAccount, role: Role
) -> Iterator[Server]:
    """Run Prometheus as the site has it, but that EC2 is the account's and asked every second."""
    with serving(metadata_service(role)) as metadata, serving(strict_ec2(role, account)) as ec2:
        places = Places(topic=TOPIC, home=str(folder), ec2_endpoint=ec2)
        config = prometheus_config(environment, places)
        for job in config["scrape_configs"]:
            for discovery in job.get("ec2_sd_configs", ()):
                discovery["refresh_interval"] = "1s"
        with prometheus(folder, config, AWS_EC2_METADATA_SERVICE_ENDPOINT=metadata) as server:
            yield server


def launch(account: EmbeddedAccount, node_type: str, **tags: str) -> str:
    """Start a machine with the tags that ParallelCluster and the site's stack give it."""
    named = {
        "Environment": "ws-dev",
        "parallelcluster:cluster-name": "ws-eco",
        "parallelcluster:node-type": node_type,
        **{f"parallelcluster:{name.replace('_', '-')}": value for name, value in tags.items()},
    }
    if "environment" in tags:
        named["Environment"] = tags["environment"]
    answer = account.client("ec2").run_instances(
        ImageId="ami-0123456789abcdef0",
        InstanceType="t3a.medium",
        MinCount=1,
        MaxCount=1,
        TagSpecifications=[
            {
                "ResourceType": "instance",
                "Tags": [{"Key": key, "Value": value} for key, value in named.items()],
            }
        ],
    )
    return str(answer["Instances"][0]["InstanceId"])


def end(account: EmbeddedAccount, *instances: str) -> None:
    account.client("ec2").terminate_instances(InstanceIds=list(instances))


def targets(server: Server, job: str) -> dict[str, dict[str, str]]:
    """Return the labels of a job's targets by the machine's id."""
    found = server.get("/api/v1/targets?state=active")["data"]["activeTargets"]
    return {
        one["labels"].get("instance_id", one["labels"]["instance"]): one["labels"]
        for one in found
        if one["labels"]["job"] == job
    }


def failures(server: Server) -> int:
    """Return how often discovery failed, by the counter that the rule DiscoveryFails looks at."""
    with urllib.request.urlopen(f"{server.url}/metrics", timeout=10) as answer:  # noqa: S310
        text = answer.read().decode()
    counter = r'^prometheus_sd_refresh_failures_total\{mechanism="ec2"\} (\d+)'
    return sum(int(number) for number in re.findall(counter, text, re.MULTILINE))


def test_nodes_come_and_go_by_themselves_with_their_labels(
    tmp_path: Path, by_topic: Environment, account: EmbeddedAccount
) -> None:
    head = launch(account, "HeadNode")
    with discovering(tmp_path, by_topic, account, Role()) as server:
        wait_for("head node", lambda: head in targets(server, "node"))
        assert len(targets(server, "slurm")) == 1
        node = launch(account, "Compute", queue_name="eco", compute_resource_name="t3a")
        stranger = launch(account, "Compute", queue_name="eco", environment="another-site")
        labels = wait_for("node", lambda: targets(server, "node").get(node))
        private = account.client("ec2").describe_instances(InstanceIds=[node])
        machine = private["Reservations"][0]["Instances"][0]
        assert labels == {
            "job": "node",
            "cluster": "ws-eco",
            "node_type": "Compute",
            "queue": "eco",
            "compute_resource": "t3a",
            "instance_type": "t3a.medium",
            "instance_id": node,
            "instance": f"{machine['PrivateIpAddress']}:9100",
            "node": machine["PrivateDnsName"].partition(".")[0],
        }
        assert set(targets(server, "slurm")) == {
            labels["instance"].replace("9100", "9341")
            for found, labels in targets(server, "node").items()
            if found == head
        }
        assert stranger not in targets(server, "node")
        end(account, node)
        wait_for("node to be gone", lambda: node not in targets(server, "node"))
        assert head in targets(server, "node")
    end(account, head, stranger)


def test_discovery_goes_on_when_the_roles_credentials_rotate(
    tmp_path: Path, by_topic: Environment, account: EmbeddedAccount
) -> None:
    first = launch(account, "Compute", queue_name="eco")
    # The first keys are due for renewal seconds from now, as those of a role after 6 hours.
    role = Role(lasts=EARLY + timedelta(seconds=4))
    with discovering(tmp_path, by_topic, account, role) as server:
        wait_for("first node", lambda: first in targets(server, "node"))
        assert set(role.accepted) == {"AKIAFIRST0000000"}
        role.key, role.lasts = "AKIASECOND000000", timedelta(hours=6)
        role.valid.add(role.key)
        wait_for("renewed keys in use", lambda: "AKIASECOND000000" in role.accepted)
        # From here on EC2 refuses the old ones: who still had them would go blind.
        role.valid.remove("AKIAFIRST0000000")
        second = launch(account, "Compute", queue_name="eco")
        end(account, first)
        wait_for("second node", lambda: second in targets(server, "node"))
        wait_for("first node to be gone", lambda: first not in targets(server, "node"))
    assert set(role.given) == {"AKIAFIRST0000000", "AKIASECOND000000"}
    end(account, second)


def test_while_ec2_refuses_known_nodes_are_still_asked_and_it_is_counted(
    tmp_path: Path, by_topic: Environment, account: EmbeddedAccount
) -> None:
    node = launch(account, "Compute", queue_name="eco")
    role = Role()
    with discovering(tmp_path, by_topic, account, role) as server:
        wait_for("node", lambda: node in targets(server, "node"))
        role.valid.clear()
        wait_for("refusals", lambda: len(role.refused) > 3)
        assert node in targets(server, "node")
        wait_for("failure that is counted", lambda: failures(server) > 0)
        role.valid.add(role.key)
        later = launch(account, "Compute", queue_name="eco")
        wait_for("later node", lambda: later in targets(server, "node"))
    end(account, node, later)
