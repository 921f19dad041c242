"""Run a command in the view of a stand-in machine: `machine_view.py FOLDER [--writable] COMMAND...`.

In a mount namespace of its own the command sees this machine's files read-only, and below /etc,
/opt, /var/lib and /var/log the stand-in's own files on top of them, which it may change. What must
never be done to this machine (reboot, dnf, ...) is covered by the stand-in's programs, by their
absolute paths too. Root needs no preparation; other users need user namespaces. Where the kernel
gives neither, the command runs with the stand-in's PATH only, and standard error says so.

Standard library only, run by its path.
"""

import ctypes
import json
import os
import platform
import sys
from pathlib import Path

# From linux/sched.h and linux/mount.h.
_CLONE_NEWNS, _CLONE_NEWUSER = 0x00020000, 0x10000000
_READ_ONLY, _REMOUNT, _BIND, _RECURSIVE, _PRIVATE = 1, 32, 4096, 16384, 1 << 18
_DETACH = 2
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
# Top-level folders in which every command may write.
_SHARED = frozenset({"dev", "proc", "run", "sys", "tmp"})
OWN_FOLDERS = ("etc", "opt", "var/lib", "var/log")
# Where the files of this machine are that an own folder covers.
BELOW = ".machine"

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def _mount(source: str, target: str, kind: str | None, flags: int) -> None:
    words = (source.encode(), target.encode(), kind.encode() if kind else None)
    _check(_libc.mount(*words, ctypes.c_ulong(flags), None), f"mount {target}")


def _bind(source: Path, target: Path, *, read_only: bool = False) -> None:
    _mount(str(source), str(target), None, _BIND | _RECURSIVE)
    if read_only:
        try:
            _mount("none", str(target), None, _REMOUNT | _BIND | _READ_ONLY)
        except PermissionError:
            # Flags of a mount are locked for ordinary users, who may not write there anyway.
            return


def _unshare() -> None:
    if os.geteuid() == 0:
        _check(_libc.unshare(_CLONE_NEWNS), "unshare")
        return
    user, group = os.geteuid(), os.getegid()
    _check(_libc.unshare(_CLONE_NEWNS | _CLONE_NEWUSER), "unshare")
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
    Path("/proc/self/gid_map").write_text(f"{group} {group} 1")


def enter(folder: Path, *, writable: bool) -> None:
    """Put this process into the view of the machine in `folder`; raises OSError when refused."""
    view = json.loads((folder / "view.json").read_text(encoding="utf-8"))
    _unshare()
    _mount("none", "/", None, _RECURSIVE | _PRIVATE)
    new = folder / "new-root"
    _mount("tmpfs", str(new), "tmpfs", 0)
    for entry in sorted(Path("/").iterdir()):
        target = new / entry.name
        if entry.is_symlink():
            target.symlink_to(entry.readlink())
        elif entry.is_dir():
            target.mkdir()
            _bind(entry, target, read_only=not writable and entry.name not in _SHARED)
    # The machine's own files stay writable, wherever they lie.
    _bind(folder, new / folder.relative_to("/"))
    for name in OWN_FOLDERS:
        below = new / BELOW / name
        below.mkdir(parents=True)
        _bind(Path("/") / name, below, read_only=not writable)
        _bind(folder / "root" / name, new / name)
    (new / BELOW / "bin").mkdir()
    _bind(folder / "bin", new / BELOW / "bin")
    for path, source in view["covered"].items():
        _cover(Path(source), new / path.lstrip("/"))
    for path, source in view["storage"].items():
        (new / path.lstrip("/")).mkdir(parents=True, exist_ok=True)
        _bind(Path(source), new / path.lstrip("/"))
    os.chdir(new)
    call = _PIVOT_ROOT[platform.machine()]
    _check(_libc.syscall(call, b".", b"."), "pivot_root")
    _check(_libc.umount2(b".", _DETACH), "umount")
    os.chdir("/")


def _cover(source: Path, target: Path) -> None:
    # A link of a program leads to one of another name, which is covered by itself.
    if target.is_file() and not target.is_symlink():
        _bind(source, target)


def main() -> None:
    """Run the command line's command."""
    folder, *words = sys.argv[1:]
    writable = words[0] == "--writable"
    command = words[1:] if writable else words
    try:
        enter(Path(folder), writable=writable)
    except (OSError, KeyError) as error:
        sys.stderr.write(
            f"clusterbox: this machine gives no view of its own to {Path(folder).name} ({error}): "
            "only the programs of its PATH stand in\n"
        )
    os.execvp(command[0], command)  # noqa: S606 -- it becomes the command


if __name__ == "__main__":
    main()
