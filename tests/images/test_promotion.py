from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from clusterbox.deployment.progress import Progress
from clusterbox.errors import InputError
from clusterbox.images import promotion
from clusterbox.images.context import Clock, Context, StepFailedError
from clusterbox.images.merge_request import find_platform
from clusterbox.images.plan import Options, Plan, PlannedImage, Step
from clusterbox.images.promotion import promote, propose_again
from clusterbox.site.images import LOCK, ClusterPins, ImageLock, LoginPin, render_lock
from clusterbox.site.load import Repository
from tests.conftest import ROOT
from tests.images import small_site
from tests.images.retire_account import refusal
from tests.review.platform_server import TOKEN, PlatformServer, serve
from tests.review.test_post import Time

RUN = "2026-11-22"
NEW, NEW_ADMIN, PARENT = "ami-000000aa", "ami-000000ab", "ami-000000ff"
STEP = Step(id="promote", action="promote")
DIGEST = "0123456789abcdef" * 4


class Account:
    """The images of an account, by id, as the bakes and verifications left them."""

    name = "embedded"

    def __init__(self) -> None:
        self.images = {
            NEW: _image(NEW, "dev-compute-2026-11-22"),
            NEW_ADMIN: _image(NEW_ADMIN, "dev-admin-2026-11-22"),
        }

    def client(self, service: str) -> Account:
        assert service == "ec2"
        return self

    def describe_images(self, **words: list[str]) -> dict[str, Any]:
        (ami,) = words["ImageIds"]
        if ami not in self.images:
            raise refusal("InvalidAMIID.NotFound")
        return {"Images": [self.images[ami]]}

    def tag(self, ami: str, key: str, value: str) -> None:
        others = [tag for tag in self.images[ami]["Tags"] if tag["Key"] != key]
        more = [{"Key": key, "Value": value}] if value else []
        self.images[ami]["Tags"] = [*others, *more]


def _image(ami: str, name: str) -> dict[str, Any]:
    return {
        "ImageId": ami,
        "Name": name,
        "State": "available",
        "CreationDate": "2026-11-22T09:30:00.000Z",
        "Tags": [
            {"Key": "clusterbox:verified", "Value": "passed"},
            {"Key": "parallelcluster:version", "Value": "3.16.1"},
        ],
    }


def _results(image: str, ami: str) -> dict[str, dict[str, Any]]:
    return {
        f"bake:{image}": {"ami": ami, "name": f"dev-{image}-{RUN}", "parent": PARENT},
        f"verify:{image}": {
            "ami": ami,
            "passed": True,
            "checks": [
                {"check": "units", "ok": True, "detail": ""},
                {"check": "slurm", "ok": True},
            ],
            "kernel": "6.1.150-1.x86_64",
            "slurm_version": "25.11.8" if image == "compute" else None,
            "packages_digest": DIGEST,
            "packages": {"openssl": "3.0-1"},
            "at": "2026-11-22T10:00:00+00:00",
        },
    }


@pytest.fixture
def account() -> Account:
    return Account()


@pytest.fixture
def standing(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the clusters that stand in the account; a test may change it."""
    clusters = ["dev-eco"]
    live = lambda _target, _environment: [SimpleNamespace(cluster=name) for name in clusters]  # noqa: E731
    monkeypatch.setattr(promotion, "fetch_live", live)
    return clusters


@pytest.fixture
def context(tmp_path: Path, account: Account, standing: list[str]) -> Context:
    environment = small_site.write(tmp_path)
    images = tmp_path / "ami" / "images"
    images.mkdir(parents=True)
    for name in ("compute", "admin"):
        (images / f"{name}.yaml").write_text((ROOT / f"ami/images/{name}.yaml").read_text())
    for folder in ("steps", "verify"):
        (tmp_path / "ami" / folder).symlink_to(ROOT / "ami" / folder)
    planned = tuple(
        PlannedImage(image=name, name=f"dev-{name}-{RUN}", parent=PARENT, bundle="b")
        for name in ("compute", "admin")
    )
    return Context(
        root=tmp_path,
        environment=environment,
        target=cast("Any", account),
        progress=Progress(),
        plan=Plan(
            run=RUN,
            environment="dev",
            created="",
            options=Options(),
            images=planned,
            steps=(STEP,),
            world={},
        ),
        clock=Clock(now=lambda: datetime(2026, 11, 22, 12, tzinfo=UTC)),
        results={**_results("compute", NEW), **_results("admin", NEW_ADMIN)},
    )


def lock_of(context: Context) -> ImageLock:
    return Repository(context.root).load_lock()


def test_the_lock_has_what_was_verified_and_keeps_what_was_before(context: Context) -> None:
    result = promote(context, STEP)
    assert result == {"changed": ["admin", "compute"], "merge_request": None}
    entry = lock_of(context).environments["dev"]["compute"]
    assert entry.model_dump(exclude={"previous"}, mode="json") == {
        "ami": NEW,
        "name": "dev-compute-2026-11-22",
        "parent": PARENT,
        "os": "alinux2023",
        "architecture": "x86_64",
        "root_gib": 45,
        "parallelcluster_version": "3.16.1",
        "slurm_version": "25.11.8",
        "kernel": "6.1.150-1.x86_64",
        "baked": "2026-11-22T09:30:00Z",
        "packages_digest": DIGEST,
        "verified": {
            "at": "2026-11-22T10:00:00Z",
            "checks": ["slurm", "units"],
            "passed": True,
        },
        "origin": "patch day 2026-11-22",
    }
    assert entry.previous is not None
    assert entry.previous.ami == small_site.LOCKED


def test_every_part_that_stands_is_pinned_to_what_it_runs(context: Context) -> None:
    promote(context, STEP)
    assert lock_of(context).pins_of("dev", "dev-eco") == ClusterPins(
        head=small_site.LOCKED,
        queues={"eco": small_site.LOCKED},
        login={"login": LoginPin(ami=small_site.LOCKED)},
    )
    # What is written is accepted by the check of the repository.
    Repository(context.root).load_pins(context.environment, "dev-eco")


def test_a_part_that_is_pinned_already_stays_where_it_is(context: Context) -> None:
    small_site.write(context.root, pins=f"{{head: {small_site.OLD}}}")
    promote(context, STEP)
    pins = lock_of(context).pins_of("dev", "dev-eco")
    assert (pins.head, pins.queues) == (small_site.OLD, {"eco": small_site.LOCKED})


def test_a_cluster_that_does_not_stand_is_not_held_back(
    context: Context, standing: list[str]
) -> None:
    standing.clear()
    promote(context, STEP)
    assert lock_of(context).pins == {}


def test_parts_with_another_image_are_not_pinned(context: Context) -> None:
    plan = replace(context.plan, images=context.plan.images[1:])
    result = promote(replace(context, plan=plan), STEP)
    assert result["changed"] == ["admin"]
    assert lock_of(context).pins == {}


def test_a_second_call_changes_nothing(context: Context) -> None:
    promote(context, STEP)
    text = (context.root / LOCK).read_text()
    assert promote(context, STEP) == {"changed": [], "merge_request": None}
    assert (context.root / LOCK).read_text() == text


def test_pins_that_a_rollout_took_away_do_not_come_back(context: Context) -> None:
    promote(context, STEP)
    path = context.root / LOCK
    path.write_text(path.read_text().partition("# Parts of clusters")[0])
    promote(context, STEP)
    assert lock_of(context).pins == {}


def test_the_record_says_what_was_locked_also_after_a_kill_in_between(context: Context) -> None:
    def kill(_event: str, **_facts: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        promote(replace(context, note=kill), STEP)
    notes: list[dict[str, Any]] = []
    promote(replace(context, note=lambda _event, **facts: notes.append(facts)), STEP)
    assert {"image": "compute", "locked": NEW, "before": small_site.LOCKED} in notes


def test_the_record_says_what_was_locked(context: Context) -> None:
    notes: list[dict[str, Any]] = []
    promote(replace(context, note=lambda _event, **facts: notes.append(facts)), STEP)
    assert notes == [
        {"image": "compute", "locked": NEW, "before": small_site.LOCKED},
        {"image": "admin", "locked": NEW_ADMIN, "before": small_site.ADMIN},
    ]


def _without(context: Context, step: str) -> Context:
    return replace(context, results={k: v for k, v in context.results.items() if k != step})


def _with(context: Context, step: str, **facts: Any) -> Context:
    return replace(context, results={**context.results, step: {**context.results[step], **facts}})


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (lambda c, a: _without(c, "bake:compute"), "bake:compute has not been done"),
        (lambda c, a: _without(c, "verify:compute"), "verify:compute has not been done"),
        (lambda c, a: _with(c, "verify:compute", passed=False), "verification did not pass"),
        (lambda c, a: _with(c, "verify:compute", ami=NEW_ADMIN), "verification did not pass"),
        (lambda c, a: a.tag(NEW, "clusterbox:verified", "failed"), "verified=failed, not passed"),
        (lambda c, a: a.tag(NEW, "clusterbox:verified", ""), "verified=, not passed"),
        (lambda c, a: a.images.pop(NEW) and None, f"{NEW} is not in account 123456789012"),
        (lambda c, a: a.images[NEW].update(State="failed"), f"{NEW} is failed"),
        (
            lambda c, a: a.tag(NEW, "parallelcluster:version", "3.15.0"),
            "built by ParallelCluster 3.15.0, and this site runs 3.16.1",
        ),
        (lambda c, a: a.tag(NEW, "parallelcluster:version", ""), "of no known version"),
        (lambda c, a: a.tag(NEW_ADMIN, "parallelcluster:version", "3.15.0"), "admin: .* 3.15.0"),
    ],
)
def test_what_is_not_proven_is_not_promoted_and_nothing_is_written(
    fault: Any, message: str, context: Context, account: Account
) -> None:
    before = (context.root / LOCK).read_text()
    with pytest.raises(StepFailedError, match=message):
        promote(fault(context, account) or context, STEP)
    assert (context.root / LOCK).read_text() == before


def test_an_image_without_parallelcluster_may_lack_its_tag(
    context: Context, account: Account
) -> None:
    account.tag(NEW_ADMIN, "parallelcluster:version", "")
    assert promote(context, STEP)["changed"] == ["admin", "compute"]


@pytest.fixture(params=["github", "gitlab"])
def server(request: pytest.FixtureRequest) -> Iterator[PlatformServer]:
    with serve(request.param) as found:
        found.git.push("main", {str(LOCK): "old\n"}, "Lock")
        found.git.start = found.git.branches["main"]
        yield found


def _promote(context: Context, server: PlatformServer, **more: str) -> Mapping[str, Any]:
    variables = {**server.environment, **more}
    return promote(context, STEP, variables=variables, clock=Time().clock())


def test_the_lock_is_proposed_where_a_platform_is_known(
    context: Context, server: PlatformServer
) -> None:
    url = _promote(context, server)["merge_request"]
    assert url.endswith(("/pull/1", "/merge_requests/1"))
    branch = server.git.files("patch-day/dev/2026-11-22")
    assert branch is not None
    assert branch[str(LOCK)] == (context.root / LOCK).read_text()
    (request,) = server.proposals
    assert request["title"] == "Images of dev: patch day 2026-11-22"
    assert f"| compute | `{NEW}` | `{small_site.LOCKED}` |" in request["body"]
    assert f"| dev-eco | queue eco | `{small_site.LOCKED}` |" in request["body"]


def test_runs_of_two_environments_on_one_day_have_branches_of_their_own(
    context: Context, server: PlatformServer
) -> None:
    _promote(context, server)
    other = context.environment.model_copy(update={"name": "other"})
    lock = lock_of(context).environments["dev"]
    (context.root / LOCK).write_text(render_lock(ImageLock(environments={"other": lock})))
    propose_again(
        replace(context, environment=other), variables=server.environment, clock=Time().clock()
    )
    branch = server.git.files("patch-day/dev/2026-11-22")
    assert branch is not None
    assert NEW in branch[str(LOCK)]
    assert "\n  dev:\n" in branch[str(LOCK)]
    assert len(server.proposals) == 2


def test_a_second_call_finds_the_request(context: Context, server: PlatformServer) -> None:
    first = _promote(context, server)
    again = _promote(context, server)
    assert again == {"changed": [], "merge_request": first["merge_request"]}
    assert len(server.git.history("patch-day/dev/2026-11-22")) == 3


def test_the_request_follows_the_pins_that_a_rollout_moves(
    context: Context, server: PlatformServer
) -> None:
    first = _promote(context, server)["merge_request"]
    lock = lock_of(context).with_pins("dev", "dev-eco", ClusterPins(head=small_site.LOCKED))
    (context.root / LOCK).write_text(render_lock(lock))
    url = propose_again(context, variables=server.environment, clock=Time().clock())
    assert url == first
    branch = server.git.files("patch-day/dev/2026-11-22")
    assert branch is not None
    assert branch[str(LOCK)] == render_lock(lock)
    assert "queue eco" not in server.proposals[0]["body"]
    assert propose_again(context) is None


def test_a_request_that_could_not_be_opened_is_opened_by_the_next_call(
    context: Context, server: PlatformServer
) -> None:
    with pytest.raises(Exception, match="401"):
        _promote(context, server, GITHUB_TOKEN="x" * 20, CLUSTERBOX_GITLAB_TOKEN="x" * 20)
    assert _promote(context, server)["merge_request"] is not None


def test_a_job_that_cannot_propose_writes_nothing(context: Context, server: PlatformServer) -> None:
    before = (context.root / LOCK).read_text()
    with pytest.raises(InputError, match="missing"):
        _promote(context, server, GITHUB_TOKEN="", CLUSTERBOX_GITLAB_TOKEN="")
    assert (context.root / LOCK).read_text() == before


def test_no_token_is_sent_in_a_text(context: Context, server: PlatformServer) -> None:
    path = context.root / LOCK
    path.write_text(path.read_text().replace("origin: bake", f"origin: {TOKEN}"))
    with pytest.raises(InputError, match="holds the value of"):
        _promote(context, server)
    assert server.proposals == []


def test_a_rehearsal_proposes_nothing_whatever_the_job_says(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    assert promote(context, STEP)["merge_request"] is None


def test_on_aws_the_variables_of_the_process_count(
    context: Context, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.delenv("GITHUB_TOKEN", raising=False)
    account.name = "aws"
    with pytest.raises(InputError, match=r"missing .*GITHUB_TOKEN"):
        promote(context, STEP)


@pytest.mark.parametrize(
    ("variables", "platform"),
    [
        ({}, None),
        ({"GITHUB_TOKEN": "of a person"}, None),
        ({"GITHUB_ACTIONS": "true"}, "github"),
        ({"GITHUB_REPOSITORY": "o/r"}, "github"),
        ({"GITLAB_CI": "true"}, "gitlab"),
        ({"CI_API_V4_URL": "https://git.example.gov/api/v4"}, "gitlab"),
    ],
)
def test_the_platform_is_that_of_the_variables(
    variables: dict[str, str], platform: str | None
) -> None:
    assert find_platform(variables) == platform
