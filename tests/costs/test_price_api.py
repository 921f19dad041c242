"""`clusterbox costs prices refresh` against a server on loopback that speaks the query API."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from clusterbox.cli.main import main
from tests.costs.price_rows import instance, service

PAGE = 2


class PriceListServer(ThreadingHTTPServer):
    """Answers GetProducts, filtered and two products a page, as AWS does."""

    def __init__(self, offers: list[dict[str, Any]]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.offers = offers
        self.requests: list[dict[str, Any]] = []
        # From this request on the answer is a refusal.
        self.refuse_from: int | None = None
        # A key that is missing from every product of the answers.
        self.cut: str | None = None
        self.refusal = "AccessDeniedException"


class _Handler(BaseHTTPRequestHandler):
    server: PriceListServer

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        query = json.loads(self.rfile.read(length))
        self.server.requests.append(query)
        refuse_from = self.server.refuse_from
        if refuse_from is not None and len(self.server.requests) >= refuse_from:
            self._answer(400, {"__type": self.server.refusal, "message": "not for you"})
            return
        wanted = {entry["Field"]: entry["Value"] for entry in query["Filters"]}
        found = [
            offer
            for offer in self.server.offers
            if offer["product"]["attributes"]["servicecode"] == query["ServiceCode"]
            and all(self._field(offer, name) == value for name, value in wanted.items())
        ]
        start = int(query.get("NextToken", 0))
        answer: dict[str, Any] = {
            "FormatVersion": "aws_v1",
            "PriceList": [
                json.dumps({name: offer[name] for name in offer if name != self.server.cut})
                for offer in found[start : start + PAGE]
            ],
        }
        if start + PAGE < len(found):
            answer["NextToken"] = str(start + PAGE)
        self._answer(200, answer)

    def _field(self, offer: dict[str, Any], name: str) -> object:
        product = offer["product"]
        if name == "productFamily":
            return product["productFamily"]
        return product["attributes"].get(name)

    def _answer(self, status: int, data: dict[str, Any]) -> None:
        body = json.dumps(data).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/x-amz-json-1.1")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing on standard error."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[PriceListServer]:
    offers = [
        *(instance(f"m5.{size}xlarge", f"0.{size}") for size in (1, 2, 4, 8)),
        instance("m5.large", "0.107", region="eu-west-1"),
        service("AmazonEC2", "USW2-EBS:VolumeUsage.gp3", "GB-Mo", "0.09"),
        service("AmazonEFS", "USW2-TimedStorage-ByteHrs", "GB-Mo", "0.31"),
        service("AmazonFSx", "USW2-Storage", "GB-Mo", "0.15", fileSystemType="Lustre"),
    ]
    running = PriceListServer(offers)
    threading.Thread(target=running.serve_forever, args=[0.01], daemon=True).start()
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ENDPOINT_URL_PRICING", f"http://127.0.0.1:{running.server_port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    yield running
    running.shutdown()
    running.server_close()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    (tmp_path / "environments").mkdir()
    (tmp_path / "cdk.json").write_text("{}", encoding="utf-8")
    return tmp_path


def refresh(root: Path, *words: str) -> int:
    region = ["--region", "us-west-2"]
    return main(["--root", str(root), "costs", "prices", "refresh", *region, *words])


def show(root: Path, *names: str) -> int:
    return main(["--root", str(root), "costs", "prices", "show", "--region", "us-west-2", *names])


def test_all_pages_are_fetched_and_used_from_then_on(
    server: PriceListServer, repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert refresh(repository) == 0
    assert any("NextToken" in query for query in server.requests)
    lines = (repository / "prices" / "us-west-2.csv").read_text(encoding="utf-8").splitlines()
    assert lines[2] == "# published: 2026-11-01"
    assert 'ec2/linux,m5.8xlarge,hour,0.8,published,"AWS price list, SKU SKUm5.8xlarge"' in lines
    assert not any("0.107" in line for line in lines)
    capsys.readouterr()
    assert show(repository, "m5.2xlarge", "gp3", "t3.micro", "nat.hour", "SCRATCH.SSD") == 0
    shown = capsys.readouterr().out
    assert "0.2" in shown
    assert "0.09" in shown
    assert "0.15" in shown  # FSx for Lustre, in place of the shipped 0.14
    assert "0.14" not in shown
    assert "no price of ec2/linux t3.micro" in shown  # the shipped one must not fill it
    assert "32.85" in shown  # of the shipped table, because the list had none


@pytest.mark.parametrize("refusal", ["AccessDeniedException", "ExpiredTokenException"])
def test_a_refusal_in_the_middle_keeps_the_old_snapshot(
    server: PriceListServer,
    repository: Path,
    refusal: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert refresh(repository) == 0
    path = repository / "prices" / "us-west-2.csv"
    before = path.read_bytes()
    server.refuse_from, server.refusal = len(server.requests) + 3, refusal
    server.offers[0] = instance("m5.1xlarge", "99")
    assert refresh(repository) == 1
    assert refusal in capsys.readouterr().err
    assert path.read_bytes() == before
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_without_credentials_the_command_says_so(
    server: PriceListServer,
    repository: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert refresh(repository) == 1
    assert "Unable to locate credentials" in capsys.readouterr().err
    assert not (repository / "prices").exists()


def test_a_region_without_instances_is_refused(
    server: PriceListServer, repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.offers = []
    assert refresh(repository) == 1
    assert "no instance prices of us-west-2" in capsys.readouterr().err


@pytest.mark.parametrize("damage", ["product", "publicationDate"])
def test_an_answer_without_products_is_refused(
    damage: str, server: PriceListServer, repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.cut = damage
    assert refresh(repository) == 1
    assert "something else than a product" in capsys.readouterr().err


def test_two_prices_of_one_type_are_refused(
    server: PriceListServer, repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.offers.append(instance("m5.1xlarge", "0.11", sku="OTHER"))
    assert refresh(repository) == 2
    assert "has two prices" in capsys.readouterr().err


def test_a_bulk_file_is_read_instead_where_it_is_given(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from tests.costs.price_rows import offer_file

    file = repository / "index.json"
    file.write_text(json.dumps(offer_file([instance("m5.large", "0.2")])), encoding="utf-8")
    assert refresh(repository, "--source", "bulk", "--file", str(file)) == 0
    assert "1 prices of 2026-11-01" in capsys.readouterr().err


def test_files_of_several_services_make_one_list(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from tests.costs.price_rows import offer_file

    offers = {
        "ec2": instance("m5.large", "0.2"),
        "fsx": service("AmazonFSx", "USW2-Storage", "GB-Mo", "0.15", fileSystemType="Lustre"),
    }
    files = []
    for name, entry in offers.items():
        data = offer_file([entry])
        if name == "fsx":
            data["publicationDate"] = "2026-03-01T00:00:00Z"
        file = repository / f"{name}.json"
        file.write_text(json.dumps(data), encoding="utf-8")
        files.append(str(file))
    assert refresh(repository, "--source", "bulk", "--file", *files) == 0
    # The date of the instance prices: those of FSx are of March because they did not change since.
    assert "2 prices of 2026-11-01" in capsys.readouterr().err
    assert show(repository, "m5.large", "SCRATCH.SSD") == 0
    shown = capsys.readouterr().out
    assert "0.2" in shown
    assert "0.15" in shown


def test_a_truncated_download_keeps_the_old_snapshot(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from tests.costs.price_rows import offer_file

    texts = [
        json.dumps(offer_file([instance("m5.large", usd, sku=f"SKU{usd}")])) for usd in ("0.2", "9")
    ]
    file = repository / "index.json"
    file.write_text(texts[0], encoding="utf-8")
    assert refresh(repository, "--source", "bulk", "--file", str(file)) == 0
    path = repository / "prices" / "us-west-2.csv"
    before = path.read_bytes()
    file.write_text(texts[1][:-40], encoding="utf-8")
    assert refresh(repository, "--source", "bulk", "--file", str(file)) == 2
    assert "download it again" in capsys.readouterr().err
    assert path.read_bytes() == before
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_files_that_disagree_about_a_price_are_refused(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from tests.costs.price_rows import offer_file

    files = []
    for usd in ("0.2", "0.3"):
        file = repository / f"{usd}.json"
        data = offer_file([instance("m5.large", usd, sku=f"SKU{usd}")])
        file.write_text(json.dumps(data), encoding="utf-8")
        files.append(str(file))
    assert refresh(repository, "--source", "bulk", "--file", *files) == 2
    assert "has two prices" in capsys.readouterr().err
    assert not (repository / "prices").exists()


@pytest.mark.parametrize("words", [["--source", "bulk"], ["--file", "index.json"]])
def test_a_file_and_its_source_go_together(
    words: list[str], repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert refresh(repository, *words) == 2
    assert "go together" in capsys.readouterr().err
