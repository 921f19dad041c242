from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import pytest

from clusterbox.errors import ClusterboxError, InputError
from clusterbox.review.platforms.github_proposals import GitHubProposals
from clusterbox.review.platforms.gitlab_proposals import GitLabProposals
from clusterbox.review.platforms.proposals import Proposal, Proposed
from tests.review.platform_server import TOKEN, Answer, PlatformServer, serve
from tests.review.test_post import Time

BRANCH = "patch-day/2026-11-22"
LOCK = "ami/images.lock.yaml"
URL = {
    "github": "https://github.com/o/r/pull/1",
    "gitlab": "https://gitlab.example.gov/o/r/-/merge_requests/1",
}


@pytest.fixture(params=["github", "gitlab"])
def server(request: pytest.FixtureRequest) -> Iterator[PlatformServer]:
    with serve(request.param) as found:
        yield found


@pytest.fixture
def time() -> Time:
    return Time()


def proposal(content: str = "new\n", *, title: str = "Images", body: str = "All.") -> Proposal:
    return Proposal(
        branch=BRANCH,
        title=title,
        body=body,
        message=f"{title}\n\nWhy.",
        files={LOCK: content, "ami/second.yaml": "a: ü\n"},
    )


def propose(
    server: PlatformServer, time: Time, wanted: Proposal, **variables: str
) -> Proposed | None:
    kind = GitHubProposals if server.platform == "github" else GitLabProposals
    return kind({**server.environment, **variables}, time.clock()).propose(wanted)


def test_a_branch_gets_one_commit_and_a_request(server: PlatformServer, time: Time) -> None:
    found = propose(server, time, proposal())
    assert found == Proposed(URL[server.platform], committed=True, opened=True)
    assert server.git.history(BRANCH) == ["Images\n\nWhy.", "Start"]
    assert server.git.files(BRANCH) == {
        "README.md": "A site.\n",
        LOCK: "new\n",
        "ami/second.yaml": "a: ü\n",
    }
    assert server.git.files("main") == {"README.md": "A site.\n", LOCK: "old\n"}
    assert [(item["title"], item["body"]) for item in server.proposals] == [("Images", "All.")]


def test_a_second_call_changes_nothing(server: PlatformServer, time: Time) -> None:
    propose(server, time, proposal())
    before = server.count("PATCH") + server.count("PUT")
    found = propose(server, time, proposal())
    assert found == Proposed(URL[server.platform], committed=False, opened=False)
    assert len(server.git.history(BRANCH)) == 2
    assert len(server.proposals) == 1
    assert server.count("PATCH") + server.count("PUT") == before


def test_other_content_is_another_commit_on_the_same_request(
    server: PlatformServer, time: Time
) -> None:
    propose(server, time, proposal())
    found = propose(server, time, proposal("newer\n", title="Images, again", body="More."))
    assert found == Proposed(URL[server.platform], committed=True, opened=False)
    assert server.git.history(BRANCH)[0] == "Images, again\n\nWhy."
    assert [item["title"] for item in server.proposals] == ["Images, again"]


def test_what_somebody_pushed_to_the_branch_stays(server: PlatformServer, time: Time) -> None:
    propose(server, time, proposal())
    server.git.push(BRANCH, {"README.md": "Mended.\n"}, "A fix")
    propose(server, time, proposal("newer\n"))
    files = server.git.files(BRANCH)
    assert files is not None
    assert (files["README.md"], files[LOCK]) == ("Mended.\n", "newer\n")


def test_the_branch_starts_at_the_commit_of_the_job(server: PlatformServer, time: Time) -> None:
    server.git.push("main", {LOCK: "of somebody else\n"}, "Meanwhile")
    propose(server, time, proposal())
    assert "Meanwhile" not in server.git.history(BRANCH)


def test_files_that_are_there_already_are_no_proposal(server: PlatformServer, time: Time) -> None:
    wanted = Proposal(branch=BRANCH, title="T", body="B", message="M", files={LOCK: "old\n"})
    assert propose(server, time, wanted) is None
    assert (server.proposals, list(server.git.branches)) == ([], ["main"])


def test_a_request_that_was_closed_is_opened_anew(server: PlatformServer, time: Time) -> None:
    propose(server, time, proposal())
    server.proposals[0]["state"] = "closed"
    found = propose(server, time, proposal())
    assert found is not None
    assert (found.committed, found.opened) == (False, True)


# GitHub makes a tree, a commit, a branch and a request; GitLab a commit and a request.
@pytest.mark.parametrize(
    ("platform", "lost"),
    [*(("github", lost) for lost in range(4)), *(("gitlab", lost) for lost in range(2))],
)
def test_each_answer_may_be_lost(
    platform: Literal["github", "gitlab"], lost: int, time: Time
) -> None:
    with serve(platform) as server:
        _lose(server, time, lost)


def _lose(server: PlatformServer, time: Time, lost: int) -> None:
    normal = server.handle
    count = 0

    def handle(request: object) -> Answer:
        nonlocal count
        answer = normal(request)  # type: ignore[arg-type]
        if request.command == "POST":  # type: ignore[attr-defined]
            count += 1
            if count == lost + 1:
                return Answer(200, drops=True)
        return answer

    server.handle = handle  # type: ignore[method-assign]
    found = propose(server, time, proposal())
    assert count > lost
    assert time.slept != []
    assert found is not None
    assert found.url == URL[server.platform]
    assert len(server.git.history(BRANCH)) == 2
    assert len(server.proposals) == 1


@pytest.mark.parametrize(
    ("status", "todo"), [(401, "token"), (403, "may|permissions"), (404, "look at")]
)
def test_a_refusal_says_what_to_do_and_never_the_token(
    server: PlatformServer, time: Time, status: int, todo: str
) -> None:
    server.answers["POST"] = [Answer(status, body=f'{{"message": "no, {TOKEN}"}}')]
    with pytest.raises(
        ClusterboxError, match=rf"{status} \(no, \*\*\*\). What to do: .*{todo}"
    ) as e:
        propose(server, time, proposal())
    assert TOKEN not in str(e.value)


@pytest.mark.parametrize("text", ["/merge", "fine\n/approve\n/close"])
def test_gitlab_gets_no_quick_actions(time: Time, text: str) -> None:
    with serve("gitlab") as server:
        propose(server, time, proposal(body=text))
        body = server.proposals[0]["body"]
        assert not any(line.startswith("/") for line in body.splitlines())
        # The same text again is no change.
        propose(server, time, proposal(body=text))
        assert server.count("PUT") == 0


def test_variables_that_are_missing_are_all_named(server: PlatformServer, time: Time) -> None:
    commit = "GITHUB_SHA" if server.platform == "github" else "CI_COMMIT_SHA"
    token = "GITHUB_TOKEN" if server.platform == "github" else "CLUSTERBOX_GITLAB_TOKEN"
    with pytest.raises(InputError, match=f"missing {token}, {commit}"):
        propose(server, time, proposal(), **{commit: "", token: ""})


def test_a_commit_must_be_one(server: PlatformServer, time: Time) -> None:
    commit = "GITHUB_SHA" if server.platform == "github" else "CI_COMMIT_SHA"
    with pytest.raises(InputError, match="must be the id of a commit"):
        propose(server, time, proposal(), **{commit: "main"})


@pytest.mark.parametrize(
    ("branch", "files"),
    [
        ("a..b", {"a": ""}),
        ("a//b", {"a": ""}),
        ("a?b=c", {"a": ""}),
        ("a.lock", {"a": ""}),
        ("-a", {"a": ""}),
        ("a", {"../b": ""}),
        ("a", {"/etc/passwd": ""}),
        ("a", {"b?ref=c": ""}),
        ("a", {}),
    ],
)
def test_names_that_could_lead_elsewhere_are_refused(branch: str, files: dict[str, str]) -> None:
    with pytest.raises(InputError):
        Proposal(branch=branch, title="T", body="B", message="M", files=files)
