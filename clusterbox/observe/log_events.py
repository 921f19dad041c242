"""Read CloudWatch Logs: events of many streams in the order of time, page by page, or as they come."""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from clusterbox.errors import ClusterboxError, InputError
from clusterbox.observe.log_streams import Group, Stream, group_prefix, newest_group, parse_stream

# Quotas and codes: API reference of CloudWatch Logs, FilterLogEvents.
_MOST_STREAMS = 100
_THROTTLED = {
    "LimitExceededException",
    "RequestLimitExceeded",
    "ServiceUnavailableException",
    "ThrottledException",
    "Throttling",
    "ThrottlingException",
    "TooManyRequestsException",
}
_DENIED = {"AccessDenied", "AccessDeniedException", "UnauthorizedOperation"}
_EXPIRED = {"ExpiredToken", "ExpiredTokenException", "InvalidClientTokenId", "RequestExpired"}
# Tries of a call that is throttled, beyond botocore's own.
_ATTEMPTS = 8
_FIRST_PAUSE = 1.0
_MOST_PAUSE = 30.0
# How often --follow looks: soon after something came, seldom after silence.
_FOLLOW_FIRST = 2.0
_FOLLOW_MOST = 15.0
# The agent sends a batch every 5 s, and nodes' clocks differ: what comes late is looked for this long.
_LATE_SECONDS = 60.0
# New nodes have new streams.
_STREAMS_SECONDS = 30.0


@dataclass(frozen=True, order=True)
class LogEvent:
    """One event; `at` is in seconds since 1970."""

    at: float
    stream: Stream = field(compare=False)
    message: str = field(compare=False)
    id: str = field(compare=False, default="")


class LogsDeniedError(ClusterboxError):
    """The account does not allow a call to CloudWatch Logs."""


@dataclass(frozen=True)
class LogReader:
    """CloudWatch Logs of one account; `logs` is boto3's client."""

    logs: Any = field(repr=False)
    sleep: Callable[[float], None] = field(default=time.sleep, repr=False)
    now: Callable[[], float] = field(default=time.time, repr=False)

    def find_group(self, cluster: str) -> Group:
        """Return the newest log group of a cluster; raises ClusterboxError where there is none."""
        prefix = group_prefix(cluster)
        pages = self._pages("describe_log_groups", logGroupNamePrefix=prefix)
        names = [entry["logGroupName"] for page in pages for entry in page["logGroups"]]
        group = newest_group(names, cluster)
        if group is None:
            raise ClusterboxError(
                f"there is no log group {prefix}TIME: the cluster was not made in this account and "
                "region, or its configuration has Monitoring: Logs: CloudWatch: Enabled: false"
            )
        return group

    def fetch_streams(self, group: str) -> list[Stream]:
        """Return the streams that ParallelCluster wrote into a log group."""
        found = []
        for page in self._pages("describe_log_streams", logGroupName=group):
            for entry in page["logStreams"]:
                stream = parse_stream(
                    entry["logStreamName"],
                    first=_seconds(entry.get("firstEventTimestamp")),
                    last=_seconds(entry.get("lastEventTimestamp")),
                )
                if stream is not None:
                    found.append(stream)
        return found

    def fetch_events(
        self, group: str, streams: Sequence[Stream], since: float, until: float | None = None
    ) -> Iterator[LogEvent]:
        """Yield the events of streams in the order of time; one page a hundred streams is in memory.

        Raises ClusterboxError where they cannot be had.
        """
        chunks = [streams[at : at + _MOST_STREAMS] for at in range(0, len(streams), _MOST_STREAMS)]
        yield from heapq.merge(
            *(self._events(group, chunk, since, until) for chunk in chunks),
            key=lambda event: event.at,
        )

    def follow(
        self,
        group: str,
        choose: Callable[[Sequence[Stream]], Sequence[Stream]],
        since: float,
    ) -> Iterator[LogEvent]:
        """Yield events from a time on, and then those that come, without an end.

        `choose` picks streams of the group; it is asked again as nodes come. Within one look the
        events are in order; one that comes late follows those that were there before it.
        """
        seen: dict[str, float] = {}
        streams = choose(self.fetch_streams(group))
        looked = self.now()
        last = since
        pause = _FOLLOW_FIRST
        while True:
            came = False
            for event in self.fetch_events(group, streams, max(since, last - _LATE_SECONDS)):
                key = event.id or f"{event.at} {event.stream.name} {event.message}"
                if key in seen:
                    continue
                seen[key] = event.at
                came = True
                last = max(last, event.at)
                yield event
            # A second more than is asked for again: sums of times are not exact.
            seen = {key: at for key, at in seen.items() if at >= last - _LATE_SECONDS - 1}
            pause = _FOLLOW_FIRST if came else min(pause * 1.5, _FOLLOW_MOST)
            self.sleep(pause)
            if self.now() - looked >= _STREAMS_SECONDS:
                streams = choose(self.fetch_streams(group))
                looked = self.now()

    def _events(
        self, group: str, streams: Sequence[Stream], since: float, until: float | None
    ) -> Iterator[LogEvent]:
        by_name = {stream.name: stream for stream in streams}
        words: dict[str, Any] = {
            "logGroupName": group,
            "logStreamNames": list(by_name),
            "startTime": max(0, int(since * 1000)),
        }
        if until is not None:
            words["endTime"] = max(words["startTime"], int(until * 1000))
        # Some pages are empty and are not the last one.
        for page in self._pages("filter_log_events", **words):
            for entry in page.get("events", ()):
                yield LogEvent(
                    at=entry["timestamp"] / 1000,
                    stream=by_name[entry["logStreamName"]],
                    message=entry["message"].rstrip("\r\n"),
                    id=entry.get("eventId", ""),
                )

    def _pages(self, operation: str, **words: Any) -> Iterator[Any]:
        token: str | None = None
        while True:
            page = self._call(operation, **words, **({"nextToken": token} if token else {}))
            yield page
            # An end that is told by the same token again, as GetLogEvents does, is one too.
            if page.get("nextToken") in (None, token):
                return
            token = page["nextToken"]

    def _call(self, operation: str, **words: Any) -> Any:
        from botocore.exceptions import ClientError

        pause = _FIRST_PAUSE
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return getattr(self.logs, operation)(**words)
            except ClientError as error:
                code = error.response["Error"]["Code"]
                if code not in _THROTTLED or attempt == _ATTEMPTS:
                    raise _explain(error, code, operation, words) from error
            self.sleep(pause)
            pause = min(pause * 2, _MOST_PAUSE)
        raise AssertionError("unreachable")  # pragma: no cover


def _explain(error: Exception, code: str, operation: str, words: dict[str, Any]) -> ClusterboxError:
    where = words.get("logGroupName") or words.get("logGroupNamePrefix", "")
    action = "logs:" + "".join(part.capitalize() for part in operation.split("_"))
    if code in _DENIED:
        return LogsDeniedError(f"{where}: you may not read it; allow {action} on it: {error}")
    if code in _EXPIRED:
        return InputError(f"your credentials have expired: {error}. Sign in again.")
    if code in _THROTTLED:
        return ClusterboxError(
            f"{where}: CloudWatch Logs throttled {action} {_ATTEMPTS} times: ask for less with "
            "--since or --stream, or try again later"
        )
    if code == "ResourceNotFoundException":
        return ClusterboxError(f"{where}: there is no such log group or stream any more")
    return ClusterboxError(f"{where}: {action} failed: {error}")


def _seconds(milliseconds: int | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1000
