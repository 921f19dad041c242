"""The functions and the script of the images stack, each as it runs in AWS."""

from __future__ import annotations

import io
import json
import os
import subprocess
import threading
import urllib.error
from collections.abc import Iterator
from datetime import UTC, datetime
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs

import pytest

from stacks.image_functions import image_age, start_pipeline

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
IMAGES = {"compute": "ami-00000001", "admin": "ami-00000002"}


class Ec2:
    """Answers with the images it has, whatever their age."""

    def __init__(self, created: dict[str, str]) -> None:
        self.created = created

    def describe_images(self, **asked: Any) -> dict[str, Any]:
        (only,) = asked["Filters"]
        assert only["Name"] == "image-id"
        # A deprecated image still runs somewhere; without this it would not be listed.
        assert asked["IncludeDeprecated"] is True
        return {
            "Images": [
                {"ImageId": ami, "CreationDate": date}
                for ami, date in self.created.items()
                if ami in only["Values"]
            ]
        }


class CloudWatch:
    """Keeps what is put."""

    def __init__(self) -> None:
        self.put: list[dict[str, Any]] = []

    def put_metric_data(self, **asked: Any) -> None:
        self.put.append(asked)


def test_ages_are_days_since_an_image_was_made() -> None:
    ec2 = Ec2({"ami-00000001": "2026-10-18T12:00:00.000Z", "ami-00000002": "2026-11-22T00:00:00Z"})
    ages, missing = image_age.measure(IMAGES, ec2, NOW)
    assert ages == {"compute": 35.0, "admin": 0.5}
    assert missing == []


def test_an_image_that_is_gone_has_no_age_and_is_named() -> None:
    ages, missing = image_age.measure(IMAGES, Ec2({"ami-00000001": "2026-11-21T12:00:00Z"}), NOW)
    assert ages == {"compute": 1.0}
    assert missing == ["admin (ami-00000002)"]


def test_each_age_is_a_sample_of_its_own() -> None:
    cloudwatch = CloudWatch()
    image_age.publish({"compute": 35.0}, "ws-dev", "Clusterbox/Images", cloudwatch)
    image_age.publish({}, "ws-dev", "Clusterbox/Images", cloudwatch)
    assert cloudwatch.put == [
        {
            "Namespace": "Clusterbox/Images",
            "MetricData": [
                {
                    "MetricName": "AgeDays",
                    "Dimensions": [
                        {"Name": "Environment", "Value": "ws-dev"},
                        {"Name": "Image", "Value": "compute"},
                    ],
                    "Value": 35.0,
                }
            ],
        }
    ]


def test_what_is_known_is_published_before_what_is_missing_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cloudwatch = CloudWatch()
    clients = {"ec2": Ec2({"ami-00000001": "2026-01-01T00:00:00Z"}), "cloudwatch": cloudwatch}
    monkeypatch.setattr("boto3.client", clients.__getitem__)
    monkeypatch.setenv("CLUSTERBOX_IMAGES", json.dumps(IMAGES))
    monkeypatch.setenv("CLUSTERBOX_ENVIRONMENT", "ws-dev")
    monkeypatch.setenv("CLUSTERBOX_METRICS", "Clusterbox/Images")
    with pytest.raises(image_age.MissingImagesError, match=r"admin \(ami-00000002\)"):
        image_age.handle({}, None)
    (put,) = cloudwatch.put
    assert len(put["MetricData"]) == 1


GITHUB = {
    "CLUSTERBOX_ENVIRONMENT": "sandbox",
    "CLUSTERBOX_PLATFORM": "github",
    "CLUSTERBOX_HOST": "api.github.com",
    "CLUSTERBOX_PROJECT": "lcnext/clusterbox",
    "CLUSTERBOX_BRANCH": "main",
    "CLUSTERBOX_ACCOUNT": "123456789012",
    "CLUSTERBOX_GATE": "sandbox",
    "AWS_REGION": "us-west-2",
}
GITLAB = {
    "CLUSTERBOX_ENVIRONMENT": "ws-dev",
    "CLUSTERBOX_PLATFORM": "gitlab",
    "CLUSTERBOX_HOST": "gitlab.example.gov",
    "CLUSTERBOX_PROJECT": "lcnext/clusterbox",
    "CLUSTERBOX_BRANCH": "main",
}


def test_githubs_workflow_gets_what_it_asks_for(root: Path) -> None:
    call = start_pipeline.make_call(GITHUB, "s3cret")
    assert call.url == (
        "https://api.github.com/repos/lcnext/clusterbox/actions/workflows/patch-day.yml/dispatches"
    )
    assert call.headers["Authorization"] == "Bearer s3cret"
    body = json.loads(call.body)
    assert body["ref"] == "main"
    from tests.test_pipelines import read

    workflow = read(root / ".github" / "workflows" / start_pipeline.WORKFLOW)
    assert set(body["inputs"]) == set(workflow["on"]["workflow_dispatch"]["inputs"])
    assert body["inputs"]["environment"] == "sandbox"


def test_gitlabs_pipeline_gets_the_environment_and_the_token_in_no_address() -> None:
    call = start_pipeline.make_call(GITLAB, "s3cret")
    assert call.url == (
        "https://gitlab.example.gov/api/v4/projects/lcnext%2Fclusterbox/trigger/pipeline"
    )
    assert parse_qs(call.body.decode()) == {
        "token": ["s3cret"],
        "ref": ["main"],
        "variables[CLUSTERBOX_PATCH_DAY_ENVIRONMENT]": ["ws-dev"],
    }


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            urllib.error.HTTPError("https://x", 401, "s3cret", Message(), io.BytesIO(b"s3cret")),
            "HTTP 401: the token is not valid or has expired",
        ),
        (
            urllib.error.HTTPError("https://x", 500, "", Message(), io.BytesIO(b"")),
            "HTTP 500: look at the platform's state",
        ),
        (urllib.error.URLError("no route to s3cret"), "cannot be reached: URLError"),
        (TimeoutError(), "cannot be reached: TimeoutError"),
    ],
)
def test_a_refusal_is_told_without_the_token(error: Exception, said: str) -> None:
    def refuse(*_arguments: object, **_options: object) -> None:
        raise error

    with pytest.raises(start_pipeline.NotStartedError, match=said) as raised:
        start_pipeline.send(start_pipeline.make_call(GITLAB, "s3cret"), refuse)
    assert "s3cret" not in str(raised.value)
    assert raised.value.__cause__ is None


class _Platform(BaseHTTPRequestHandler):
    """Answers each POST with the status that its path names."""

    asked: ClassVar[list[tuple[str, bytes]]] = []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.asked.append((self.path, body))
        self.send_response(int(self.path.strip("/")))
        self.send_header("Location", "/204")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_GET(self) -> None:
        self.asked.append((self.path, b""))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_arguments: object) -> None:
        """Say nothing."""


@pytest.fixture
def platform() -> Iterator[str]:
    _Platform.asked.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), _Platform) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_a_pipeline_that_is_started_is_asked_for_once(platform: str) -> None:
    start_pipeline.send(start_pipeline.Call(f"{platform}/204", {}, b"token=s3cret"))
    assert _Platform.asked == [("/204", b"token=s3cret")]


@pytest.mark.parametrize("status", [302, 307])
def test_a_redirect_is_not_followed_with_the_token(platform: str, status: int) -> None:
    with pytest.raises(start_pipeline.NotStartedError, match=f"HTTP {status}"):
        start_pipeline.send(start_pipeline.Call(f"{platform}/{status}", {}, b"token=s3cret"))
    assert [path for path, _ in _Platform.asked] == [f"/{status}"]


_AWS = """\
#!/bin/bash
# Stands in for the AWS CLI: a bucket is a folder, and a mail is a file.
set -euo pipefail
printf '%s\\n' "$*" >>"$STORE/calls"
case "$1 $2" in
  "s3api list-objects-v2") [[ -e "$STORE/$4/$6" ]] && echo 1 || echo 0 ;;
  "s3 cp")
    shift 3
    from=${1#s3://} to=${2#s3://}
    if [[ $2 == - ]]; then cat "$STORE/$from"
    else mkdir -p "$(dirname "$STORE/$to")" && cp "$1" "$STORE/$to"; fi ;;
  "sns publish") cat "${6#file://}" >>"$STORE/mail" ;;
  *) exit 9 ;;
esac
"""
_MAKE = """\
#!/bin/bash
[[ "$*" == "patch-day-run ENV=ws-dev TARGET=aws YES=1" ]] || exit 9
cat ami/images.lock.yaml >>"$STORE/seen"
if [[ -n "${NEW_LOCK:-}" ]]; then printf '%s\\n' "$NEW_LOCK" >ami/images.lock.yaml; fi
exit "${MAKE_STATUS:-0}"
"""


class Build:
    """A build of CodeBuild: an archive that is new each time, and a bucket that is not."""

    def __init__(self, root: Path, folder: Path) -> None:
        self.script = root / "stacks" / "image_functions" / "patch_day.sh"
        self.folder, self.number = folder, 0
        self.store = folder / "store"
        self.store.mkdir()
        self.tools = folder / "bin"
        self.tools.mkdir()
        for name, text in (("aws", _AWS), ("make", _MAKE)):
            (self.tools / name).write_text(text)
            (self.tools / name).chmod(0o755)

    def run(self, lock: str, new_lock: str = "", status: int = 0) -> int:
        """Run the script in an archive with a lock; return how it ends."""
        self.number += 1
        archive = self.folder / f"archive{self.number}"
        (archive / "ami").mkdir(parents=True)
        (archive / "ami" / "images.lock.yaml").write_text(f"{lock}\n")
        done = subprocess.run(
            ["bash", str(self.script)],
            cwd=archive,
            env={
                "PATH": f"{self.tools}{os.pathsep}{os.environ['PATH']}",
                "STORE": str(self.store),
                "NEW_LOCK": new_lock,
                "MAKE_STATUS": str(status),
                "CLUSTERBOX_ENVIRONMENT": "ws-dev",
                "CLUSTERBOX_RECORDS": "s3://logs/patch-day/ws-dev",
                "CLUSTERBOX_ALARMS": "arn:alarms",
                "CLUSTERBOX_WORK": str(self.folder / f"work{self.number}"),
                "CLUSTERBOX_POLL_SECONDS": "0.05",
            },
            check=False,
            capture_output=True,
            text=True,
        )
        return done.returncode

    @property
    def seen(self) -> list[str]:
        """The locks with which the command started."""
        return (self.store / "seen").read_text().splitlines()

    @property
    def kept(self) -> str:
        return (self.store / "logs/patch-day/ws-dev/lock/images.lock.yaml").read_text().strip()

    @property
    def mails(self) -> str:
        mail = self.store / "mail"
        return mail.read_text() if mail.exists() else ""


@pytest.fixture
def build(root: Path, tmp_path: Path) -> Build:
    return Build(root, tmp_path)


def test_a_changed_lock_is_kept_and_somebody_is_asked_to_commit_it(build: Build) -> None:
    assert build.run("old", new_lock="new") == 0
    assert build.kept == "new"
    assert "aws s3 cp s3://logs/patch-day/ws-dev/lock/images.lock.yaml" in build.mails


def test_an_unchanged_lock_is_neither_kept_nor_told(build: Build) -> None:
    assert build.run("old") == 0
    assert not (build.store / "logs").exists()
    assert build.mails == ""


def test_a_patch_day_that_fails_fails_the_build_and_keeps_what_it_changed(build: Build) -> None:
    assert build.run("old", new_lock="half", status=1) == 1
    assert build.kept == "half"
    assert "Commit it" in build.mails


def test_the_next_build_goes_on_with_the_lock_that_nobody_has_committed_yet(build: Build) -> None:
    build.run("old", new_lock="half", status=1)
    assert build.run("old", new_lock="whole") == 0
    assert build.seen == ["old", "half"]
    assert build.kept == "whole"


def test_a_lock_that_was_committed_since_is_the_one_that_counts(build: Build) -> None:
    build.run("old", new_lock="new")
    assert build.run("new and more") == 0
    assert build.seen == ["old", "new and more"]


def test_a_bucket_that_refuses_stops_it_before_anything_happens(build: Build) -> None:
    (build.tools / "aws").write_text("#!/bin/bash\nexit 254\n")
    assert build.run("old", new_lock="new") != 0
    assert not (build.store / "seen").exists()


def test_a_lock_that_cannot_be_kept_fails_the_build(build: Build) -> None:
    refusing = _AWS.replace('"s3 cp")', '"s3 cp") exit 1 ;;\n  "s3 other")')
    (build.tools / "aws").write_text(refusing)
    assert build.run("old", new_lock="new") == 1
