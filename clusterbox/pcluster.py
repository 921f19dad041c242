"""The door to ParallelCluster: its own Python environment, as processes."""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clusterbox.errors import ClusterboxError

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

    def _call(self, *words: str) -> dict[str, Any]:
        done = self.run_python(str(self.folder / "bin" / "pcluster"), *words)
        try:
            answer = json.loads(done.stdout)
        except ValueError as error:
            raise PclusterError(
                f"`pcluster {words[0]}` said: {done.stdout}{done.stderr}"
            ) from error
        if done.returncode != 0:
            raise PclusterError(f"`pcluster {words[0]}`: {answer.get('message', answer)}")
        result: dict[str, Any] = answer
        return result

    def run_python(self, *words: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run the environment's interpreter and return what it printed.

        Raises PclusterError when the environment is not installed.
        """
        self._require()
        return subprocess.run(
            [str(self.python), *words],
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
