"""The section `monitoring` of an environment file."""

from __future__ import annotations

from pathlib import Path

import pytest

from clusterbox.errors import ProblemsError
from clusterbox.site.addresses import plan_addresses
from tests.site.site_files import EXISTING, load

SECTION = "monitoring:\n  image: admin\n  subnet: compute.a\n  notify: [ada@example.gov]\n"


def test_a_section_has_defaults_and_takes_an_address(tmp_path: Path) -> None:
    before = [budget.needed for budget in plan_addresses(load(tmp_path), {})]
    environment = load(tmp_path, EXISTING + SECTION)
    monitoring = environment.monitoring
    assert monitoring is not None
    assert (monitoring.instance_type, monitoring.retention_days) == ("t3a.medium", 90)
    assert monitoring.retention_bytes == 40 * 2**30
    needed = [budget.needed for budget in plan_addresses(environment, {})]
    assert sum(needed) == sum(before) + 1


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("image: admin", "image: login", "monitoring.image: must be one of images: compute, admin"),
        ("compute.a", "compute.z", "monitoring.subnet: must be one of the network's subnets"),
        ("[ada@example.gov]", "[]", "monitoring.notify: "),
        (
            "image: admin",
            "image: admin\n  mail: {server: smtp.example.gov, sender: a@example.gov}",
            "monitoring.mail.server: must be host and port of a mail server",
        ),
        (
            "image: admin",
            "image: admin\n  mail: {server: 'smtp.example.gov:99999', sender: a@example.gov}",
            "monitoring.mail.server: must have a port up to 65535",
        ),
    ],
)
def test_what_is_wrong_is_told_where_it_stands(
    tmp_path: Path, old: str, new: str, problem: str
) -> None:
    with pytest.raises(ProblemsError) as raised:
        load(tmp_path, EXISTING + SECTION.replace(old, new))
    assert problem in str(raised.value)
