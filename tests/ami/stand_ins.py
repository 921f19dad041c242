"""Stand-ins for what an image gets from elsewhere: RPMs, wheels, the exporter, kernel modules."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import re
import subprocess
import tarfile
import zipfile
from pathlib import Path

from tests.ami.machine import Machine

# Every stand-in needs a shell by name; on this Debian no RPM provides one.
_SPEC = """\
Name: {name}
Version: {version}
Release: 1.amzn2023
Summary: Stand-in for {name}
License: none
BuildArch: noarch
AutoReqProv: no
{more}
%description
Stand-in for {name}, with nothing in it.
%install
mkdir -p %{{buildroot}}/usr/share/stand-ins
echo '{name} {version}' > %{{buildroot}}/usr/share/stand-ins/{name}{own}
{install}
%files
/usr/share/stand-ins/{name}{own}
{files}
"""
_UNIT = """\
mkdir -p %{buildroot}/usr/lib/systemd/system
printf '[Unit]\\nDescription=Stand-in\\n[Service]\\nExecStart=/bin/sleep infinity\\n' \\
  > %{buildroot}/usr/lib/systemd/system/amazon-cloudwatch-agent.service
printf '[Install]\\nWantedBy=multi-user.target\\n' \\
  >> %{buildroot}/usr/lib/systemd/system/amazon-cloudwatch-agent.service
"""
PACKAGES = {
    "amazon-efs-utils": "2.4.0",
    "apptainer": "1.4.5",
    "gdal": "3.4.3",
    "python3.11": "3.11.14",
    "python3.11-pip": "22.3.1",
    "spal-release": "2023.9",
}
# The parent has the first version; the second is an update, of two for their security.
UPDATED = ("kernel", "openssl", "tzdata")
SECURITY_NOTICE = """\
<updates><update from="stand-in" status="final" type="security" version="1">
<id>ALAS-STAND-IN-1</id><title>openssl</title><issued date="2026-11-01"/>
<severity>Important</severity><description>Stand-in
Severity: nothing that counts</description>
<references>
<reference href="https://example.gov/1" id="CVE-2026-0001" type="cve"/>
<reference href="https://example.gov/2" id="CVE-2026-0002" type="cve"/>
</references>
<pkglist><collection short="stand-in"><name>stand-in</name>
<package name="openssl" version="2.0" release="1.amzn2023" epoch="0" arch="noarch">
<filename>openssl-2.0-1.amzn2023.noarch.rpm</filename></package></collection></pkglist>
</update><update from="stand-in" status="final" type="security" version="1">
<id>ALAS-STAND-IN-2</id><title>kernel: Severity: none</title><issued date="2026-11-01"/>
<severity>Moderate</severity><description>Stand-in</description>
<pkglist><collection short="stand-in"><name>stand-in</name>
<package name="kernel" version="2.0" release="1.amzn2023" epoch="0" arch="noarch">
<filename>kernel-2.0-1.amzn2023.noarch.rpm</filename></package></collection></pkglist>
</update></updates>
"""
REPOSITORY = "[stand-ins]\nname=stand-ins\nbaseurl=file:///opt/stand-ins/repo\ngpgcheck=0\n"
PIP = "[global]\nno-index = true\nfind-links = /opt/stand-ins/wheels\n"
EXPORTER = """\
#!/usr/bin/python3
# Stand-in for Prometheus' node exporter.
from http.server import BaseHTTPRequestHandler, HTTPServer

class Answer(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'node_exporter_build_info{version="1.9.1"} 1\\n')

HTTPServer(("", 9100), Answer).serve_forever()
"""
# `aws s3 cp [--only-show-errors] s3://BUCKET/KEY FILE`, from a folder.
AWS = """\
#!/bin/bash
set -euo pipefail
words=("$@")
[[ ${words[0]} == s3 && ${words[1]} == cp ]]
from=${words[-2]#s3://}
cp "/opt/stand-ins/s3/$from" "${words[-1]}"
"""
SINFO = "#!/bin/bash\n# Stand-in for Slurm's sinfo.\necho 'slurm 25.11.8'\n"


def build_repository(folder: Path) -> None:
    """Build the stand-in RPMs and their repository into `folder`."""
    folder.mkdir(parents=True)
    for name, version in PACKAGES.items():
        _build(folder, name, version)
    for name in UPDATED:
        for version in ("1.0", "2.0"):
            # Two kernels are installed beside each other, as on every machine.
            beside = f"-{version}" if name == "kernel" else ""
            more = "Provides: installonlypkg(kernel)" if name == "kernel" else ""
            _build(folder, name, version, own=beside, more=more)
    unit = "/usr/lib/systemd/system/amazon-cloudwatch-agent.service"
    _build(folder, "amazon-cloudwatch-agent", "1.300", install=_UNIT, files=unit)
    _run("createrepo_c", "--quiet", str(folder))
    notice = folder.parent / "updateinfo.xml"
    notice.write_text(SECURITY_NOTICE)
    _run("modifyrepo_c", "--mdtype=updateinfo", str(notice), str(folder / "repodata"))


def _build(
    folder: Path,
    name: str,
    version: str,
    *,
    own: str = "",
    more: str = "",
    install: str = "",
    files: str = "",
) -> None:
    spec = folder.parent / f"{name}.spec"
    text = _SPEC.format(
        name=name, version=version, own=own, more=more, install=install, files=files
    )
    spec.write_text(text)
    _run(
        *("rpmbuild", "-bb", "--quiet", "--define", f"_rpmdir {folder}"),
        *("--define", f"_topdir {folder.parent / 'rpmbuild'}", str(spec)),
    )


def build_wheels(lock: str, folder: Path) -> str:
    """Build an empty wheel for each line of a lock; return the lock with the wheels' hashes."""
    folder.mkdir(parents=True)
    lines = []
    for name, version in re.findall(r"^([\w.-]+)==([\w.]+)", lock, re.MULTILINE):
        module = name.replace("-", "_")
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as wheel:
            info = f"{module}-{version}.dist-info"
            files = {
                f"{module}/__init__.py": f"__version__ = '{version}'\n",
                f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
                f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            }
            record = ""
            for path, text in files.items():
                wheel.writestr(path, text)
                digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest())
                record += f"{path},sha256={digest.rstrip(b'=').decode()},{len(text)}\n"
            wheel.writestr(f"{info}/RECORD", f"{record}{info}/RECORD,,\n")
        (folder / f"{module}-{version}-py3-none-any.whl").write_bytes(packed.getvalue())
        digest_text = hashlib.sha256(packed.getvalue()).hexdigest()
        lines.append(f"{name}=={version} --hash=sha256:{digest_text}\n")
    return "".join(lines)


def pack_exporter(pins: str) -> dict[str, bytes]:
    """Return a stand-in for each exporter that `pins` names: file name → tar.gz."""
    found = {}
    for name in re.findall(r"node_exporter-\S+\.tar\.gz", pins):
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:gz") as archive:
            entry = tarfile.TarInfo(f"{name.removesuffix('.tar.gz')}/node_exporter")
            entry.size, entry.mode = len(EXPORTER), 0o755
            archive.addfile(entry, io.BytesIO(EXPORTER.encode()))
        found[name] = packed.getvalue()
    return found


def add_kernel_module(machine: Machine, name: str, built_for: str, scratch: Path) -> None:
    """Add a kernel module without code, which says for which kernel it was built."""
    release = os.uname().release
    source = scratch / f"{name}.c"
    source.write_text(
        '__attribute__((section(".modinfo"), used)) static const char info[] =\n'
        f'  "name={name}\\0license=GPL\\0vermagic={built_for} SMP mod_unload";\n'
    )
    target = machine.root / "lib/modules" / release / "extra" / f"{name}.ko"
    target.parent.mkdir(parents=True, exist_ok=True)
    _run("gcc", "-c", "-o", str(target), str(source))
    machine.run(f"depmod {release}")


def _run(*words: str) -> None:
    done = subprocess.run(words, check=False, capture_output=True, encoding="utf-8")
    assert done.returncode == 0, f"{words[0]}: {done.stdout}{done.stderr}"
