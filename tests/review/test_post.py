from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.utils import formatdate
from pathlib import Path
from typing import Literal

import pytest

from clusterbox.cli.main import COMMANDS, main
from clusterbox.errors import ClusterboxError, InputError
from clusterbox.review.platforms import Platform
from clusterbox.review.platforms.http import MOST_SECONDS, Clock
from clusterbox.review.post import LIMITS, marker, post_comment, room
from tests.review.platform_server import SOMEBODY, TOKEN, Answer, PlatformServer, serve

MARK = "<!-- clusterbox review: clusterbox -->"
NOW = 1_800_000_000.0


@dataclass
class Time:
    """A clock that only sleeping moves; jitter is the given share of its most."""

    jitter: float = 0.0
    slept: list[float] = field(default_factory=list)

    def clock(self) -> Clock:
        return Clock(
            sleep=self.slept.append,
            monotonic=lambda: sum(self.slept),
            now=lambda: NOW + sum(self.slept),
            jitter=lambda: self.jitter,
        )


@pytest.fixture(params=["github", "gitlab"])
def server(request: pytest.FixtureRequest) -> Iterator[PlatformServer]:
    with serve(request.param) as found:
        yield found


@pytest.fixture
def github() -> Iterator[PlatformServer]:
    with serve("github") as found:
        yield found


@pytest.fixture
def time() -> Time:
    return Time()


def post(server: PlatformServer, time: Time, body: str = "new", **environment: str) -> str:
    return post_comment(
        server.platform,
        body,
        environment={**server.environment, **environment},
        clock=time.clock(),
    )


def test_the_first_comment_is_created_with_a_marker(server: PlatformServer, time: Time) -> None:
    url = post(server, time)
    assert server.bodies() == [f"{MARK}\nnew"]
    assert (
        url
        == {
            "github": "https://github.com/o/r/pull/5#issuecomment-101",
            "gitlab": "https://gitlab.example.gov/o/r/-/merge_requests/5#note_101",
        }[server.platform]
    )
    assert time.slept == []


def test_the_earlier_comment_is_updated(server: PlatformServer, time: Time) -> None:
    first = post(server, time, "old")
    assert post(server, time, "new") == first
    assert server.bodies() == [f"{MARK}\nnew"]


def test_a_body_that_has_the_marker_already_gets_no_second_one(
    server: PlatformServer, time: Time
) -> None:
    post(server, time, f"{MARK}\n\nnew")
    assert server.bodies() == [f"{MARK}\nnew"]


def test_comments_of_others_are_left_alone(server: PlatformServer, time: Time) -> None:
    server.add(f"{MARK}\ncopied by hand", SOMEBODY)
    server.add(f"> {MARK}\n\nWhat does this mean?")
    server.add("<!-- clusterbox review: other -->\nanother review of the same user")
    before = server.bodies()
    post(server, time)
    assert server.bodies() == [*before, f"{MARK}\nnew"]


def test_a_comment_of_a_deleted_account_is_no_obstacle(github: PlatformServer, time: Time) -> None:
    github.comments.append({"id": 1, "body": f"{MARK}\nghost", "user": None})
    post(github, time)
    assert len(github.comments) == 2


def test_gitlabs_system_notes_do_not_count(time: Time) -> None:
    with serve("gitlab") as server:
        server.add(f"{MARK}\nchanged the description", system=True)
        post(server, time)
        assert len(server.comments) == 2


@pytest.mark.parametrize(
    ("platform", "link_header"), [("github", True), ("gitlab", True), ("gitlab", False)]
)
def test_the_earlier_comment_is_found_on_any_page(
    platform: Literal["github", "gitlab"], time: Time, link_header: bool
) -> None:
    with serve(platform) as server:
        server.link_header = link_header
        for _ in range(500):
            server.add("talk", SOMEBODY)
        server.add(f"{MARK}\nold")
        for _ in range(499):
            server.add("talk", SOMEBODY)
        post(server, time)
        assert server.bodies()[500] == f"{MARK}\nnew"
        assert len(server.comments) == 1000
        assert sum("per_page=100&page=" in line for line in server.requests) == 10


def test_what_two_jobs_left_is_folded_into_the_newest(server: PlatformServer, time: Time) -> None:
    server.add(f"{MARK}\none")
    server.add("talk", SOMEBODY)
    newest = server.add(f"{MARK}\ntwo")
    post(server, time)
    assert server.bodies() == ["talk", f"{MARK}\nnew"]
    assert server.comments[1]["id"] == newest


def test_a_comment_deleted_meanwhile_is_created_again(server: PlatformServer, time: Time) -> None:
    server.vanishing = {server.add(f"{MARK}\nold")}
    post(server, time)
    assert server.bodies() == [f"{MARK}\nnew"]


def test_where_the_newest_was_deleted_meanwhile_the_older_is_updated(
    server: PlatformServer, time: Time
) -> None:
    older = server.add(f"{MARK}\none")
    server.vanishing = {server.add(f"{MARK}\ntwo")}
    post(server, time)
    assert [(item["id"], item["body"]) for item in server.comments] == [(older, f"{MARK}\nnew")]


def test_a_duplicate_that_another_job_deletes_first_is_fine(
    server: PlatformServer, time: Time
) -> None:
    server.vanishing = {server.add(f"{MARK}\none")}
    server.add(f"{MARK}\ntwo")
    post(server, time)
    assert server.bodies() == [f"{MARK}\nnew"]


def test_a_server_out_of_order_is_asked_again_after_longer_and_longer(
    server: PlatformServer, time: Time
) -> None:
    server.answers["GET"] = [Answer(500), Answer(502), Answer(503)]
    post(server, time)
    assert server.bodies() == [f"{MARK}\nnew"]
    assert time.slept == [1.0, 2.0, 4.0]


def test_waits_have_jitter(server: PlatformServer) -> None:
    time = Time(jitter=1.0)
    server.answers["GET"] = [Answer(500), Answer(500)]
    post(server, time)
    assert time.slept == [1.5, 3.0]


def test_retry_after_is_honoured(server: PlatformServer, time: Time) -> None:
    date = formatdate(NOW + 97, usegmt=True)
    server.answers["GET"] = [
        Answer(503, {"Retry-After": "30"}),
        Answer(429, {"Retry-After": date}),
    ]
    post(server, time)
    assert time.slept == [30.0, 67.0]


@pytest.mark.parametrize("status", [403, 429])
def test_githubs_primary_limit_is_waited_for(
    github: PlatformServer, time: Time, status: int
) -> None:
    limit = {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(int(NOW) + 90)}
    github.answers["POST"] = [Answer(status, limit)]
    post(github, time)
    assert time.slept == [91.0]
    assert github.bodies() == [f"{MARK}\nnew"]


def test_githubs_secondary_limit_is_waited_for_at_least_a_minute(
    github: PlatformServer, time: Time
) -> None:
    github.add(f"{MARK}\nold")
    body = json.dumps({"message": "You have exceeded a secondary rate limit."})
    github.answers["PATCH"] = [Answer(403, body=body), Answer(403, body=body)]
    post(github, time)
    assert time.slept == [60.0, 60.0]
    assert github.bodies() == [f"{MARK}\nnew"]


def test_gitlabs_limit_is_waited_for(time: Time) -> None:
    with serve("gitlab") as server:
        limit = {"RateLimit-Remaining": "0", "RateLimit-Reset": str(int(NOW) + 20)}
        server.answers["POST"] = [Answer(429, limit)]
        post(server, time)
        assert time.slept == [21.0]
        assert server.bodies() == [f"{MARK}\nnew"]


def test_a_limit_that_lasts_too_long_ends_the_job(github: PlatformServer, time: Time) -> None:
    limit = {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(int(NOW) + 3600)}
    github.answers["GET"] = [Answer(403, limit)]
    with pytest.raises(ClusterboxError, match=r"rate limit .* 3601 s\. Run the job again later"):
        post(github, time)
    assert time.slept == []


def test_patience_ends(server: PlatformServer, time: Time) -> None:
    server.answers["GET"] = [Answer(500) for _ in range(50)]
    with pytest.raises(ClusterboxError, match=r"answers 500\. Given up after 8 attempts"):
        post(server, time)
    assert len(time.slept) == 7
    assert sum(time.slept) <= MOST_SECONDS


def test_all_waits_together_are_bounded(server: PlatformServer, time: Time) -> None:
    server.answers["GET"] = [Answer(429, {"Retry-After": "250"}) for _ in range(5)]
    with pytest.raises(ClusterboxError, match="Given up after 3 attempts"):
        post(server, time)
    assert time.slept == [250.0, 250.0]


@pytest.mark.parametrize(
    "lost", [Answer(502, works=True), Answer(0, works=True, drops=True)], ids=["502", "dropped"]
)
def test_an_addition_whose_answer_is_lost_is_not_added_twice(
    server: PlatformServer, time: Time, lost: Answer
) -> None:
    server.answers["POST"] = [lost]
    post(server, time)
    assert server.bodies() == [f"{MARK}\nnew"]
    assert server.count("POST") == 1


def test_an_addition_that_failed_is_repeated(server: PlatformServer, time: Time) -> None:
    server.answers["POST"] = [Answer(502), Answer(0, drops=True)]
    post(server, time)
    assert server.bodies() == [f"{MARK}\nnew"]
    assert server.count("POST") == 3


def test_an_addition_that_always_fails_ends(server: PlatformServer, time: Time) -> None:
    server.answers["POST"] = [Answer(502) for _ in range(50)]
    with pytest.raises(ClusterboxError, match="Given up after 8 attempts"):
        post(server, time)


def test_an_update_whose_connection_breaks_is_repeated(server: PlatformServer, time: Time) -> None:
    server.add(f"{MARK}\nold")
    server.answers["PATCH"] = server.answers["PUT"] = [Answer(0, drops=True)]
    post(server, time)
    assert server.bodies() == [f"{MARK}\nnew"]


def test_a_server_that_is_not_there_is_named(time: Time) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: refuses every connection
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        environment = PlatformServer("gitlab").environment
        with pytest.raises(ClusterboxError, match=f"{address} cannot be reached") as caught:
            post_comment(
                "gitlab",
                "new",
                environment={**environment, "CI_API_V4_URL": f"http://{address}/api/v4"},
                clock=time.clock(),
            )
    assert TOKEN not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (401, {"github": "github.token", "gitlab": "project access token"}),
        (403, {"github": "pull-requests: write", "gitlab": "scope must be `api`"}),
        (404, {"github": "no such pull request", "gitlab": "no such merge request"}),
        (422, {"github": "body is strange", "gitlab": "body is strange"}),
    ],
)
def test_a_refusal_is_explained_and_not_repeated(
    server: PlatformServer, time: Time, status: int, words: dict[str, str]
) -> None:
    said = json.dumps({"message": f"body is strange ({TOKEN})"})
    server.answers["POST"] = [Answer(status, body=said)]
    with pytest.raises(ClusterboxError, match=words[server.platform]) as caught:
        post(server, time)
    assert TOKEN not in str(caught.value)
    assert server.count("POST") == 1
    assert time.slept == []


def test_a_wrong_token_is_told_of_without_showing_it(server: PlatformServer, time: Time) -> None:
    wrong = "wrong-token-xyz"
    name = "GITHUB_TOKEN" if server.platform == "github" else "CLUSTERBOX_GITLAB_TOKEN"
    with pytest.raises(ClusterboxError, match="401") as caught:
        post(server, time, **{name: wrong})
    assert wrong not in str(caught.value)


def test_a_redirect_is_not_followed(server: PlatformServer, time: Time) -> None:
    with serve(server.platform) as other:
        server.answers["GET"] = [Answer(302, {"Location": f"{other.address}/elsewhere"})]
        with pytest.raises(ClusterboxError, match=f"redirects to 127.0.0.1:{other.port}"):
            post(server, time)
        assert other.requests == []


def test_a_next_page_on_another_host_is_not_asked_for(server: PlatformServer, time: Time) -> None:
    with serve(server.platform) as other:
        link = f'<{other.address}/next>; rel="next"'
        # GitLab is asked first who the token's user is.
        first = [Answer(200, body='{"id": 41898282}')] if server.platform == "gitlab" else []
        server.answers["GET"] = [*first, Answer(200, {"Link": link}, "[]")]
        with pytest.raises(ClusterboxError, match="the token is not sent there"):
            post(server, time)
        assert other.requests == []


def test_pages_without_an_end_end(github: PlatformServer, time: Time) -> None:
    link = f'<{github.address}/repos/o/r/issues/5/comments>; rel="next"'
    github.answers["GET"] = [Answer(200, {"Link": link}, "[]") for _ in range(600)]
    with pytest.raises(ClusterboxError, match="more than 500 pages"):
        post(github, time)


@pytest.mark.parametrize("body", ["<html>Sign in</html>", '{"message": "hello"}'])
def test_an_answer_that_is_not_the_apis_is_told_of(
    server: PlatformServer, time: Time, body: str
) -> None:
    server.answers["GET"] = [Answer(200, body=body)]
    with pytest.raises(ClusterboxError, match=r"does not (answer|say)"):
        post(server, time)


@pytest.mark.parametrize("platform", ["github", "gitlab"])
def test_a_comment_at_the_limit_is_posted_and_one_above_is_not(
    platform: Literal["github", "gitlab"], time: Time
) -> None:
    with serve(platform) as server:
        post(server, time, "x" * room(platform))
        assert [len(body) for body in server.bodies()] == [LIMITS[platform]]
        with pytest.raises(InputError, match="make it shorter"):
            post(server, time, "x" * (room(platform) + 1))


def test_the_limits_are_the_platforms() -> None:
    assert LIMITS == {"github": 65_536, "gitlab": 1_000_000}


def test_a_comment_that_holds_the_token_is_not_posted(server: PlatformServer, time: Time) -> None:
    with pytest.raises(InputError, match="holds the value of") as caught:
        post(server, time, f"look: {TOKEN}")
    assert TOKEN not in str(caught.value)
    assert server.requests == []


@pytest.mark.parametrize(
    ("platform", "names"),
    [
        ("github", ["GITHUB_API_URL", "GITHUB_REPOSITORY", "GITHUB_TOKEN", "GITHUB_REF"]),
        ("gitlab", ["CI_API_V4_URL", "CI_PROJECT_ID", "CI_MERGE_REQUEST_IID", "CLUSTERBOX_GITLAB"]),
    ],
)
def test_all_missing_variables_are_named_at_once(platform: Platform, names: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        post_comment(platform, "new", environment={})
    assert [name for name in names if name not in str(caught.value)] == []


def test_the_number_of_the_pull_request_may_come_from_the_event(
    github: PlatformServer, time: Time, tmp_path: Path
) -> None:
    event = tmp_path / "event.json"
    event.write_text('{"pull_request": {"number": 5}}', encoding="utf-8")
    post(github, time, GITHUB_REF="refs/heads/main", GITHUB_EVENT_PATH=str(event))
    assert github.bodies() == [f"{MARK}\nnew"]


def test_a_github_server_of_ones_own_is_reached(github: PlatformServer, time: Time) -> None:
    post(github, time, GITHUB_API_URL=f"{github.address}/api/v3")
    assert github.bodies() == [f"{MARK}\nnew"]
    assert github.requests[0] == "POST /api/graphql"


def test_no_line_of_a_comment_is_a_quick_action_of_gitlab(time: Time) -> None:
    with serve("gitlab") as server:
        post(server, time, "found:\n/merge\n```\n/close\n```")
        assert server.bodies() == [f"{MARK}\nfound:\n /merge\n```\n /close\n```"]


@pytest.mark.parametrize("body", ["x\n\r/close", "x\r\n/close\r\n", "x\r/close", "\r/close"])
def test_a_carriage_return_hides_no_quick_action(time: Time, body: str) -> None:
    with serve("gitlab") as server:
        post(server, time, body)
        (written,) = server.bodies()
    assert "\n/" not in written.replace("\r", "")


@pytest.mark.parametrize(
    "body",
    ["[1]", "[null]", f'[{{"body": "{MARK}", "user": {{"id": 41898282}}}}]', "[" * 100_000, "{}"],
)
def test_a_list_that_holds_no_comments_is_told_of(
    github: PlatformServer, time: Time, body: str
) -> None:
    github.answers["GET"] = [Answer(200, body=body)]
    with pytest.raises(ClusterboxError, match="answer"):
        post(github, time)


def test_a_next_page_that_is_no_address_is_not_asked_for(
    github: PlatformServer, time: Time
) -> None:
    github.answers["GET"] = [Answer(200, {"Link": '<http://[bad>; rel="next"'}, "[]")]
    with pytest.raises(ClusterboxError, match="the token is not sent there"):
        post(github, time)


def test_a_redirect_to_no_address_is_told_of(github: PlatformServer, time: Time) -> None:
    github.answers["GET"] = [Answer(301, {"Location": "http://[bad"})]
    with pytest.raises(ClusterboxError, match="redirects to nowhere"):
        post(github, time)


def test_a_limit_in_no_number_is_waited_for_a_minute(github: PlatformServer, time: Time) -> None:
    github.answers["GET"] = [Answer(429, {"Retry-After": "\u00b2"})]
    post(github, time)
    assert time.slept == [60.0]


def test_the_token_is_hidden_before_a_reason_is_cut(github: PlatformServer, time: Time) -> None:
    message = json.dumps({"message": "x" * 390 + TOKEN})
    github.answers["GET"] = [Answer(422, body=message)]
    with pytest.raises(ClusterboxError) as caught:
        post(github, time)
    assert TOKEN[:5] not in str(caught.value)


def test_an_address_that_is_none_is_bad_input(github: PlatformServer, time: Time) -> None:
    with pytest.raises(InputError, match="GITHUB_API_URL is not an address"):
        post(github, time, GITHUB_API_URL="https://[bad")


@pytest.mark.parametrize("text", ["{}", "[]", '{"pull_request": null}'])
def test_an_event_without_a_pull_request_is_bad_input(
    github: PlatformServer, time: Time, tmp_path: Path, text: str
) -> None:
    event = tmp_path / "event.json"
    event.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match="of a pull request"):
        post(github, time, GITHUB_REF="refs/heads/main", GITHUB_EVENT_PATH=str(event))


def test_a_merge_request_from_a_fork_is_looked_for_where_it_is(time: Time) -> None:
    with serve("gitlab") as server:
        post(server, time, CI_PROJECT_ID="99", CI_MERGE_REQUEST_PROJECT_ID="12")
        assert server.bodies() == [f"{MARK}\nnew"]


@pytest.mark.parametrize(
    "url",
    [
        "http://api.github.com",
        "http://10.0.0.1",
        "http://127.0.0.1.example.com",
        "https://api.github.com@evil.example",
        "ftp://api.github.com",
        "api.github.com",
    ],
)
def test_a_token_is_sent_only_where_nobody_listens(url: str) -> None:
    environment = {**PlatformServer("github").environment, "GITHUB_API_URL": url}
    with pytest.raises(InputError, match="must be an address that begins with https://"):
        post_comment("github", "new", environment=environment)


@pytest.mark.parametrize("token", ["", "short", "two words here", "ends-with-line\n"])
def test_what_cannot_be_a_token_is_refused_without_showing_it(token: str) -> None:
    environment = {**PlatformServer("github").environment, "GITHUB_TOKEN": token}
    with pytest.raises(InputError, match="GITHUB_TOKEN") as caught:
        post_comment("github", "new", environment=environment)
    assert not token or token not in str(caught.value)


@pytest.mark.parametrize("name", ["", "a--b", "a-->b", "two words", "-a"])
def test_a_name_that_would_break_the_marker_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="name of a review"):
        marker(name)


def test_the_command_posts_a_file_and_prints_where(
    server: PlatformServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(COMMANDS, "post", ("post", "post a comment"))
    for variable, value in server.environment.items():
        monkeypatch.setenv(variable, value)
    file = tmp_path / "comment.md"
    file.write_text("**new** für alle", encoding="utf-8")
    assert main(["post", server.platform, str(file), "--name", "nightly"]) == 0
    assert server.bodies() == ["<!-- clusterbox review: nightly -->\n**new** für alle"]
    printed = capsys.readouterr().out
    assert printed.strip().endswith("101")


@pytest.mark.parametrize("content", [None, b"", b" \n", b"\xff\xfe"])
def test_a_file_that_is_no_text_is_bad_input(
    content: bytes | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(COMMANDS, "post", ("post", "post a comment"))
    file = tmp_path / "comment.md"
    if content is not None:
        file.write_bytes(content)
    assert main(["post", "github", str(file)]) == 2
    assert str(file) in capsys.readouterr().err
