"""Programs that stand in for those of a real machine, in the PATH of an embedded instance.

`machine_programs.py NAME ARGUMENTS...` answers from, and changes, the state in the folder that the
variable CLUSTERBOX_MACHINE names: what its image holds, and what was done to it since. They know
what a patch day asks, no more; what they do not know they refuse with exit code 64, so that nobody
takes silence for success. Standard library only, run by its path.
"""

import fcntl
import json
import os
import re
import shlex
import sys
import time
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

State = dict[str, Any]
_UNKNOWN = 64
_UPDATES_THERE = 100
_KERNEL = "kernel"


def _folder() -> Path:
    return Path(os.environ["CLUSTERBOX_MACHINE"])


def read_state() -> State:
    """Return the machine's state."""
    found: State = json.loads((_folder() / "state.json").read_text(encoding="utf-8"))
    return found


@contextmanager
def change_state(folder: Path | None = None) -> Iterator[State]:
    """Hold the state of the machine in a folder, and write it back changed."""
    where = folder or _folder()
    with (where / "state.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        state: State = json.loads((where / "state.json").read_text(encoding="utf-8"))
        yield state
        beside = where / "state.json.new"
        beside.write_text(json.dumps(state, indent=1), encoding="utf-8")
        beside.replace(where / "state.json")


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")


def _refuse(name: str, words: list[str]) -> int:
    sys.stderr.write(f"{name}: the stand-in does not know: {shlex.join([name, *words])}\n")
    return _UNKNOWN


# Kernel


def uname(words: list[str]) -> int:
    """Say what kernel runs: the installed one of the last boot."""
    state = read_state()
    fields = {
        "s": "Linux",
        "n": state["hostname"],
        "r": state["running"],
        "v": "#1 SMP PREEMPT_DYNAMIC",
        "m": state["machine"],
        "o": "GNU/Linux",
    }
    long = {"--kernel-release": "r", "--machine": "m", "--all": "a", "--nodename": "n"}
    asked = "".join(long.get(word, word.lstrip("-")) for word in words) or "s"
    if set(asked) - {*fields, "a", "p", "i"}:
        return _refuse("uname", words)
    order = "snrvmo"
    chosen = order if "a" in asked else [c for c in order if c in asked.replace("p", "m")]
    _say(" ".join(fields[c] for c in chosen))
    return 0


def lsmod(_words: list[str]) -> int:
    """List the loaded modules, as the machine's /proc/modules has them."""
    _say("Module                  Size  Used by")
    for line in (_folder() / "proc" / "modules").read_text(encoding="utf-8").splitlines():
        name, size, users, *_ = line.split()
        _say(f"{name:<22} {size:>6}  {users}")
    return 0


def modinfo(words: list[str]) -> int:
    """Tell of a module that is installed for the running kernel."""
    state = read_state()
    name = words[-1]
    if name not in state["modules"]:
        sys.stderr.write(f"modinfo: ERROR: Module {name} not found.\n")
        return 1
    version = f"{state['running']} SMP preempt mod_unload modversions"
    _say(version if "vermagic" in words else f"name: {name}\nvermagic: {version}")
    return 0


def modprobe(words: list[str]) -> int:
    """Load what is loaded already; nothing else is there."""
    names = [word for word in words if not word.startswith("-")]
    missing = [name for name in names if name not in read_state()["modules"]]
    for name in missing:
        sys.stderr.write(f"modprobe: FATAL: Module {name} not found.\n")
    return 1 if missing else 0


def grubby(words: list[str]) -> int:
    """Say which kernel the next boot takes."""
    if words != ["--default-kernel"]:
        return _refuse("grubby", words)
    _say(f"/boot/vmlinuz-{read_state()['installed']}")
    return 0


# Packages


def _newer(state: State, words: list[str]) -> dict[str, tuple[str, str]]:
    """Return the updates that are there: package → installed and available version."""
    found = {
        name: (version, state["available"][name])
        for name, version in state["packages"].items()
        if state["available"].get(name, version) != version
    }
    excluded = [
        pattern
        for index, word in enumerate(words)
        for pattern in (
            word.partition("=")[2]
            if word.startswith(("--exclude=", "-x="))
            else words[index + 1]
            if word in ("-x", "--exclude") and index + 1 < len(words)
            else ""
        ).split(",")
        if pattern
    ]
    excluded += state.get("locked", [])
    found = {n: v for n, v in found.items() if not any(fnmatchcase(n, p) for p in excluded)}
    if "--security" in words or words[:1] == ["upgrade-minimal"]:
        found = {n: v for n, v in found.items() if n in state["security"]}
    return found


def _names(words: list[str]) -> list[str]:
    names = []
    skip = False
    for word in words:
        if skip:
            skip = False
        elif word in ("-x", "--exclude", "--releasever"):
            skip = True
        elif not word.startswith("-"):
            names.append(word)
    return names


def _upgrade(words: list[str]) -> int:
    names = _names(words[1:])
    with change_state() as state:
        updates = _newer(state, words)
        if names:
            updates = {n: v for n, v in updates.items() if any(fnmatchcase(n, p) for p in names)}
        _install(state, {name: new for name, (_, new) in updates.items()})
    quiet = any(word in ("-q", "--quiet") for word in words)
    if not quiet:
        for name, (old, new) in updates.items():
            _say(f"  {name} {old} -> {new}")
        _say("Complete!" if updates else "Nothing to do.")
    return 0


def _install(state: State, versions: dict[str, str]) -> None:
    state["packages"].update(versions)
    if _KERNEL in versions:
        state["installed"] = f"{versions[_KERNEL]}.{state['machine']}"


def _install_named(words: list[str]) -> int:
    with change_state() as state:
        wanted = _names(words[1:])
        unknown = [n for n in wanted if n not in state["available"] and n not in state["packages"]]
        if unknown:
            sys.stderr.write(
                f"No match for argument: {unknown[0]}\nError: Unable to find a match\n"
            )
            return 1
        _install(state, {n: state["available"][n] for n in wanted if n not in state["packages"]})
    return 0


def _remove(words: list[str]) -> int:
    with change_state() as state:
        for name in _names(words[1:]):
            state["packages"].pop(name, None)
    return 0


def _check_update(words: list[str]) -> int:
    state = read_state()
    updates = _newer(state, words)
    for name, (_, new) in updates.items():
        _say(f"{name}.{state['machine']}  {new}  amazonlinux")
    return _UPDATES_THERE if updates else 0


def _list(words: list[str]) -> int:
    state = read_state()
    for name, version in sorted(state["packages"].items()):
        if not words[2:] or any(fnmatchcase(name, p) for p in _names(words[2:])):
            _say(f"{name}.{state['machine']}  {version}  @System")
    return 0


def _updateinfo(words: list[str]) -> int:
    state = read_state()
    known = state["advisories_installed" if "--installed" in words else "advisories_available"]
    for advisory in known:
        package = f"{advisory['package']}.{state['machine']}"
        _say(f"{advisory['id']} {advisory['severity'].capitalize()}/Sec. {package}")
    return 0


def _versionlock(words: list[str]) -> int:
    with change_state() as state:
        locked = state.setdefault("locked", [])
        match words[1:]:
            case ["add", *names]:
                locked += names
            case ["delete", *names]:
                state["locked"] = [n for n in locked if n not in names]
            case ["clear"]:
                state["locked"] = []
            case _:
                _say("\n".join(locked))
    return 0


_DNF: dict[str, Callable[[list[str]], int]] = {
    "upgrade": _upgrade,
    "update": _upgrade,
    "upgrade-minimal": _upgrade,
    "install": _install_named,
    "remove": _remove,
    "check-update": _check_update,
    "check-upgrade": _check_update,
    "list": _list,
    "updateinfo": _updateinfo,
    "versionlock": _versionlock,
    "needs-restarting": lambda words: needs_restarting(words[1:]),
    "clean": lambda _words: 0,
    "makecache": lambda _words: 0,
    "history": lambda _words: 0,
}


def dnf(words: list[str]) -> int:
    """Upgrade, install and list packages in the machine's state; nothing is downloaded."""
    action = next((word for word in words if word in _DNF), None)
    if action is None:
        return _refuse("dnf", words)
    rest = [word for word in words if word != action]
    return _DNF[action]([action, *rest])


def needs_restarting(_words: list[str]) -> int:
    """Return 1 when an installed kernel does not run yet."""
    state = read_state()
    if state["running"] == state["installed"]:
        _say("Reboot should not be necessary.")
        return 0
    _say(
        "Core libraries or services have been updated since boot-up:\n  * kernel\n"
        "Reboot is required to fully utilize these updates."
    )
    return 1


def rpm(words: list[str]) -> int:
    """Query the packages: `-q NAME...`, `-qa`, each with `--qf`."""
    form = "%{NAME}-%{VERSION}-%{RELEASE}.%{ARCH}\n"
    rest, everything, query = [], False, False
    position = 0
    while position < len(words):
        word = words[position]
        if word in ("--qf", "--queryformat"):
            position += 1
            form = words[position].replace("\\n", "\n").replace("\\t", "\t")
        elif word.startswith(("--qf=", "--queryformat=")):
            form = word.partition("=")[2].replace("\\n", "\n").replace("\\t", "\t")
        elif word in ("-q", "--query"):
            query = True
        elif word in ("-a", "--all"):
            everything = True
        elif word == "-qa":
            query = everything = True
        elif word.startswith("-") and word not in ("--quiet",):
            return _refuse("rpm", words)
        elif word != "--quiet":
            rest.append(word)
        position += 1
    if not query:
        return _refuse("rpm", words)
    state = read_state()
    failed = 0
    names = sorted(state["packages"]) if everything and not rest else rest
    if everything and rest:
        names = [n for n in sorted(state["packages"]) if any(fnmatchcase(n, p) for p in rest)]
    for name in names:
        if name not in state["packages"]:
            _say(f"package {name} is not installed")
            failed += 1
            continue
        version, _, release = state["packages"][name].rpartition("-")
        fields = {
            "NAME": name,
            "VERSION": version,
            "RELEASE": release,
            "ARCH": state["machine"],
            "EPOCH": "(none)",
            "EPOCHNUM": "0",
        }
        text = form
        for field, value in fields.items():
            text = text.replace(f"%{{{field}}}", value)
        sys.stdout.write(re.sub(r"%\{\w+\}", "(none)", text))
    return failed


# Units and reboots


def systemctl(words: list[str]) -> int:
    """Tell of units, enable and start them; a start runs nothing."""
    plain = [word for word in words if not word.startswith("-")]
    action, *names = plain or ["list-units"]
    names = [name if "." in name else f"{name}.service" for name in names]
    if action in ("reboot", "poweroff", "halt"):
        return reboot([]) if action == "reboot" else poweroff([])
    if action in ("daemon-reload", "is-system-running", "reset-failed"):
        if action == "is-system-running":
            _say("running")
        return 0
    with change_state() as state:
        return _units(action, names, words, state["units"])


def _units(action: str, names: list[str], words: list[str], units: State) -> int:
    if action in ("list-units", "list-unit-files"):
        for name, unit in sorted(units.items()):
            if action == "list-unit-files":
                enabled = "enabled" if unit["enabled"] else "disabled"
                _say(f"{name} {enabled} enabled")
            elif unit["active"] and "failed" not in " ".join(words):
                _say(f"{name} loaded active running {name.partition('.')[0]}")
        return 0
    known = {
        "is-active": ("active", "inactive", 3),
        "is-enabled": ("enabled", "disabled", 1),
    }
    if action in known:
        yes, no, code = known[action]
        states = [bool(units.get(name, {}).get(yes)) for name in names]
        if not any(word in ("-q", "--quiet") for word in words):
            for is_so in states:
                _say(yes if is_so else no)
        return 0 if all(states) else code
    changes = {
        "start": {"active": True},
        "restart": {"active": True},
        "reload": {},
        "stop": {"active": False},
        "enable": {"enabled": True},
        "disable": {"enabled": False},
        "mask": {"enabled": False},
        "unmask": {},
        "status": {},
    }
    if action not in changes:
        return _refuse("systemctl", words)
    for name in names:
        unit = units.setdefault(name, {"enabled": False, "active": False})
        unit.update(changes[action])
        if "--now" in words and action in ("enable", "disable"):
            unit["active"] = action == "enable"
        if action == "status":
            _say(f"{name}: {'active (running)' if unit['active'] else 'inactive (dead)'}")
    return 0


def reboot(_words: list[str]) -> int:
    """Ask the account to reboot this instance once the command has ended; nothing else boots."""
    (_folder() / "reboot-asked").touch()
    return 0


def poweroff(_words: list[str]) -> int:
    """Ask the account to stop this instance, or to terminate it where it was launched so."""
    (_folder() / "poweroff-asked").touch()
    return 0


def shutdown(words: list[str]) -> int:
    """Reboot with `-r`, else power off, at once whatever time is given."""
    return reboot([]) if {"-r", "--reboot"} & set(words) else poweroff([])


def sudo(words: list[str]) -> int:
    """Run the command as it is: the user is root here, or the only one there is."""
    position = 0
    while position < len(words) and words[position].startswith("-"):
        position += 2 if words[position] in ("-u", "-g", "--user", "--group") else 1
    command = words[position:] or ["bash"]
    os.execvp(command[0], command)  # noqa: S606 -- what was asked for


def getent(words: list[str]) -> int:
    """Resolve AWS's names to the loopback address, where this account is; others as they are."""
    is_host = words[:1] in (["hosts"], ["ahosts"])
    if is_host and words[1:] and words[1].endswith(".amazonaws.com"):
        _say(f"127.0.0.1       {words[1]}")
    else:
        os.execv("/usr/bin/getent", ["getent", *words])  # noqa: S606 -- the real one
    return 0


# Programs of the image


def verify(words: list[str]) -> int:
    """Print what the image's checks found, as ami/verify/run.sh does, from the image's facts."""
    state = read_state()
    unknown = [check for check in words if check not in state["verify"]]
    if unknown:
        sys.stderr.write(f"there is no check '{unknown[0]}' in /opt/clusterbox/image/verify\n")
        return 2
    details = {"kernel": f"{state['running']} runs", "slurm": f"slurm {state['slurm_version']}"}
    for check in words or state["verify"]:
        broken = check in state["broken_checks"]
        detail = "broken on purpose" if broken else details.get(check, "as the image's facts say")
        _say(json.dumps({"check": check, "ok": not broken, "detail": detail}))
    return 1 if set(words or state["verify"]) & set(state["broken_checks"]) else 0


class _Anything(types.ModuleType):
    """A module of the science environment: it can be imported, and has a version."""

    __version__ = "0.0"

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__path__: list[str] = []

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Anything(f"{self.__name__}.{name}")


class _Finder:
    """Finds every module that this Python does not have."""

    def find_spec(self, name: str, _path: object = None, _target: object = None) -> ModuleSpec:
        return ModuleSpec(name, self, is_package=True)  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> types.ModuleType:
        return _Anything(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        """Nothing is in it."""


def science_python(words: list[str]) -> int:
    """Run Python with every import there, unless the image's check of imports is broken."""
    if "imports" not in read_state()["broken_checks"]:
        sys.meta_path.append(_Finder())
    space: dict[str, Any] = {"__name__": "__main__"}
    match words:
        case ["-c", code, *rest]:
            sys.argv = ["-c", *rest]
            exec(compile(code, "<string>", "exec"), space)  # noqa: S102
        case ["-V"] | ["--version"]:
            _say(f"Python {sys.version.split()[0]}")
        case [] | ["-"]:
            exec(compile(sys.stdin.read(), "<stdin>", "exec"), space)  # noqa: S102
        case [path, *rest] if not path.startswith("-"):
            sys.argv = [path, *rest]
            exec(compile(Path(path).read_text(encoding="utf-8"), path, "exec"), space)  # noqa: S102
        case _:
            return _refuse("python", words)
    return 0


def uptime(words: list[str]) -> int:
    """Say since when the machine is up."""
    started = read_state()["booted"]
    if words in (["-s"], ["--since"]):
        _say(time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(started)))
        return 0
    _say(f" up {int(time.time() - started)} s")
    return 0


PROGRAMS: dict[str, Callable[[list[str]], int]] = {
    "dnf": dnf,
    "getent": getent,
    "grubby": grubby,
    "lsmod": lsmod,
    "modinfo": modinfo,
    "modprobe": modprobe,
    "needs-restarting": needs_restarting,
    "poweroff": poweroff,
    "reboot": reboot,
    "rpm": rpm,
    "shutdown": shutdown,
    "sudo": sudo,
    "systemctl": systemctl,
    "uname": uname,
    "uptime": uptime,
    "yum": dnf,
}
# Programs of an image that are no commands of a PATH.
OF_IMAGE: dict[str, Callable[[list[str]], int]] = {
    "science-python": science_python,
    "verify": verify,
}


if __name__ == "__main__":
    sys.exit({**PROGRAMS, **OF_IMAGE}[sys.argv[1]](sys.argv[2:]))
