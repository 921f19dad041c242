from __future__ import annotations

import gzip
import json
import subprocess
import sys
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from clusterbox.costs.bulk_file import read_bulk_file
from clusterbox.costs.price import Key
from clusterbox.errors import InputError
from tests.conftest import ROOT
from tests.costs.price_rows import instance, offer_file, service

OFFERS = [
    instance("m5.large", "0.096"),
    instance("m5.large", "0.102", sku="DEDICATED", tenancy="Dedicated"),
    instance("m5.large", "0.107", sku="ELSEWHERE", region="eu-west-1"),
    service("AmazonEC2", "USW2-EBS:VolumeUsage.gp3", "GB-Mo", "0.08"),
]


def write(path: Path, data: Any) -> Path:
    path.write_text(json.dumps(data, indent=1), encoding="utf-8")
    return path


def test_the_prices_of_one_region_are_read(tmp_path: Path) -> None:
    table = read_bulk_file(write(tmp_path / "index.json", offer_file(OFFERS)), "us-west-2")
    assert {str(key): price.usd for key, price in table.prices.items()} == {
        "ec2/linux m5.large": Decimal("0.096"),
        "ebs gp3": Decimal("0.08"),
    }
    assert table.published == date(2026, 11, 1)
    assert table.prices[Key("ec2/linux", "m5.large")].source == "AWS price list, SKU SKUm5.large"


def test_a_gzipped_file_is_read_too(tmp_path: Path) -> None:
    path = tmp_path / "index.json.gz"
    path.write_bytes(gzip.compress(json.dumps(offer_file(OFFERS)).encode()))
    assert len(read_bulk_file(path, "us-west-2").prices) == 2


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.8, 0.99])
def test_a_truncated_download_is_an_error(share: float, tmp_path: Path) -> None:
    path = write(tmp_path / "index.json", offer_file(OFFERS))
    text = path.read_text(encoding="utf-8")
    path.write_text(text[: int(len(text) * share)], encoding="utf-8")
    with pytest.raises(InputError, match="download it again"):
        read_bulk_file(path, "us-west-2")


def test_a_truncated_gzip_file_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "index.json.gz"
    path.write_bytes(gzip.compress(json.dumps(offer_file(OFFERS)).encode())[:-100])
    with pytest.raises(InputError, match="cut off or damaged"):
        read_bulk_file(path, "us-west-2")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "ends too early"),
        ("[]", "is not an offer file"),
        ("{}", "has no publicationDate"),
        ("<html></html>", "is not an offer file"),
        ('{"publicationDate": "2026-11-01T00:00:00Z"}', "has no on-demand price of us-west-2"),
        ('{"publicationDate": "2026-11-01T00:00:00Z", "products": []}', "has no on-demand price"),
        ('{"publicationDate": "soon"}', "is not an offer file"),
        ('{"publicationDate": "2026-11-01T00:00:00Z", "products": {"A": 1}}', "not an offer file"),
    ],
)
def test_something_else_than_an_offer_file_is_refused(
    text: str, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "index.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=message):
        read_bulk_file(path, "us-west-2")


def test_a_region_that_the_file_lacks_is_an_error(tmp_path: Path) -> None:
    path = write(tmp_path / "index.json", offer_file(OFFERS))
    with pytest.raises(InputError, match="has no on-demand price of us-west-1"):
        read_bulk_file(path, "us-west-1")


def test_two_prices_of_one_type_are_an_error_that_names_both(tmp_path: Path) -> None:
    offers = [*OFFERS, instance("m5.large", "0.1", sku="OTHER")]
    path = write(tmp_path / "index.json", offer_file(offers))
    with pytest.raises(InputError, match=r"SKU SKUm5\.large\) and 0\.1 .*SKU OTHER"):
        read_bulk_file(path, "us-west-2")


# Its own peak: that of `resource` also holds the process from which it was started.
PROGRAM = """
import re, sys
from pathlib import Path
from clusterbox.costs.bulk_file import read_bulk_file
table = read_bulk_file(Path(sys.argv[1]), "us-west-2")
peak = re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]
print(len(table.prices), int(peak) // 1024)
"""


def test_a_large_file_is_read_with_little_memory(tmp_path: Path) -> None:
    """A file of over 100 MB, which would take about 500 MB to parse at once."""
    path = tmp_path / "index.json"
    filler = "x" * 1500
    skus = [f"SKU{index:06}" for index in range(30_000)]
    with path.open("w", encoding="utf-8") as file:
        file.write('{"publicationDate": "2026-11-01T00:00:00Z", "products": {')
        for index, sku in enumerate(skus):
            region = "us-west-2" if index % 10 == 0 else "eu-west-1"
            entry = instance(f"t{index}.large", "0.1", sku=sku, region=region, notes=filler)
            file.write(f'{"," if index else ""}"{sku}": {json.dumps(entry["product"])}')
        file.write('}, "terms": {')
        for kind in ("OnDemand", "Reserved"):
            file.write(f'{"," if kind == "Reserved" else ""}"{kind}": {{')
            for index, sku in enumerate(skus):
                terms = instance("any", "0.1", sku=sku)["terms"]["OnDemand"]
                terms[f"{sku}.TERM"]["notes"] = filler[:700]
                file.write(f'{"," if index else ""}"{sku}": {json.dumps(terms)}')
            file.write("}")
        file.write("}}")
    assert path.stat().st_size > 100_000_000
    printed = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(path)],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    assert int(printed[0]) == 3000
    assert int(printed[1]) < 100
