"""The pipelines call only targets of the Makefile, and each job may do only what it must."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from clusterbox.review.changed import Site
from clusterbox.review.deployments import render_child_pipeline
from tests.conftest import ROOT

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
GITLAB = [ROOT / ".gitlab-ci.yml", *sorted((ROOT / ".gitlab").glob("*.yml"))]
_NO_JOBS = {"workflow", "variables", "default", "stages", "include"}
_ARGUMENT = r'[A-Z]+=(?:[\w./^-]+|"\$[A-Z_0-9]+")'
_CALL = re.compile(rf"make ([a-z-]+)((?: {_ARGUMENT})*)")


def read(path: Path) -> dict[str, Any]:
    """Return a YAML file with every scalar as text, so that `on` stays a key."""
    found: dict[str, Any] = yaml.load(path.read_text(encoding="utf-8"), yaml.BaseLoader)  # noqa: S506 -- makes text only
    return found


def github_jobs() -> dict[str, dict[str, Any]]:
    """Return the jobs of all workflows as `workflow/job`."""
    return {
        f"{path.stem}/{name}": job for path in WORKFLOWS for name, job in read(path)["jobs"].items()
    }


def gitlab_jobs() -> dict[str, dict[str, Any]]:
    """Return the jobs of GitLab, with what they extend merged into them."""
    raw = {name: job for path in GITLAB for name, job in read(path).items() if name not in _NO_JOBS}
    return {name: {**raw.get(job.get("extends", ""), {}), **job} for name, job in raw.items()}


def commands() -> Iterator[tuple[str, str]]:
    """Yield every command that a job runs, with the job's name."""
    for name, job in github_jobs().items():
        yield from ((name, step["run"]) for step in job["steps"] if "run" in step)
    for name, job in gitlab_jobs().items():
        for key in ("before_script", "script", "after_script"):
            yield from ((name, line) for line in job.get(key, []))


GITHUB_JOBS, GITLAB_JOBS = github_jobs(), gitlab_jobs()
USES = [
    match
    for path in WORKFLOWS
    for match in re.findall(r"uses: (\S+?)@(\S+)(.*)", path.read_text(encoding="utf-8"))
]


def test_there_is_something_to_test() -> None:
    assert len(WORKFLOWS) == 4
    assert len(list(commands())) >= 16
    assert len(USES) >= 11


@pytest.mark.parametrize(("job", "command"), [*commands()])
def test_every_command_is_a_target_of_the_makefile(job: str, command: str) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    found = _CALL.fullmatch(command)
    assert found, f"{job} runs something else than one make target: {command}"
    assert re.search(rf"^{found[1]}:.*## ", makefile, re.MULTILINE), found[1]
    for variable in re.findall(r"([A-Z]+)=", found[2]):
        assert re.search(rf"^{variable} +\?=", makefile, re.MULTILINE), variable


@pytest.mark.parametrize("jobs", [GITHUB_JOBS, GITLAB_JOBS], ids=["github", "gitlab"])
def test_both_platforms_do_the_same(jobs: dict[str, dict[str, Any]]) -> None:
    lines = [command for job, command in commands() if job in jobs]
    targets = {found[1] for line in lines if (found := _CALL.match(line))}
    both = {"check", "validate", "review", "post", "changed-environments", "deploy", "cost-report"}
    assert both | {"patch-day-run"} <= targets


@pytest.mark.parametrize(("action", "commit", "comment"), USES)
def test_every_action_is_pinned_by_its_commit(action: str, commit: str, comment: str) -> None:
    assert re.fullmatch(r"[0-9a-f]{40}", commit)
    assert re.fullmatch(r" # v\d+\.\d+\.\d+", comment)
    page = (ROOT / "docs" / "pipelines.md").read_text(encoding="utf-8")
    assert f"| `{action}` | {comment.removeprefix(' # v')} | `{commit}` |" in page


def test_every_image_is_pinned_by_its_digest() -> None:
    image = read(ROOT / ".gitlab-ci.yml")["variables"]["CLUSTERBOX_IMAGE"]
    assert re.fullmatch(r"python:[\w.-]+@sha256:[0-9a-f]{64}", image)
    assert image.rpartition("@")[2] in (ROOT / "docs" / "pipelines.md").read_text(encoding="utf-8")
    texts = [path.read_text(encoding="utf-8") for path in [*GITLAB, *WORKFLOWS]]
    named = {name for text in texts for name in re.findall(r"\b(?:image|container): (\S+)", text)}
    assert named == {"$CLUSTERBOX_IMAGE"}


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_gives_no_permission_to_all_its_jobs(path: Path) -> None:
    assert read(path)["permissions"] == {}
    assert all("permissions" in job for job in read(path)["jobs"].values())


def test_only_what_posts_or_patches_writes_and_only_what_deploys_or_reports_has_an_identity() -> (
    None
):
    assert {name: job["permissions"] for name, job in GITHUB_JOBS.items()} == {
        "costs/report": {"contents": "read", "id-token": "write"},
        "deploy/changed": {"contents": "read"},
        "deploy/check": {"contents": "read"},
        "deploy/deploy": {"contents": "read", "id-token": "write"},
        # The branch with the new lock of images, and its pull request.
        "patch-day/patch-day": {
            "contents": "write",
            "id-token": "write",
            "pull-requests": "write",
        },
        "review/check": {"contents": "read"},
        "review/post": {"contents": "read", "pull-requests": "write"},
        "review/review": {"contents": "read"},
        "review/validate": {"contents": "read"},
    }


def test_a_pull_request_runs_without_secrets_and_in_its_own_context() -> None:
    triggers = {path.stem: list(read(path)["on"]) for path in WORKFLOWS}
    # pull_request_target and workflow_run would give a fork's code the rights of this repository.
    assert triggers == {
        "costs": ["schedule"],
        "deploy": ["push"],
        "patch-day": ["workflow_dispatch", "schedule"],
        "review": ["pull_request"],
    }
    text = (ROOT / ".github" / "workflows" / "review.yml").read_text(encoding="utf-8")
    assert "secrets" not in text
    assert "configure-aws-credentials" not in text
    assert re.findall(r"github\.token", text) == ["github.token"]
    assert "github.token" in str(GITHUB_JOBS["review/post"])


def test_githubs_posting_job_runs_what_is_merged_already() -> None:
    (checkout,) = [
        step
        for step in GITHUB_JOBS["review/post"]["steps"]
        if "actions/checkout@" in step.get("uses", "")
    ]
    assert checkout["with"]["ref"] == "${{ github.event.pull_request.base.sha }}"


def test_a_pull_request_from_a_fork_is_not_commented_on() -> None:
    condition = GITHUB_JOBS["review/post"]["if"]
    assert "github.event.pull_request.head.repo.full_name == github.repository" in condition
    same = "$CI_MERGE_REQUEST_SOURCE_PROJECT_ID == $CI_MERGE_REQUEST_PROJECT_ID"
    assert all(same in rule["if"] for rule in GITLAB_JOBS["post"]["rules"])


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_no_command_is_put_together_from_what_others_wrote(path: Path) -> None:
    jobs = read(path)["jobs"].values()
    assert [step for job in jobs for step in job["steps"] if "${{" in step.get("run", "")] == []


@pytest.mark.parametrize("name", GITHUB_JOBS)
def test_a_job_leaves_no_token_behind_and_ends(name: str) -> None:
    job = GITHUB_JOBS[name]
    # A session of a role lasts an hour, but for patch days, whose role is made for six.
    session = [
        int(step["with"]["role-duration-seconds"]) // 60
        for step in job["steps"]
        if "role-duration-seconds" in step.get("with", {})
    ]
    assert 0 < int(job["timeout-minutes"]) <= (session[0] if session else 60)
    checkouts = [step for step in job["steps"] if "actions/checkout@" in step.get("uses", "")]
    assert [step["with"]["persist-credentials"] for step in checkouts] == ["false"]


@pytest.mark.parametrize("name", ["review/review", "deploy/changed"])
def test_what_compares_commits_has_the_whole_history(name: str) -> None:
    assert GITHUB_JOBS[name]["steps"][0]["with"]["fetch-depth"] == "0"
    assert read(ROOT / ".gitlab-ci.yml")["variables"]["GIT_DEPTH"] == "0"


def test_github_deploys_after_the_checks_behind_the_gate_and_one_at_a_time() -> None:
    job = GITHUB_JOBS["deploy/deploy"]
    assert set(job["needs"]) == {"check", "changed"}
    assert job["environment"] == "${{ matrix.site.environment }}"
    assert job["concurrency"] == {
        "group": "deploy-${{ matrix.site.name }}",
        "cancel-in-progress": "false",
    }
    assert job["strategy"]["fail-fast"] == "false"
    assert read(ROOT / ".github" / "workflows" / "deploy.yml")["on"]["push"]["branches"] == ["main"]


def test_a_patch_day_waits_for_deployments_behind_the_same_gate_and_from_main_alone() -> None:
    job = GITHUB_JOBS["patch-day/patch-day"]
    assert job["environment"] == "${{ matrix.site.gate }}"
    assert job["concurrency"] == {
        "group": "deploy-${{ matrix.site.environment }}",
        "cancel-in-progress": "false",
    }
    assert job["if"].startswith("github.ref == 'refs/heads/main' && ")
    assert "patch_day" not in str(GITHUB_JOBS["deploy/deploy"])
    gitlab = GITLAB_JOBS["patch-day"]
    assert gitlab["resource_group"] == "deploy-$CLUSTERBOX_PATCH_DAY_ENVIRONMENT"
    assert gitlab["environment"] == {"name": "$CLUSTERBOX_PATCH_DAY_ENVIRONMENT"}
    for rule in gitlab["rules"]:
        assert "$CI_COMMIT_BRANCH == $CI_DEFAULT_BRANCH" in rule["if"]
        assert rule["if"].endswith("&& $CLUSTERBOX_PATCH_DAY_ENVIRONMENT")


def test_the_session_of_a_patch_day_is_as_long_as_its_role_allows() -> None:
    from stacks.patch_day import _SESSION_HOURS

    (step,) = [
        step
        for step in GITHUB_JOBS["patch-day/patch-day"]["steps"]
        if "role-to-assume" in step.get("with", {})
    ]
    assert int(step["with"]["role-duration-seconds"]) == _SESSION_HOURS * 3600


def test_gitlab_includes_what_lies_in_a_file_of_its_own() -> None:
    included = [item["local"] for item in read(ROOT / ".gitlab-ci.yml")["include"]]
    # The other one is for the pipeline that `make changed-environments` writes.
    assert included == [".gitlab/patch-day.yml"]
    assert {path.name for path in GITLAB} == {".gitlab-ci.yml", "deploy.yml", "patch-day.yml"}


def test_the_longest_comment_that_is_reviewed_can_be_posted() -> None:
    from clusterbox.review.post import room

    limits = {
        job: int(found[1])
        for job, command in commands()
        if (found := re.search(r"make review .*LIMIT=(\d+)", command))
    }
    assert limits["review/review"] <= room("github")
    assert limits["review"] <= room("gitlab")


def test_gitlabs_posting_job_has_the_token_and_nothing_else() -> None:
    with_environment = {name for name, job in GITLAB_JOBS.items() if "environment" in job}
    assert with_environment == {"post", "patch-day"}
    assert GITLAB_JOBS["post"]["environment"] == {"name": "review-comment", "action": "access"}
    assert "AWS" not in str(GITLAB_JOBS["post"])


def test_only_gitlabs_deploying_reporting_and_patching_jobs_have_an_identity() -> None:
    expected = {
        ".deploy": "$CLUSTERBOX_DEPLOY_ROLE_ARN",
        "cost-report": "$CLUSTERBOX_COST_REPORT_ROLE_ARN",
        "patch-day": "$CLUSTERBOX_PATCH_DAY_ROLE_ARN",
    }
    assert {name for name, job in GITLAB_JOBS.items() if "id_tokens" in job} == set(expected)
    roles = {
        name: job["variables"]["AWS_ROLE_ARN"]
        for name, job in GITLAB_JOBS.items()
        if "AWS_ROLE_ARN" in str(job)
    }
    assert roles == expected


def test_a_schedule_or_a_trigger_starts_what_it_names_and_nothing_else() -> None:
    source = '$CI_PIPELINE_SOURCE == "schedule" && $CLUSTERBOX_COST_REPORT_ENVIRONMENT'
    assert GITLAB_JOBS["cost-report"]["rules"] == [{"if": source}]
    for name, job in GITLAB_JOBS.items():
        # A job without rules runs in every pipeline; those that start with a dot run in none.
        if name not in ("cost-report", "patch-day") and not name.startswith("."):
            conditions = [rule["if"] for rule in job["rules"]]
            assert conditions, name
            for condition in conditions:
                # What names a source names another one; what names none leaves these two out.
                for source in ("schedule", "trigger"):
                    assert f'$CI_PIPELINE_SOURCE == "{source}"' not in condition, name
                    left_out = f'$CI_PIPELINE_SOURCE != "{source}"' in condition
                    assert left_out or '$CI_PIPELINE_SOURCE == "' in condition, name


def test_gitlab_deploys_by_hand_from_the_default_branch() -> None:
    assert GITLAB_JOBS[".deploy"]["rules"] == [
        {"if": "$CI_COMMIT_BRANCH == $CI_DEFAULT_BRANCH", "when": "manual"}
    ]
    assert set(GITLAB_JOBS["deploy"]["needs"]) == {"check", "changed-environments"}


def test_the_pipeline_that_is_written_for_gitlab_is_one(tmp_path: Path) -> None:
    sites = [
        Site(name, "111111111111", "us-west-2", frozenset(), None, on_gitlab=True)
        for name in ("dev", "prod")
    ]
    files = []
    for number, given in enumerate((sites, [])):
        files.append(tmp_path / f"{number}.yml")
        files[-1].write_text(render_child_pipeline(given), encoding="utf-8")
    done = subprocess.run(
        [
            Path(sys.executable).with_name("check-jsonschema"),
            "--builtin-schema",
            "vendor.gitlab-ci",
            *files,
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    jobs = read(files[0])
    assert jobs["deploy-dev"]["environment"] == {"name": "dev"}
    assert jobs["deploy-dev"]["resource_group"] != jobs["deploy-prod"]["resource_group"]
    # What the jobs extend is where the pipeline includes it from.
    for path in files:
        extended = {job["extends"] for name, job in read(path).items() if name != "include"}
        assert extended <= set(read(ROOT / ".gitlab" / "deploy.yml"))


@pytest.mark.parametrize("value", ["it's", "a b", '"$(id)"', "`id`", "x; id", "*"])
def test_a_make_variable_is_one_word_of_the_shell(value: str, root: Path) -> None:
    # A dollar sign is make's own: whoever means it writes two.
    asked = ["make", "--dry-run", "--silent", "review", f"BASE={value.replace('$', '$$')}"]
    asked += ["VENV_READY=", "PCLUSTER_READY=", "NODE_READY="]
    done = subprocess.run(asked, cwd=root, check=True, capture_output=True, text=True)
    command = next(part for part in done.stdout.split("\\\n") if "clusterbox review" in part)
    assert shlex.split(command)[:4] == ["clusterbox", "review", "--base", value]
