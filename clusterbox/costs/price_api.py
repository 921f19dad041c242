"""Fetch the prices of a region from AWS's Price List query API."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import date
from typing import Any

from clusterbox.costs.price import PriceTable
from clusterbox.costs.price_list import INSTANCE_FAMILIES, MALFORMED, SERVICES, classify, read_terms
from clusterbox.costs.snapshot import Row, make_table
from clusterbox.errors import ClusterboxError

# The query API is served in few regions; the prices are of every region.
API_REGION = "us-east-1"


def fetch_prices(
    region: str, client: Any, report: Callable[[str], None] = lambda _text: None
) -> PriceTable:
    """Return the prices of a region that AWS lists now; `client` is boto3's for `pricing`.

    Everything is fetched before anything is returned, so that a failure leaves no half list. Raises
    ClusterboxError when an answer cannot be read or holds no instance price, and botocore's errors
    when AWS cannot be asked.
    """
    rows: list[Row] = []
    published = date.min
    for service, families in SERVICES.items():
        for family in families:
            count = 0
            for text in _offers(client, service, family, region):
                count += 1
                try:
                    offer = json.loads(text)
                    rows += _read_offer(offer, service)
                    published = max(published, date.fromisoformat(offer["publicationDate"][:10]))
                except MALFORMED as error:
                    raise ClusterboxError(
                        f"AWS's price list answered for {service} with something else than a "
                        f"product: {type(error).__name__}: {error}"
                    ) from error
            report(f"{service} {family or ''}".strip() + f": {count} products")
    if not any(row.key.product == "ec2/linux" for row in rows):
        raise ClusterboxError(
            f"AWS's price list has no instance prices of {region}; is the region's name right?"
        )
    return make_table(region, published, "AWS price list, query API", rows)


def _read_offer(offer: dict[str, Any], service: str) -> list[Row]:
    product = offer["product"]
    attributes = {"servicecode": service, **product.get("attributes", {})}
    key = classify({**product, "attributes": attributes})
    if key is None:
        return []
    terms = offer.get("terms", {}).get("OnDemand", {})
    return list(read_terms(key, terms, f"AWS price list, SKU {product['sku']}"))


def _offers(client: Any, service: str, family: str | None, region: str) -> Iterator[str]:
    # Data transfer is listed under where it starts.
    place = "fromRegionCode" if service == "AWSDataTransfer" else "regionCode"
    wanted = {place: region}
    if family is not None:
        wanted["productFamily"] = family
    if family in INSTANCE_FAMILIES:
        wanted |= {"tenancy": "Shared", "capacitystatus": "Used", "preInstalledSw": "NA"}
    filters = [
        {"Type": "TERM_MATCH", "Field": field, "Value": value} for field, value in wanted.items()
    ]
    pages = client.get_paginator("get_products").paginate(
        ServiceCode=service, Filters=filters, FormatVersion="aws_v1"
    )
    for page in pages:
        yield from page["PriceList"]
