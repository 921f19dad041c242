"""Calls of a platform's API: patient with its limits, never with its refusals."""

from __future__ import annotations

import json
import random
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urljoin, urlsplit

import urllib3

from clusterbox.errors import ClusterboxError

# A job that waits longer than this costs more than repeating it later.
MOST_SECONDS = 600.0
# A secondary limit of GitHub that does not say how long it lasts lasts at least a minute
# (GitHub's REST documentation, "Exceeding the rate limit").
LEAST_SECONDS_OF_A_LIMIT = 60.0
_LONGEST_BACKOFF_SECONDS = 60.0
_MOST_ATTEMPTS = 8
# 100 comments a page: nobody discusses a change in 50,000 comments.
_MOST_PAGES = 500
_TIMEOUT = urllib3.Timeout(connect=10.0, read=60.0)


class UnsureError(ClusterboxError):
    """A call that must not be repeated blindly failed, and may have done its work all the same."""


@dataclass(frozen=True)
class Clock:
    """What waiting needs; tests put in a clock of their own."""

    sleep: Callable[[float], None] = time.sleep
    monotonic: Callable[[], float] = time.monotonic
    now: Callable[[], float] = time.time
    jitter: Callable[[], float] = random.random


class RefusedError(Exception):
    """The platform answered with an error that waiting does not mend; the caller explains it."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status} ({message})")
        self.status = status


@dataclass
class Session:
    """Calls with one token, to one host, within one budget of time."""

    token: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    clock: Clock = field(default_factory=Clock)
    ca_file: str | None = None

    def __post_init__(self) -> None:
        """Open the connection pool and start the clock."""
        self._pool = urllib3.PoolManager(ca_certs=self.ca_file, retries=False, timeout=_TIMEOUT)
        self._deadline = self.clock.monotonic() + MOST_SECONDS

    def call(
        self, method: str, url: str, payload: object = None, *, repeatable: bool = True
    ) -> urllib3.BaseHTTPResponse:
        """Return the answer of the platform, waiting where it asks to or is out of order.

        Raises RefusedError for an answer that waiting does not mend; UnsureError where a call that is
        not `repeatable` failed in a way that leaves open whether it worked; ClusterboxError when
        patience ends.
        """
        attempt = 0
        while True:
            attempt += 1
            try:
                response = self._pool.request(
                    method,
                    url,
                    body=None if payload is None else json.dumps(payload).encode(),
                    headers={"Content-Type": "application/json", **self.headers},
                    redirect=False,
                )
            except urllib3.exceptions.HTTPError as error:
                failure = self.hide(f"{urlsplit(url).netloc} cannot be reached: {error}")
                if not repeatable:
                    raise UnsureError(failure) from error
                self.wait(attempt, failure)
                continue
            if 200 <= response.status < 300:
                return response
            failure = f"{urlsplit(url).netloc} answers {response.status}"
            if response.status >= 500:
                if not repeatable:
                    raise UnsureError(failure)
                self.wait(attempt, failure, at_least=_seconds_asked(response, self.clock.now()))
            elif _is_rate_limit(response):
                # Nothing was done, so that even a call that is not repeatable may be repeated.
                self.wait(
                    attempt,
                    f"{failure}: the rate limit of this token is used up",
                    at_least=_seconds_of_limit(response, self.clock.now()),
                )
            else:
                raise RefusedError(response.status, self.hide(_message(response))[:400])

    def pages(self, url: str) -> Iterator[dict[str, Any]]:
        """Yield the items of a list, over all its pages.

        Raises RefusedError or ClusterboxError like `call`, and ClusterboxError where the pages lead to
        another host or have no end.
        """
        following: str | None = url
        for _ in range(_MOST_PAGES):
            if following is None:
                return
            response = self.call("GET", following)
            items = _json(response)
            if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
                raise ClusterboxError(
                    f"{urlsplit(url).netloc} does not answer with a list of objects"
                )
            yield from items
            following = _next_page(following, response)
        if following is not None:
            raise ClusterboxError(f"the list at {url} has more than {_MOST_PAGES} pages")

    def record(self, response: urllib3.BaseHTTPResponse) -> dict[str, Any]:
        """Return the JSON object of an answer; raises ClusterboxError where it is none."""
        found = _json(response)
        if not isinstance(found, dict):
            raise ClusterboxError("the platform does not answer with a JSON object")
        return found

    def wait(self, attempt: int, failure: str, *, at_least: float = 0.0) -> None:
        """Wait before the next attempt: twice as long each time, with jitter, or `at_least` that.

        Raises ClusterboxError with the failure where time or attempts would be exceeded.
        """
        backoff = min(2.0 ** (attempt - 1), _LONGEST_BACKOFF_SECONDS)
        # Jitter keeps jobs that failed together from coming back together.
        seconds = max(at_least, backoff) + backoff * self.clock.jitter() / 2
        left = self._deadline - self.clock.monotonic()
        if attempt >= _MOST_ATTEMPTS or seconds > left:
            raise ClusterboxError(
                f"{failure}. Given up after {attempt} attempts: the next one would be due in "
                f"{seconds:.0f} s. Run the job again later; nothing is lost."
            )
        self.clock.sleep(seconds)

    def hide(self, text: str) -> str:
        """Return a text without the token."""
        return text.replace(self.token, "***")


def _json(response: urllib3.BaseHTTPResponse) -> Any:
    try:
        return json.loads(response.data)
    except (ValueError, RecursionError) as error:
        raise ClusterboxError(
            "the platform does not answer with JSON; is its address that of an API?"
        ) from error


def _message(response: urllib3.BaseHTTPResponse) -> str:
    """Return the platform's own words."""
    if 300 <= response.status < 400:
        return f"redirects to {origin_of(response.headers.get('Location', ''))[1] or 'nowhere'}"
    try:
        found = json.loads(response.data)
    except ValueError:
        return "no reason given"
    if not isinstance(found, dict):
        return "no reason given"
    reasons = [found.get("message") or found.get("error") or "no reason given"]
    reasons += found["errors"] if isinstance(found.get("errors"), list) else []
    return "; ".join(str(reason) for reason in reasons)


def _is_rate_limit(response: urllib3.BaseHTTPResponse) -> bool:
    if response.status == 429:
        return True
    # GitHub says 403 for both of its limits, and for a missing permission too.
    return response.status == 403 and (
        "Retry-After" in response.headers
        or response.headers.get("X-RateLimit-Remaining") == "0"
        or "rate limit" in _message(response).lower()
    )


def _seconds_of_limit(response: urllib3.BaseHTTPResponse, now: float) -> float:
    asked = _seconds_asked(response, now)
    if asked > 0:
        return asked
    # GitHub's name and GitLab's name of the same header, in seconds since 1970.
    for prefix in ("X-RateLimit", "RateLimit"):
        reset = response.headers.get(f"{prefix}-Reset", "")
        if response.headers.get(f"{prefix}-Remaining") == "0" and reset.isdecimal():
            return max(float(reset) - now, 0.0) + 1.0
    return LEAST_SECONDS_OF_A_LIMIT


def _seconds_asked(response: urllib3.BaseHTTPResponse, now: float) -> float:
    """Return the seconds of `Retry-After`, which may be a number or a date; 0 without it."""
    asked = response.headers.get("Retry-After", "").strip()
    if asked.isdecimal():
        return float(asked)
    try:
        return max(parsedate_to_datetime(asked).timestamp() - now, 0.0)
    except ValueError:
        return 0.0


def origin_of(url: str) -> tuple[str, str | None]:
    """Return the scheme and host of an address; None as host where it is no address at all."""
    try:
        return urlsplit(url)[:2]
    except ValueError:
        return "", None


def _next_page(url: str, response: urllib3.BaseHTTPResponse) -> str | None:
    """Return the address of the next page by the `Link` header, which both platforms send.

    Raises ClusterboxError where that is on another host.
    """
    for link in response.headers.get("Link", "").split(","):
        address, _, parameters = link.strip().partition(";")
        if 'rel="next"' in parameters:
            address = address.strip("<> ")
            # The token goes with every call: it stays with the host it was meant for.
            if origin_of(address)[1] is None or origin_of(urljoin(url, address)) != origin_of(url):
                raise ClusterboxError(
                    f"{urlsplit(url).netloc} sends on to {origin_of(address)[1] or 'nowhere'} for the "
                    "next page of comments; the token is not sent there"
                )
            return urljoin(url, address)
    # GitLab's own header, for servers whose proxy removes the other.
    number = response.headers.get("X-Next-Page", "")
    return re.sub(r"([?&]page=)\d+", rf"\g<1>{number}", url) if number.isdecimal() else None
