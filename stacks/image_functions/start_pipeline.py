"""Start the patch-day pipeline of GitHub or GitLab: the Lambda function behind the schedule."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import boto3

TIMEOUT_SECONDS = 30
WORKFLOW = "patch-day.yml"
# What a refusal means, and what to do about it.
REASONS = {
    401: "the token is not valid or has expired; put a new one into the secret",
    403: "the token may not start the pipeline; docs/pipelines.md says what it needs",
    404: "there is no such project or pipeline, or the token cannot see it",
    422: "the pipeline does not take what it was given; is the workflow on that branch?",
}


class NotStartedError(Exception):
    """The pipeline was not started; Lambda tries again, and then the event is a dead letter."""


@dataclass(frozen=True)
class Call:
    """One call of a platform's API."""

    url: str
    headers: Mapping[str, str]
    body: bytes


def handle(_event: object, _context: object) -> str:
    """Start the pipeline and return where it was asked for.

    Raises NotStartedError, KeyError for a variable that is missing, and boto3's errors.
    """
    secret = boto3.client("secretsmanager").get_secret_value(
        SecretId=os.environ["CLUSTERBOX_TOKEN_SECRET"]
    )
    call = make_call(os.environ, secret["SecretString"].strip())
    send(call)
    return call.url


def make_call(variables: Mapping[str, str], token: str) -> Call:
    """Return the call that starts the pipeline of one environment.

    GitHub: "Create a workflow dispatch event" of its REST API. GitLab: "Trigger a pipeline with a
    token", whose token goes into the body and so into no log of addresses.
    """
    environment, host = variables["CLUSTERBOX_ENVIRONMENT"], variables["CLUSTERBOX_HOST"]
    project, branch = variables["CLUSTERBOX_PROJECT"], variables["CLUSTERBOX_BRANCH"]
    if variables["CLUSTERBOX_PLATFORM"] == "github":
        return Call(
            f"https://{host}/repos/{project}/actions/workflows/{WORKFLOW}/dispatches",
            {
                "Accept": "application/vnd.github+json",
                "Authorization": f"Bearer {token}",
                "Content-Type": "application/json",
                "User-Agent": "clusterbox",
                "X-GitHub-Api-Version": "2022-11-28",
            },
            json.dumps({"ref": branch, "inputs": _inputs(variables)}).encode(),
        )
    fields = {
        "token": token,
        "ref": branch,
        "variables[CLUSTERBOX_PATCH_DAY_ENVIRONMENT]": environment,
    }
    return Call(
        f"https://{host}/api/v4/projects/{urllib.parse.quote(project, safe='')}/trigger/pipeline",
        {"Content-Type": "application/x-www-form-urlencoded", "User-Agent": "clusterbox"},
        urllib.parse.urlencode(fields).encode(),
    )


def _inputs(variables: Mapping[str, str]) -> dict[str, str]:
    """Return what the workflow asks for."""
    return {
        "environment": variables["CLUSTERBOX_ENVIRONMENT"],
        "account": variables["CLUSTERBOX_ACCOUNT"],
        "region": variables["AWS_REGION"],
        "gate": variables["CLUSTERBOX_GATE"],
    }


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Refuses redirects: the token goes to one host."""

    def redirect_request(self, *_arguments: Any, **_options: Any) -> None:
        """Return nothing, so that the answer is an error."""
        return


_open = urllib.request.build_opener(_NoRedirects).open


def send(call: Call, opened: Callable[..., Any] = _open) -> None:
    """Make a call; raises NotStartedError with what the platform says, and never with the token."""
    request = urllib.request.Request(call.url, call.body, dict(call.headers), method="POST")  # noqa: S310 -- https alone
    try:
        with opened(request, timeout=TIMEOUT_SECONDS):
            return
    except urllib.error.HTTPError as error:
        reason = REASONS.get(error.code, "look at the platform's state, then start it by hand")
        raise NotStartedError(f"{call.url}: HTTP {error.code}: {reason}") from None
    except OSError as error:
        raise NotStartedError(f"{call.url} cannot be reached: {type(error).__name__}") from None
