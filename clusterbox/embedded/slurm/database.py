"""MariaDB for slurmdbd: without network, its first state copied from the user's cache.

Making the system tables, Slurm's tables and those of the cluster takes seconds; copying a data
folder that has them takes a fraction of one.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from clusterbox.embedded.slurm import daemons, programs
from clusterbox.embedded.slurm.daemons import EmbeddedSlurmError
from clusterbox.embedded.slurm.ports import cache_folder
from clusterbox.embedded.slurm.settings import Layout

# Small files, and no waiting for the disk: what is in it is gone with the cluster anyway.
_FILES = (
    "--innodb-log-file-size=8M",
    "--innodb-data-file-path=ibdata1:4M:autoextend",
    "--innodb-autoextend-increment=1",
    "--aria-log-file-size=8M",
)
_SPEED = (
    "--innodb-temp-data-file-path=ibtmp1:1M:autoextend",
    "--innodb-buffer-pool-size=64M",
    "--innodb-flush-log-at-trx-commit=0",
    "--innodb-flush-method=nosync",
    "--innodb-doublewrite=0",
    # slurmdbd asks for that much.
    "--innodb-lock-wait-timeout=900",
    "--performance-schema=0",
)


def template(cluster: str) -> Path:
    """Return where the data folder of a new cluster of that name is cached, if it is there."""
    versions = f"{programs.version('mariadbd')}\n{programs.version('slurmdbd')}\n{_FILES}"
    key = hashlib.sha256(versions.encode()).hexdigest()[:12]
    return cache_folder() / f"database-{key}-{cluster}"


def data_folder(layout: Layout) -> Path:
    """Return MariaDB's data folder."""
    return layout.folder / "database"


def install(layout: Layout) -> None:
    """Make MariaDB's system tables; raises EmbeddedSlurmError with what it said."""
    log = layout.log("mariadb-install")
    words = ["mariadb-install-db", "--no-defaults", f"--datadir={data_folder(layout)}"]
    words += ["--skip-test-db", "--auth-root-authentication-method=normal", *_FILES]
    with log.open("wb") as output:
        done = subprocess.run(
            [*words, *_as_root()],
            env={**os.environ, "PATH": programs.search_path()},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    if done.returncode != 0:
        raise EmbeddedSlurmError(
            f"mariadb-install-db failed ({done.returncode}); the end of {log}:\n{daemons.tail(log)}"
        )


def start(layout: Layout, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start MariaDB and return its process once it listens on its socket."""
    log = layout.log("mariadbd")
    words = ["mariadbd", "--no-defaults", f"--datadir={data_folder(layout)}"]
    words += [f"--socket={layout.database_socket}", "--skip-networking"]
    # Who may open the socket is decided by the mode that it gets here.
    words += ["--skip-grant-tables", f"--pid-file={layout.sockets / 'mariadbd.pid'}"]
    process = daemons.launch([*words, *_FILES, *_SPEED, *_as_root()], log, environment)
    daemons.wait_until("mariadbd", process, layout.database_socket.is_socket, log)
    layout.database_socket.chmod(stat.S_IRUSR | stat.S_IWUSR)
    return process


def save_template(layout: Layout, cluster: str, stop: Callable[[], None]) -> None:
    """Keep the data folder in the cache, after `stop` has ended the database cleanly."""
    stop()
    target = template(cluster)
    beside = Path(tempfile.mkdtemp(prefix=".new-", dir=target.parent))
    try:
        _copy(data_folder(layout), beside / "data")
        if not target.exists():
            (beside / "data").rename(target)
    except FileExistsError:
        pass  # Another start was quicker.
    except OSError as error:
        if not target.exists():
            raise EmbeddedSlurmError(f"{target} cannot be written: {error.strerror}") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def copy_template(layout: Layout, cluster: str) -> bool:
    """Take the data folder from the cache; return whether it was there."""
    source = template(cluster)
    if not source.exists():
        return False
    _copy(source, data_folder(layout))
    return True


def _copy(source: Path, target: Path) -> None:
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("ibtmp1", "*.pid", "*.sock"))


def _as_root() -> list[str]:
    return ["--user=root"] if os.geteuid() == 0 else []
