"""The section `accounting_database` of an environment file."""

from __future__ import annotations

from pathlib import Path

import pytest

from clusterbox.site.addresses import plan_addresses
from clusterbox.site.references import ACCOUNTING, known_values, reference_names
from tests.site.site_files import EXISTING, edit, load, problems_of

SECRET = "arn:aws:secretsmanager:us-west-2:123456789012:secret:slurm-AbCdEf"
SERVER = (
    "accounting_database:\n"
    "  host: slurm.cluster-abc.us-west-2.rds.amazonaws.com\n"
    f"  secret: {SECRET}\n"
    "  security_group: sg-00000001\n"
)
ONE_ZONE = edit(
    edit(EXISTING, "      b: {id: subnet-0000000b, cidr: 10.0.1.0/24}\n", ""),
    "subnets: [compute.a, compute.b]\n",
    "subnets: [compute.a]\n",
)


def test_a_server_is_made_in_the_subnets_that_are_named(tmp_path: Path) -> None:
    text = f"{EXISTING}accounting_database:\n  subnets: [compute.a, compute.b]\n"
    database = load(tmp_path, text).accounting_database
    assert database is not None
    assert database.is_made_here
    assert (database.port, database.user, database.backup_days) == (3306, "slurm", 35)
    assert (float(database.min_acu), database.max_acu) == (0.5, 2)


@pytest.mark.parametrize(
    ("section", "problems"),
    [
        pytest.param(
            "accounting_database: {}\n",
            [
                "42: accounting_database.subnets: must name subnets of two zones, or give host and "
                "secret of a server that exists",
            ],
            id="nothing",
        ),
        pytest.param(
            "accounting_database:\n  subnets: [compute.a]\n",
            [
                "43: accounting_database.subnets: must be of two or more zones: RDS makes no "
                "database in fewer (found: ['compute.a'])",
            ],
            id="one zone",
        ),
        pytest.param(
            "accounting_database:\n  subnets: [compute.a, compute.z]\n",
            [
                "43: accounting_database.subnets[1]: must be one of the network's subnets: "
                "compute.a, compute.b (found: 'compute.z')",
            ],
            id="a subnet that is not there",
        ),
        pytest.param(
            "accounting_database: {host: db.example, subnets: [compute.a, compute.b]}\n",
            [
                "42: accounting_database.secret: must be given: head nodes reach an existing server "
                "with it",
                "42: accounting_database.security_group: must be given: head nodes reach an existing "
                "server with it",
                "42: accounting_database.subnets: must be left out: the server exists "
                "(found: \"('compute.a', 'compute.b')\")",
            ],
            id="neither one nor the other",
        ),
        pytest.param(
            "accounting_database:\n"
            "  subnets: [compute.a, compute.b]\n"
            "  security_group: sg-00000001\n",
            [
                "44: accounting_database.security_group: must be left out, or host be "
                "given: the server is made here (found: 'sg-00000001')",
            ],
            id="a group of a server that is made",
        ),
        pytest.param(
            "accounting_database:\n"
            "  subnets: [compute.a, compute.b]\n"
            "  user: Slurm-Admin\n"
            "  backup_days: 36\n",
            [
                "44: accounting_database.user: must start with a small letter and hold at most 16 "
                "small letters, digits and underscores (found: 'Slurm-Admin')",
                "45: accounting_database.backup_days: must be 35 or less (found: 36)",
            ],
            id="what RDS does not take",
        ),
    ],
)
def test_what_cannot_be_made_or_reached_is_reported(
    tmp_path: Path, section: str, problems: list[str]
) -> None:
    assert problems_of(tmp_path, EXISTING + section) == problems


def test_a_network_of_one_zone_is_told_what_it_can_have(tmp_path: Path) -> None:
    text = f"{ONE_ZONE}accounting_database:\n  subnets: [compute.a]\n"
    assert problems_of(tmp_path, text) == [
        "42: accounting_database.subnets: must be of two or more zones: RDS makes no database in "
        "fewer; network.subnets has one zone only, so name a subnet of another one there, or give "
        "host and secret of a database that exists (found: ['compute.a'])"
    ]


def test_a_network_of_one_zone_may_have_a_server_that_exists(tmp_path: Path) -> None:
    environment = load(tmp_path, ONE_ZONE + SERVER)
    known = known_values(environment, "dev-eco")
    assert known["accounting.host"] == "slurm.cluster-abc.us-west-2.rds.amazonaws.com:3306"
    assert (known["accounting.user"], known["accounting.secret"]) == ("slurm", SECRET)


def test_the_references_are_there_where_the_section_is(tmp_path: Path) -> None:
    assert not set(ACCOUNTING) & set(reference_names(load(tmp_path)))
    assert set(ACCOUNTING) <= set(reference_names(load(tmp_path, EXISTING + SERVER)))


def test_a_server_needs_an_address_wherever_it_may_be_started(tmp_path: Path) -> None:
    text = f"{EXISTING}accounting_database:\n  subnets: [compute.a, compute.b]\n"
    plans = {budget.name: budget for budget in plan_addresses(load(tmp_path, text), {})}
    for subnet in ("compute.a", "compute.b"):
        found = [demand.what for demand in plans[subnet].only_here]
        assert "accounting database" in found


BUDGETS = (
    "budgets:\n"
    "  monthly_usd: 1000\n"
    "  notify: [ada@example.gov]\n"
    "  clusters:\n"
    "    dev-eco: {monthly_usd: 700, when_spent: drain}\n"
)


def revision(folder: Path, text: str, cluster: str = "dev-eco") -> str:
    return str(known_values(load(folder, text), cluster)["limits.revision"])


def test_the_revision_of_limits_changes_with_what_slurm_gets_and_nothing_else(
    tmp_path: Path,
) -> None:
    before = revision(tmp_path, EXISTING + BUDGETS)
    assert len(before) == 12
    assert revision(tmp_path, EXISTING + edit(BUDGETS, "700", "701")) != before
    more = edit(BUDGETS, "when_spent: drain", "when_spent: drain, max_submit_jobs: 99")
    assert revision(tmp_path, EXISTING + more) != before
    assert revision(tmp_path, EXISTING + edit(BUDGETS, "drain", "stop")) == before
    assert revision(tmp_path, EXISTING + edit(BUDGETS, "1000", "1001")) == before
    assert revision(tmp_path, EXISTING + BUDGETS, "other") == "none"


def test_without_budgets_the_revision_says_none(tmp_path: Path) -> None:
    assert "limits.revision" in reference_names(load(tmp_path))
    assert revision(tmp_path, EXISTING) == "none"
