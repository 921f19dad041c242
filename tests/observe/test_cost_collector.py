"""The exporter of costs: an EC2 and a Slurm that are made up, at times that are given."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError

from clusterbox.clusters.composed import compose_repository
from clusterbox.costs.meter import meter_now, spending_now
from clusterbox.costs.meter_live import Doors
from clusterbox.costs.meter_rates import Rates
from clusterbox.costs.usage import Usage, read_usage
from clusterbox.errors import InputError
from clusterbox.observe.background import Background, State
from clusterbox.observe.cost_collector import CostCollector
from clusterbox.observe.cost_figures import sum_spending
from clusterbox.observe.cost_reader import ClusterCost, CostReader, JobHistory, PriceFiles
from clusterbox.slurm import Slurm, SlurmError
from tests.conftest import ROOT
from tests.costs.meter_records import DAY, HOUR, at, disk, head, job, rates, run
from tests.observe.scrapes import names, samples, scrape

PLACE = ("component", "queue", "purchase_option")


def refusal(code: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": "no"}}, "DescribeInstances")


@dataclass
class Clock:
    """A clock that is set by hand."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Source:
    """Gives an answer, or raises what it was told to."""

    answer: Any
    error: Exception | None = None
    count: int = 0

    def __call__(self) -> Any:
        self.count += 1
        if self.error is not None:
            raise self.error
        return self.answer


def figures_of(
    usage: Usage, jobs: Sequence[Any], prices: Rates, when: int, *, with_jobs: bool = True
) -> Any:
    spending = spending_now(usage, jobs, prices, cluster="ws", at=when)
    return sum_spending(spending, usage, with_jobs=with_jobs)


def cost(figures: Any, budget: Decimal | None = Decimal(100)) -> ClusterCost:
    return ClusterCost("ws", "us-west-2", figures, budget, True, {"on-demand": float(DAY)})


def small_cost(prices: Rates | None = None, **node: Any) -> ClusterCost:
    """Return the cost at noon: a head node from 10:00, a node from 11:00, a job from 11:30."""
    usage = Usage(
        (head(at("10:00:00")), run(at("11:00:00"), None, ready=at("11:10:00"), **node)),
        (disk(at("11:00:00")),),
    )
    jobs = [job(at("11:30:00"), None, cpus=4)]
    return cost(figures_of(usage, jobs, prices or rates(), at("12:00:00")))


def collector(
    source: Callable[[], Any], clock: Clock | None = None
) -> tuple[CostCollector, Background[ClusterCost]]:
    said: list[str] = []
    background: Background[ClusterCost] = Background(
        source, 60.0, report=said.append, clock=clock or Clock()
    )
    return CostCollector({"ws": background}, lambda: float(DAY) + 86400), background


def refreshed(answer: ClusterCost) -> str:
    one, background = collector(Source(answer))
    background.refresh()
    return scrape(one)


def test_cost_is_told_by_component_queue_and_purchase_option() -> None:
    text = refreshed(small_cost())
    hour = samples(text, "clusterbox_cost_usd_per_hour", *PLACE)
    assert hour == pytest.approx(
        {
            ("boot", "eco", "on-demand"): 0.0,
            ("idle", "eco", "on-demand"): 1.8,
            ("jobs", "eco", "on-demand"): 1.8,
            ("head_node", "", "on-demand"): 0.36,
            ("disks", "", ""): 0.1,
        }
    )
    month = samples(text, "clusterbox_cost_month_usd", *PLACE)
    # 10 minutes of boot, 20 idle, 30 half and half; two hours of the head node.
    assert month == pytest.approx(
        {
            ("boot", "eco", "on-demand"): 0.6,
            ("idle", "eco", "on-demand"): 2.1,
            ("jobs", "eco", "on-demand"): 0.9,
            ("head_node", "", "on-demand"): 0.72,
            ("disks", "", ""): 0.1,
        }
    )
    assert samples(text, "clusterbox_cost_up", "cluster") == {("ws",): 1.0}


def test_the_sums_are_those_of_the_meter() -> None:
    usage = Usage((head(at("08:00:00")), run(at("09:00:00"), at("11:00:00"))), (disk(DAY),))
    jobs = [job(at("09:30:00"), at("10:59:00"))]
    meter = meter_now(usage, jobs, rates(), cluster="ws", at=at("12:00:00"))
    figures = figures_of(usage, jobs, rates(), at("12:00:00"))
    assert figures.spent == meter.total.month
    assert sum(one.usd for one in figures.hour.values()) == meter.total.hour.usd
    assert figures.projected == meter.projected


def test_the_budget_is_told_with_what_is_left_and_the_forecast() -> None:
    text = refreshed(small_cost())
    assert samples(text, "clusterbox_budget_usd") == {(): 100.0}
    assert samples(text, "clusterbox_budget_spent_usd") == pytest.approx({(): 4.42})
    assert samples(text, "clusterbox_budget_remaining_usd") == pytest.approx({(): 95.58})
    # The mean of the two hours since the first launch, for the 27.5 days that are left.
    assert samples(text, "clusterbox_budget_forecast_usd") == pytest.approx(
        {(): 4.42 + 4.42 / 2 * 27.5 * 24}
    )


def test_a_price_that_is_not_known_is_not_nothing() -> None:
    text = refreshed(small_cost(purchase="spot"))
    place = ("jobs", "eco", "spot")
    assert place not in samples(text, "clusterbox_cost_usd_per_hour", *PLACE)
    assert place not in samples(text, "clusterbox_cost_month_usd", *PLACE)
    unknown = samples(text, "clusterbox_cost_unknown", *PLACE)
    assert unknown[place] + unknown["idle", "eco", "spot"] == 1.0
    assert unknown["head_node", "", "on-demand"] == 0.0
    seconds = samples(text, "clusterbox_cost_unknown_seconds", *PLACE)
    assert sum(seconds.values()) == HOUR


def test_where_all_is_unknown_nothing_is_left_of_no_budget() -> None:
    usage = Usage((run(at("11:00:00"), None, instance_type="new.1"),))
    text = refreshed(cost(figures_of(usage, [], rates(), at("12:00:00"))))
    assert "clusterbox_budget_usd" in names(text)
    assert "clusterbox_budget_spent_usd" not in names(text)
    assert "clusterbox_budget_remaining_usd" not in names(text)
    assert "clusterbox_budget_forecast_usd" not in names(text)


def test_without_accounting_nodes_are_compute_and_not_idle() -> None:
    usage = Usage((run(at("11:00:00"), None),))
    figures = figures_of(usage, [], rates(), at("12:00:00"), with_jobs=False)
    assert set(figures.hour) == {("compute", "eco", "on-demand")}


def test_the_age_of_prices_is_told() -> None:
    text = refreshed(small_cost())
    age = samples(text, "clusterbox_price_age_seconds", "region", "prices")
    assert age == {("us-west-2", "on-demand"): 86400.0}


def test_nothing_is_told_before_the_first_refresh() -> None:
    one, _background = collector(Source(small_cost()))
    assert names(scrape(one)) == set()


def test_a_scrape_asks_nobody_and_does_not_wait() -> None:
    entered, released = threading.Event(), threading.Event()

    def slow() -> ClusterCost:
        entered.set()
        released.wait(60)
        return small_cost()

    one, background = collector(slow)
    background.start()
    assert entered.wait(60)
    with ThreadPoolExecutor(100) as pool:
        texts = set(pool.map(lambda _: scrape(one), range(100)))
    assert [names(text) for text in texts] == [set()]
    released.set()
    background.stop()


def test_a_hundred_scrapers_cost_no_call() -> None:
    source = Source(small_cost())
    one, background = collector(source)
    background.refresh()
    with ThreadPoolExecutor(100) as pool:
        texts = set(pool.map(lambda _: scrape(one), range(100)))
    assert len(texts) == 1
    assert source.count == 1


@pytest.mark.parametrize(
    ("error", "result"),
    [
        (refusal("RequestLimitExceeded"), "throttled"),
        (refusal("Throttling"), "throttled"),
        (refusal("ThrottlingException"), "throttled"),
        (refusal("UnauthorizedOperation"), "denied"),
        (refusal("ExpiredToken"), "expired"),
        (refusal("RequestExpired"), "expired"),
        (NoCredentialsError(), "expired"),
        (EndpointConnectionError(endpoint_url="x"), "failed"),
        (SlurmError("slurmdbd is down"), "failed"),
        (OSError(28, "No space left on device"), "failed"),
    ],
)
def test_figures_stay_for_three_intervals_of_refusals_and_then_go(
    error: Exception, result: str
) -> None:
    clock = Clock()
    source = Source(small_cost())
    one, background = collector(source, clock)
    background.refresh()
    source.error = error
    for _ in range(3):
        clock.now += 60
        background.refresh()
        text = scrape(one)
        assert samples(text, "clusterbox_cost_up") == {(): 1.0}
        assert "clusterbox_cost_month_usd" in names(text)
    clock.now += 60
    background.refresh()
    text = scrape(one)
    assert samples(text, "clusterbox_cost_up") == {(): 0.0}
    assert names(text) == {
        "clusterbox_cost_up",
        "clusterbox_cost_age_seconds",
        "clusterbox_cost_refreshes_total",
    }
    results = samples(text, "clusterbox_cost_refreshes_total", "result")
    assert results["ok",] == 1
    assert results[result,] == 4
    source.error = None
    background.refresh()
    assert samples(scrape(one), "clusterbox_cost_up") == {(): 1.0}


def test_figures_go_when_a_refresh_never_ends() -> None:
    clock = Clock()
    one, background = collector(Source(small_cost()), clock)
    background.refresh()
    clock.now += 181
    assert samples(scrape(one), "clusterbox_cost_up") == {(): 0.0}
    assert "clusterbox_cost_month_usd" not in names(scrape(one))


def test_expired_credentials_are_told_as_such_though_the_target_wraps_them() -> None:
    def ask() -> ClusterCost:
        try:
            raise refusal("ExpiredToken")
        except ClientError as error:
            raise InputError("AWS does not know who you are") from error

    _one, background = collector(ask)
    background.refresh()
    assert background.state().results == {"expired": 1}


def test_a_failure_is_said_once_and_again_after_a_success() -> None:
    said: list[str] = []
    source = Source(1, SlurmError("slurmdbd is down"))
    background: Background[int] = Background(source, 60, report=said.append)
    for error in (source.error, source.error, None, source.error):
        source.error = error
        background.refresh()
    assert said == ["failed: slurmdbd is down"] * 2


def test_a_fault_of_ours_does_not_end_the_refreshes(capsys: pytest.CaptureFixture[str]) -> None:
    source = Source(1, KeyError("InstanceId"))
    background: Background[int] = Background(source, 60, report=lambda _: None)
    background.refresh()
    source.error = None
    background.refresh()
    state: State[int] = background.state()
    assert (state.answer, state.results["failed"]) == (1, 1)
    assert "KeyError: 'InstanceId'" in capsys.readouterr().err


def test_odd_names_are_escaped() -> None:
    usage = Usage((run(at("11:00:00"), None, queue='a"b\\c\nd'),))
    text = refreshed(cost(figures_of(usage, [], rates(), at("12:00:00"))))
    queues = {key[1] for key in samples(text, "clusterbox_cost_usd_per_hour", *PLACE)}
    assert queues == {'a"b\\c\nd'}


@dataclass
class Account:
    """EC2 and EFS of an account with a head node and a node of the queue `eco`."""

    error: Exception | None = None
    calls: list[str] = field(default_factory=list)

    def __call__(self, _service: str) -> Account:
        return self

    def get_paginator(self, operation: str) -> Account:
        self.calls.append(operation)
        return self

    def paginate(self, **_words: Any) -> list[Mapping[str, Any]]:
        if self.error is not None:
            raise self.error
        if self.calls[-1] != "describe_instances":
            return [{"Volumes": [], "FileSystems": []}]
        machines = [_machine("i-head", "t3.medium", 10), _machine("i-1", "t3a.2xlarge", 11)]
        machines[1]["Tags"].append({"Key": "parallelcluster:queue-name", "Value": "eco"})
        machines[1]["Tags"][0]["Value"] = "Compute"
        return [{"Reservations": [{"Instances": machines}]}]


def _machine(ident: str, kind: str, hour: int) -> dict[str, Any]:
    return {
        "InstanceId": ident,
        "InstanceType": kind,
        "LaunchTime": datetime(2025, 11, 3, hour, tzinfo=UTC),
        "State": {"Name": "running"},
        "Placement": {"AvailabilityZone": "us-west-2a"},
        "Tags": [{"Key": "parallelcluster:node-type", "Value": "HeadNode"}],
    }


def reader(doors: Callable[[], Doors], clock: Callable[[], float], **words: Any) -> CostReader:
    cluster = compose_repository(ROOT, ["ws-eco"])["ws-eco"]
    return CostReader(cluster, PriceFiles(ROOT, "us-west-2"), doors, clock=clock, **words)


def test_a_cluster_is_read_with_its_budget_and_a_record_of_what_was_seen(tmp_path: Path) -> None:
    keep = tmp_path / "seen" / "ws-eco.jsonl"
    account = Account()
    one = reader(lambda: Doors(account, None), lambda: at("12:00:00"), keep=keep)
    found = one.read()
    assert found.budget_usd == 700
    assert not found.with_jobs
    # us-west-2: t3.medium 0.0416, t3a.2xlarge 0.3008 USD an hour.
    month = {place[0]: float(amount.usd) for place, amount in found.figures.month.items()}
    assert month == pytest.approx({"head_node": 0.0832, "compute": 0.3008})
    assert {run.instance for run in read_usage(keep).instances} == {"i-head", "i-1"}
    assert set(found.price_times) == {"on-demand", "services"}


def test_no_call_but_descriptions_is_made() -> None:
    account = Account()
    reader(lambda: Doors(account, None), lambda: at("12:00:00")).read()
    assert account.calls == ["describe_instances", "describe_volumes", "describe_file_systems"]


def test_the_doors_are_opened_again_after_a_refusal_only() -> None:
    account = Account()
    opened = Source(Doors(account, None))
    one = reader(opened, lambda: at("12:00:00"))
    one.read()
    one.read()
    assert opened.count == 1
    account.error = refusal("ExpiredToken")
    with pytest.raises(ClientError):
        one.read()
    account.error = None
    one.read()
    assert opened.count == 2


def test_a_refusal_leaves_the_record_as_it_was(tmp_path: Path) -> None:
    keep = tmp_path / "ws-eco.jsonl"
    account = Account()
    one = reader(lambda: Doors(account, None), lambda: at("12:00:00"), keep=keep)
    one.read()
    before = keep.read_text()
    account.error = refusal("RequestLimitExceeded")
    with pytest.raises(ClientError):
        one.read()
    assert keep.read_text() == before


@pytest.mark.parametrize("jump", [-40 * 86400, -3 * HOUR, 3 * HOUR, 40 * 86400])
def test_figures_are_right_again_when_a_clock_that_jumped_is_set_right(jump: int) -> None:
    clock = Clock(at("12:00:00"))
    one = reader(lambda: Doors(Account(), None), clock)
    right = one.read().figures.month
    clock.now += jump
    wrong = one.read().figures
    assert all(amount.usd >= 0 for amount in [*wrong.hour.values(), *wrong.month.values()])
    clock.now -= jump
    assert one.read().figures.month == right


@dataclass
class Accounting:
    """A `sacct` that knows three jobs and tells of those that had not ended at its start."""

    asked: list[str] = field(default_factory=list)
    ended: bool = False
    error: Exception | None = None

    def run(self, *words: str) -> str:
        if self.error is not None:
            raise self.error
        start = next(word for word in words if word.startswith("--starttime="))
        self.asked.append(start.partition("=")[2])
        end = "2025-11-03T12:05:00" if self.ended else "Unknown"
        state = "COMPLETED" if self.ended else "RUNNING"
        rows = [
            ("1", "COMPLETED", "2025-11-03T08:00:00", "2025-11-03T09:00:00"),
            ("2", state, "2025-11-03T11:00:00", end),
        ]
        if self.ended:
            rows.append(("3", "RUNNING", "2025-11-03T12:08:00", "Unknown"))
        lines = [
            "JobID|User|Account|Partition|State|Start|End|AllocCPUS|AllocTRES|NodeList|JobName"
        ]
        lines += [
            f"{ident}|ana|water|eco|{state}|{begin}|{end}|2||eco-dy-n-1|x"
            for ident, state, begin, end in rows
            if end == "Unknown" or end > self.asked[-1]
        ]
        return "\n".join(lines)


def test_of_jobs_only_what_is_new_is_asked_for_and_an_end_replaces_none() -> None:
    slurm = Accounting()
    history = JobHistory()
    door: Any = slurm
    first = history.fetch(door, DAY, at("12:00:00"))
    assert [(one.id, one.end) for one in first] == [("1", at("09:00:00")), ("2", None)]
    slurm.ended = True
    second = history.fetch(door, DAY, at("12:10:00"))
    assert [(one.id, one.end) for one in second] == [
        ("1", at("09:00:00")),
        ("2", at("12:05:00")),
        ("3", None),
    ]
    assert slurm.asked == ["2025-11-03T00:00:00", "2025-11-03T11:45:00"]


def test_all_jobs_are_asked_for_again_after_an_hour_and_when_the_clock_went_back() -> None:
    slurm = Accounting()
    history = JobHistory()
    door: Any = slurm
    for when in ("12:00:00", "12:30:00", "13:00:00", "12:00:00"):
        history.fetch(door, DAY, at(when))
    whole = "2025-11-03T00:00:00"
    assert slurm.asked == [whole, "2025-11-03T11:45:00", whole, whole]


def test_jobs_that_were_known_stay_so_when_slurm_fails() -> None:
    slurm = Accounting()
    history = JobHistory()
    door: Any = slurm
    first = history.fetch(door, DAY, at("12:00:00"))
    slurm.error = SlurmError("slurmdbd is down")
    with pytest.raises(SlurmError):
        history.fetch(door, DAY, at("12:01:00"))
    slurm.error = None
    assert history.fetch(door, DAY, at("12:02:00")) == first


def test_a_slurm_that_fails_leaves_no_figures_rather_than_cheaper_ones() -> None:
    class Broken(Slurm):
        def run(self, *_words: str, **_settings: Any) -> str:
            raise SlurmError("slurmdbd is down")

    one = reader(lambda: Doors(Account(), Broken()), lambda: at("12:00:00"))
    with pytest.raises(SlurmError):
        one.read()


def test_prices_are_read_again_when_their_file_changes(tmp_path: Path) -> None:
    files = PriceFiles(tmp_path, "us-west-2")
    first = files.load()
    assert files.load() is first
    spot = tmp_path / "prices" / "spot-us-west-2.csv"
    spot.parent.mkdir()
    spot.write_text("damaged\n")
    with pytest.raises(InputError):
        files.load()
    spot.unlink()
    assert files.load().prices.title == first.prices.title
