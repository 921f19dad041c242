"""What a build puts on its image: facts made from the recipe, the bundle in S3 and the day."""

from __future__ import annotations

import base64
import hashlib
import io
import re
import shlex
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Any

import yaml
from ministack.services import s3

from clusterbox.embedded.server import amazon_linux
from clusterbox.embedded.server.image_facts import ImageFacts, make_facts, packages_digest

# The first script of a bundle carries its files (clusterbox/images/components.py).
_FILES_SCRIPT = "00-files.sh"
_PACKED = re.compile(rb"<<'FILES'[^\n]*\n(.*?)^FILES$", re.DOTALL | re.MULTILINE)
_SCRIPT_URL = re.compile(r"^echo (s3://\S+|https://\S+)$", re.MULTILINE)
# ParallelCluster's own components, by the name in their document.
PARALLELCLUSTER = "PCluster"
UPDATE_OS = "UpdateAndReboot"
TAGGING = "ParallelClusterTag"


@dataclass(frozen=True)
class Component:
    """A component of a recipe: its ARN, its document's name, and the steps of each phase."""

    arn: str
    name: str
    steps: Mapping[str, tuple[str, ...]]
    # The script it runs; None for one that brings its own commands.
    script: str | None = None

    def script_is_missing(self) -> bool:
        """Return whether the script should be in this account's S3 and is not."""
        return self.script is not None and self.script.startswith("s3://") and not self._read()

    def _read(self) -> bytes | None:
        bucket, _, key = (self.script or "").removeprefix("s3://").partition("/")
        found: bytes | None = s3._get_object_data(bucket, key)
        return found

    def read_files(self) -> dict[str, bytes]:
        """Return the files of a bundle that this component lays down; empty for any other."""
        if self.script is None or not self.script.endswith(f"/{_FILES_SCRIPT}"):
            return {}
        packed = _PACKED.search(self._read() or b"")
        if packed is None:
            return {}
        with tarfile.open(fileobj=io.BytesIO(base64.b64decode(packed[1]))) as archive:
            members = [member for member in archive.getmembers() if member.isfile()]
            opened = {member.name: archive.extractfile(member) for member in members}
            return {name: file.read() for name, file in opened.items() if file is not None}


def read_component(arn: str, properties: Mapping[str, Any]) -> Component:
    """Return a component from its CloudFormation properties."""
    document = yaml.safe_load(properties.get("Data") or "") or {}
    steps = {
        str(phase["name"]): tuple(str(step["name"]) for step in phase.get("steps") or [])
        for phase in document.get("phases") or []
    }
    url = _SCRIPT_URL.search("\n".join(_commands(document)))
    name = str(document.get("name") or properties.get("Name") or arn)
    return Component(arn, name, steps, url[1] if url else None)


def _commands(document: Any) -> list[str]:
    return [
        str(command)
        for phase in document.get("phases") or []
        for step in phase.get("steps") or []
        if step.get("name") == "ScriptUrl"
        for command in (step.get("inputs") or {}).get("commands") or []
    ]


def make_image_facts(
    components: Sequence[Component], parent: ImageFacts, *, version: str, day: date, root_gib: int
) -> ImageFacts:
    """Return what is on an image that is baked from `parent` with these components.

    `version` is the recipe's, which is ParallelCluster's. Its packages are those of the day, and
    the kernel too unless the definition keeps the parent's.
    """
    names = {component.name for component in components}
    files: dict[str, bytes] = {}
    for component in components:
        files |= component.read_files()
    values = _read_values(files)
    day = max(day, parent.day)
    policy = values.get("KERNEL_POLICY") or ("full" if UPDATE_OS in names else "capped")
    facts = make_facts(
        day,
        kernel=None if policy == "full" else parent.kernel,
        architecture=parent.architecture,
        added=tuple(values.get("EXPECTED_PACKAGES", "").split()),
        parallelcluster_version=version if PARALLELCLUSTER in names else None,
    )
    if policy == "minimal":
        kept = {
            name: version
            for name, version in parent.packages.items()
            if name not in amazon_linux.SECURITY
        }
        facts = replace(facts, packages=dict(sorted((dict(facts.packages) | kept).items())))
    steps = tuple(values.get("STEPS", "").split())
    return replace(
        facts,
        steps=steps,
        verify=tuple(values.get("VERIFY", "").split()) or facts.verify,
        release=_release(facts, files, steps) if steps else {},
        files=files,
        root_gib=root_gib,
    )


def _read_values(files: Mapping[str, bytes]) -> dict[str, str]:
    """Return the values of `image.env` without their prefix."""
    words = shlex.split(files.get("image.env", b"").decode())
    pairs = (word.partition("=") for word in words)
    return {key.removeprefix("CLUSTERBOX_"): value for key, _, value in pairs}


def _release(
    facts: ImageFacts, files: Mapping[str, bytes], steps: tuple[str, ...]
) -> dict[str, Any]:
    """Return what ami/steps/record.py writes after the last step."""
    digests = {
        step: hashlib.sha256(files[f"steps/{step}"]).hexdigest()
        for step in sorted(steps)
        if f"steps/{step}" in files
    }
    return {
        "bundle": files.get("bundle.sha256", b"").decode().strip(),
        "steps": digests,
        "packages": packages_digest(facts),
        "kernels": [facts.kernel],
        "advisories": {
            "installed": [
                {
                    "id": each.id,
                    "severity": each.severity,
                    "cves": list(each.cves),
                    "packages": [f"{each.package}.{facts.architecture}"],
                }
                for each in facts.advisories
            ],
            "available": [],
        },
    }
