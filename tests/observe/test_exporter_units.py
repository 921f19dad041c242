"""The exporters' units, what is pinned for them, and their installation into a folder."""

from __future__ import annotations

import hashlib
import io
import os
import re
import shlex
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from clusterbox.cli.main import main
from tests.conftest import ROOT

FOLDER = ROOT / "monitoring"
OURS = [
    FOLDER / "units" / f"clusterbox-{name}-exporter.service"
    for name in ("container", "cost", "slurm")
]


def settings(path: Path) -> list[tuple[str, str]]:
    """Return the settings of a unit in their order."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [
        (line.partition("=")[0], line.partition("=")[2])
        for line in lines
        if "=" in line and not line.startswith("#")
    ]


def value(path: Path, name: str) -> str | None:
    return dict(settings(path)).get(name)


def test_the_exporter_of_gpus_is_skipped_where_there_is_none() -> None:
    unit = FOLDER / "units" / "clusterbox-gpu-exporter.service"
    conditions = [what for name, what in settings(unit) if name == "ConditionPathExists"]
    assert conditions == ["/dev/nvidiactl", "/usr/bin/dcgm-exporter"]


def test_each_line_of_the_fields_of_gpus_has_a_field_a_type_and_a_help() -> None:
    lines = (FOLDER / "units" / "dcgm-counters.csv").read_text().splitlines()
    fields = [line for line in lines if not line.startswith("#")]
    assert len(fields) == len({line.split(",")[0] for line in fields}) == 9
    for line in fields:
        assert re.fullmatch(r"DCGM_FI_DEV_\w+, (gauge|counter), [^,]+\.", line), line


@pytest.mark.parametrize("path", OURS, ids=lambda path: path.stem)
def test_a_unit_runs_a_command_that_there_is(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = shlex.split(value(path, "ExecStart") or "")
    assert command[:3] == [
        "/opt/clusterbox-exporters/current/bin/python",
        "-m",
        "clusterbox.cli.main",
    ]
    words = [word for word in command[3:] if word != "$COST_ARGUMENTS"]
    with pytest.raises(SystemExit) as ended:
        main([*words, "--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert all(word in shown for word in words if word.startswith("--"))


@pytest.mark.parametrize("path", OURS, ids=lambda path: path.stem)
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("NoNewPrivileges", "yes"),
        ("ProtectSystem", "strict"),
        ("ProtectHome", "yes"),
        ("PrivateTmp", "yes"),
        ("RestrictAddressFamilies", "AF_UNIX AF_INET AF_INET6"),
        ("SystemCallFilter", "@system-service"),
        ("Restart", "on-failure"),
    ],
)
def test_a_unit_may_do_no_more_than_it_must(path: Path, name: str, expected: str) -> None:
    assert value(path, name) == expected


def test_only_the_exporter_of_containers_is_root_and_has_two_capabilities() -> None:
    users = {path.stem.split("-")[1]: value(path, "User") for path in OURS}
    assert users == {"container": "root", "cost": None, "slurm": "slurm"}
    capabilities = {path.stem.split("-")[1]: value(path, "CapabilityBoundingSet") for path in OURS}
    assert capabilities == {
        "container": "CAP_SYS_PTRACE CAP_DAC_READ_SEARCH",
        "cost": "",
        "slurm": "",
    }
    assert value(FOLDER / "units" / "clusterbox-cost-exporter.service", "DynamicUser") == "yes"


def test_costs_are_told_on_loopback_only() -> None:
    listens = {
        path.stem.split("-")[1]: re.findall(r"--listen (\S+)", value(path, "ExecStart") or "")[0]
        for path in OURS
    }
    assert listens == {
        "container": "0.0.0.0:9343",
        "cost": "127.0.0.1:9342",
        "slurm": "0.0.0.0:9341",
    }


def pins(path: Path) -> set[str]:
    found = set(re.findall(r"^[a-z][\w.-]*==[^ ;\\]+", path.read_text(), re.MULTILINE))
    assert found, path
    return found


def test_the_exporters_run_with_the_versions_that_are_tested() -> None:
    assert pins(FOLDER / "requirements-exporters.txt") <= pins(ROOT / "requirements.txt")


@pytest.mark.parametrize("kind", ["slurm", "containers"])
def test_exporters_of_nodes_need_prometheus_client_alone(kind: str) -> None:
    program = (
        "import sys\n"
        "from clusterbox.cli.main import main\n"
        f"main(['observe', 'exporter', {kind!r}, '--once'])\n"
        "files = [getattr(m, '__file__', None) or '' for m in list(sys.modules.values())]\n"
        "outside = {f.split('site-packages/')[1].split('/')[0] for f in files if 'site-packages/' in f}\n"
        "print(sorted(outside - {'_distutils_hack'}), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.stderr.splitlines()[-1] == "['prometheus_client']"


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    """Return a folder as pack-exporters.sh makes it, with a package that only has a name."""
    folder = tmp_path / "packed"
    (folder / "wheels").mkdir(parents=True)
    with zipfile.ZipFile(folder / "wheels" / "clusterbox-0.0.1-py3-none-any.whl", "w") as wheel:
        wheel.writestr("clusterbox/__init__.py", "")
        info = "clusterbox-0.0.1.dist-info"
        wheel.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: clusterbox\nVersion: 0.0.1\n"
        )
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")
    (folder / "requirements-exporters.txt").write_text("# nothing\n")
    (folder / "units").mkdir()
    for path in (FOLDER / "units").iterdir():
        (folder / "units" / path.name).write_bytes(path.read_bytes())
    with tarfile.open(folder / "site.tar.gz", "w:gz") as archive:
        entry = tarfile.TarInfo("environments/ws-dev.yaml")
        entry.size = 3
        archive.addfile(entry, io.BytesIO(b"{}\n"))
    write_sums(folder)
    return folder


def write_sums(folder: Path) -> None:
    files = sorted(
        f"./{path.relative_to(folder)}"
        for path in folder.rglob("*")
        if path.is_file() and path.name != "SHA256SUMS"
    )
    lines = [
        f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n" for name in files
    ]
    (folder / "SHA256SUMS").write_text("".join(lines))


class Host:
    """A folder into which exporters are installed, with a systemctl that keeps what it is told."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "host"
        self.calls = folder / "calls"
        programs = folder / "programs"
        programs.mkdir()
        systemctl = programs / "systemctl"
        systemctl.write_text(f'#!/bin/bash\nprintf "%s\\n" "$*" >>{self.calls}\n')
        systemctl.chmod(0o755)
        self.path = f"{programs}:{os.environ['PATH']}"
        self.home = self.root / "opt" / "clusterbox-exporters"

    def install(
        self, packed: Path, *names: str, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        self.calls.write_text("")
        return subprocess.run(
            ["bash", str(FOLDER / "install-exporters.sh"), str(packed), *names],
            env={
                "PATH": self.path,
                "CLUSTERBOX_ROOT": str(self.root),
                "CLUSTERBOX_PYTHON": sys.executable,
                **environment,
            },
            capture_output=True,
            text=True,
            check=False,
        )

    def told(self) -> list[str]:
        """Return what systemctl was told to change."""
        lines = self.calls.read_text().splitlines()
        return [line for line in lines if not line.startswith("is-")]


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


@pytest.mark.integration
def test_exporters_are_installed_once_and_changed_when_they_differ(
    packed: Path, host: Host
) -> None:
    done = host.install(packed, "slurm", "gpu")
    assert done.returncode == 0, done.stderr
    unit = "clusterbox-slurm-exporter.service"
    assert f"restart {unit}" in host.told()
    assert (host.home / "current" / "bin" / "python").exists()
    assert (host.home / "current" / "site" / "environments" / "ws-dev.yaml").is_file()
    installed = host.root / "etc" / "systemd" / "system" / unit
    assert installed.read_bytes() == (FOLDER / "units" / unit).read_bytes()
    assert (host.root / "etc" / "clusterbox" / "dcgm-counters.csv").is_file()
    again = host.install(packed, "slurm", "gpu")
    assert (again.returncode, host.told()) == (0, [])
    first = (host.home / "current").readlink()
    (packed / "units" / unit).write_text("[Service]\nExecStart=/bin/true\n")
    write_sums(packed)
    assert host.install(packed, "slurm").returncode == 0
    assert host.told() == ["daemon-reload", f"enable --quiet {unit}", f"restart {unit}"]
    assert (host.home / "current").readlink() != first
    assert (host.home / first).is_dir()


@pytest.mark.integration
def test_a_run_that_breaks_off_leaves_what_ran_before_and_the_next_one_mends_it(
    packed: Path, host: Host
) -> None:
    assert host.install(packed, "slurm").returncode == 0
    before = (host.home / "current").readlink()
    requirements = packed / "requirements-exporters.txt"
    requirements.write_text(f"missing-package==1.0 --hash=sha256:{'0' * 64}\n")
    write_sums(packed)
    assert host.install(packed, "slurm").returncode != 0
    assert (host.home / "current").readlink() == before
    assert host.told() == []


@pytest.mark.integration
@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda folder: (folder / "site.tar.gz").write_bytes(b"x"), "not what SHA256SUMS says"),
        (lambda folder: (folder / "extra").write_bytes(b"x"), "does not list"),
        (lambda folder: (folder / "SHA256SUMS").unlink(), "has no SHA256SUMS"),
    ],
)
def test_files_that_are_not_those_that_were_packed_are_refused(
    packed: Path, host: Host, spoil: object, said: str
) -> None:
    assert callable(spoil)
    spoil(packed)
    done = host.install(packed, "slurm")
    assert done.returncode == 1
    assert said in done.stderr
    assert not host.home.exists()


@pytest.mark.integration
def test_a_pinned_sum_and_the_names_of_exporters_are_checked(packed: Path, host: Host) -> None:
    pinned = host.install(packed, "slurm", CLUSTERBOX_EXPORTERS_SHA256="0" * 64)
    assert "not the pinned one" in pinned.stderr
    assert "slrum is no exporter" in host.install(packed, "slrum").stderr
