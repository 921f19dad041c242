"""Products as AWS's price list writes them, for the tests that read it."""

from __future__ import annotations

from typing import Any


def instance(
    kind: str, usd: str, *, sku: str = "", region: str = "us-west-2", **attributes: str
) -> dict[str, Any]:
    """Return an offer of an instance type, Linux with shared tenancy where nothing else is said."""
    details = {
        "servicecode": "AmazonEC2",
        "instanceType": kind,
        "operatingSystem": "Linux",
        "tenancy": "Shared",
        "capacitystatus": "Used",
        "preInstalledSw": "NA",
        "licenseModel": "No License required",
        "locationType": "AWS Region",
        "marketoption": "OnDemand",
        "regionCode": region,
        "usagetype": f"USW2-BoxUsage:{kind}",
        **attributes,
    }
    return offer("Compute Instance", details, [("Hrs", "0", usd)], sku or f"SKU{kind}")


def service(
    code: str, usage: str, unit: str, *tiers: str, region: str = "us-west-2", **attributes: str
) -> dict[str, Any]:
    """Return an offer of something else that is priced by its usage type."""
    details = {"servicecode": code, "usagetype": usage, "regionCode": region, **attributes}
    ranges = [(unit, str(index * 51200), usd) for index, usd in enumerate(tiers)]
    return offer("Storage", details, ranges, f"SKU{usage}")


def offer(
    family: str, attributes: dict[str, str], ranges: list[tuple[str, str, str]], sku: str
) -> dict[str, Any]:
    """Return one entry of the query API's price list, as data."""
    dimensions = {
        f"{sku}.TERM.{index}": {
            "unit": unit,
            "beginRange": begin,
            "endRange": "Inf",
            "pricePerUnit": {"USD": usd},
        }
        for index, (unit, begin, usd) in enumerate(ranges)
    }
    return {
        "product": {"productFamily": family, "sku": sku, "attributes": attributes},
        "terms": {"OnDemand": {f"{sku}.TERM": {"priceDimensions": dimensions}}},
        "publicationDate": "2026-11-01T10:11:12Z",
        "version": "20261101101112",
    }


def offer_file(offers: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the same as the data of a bulk offer file."""
    return {
        "formatVersion": "v1.0",
        "offerCode": "AmazonEC2",
        "publicationDate": "2026-11-01T10:11:12Z",
        "products": {entry["product"]["sku"]: entry["product"] for entry in offers},
        "terms": {
            "OnDemand": {entry["product"]["sku"]: entry["terms"]["OnDemand"] for entry in offers},
            "Reserved": {
                entry["product"]["sku"]: {
                    "R.1": {"priceDimensions": {"R.1.1": {"pricePerUnit": {"USD": "0.01"}}}}
                }
                for entry in offers
            },
        },
        "attributesList": {},
    }
