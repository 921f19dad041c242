"""The door to ParallelCluster: its own Python environment, as processes."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clusterbox.errors import ClusterboxError, InputError

_POLL_SECONDS = 2.0
_TAIL_LINES = 30


class PclusterError(ClusterboxError):
    """ParallelCluster refused or failed; the message is its own."""


@dataclass(frozen=True)
class Pcluster:
    """The pinned `aws-parallelcluster` of the second environment, run against one target."""

    folder: Path
    environment: Mapping[str, str]

    @property
    def python(self) -> Path:
        """The interpreter that has the library."""
        return self.folder / "bin" / "python"

    def fetch_cluster(self, name: str, region: str) -> dict[str, Any] | None:
        """Return what `pcluster describe-cluster` says, or None when there is no such cluster."""
        try:
            return self._call("describe-cluster", "--cluster-name", name, "--region", region)
        except PclusterError as error:
            if "does not exist" in str(error):
                return None
            raise

    def delete_cluster(self, name: str, region: str, *, timeout_seconds: float = 3600) -> bool:
        """Delete a cluster and wait until it is gone; return whether there was one.

        Running jobs end. Raises PclusterError when the deletion fails or takes too long.
        """
        if self.fetch_cluster(name, region) is None:
            return False
        self._call("delete-cluster", "--cluster-name", name, "--region", region)
        end = time.monotonic() + timeout_seconds
        while (cluster := self.fetch_cluster(name, region)) is not None:
            if cluster["clusterStatus"] == "DELETE_FAILED":
                raise PclusterError(f"deleting {name} failed; see the events of its stack {name}")
            if time.monotonic() > end:
                raise PclusterError(
                    f"{name} is still {cluster['clusterStatus']} after {timeout_seconds:.0f} s"
                )
            time.sleep(_POLL_SECONDS)
        return True

    def build_image(
        self, image: str, configuration: Mapping[str, Any], region: str
    ) -> dict[str, Any]:
        """Begin to build an image; return what `pcluster build-image` says.

        Raises InputError for a configuration that names no role for the clean-up, or no boundary:
        even for a dry run ParallelCluster would make a role of its own, without a boundary. Raises
        PclusterError when it refuses, such as for an image or stack of this name that exists.
        """
        refuse_roles_of_its_own(configuration)
        # Readable for this user alone; ParallelCluster takes JSON, which is YAML too.
        with tempfile.NamedTemporaryFile("w", suffix=".json", encoding="utf-8") as file:
            json.dump(configuration, file, indent=2)
            file.flush()
            return self._call(
                "build-image",
                *("--image-id", image, "--image-configuration", file.name, "--region", region),
            )

    def fetch_image(self, image: str, region: str) -> dict[str, Any] | None:
        """Return what `pcluster describe-image` says; None where there is neither image nor build."""
        try:
            return self._call("describe-image", "--image-id", image, "--region", region)
        except PclusterError as error:
            if "No image or stack associated with" in str(error):
                return None
            raise

    def fetch_images(self, status: str, region: str) -> list[dict[str, Any]]:
        """Return the images of `pcluster list-images`: AVAILABLE, PENDING or FAILED ones."""
        return self._pages("images", "list-images", "--image-status", status, "--region", region)

    def delete_image(self, image: str, region: str, *, force: bool = False) -> None:
        """Begin to delete an image, its build's stack and its logs.

        Raises PclusterError for one that is being built, that does not exist, or, without `force`,
        that instances or other accounts use.
        """
        words = ("--image-id", image, "--region", region, "--force", str(force).lower())
        self._call("delete-image", *words)

    def fetch_image_log(self, image: str, region: str, *, lines: int) -> list[str]:
        """Return the last lines of the log of an image's build; none where there is no log."""
        where = ("--image-id", image, "--region", region)
        streams = self._pages("logStreams", "list-image-log-streams", *where)
        if not streams:
            return []
        newest = max(streams, key=lambda stream: str(stream.get("lastEventTimestamp", "")))
        name = str(newest["logStreamName"])
        words = ("--log-stream-name", name, "--limit", str(lines))
        events = self._call("get-image-log-events", *where, *words)["events"]
        return [str(event["message"]) for event in events]

    def fetch_image_stack_events(self, image: str, region: str) -> list[dict[str, Any]]:
        """Return the events of the stack of an image's build, the newest first."""
        words = ("--image-id", image, "--region", region)
        return self._pages("events", "get-image-stack-events", *words)

    def _pages(self, key: str, *words: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        more: tuple[str, ...] = ()
        while True:
            answer = self._call(*words, *more)
            found += answer.get(key) or []
            if not answer.get("nextToken"):
                return found
            more = ("--next-token", str(answer["nextToken"]))

    def _call(self, *words: str) -> dict[str, Any]:
        done = self.run_python(str(self.folder / "bin" / "pcluster"), *words)
        try:
            answer = json.loads(done.stdout)
        except ValueError as error:
            raise PclusterError(
                f"`pcluster {words[0]}` said: {done.stdout}{done.stderr}"
            ) from error
        if done.returncode != 0:
            raise PclusterError(f"`pcluster {words[0]}`: {_render_refusal(answer)}")
        result: dict[str, Any] = answer
        return result

    def run_python(self, *words: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run the environment's interpreter and return what it printed.

        Raises PclusterError when the environment is not installed.
        """
        self._require()
        return subprocess.run(
            [*_dying_with_its_parent(), str(self.python), *words],
            env=dict(self.environment),
            input=stdin,
            capture_output=True,
            text=True,
        )

    def stream_python(self, *words: str, stdin: str, import_root: Path) -> Iterator[str]:
        """Run the environment's interpreter and yield its lines as it prints them.

        It can import the packages in `import_root` too. Raises PclusterError when the environment
        is not installed, or with the end of stderr when the process fails.
        """
        self._require()
        with (
            tempfile.TemporaryFile("w+", encoding="utf-8") as given,
            tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as complaints,
        ):
            given.write(stdin)
            given.seek(0)
            with subprocess.Popen(
                [str(self.python), "-P", *words],
                env={**self.environment, "PYTHONPATH": str(import_root)},
                stdin=given,
                stdout=subprocess.PIPE,
                stderr=complaints,
                text=True,
                encoding="utf-8",
            ) as process:
                assert process.stdout is not None  # noqa: S101 - a pipe was asked for
                try:
                    yield from process.stdout
                except BaseException:
                    process.kill()
                    raise
            if process.returncode != 0:
                complaints.seek(0)
                tail = "".join(complaints.readlines()[-_TAIL_LINES:]).strip()
                raise PclusterError(f"ParallelCluster's library failed:\n{tail}")

    def _require(self) -> None:
        if not self.python.exists():
            raise PclusterError(
                f"ParallelCluster is not installed in {self.folder}; run `make setup`"
            )


def refuse_roles_of_its_own(configuration: Mapping[str, Any]) -> None:
    """Raise InputError where `pcluster build-image` would make a role of its own.

    Source: pcluster/api/controllers/image_operations_controller.py, which makes the default role of
    the clean-up before it looks whether the call is a dry run; and templates/imagebuilder_stack.py.
    """
    build = configuration.get("Build")
    iam = build.get("Iam") if isinstance(build, Mapping) else None
    given = iam if isinstance(iam, Mapping) else {}
    missing = [key for key in ("CleanupLambdaRole", "PermissionsBoundary") if not given.get(key)]
    if not (given.get("InstanceRole") or given.get("InstanceProfile")):
        missing.append("InstanceRole")
    if missing:
        raise InputError(
            f"Build.Iam lacks {' and '.join(missing)}: ParallelCluster would make a role without "
            "the permissions boundary; no image is built with this configuration"
        )


def _render_refusal(answer: Mapping[str, Any]) -> str:
    """Return ParallelCluster's message, with what its validators found."""
    details = [
        f"\n  {found.get('level', 'ERROR')}: {found.get('message', found)}"
        for found in answer.get("configurationValidationErrors") or ()
    ]
    return f"{answer.get('message', answer)}{''.join(details)}"


def _dying_with_its_parent() -> list[str]:
    """Return what starts a process that ends when this one is killed, where this system can.

    A `build-image` that lived on could make its stack after whoever took up the work has looked.
    """
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "KILL", "--"] if setpriv else []
