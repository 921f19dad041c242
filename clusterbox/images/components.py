"""From an image's definition to what bakes it: scripts in S3, and `pcluster build-image`'s file.

ParallelCluster 3.16.1 takes a script of the site only as an s3:// or https:// URL, which it runs
without arguments (pcluster/resources/imagebuilder/custom_script.yaml). So the first script lays
down all files, and one short script for each step starts it (docs/adr/0019-bake-scripts.md).
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import shlex
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clusterbox.errors import InputError
from clusterbox.site import names
from clusterbox.site.environment import Environment
from clusterbox.site.image_definitions import (
    CHECKS_FOLDER,
    STEPS_FOLDER,
    ImageDefinition,
)

# Where the files of a definition lie on the machine that bakes, and on every machine baked.
HOME = "/opt/clusterbox/image"
# Files of `ami/` that steps read.
_SHARED_FILES = ("artefacts.sha256", "requirements-science.txt")
_LAY_DOWN = f"""\
#!/bin/bash
# Lays down the steps and checks of an image, and the values of its definition.
set -euo pipefail
home={HOME}
rm -rf "$home.new"
mkdir -p "$home.new"
base64 --decode <<'FILES' | tar -xzf - -C "$home.new" --no-same-owner
{{files}}FILES
rm -rf "$home"
mv "$home.new" "$home"
"""


@dataclass(frozen=True, kw_only=True)
class BuildPlace:
    """Where in an environment an image is baked; ids, not names."""

    subnet_id: str
    security_group_ids: tuple[str, ...]
    # Without one the image is encrypted with the account's own key, and cannot be shared.
    kms_key_id: str | None = None


@dataclass(frozen=True)
class Bundle:
    """The scripts of one definition, named by their content."""

    digest: str
    objects: Mapping[str, bytes]

    @property
    def keys(self) -> list[str]:
        """S3 keys of the scripts, in the order in which they run."""
        return sorted(self.objects)


def render_values(definition: ImageDefinition, environment: Environment) -> str:
    """Return the file `image.env`, which steps and checks read as a shell script."""
    expect = definition.expect
    values = {
        "ARTEFACTS": f"s3://{environment.storage.buckets.cluster_config.name}/images/artefacts",
        "EXPECTED_IMPORTS": " ".join(expect.imports),
        "EXPECTED_KERNEL_MODULES": " ".join(expect.kernel_modules),
        "EXPECTED_PACKAGES": " ".join(expect.packages),
        "EXPECTED_UNITS": " ".join(expect.units),
        "IMAGE": definition.name,
        "KERNEL_NEWEST": definition.kernel.newest or "",
        "KERNEL_POLICY": definition.kernel.policy,
        "PARALLELCLUSTER_VERSION": definition.parallelcluster_version or "",
        "ROOT_GIB": str(definition.root_gib),
        "SLURM_VERSION": definition.slurm_version or "",
        "STEPS": " ".join(definition.steps),
        "TIME_ZONE": expect.time_zone,
        "VERIFY": " ".join(definition.verify),
    }
    return "".join(f"CLUSTERBOX_{key}={shlex.quote(value)}\n" for key, value in values.items())


def collect_files(
    root: Path, definition: ImageDefinition, environment: Environment
) -> dict[str, bytes]:
    """Return what lies in HOME on a machine: path below it → content; executable where `.sh`."""
    steps, checks = root / STEPS_FOLDER, root / CHECKS_FOLDER
    paths = {f"steps/{name}": steps / name for name in ("common.sh", "record.py")}
    paths |= {f"steps/{name}": steps / name for name in definition.steps}
    paths |= {f"verify/{path.name}": path for path in checks.glob("*.sh")}
    paths |= {name: root / "ami" / name for name in _SHARED_FILES}
    files = {name: path.read_bytes() for name, path in sorted(paths.items())}
    files["image.env"] = render_values(definition, environment).encode()
    digest = hashlib.sha256()
    for name, content in sorted(files.items()):
        digest.update(f"{name}\0{len(content)}\0".encode() + content)
    files["bundle.sha256"] = f"{digest.hexdigest()}\n".encode()
    return files


def render_bundle(root: Path, definition: ImageDefinition, environment: Environment) -> Bundle:
    """Return the scripts that `pcluster build-image` runs; the same files give the same bundle."""
    files = collect_files(root, definition, environment)
    digest = files["bundle.sha256"].decode().strip()
    prefix = f"images/bundles/{definition.name}/{digest[:16]}"
    encoded = base64.encodebytes(_pack(files)).decode()
    objects = {f"{prefix}/00-files.sh": _LAY_DOWN.format(files=encoded).encode()}
    for step in definition.steps:
        objects[f"{prefix}/{step}"] = f"#!/bin/bash\nexec {HOME}/steps/{step}\n".encode()
    return Bundle(digest, objects)


def _pack(files: Mapping[str, bytes]) -> bytes:
    """Return a tar.gz of the files that depends on nothing but them."""
    packed = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=packed, mode="wb", mtime=0) as compressed,
        tarfile.open(fileobj=compressed, mode="w", format=tarfile.USTAR_FORMAT) as archive,
    ):
        for name, content in sorted(files.items()):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            entry.mode = 0o755 if name.endswith(".sh") else 0o644
            archive.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


def build_configuration(
    definition: ImageDefinition,
    environment: Environment,
    place: BuildPlace,
    bundle: Bundle,
    *,
    parent: str,
    name: str,
) -> dict[str, Any]:
    """Return the configuration of `pcluster build-image`, in ParallelCluster's own words.

    `parent` is the AMI id that the definition's parent stands for now, `name` the bake's
    (`bake_name`). The scripts of `bundle` must be in the environment's bucket `cluster_config`.
    Raises InputError where the image is to be shared and nothing says with which key.
    """
    if definition.launch_accounts and place.kms_key_id is None:
        raise InputError(
            f"ami/images/{definition.name}.yaml: launch_accounts: an image encrypted with the "
            "account's own key cannot be shared; give the key of the site"
        )
    bucket = environment.storage.buckets.cluster_config.name
    volume: dict[str, Any] = {"Size": definition.root_gib, "Encrypted": True}
    if place.kms_key_id:
        volume["KmsKeyId"] = place.kms_key_id
    configuration: dict[str, Any] = {
        "Region": environment.region,
        "CustomS3Bucket": bucket,
        "Image": {"Name": name, "RootVolume": volume},
        "Build": {
            "InstanceType": definition.build_instance_type,
            "ParentImage": parent,
            "SubnetId": place.subnet_id,
            "SecurityGroupIds": list(place.security_group_ids),
            "UpdateOsPackages": {"Enabled": _updates_before(definition)},
            "Components": [
                {"Type": "script", "Value": f"s3://{bucket}/{key}"} for key in bundle.keys
            ],
            "Iam": {
                "InstanceRole": _role_arn(environment, "image-build"),
                # Without it the command makes a role of its own, which has no boundary.
                "CleanupLambdaRole": _role_arn(environment, "image-cleanup"),
                "PermissionsBoundary": environment.boundary_arn,
            },
            "Imds": {"ImdsSupport": "v2.0"},
            "Installation": {
                "LustreClient": {"Enabled": "lustre" in definition.expect.kernel_modules},
                "NvidiaSoftware": {"Enabled": "nvidia" in definition.expect.kernel_modules},
            },
        },
    }
    for section in ("Image", "Build"):
        configuration[section]["Tags"] = _render_tags(definition, environment, bundle)
    if settings := _render_dev_settings(definition, environment):
        configuration["DevSettings"] = settings
    return configuration


def _updates_before(definition: ImageDefinition) -> bool:
    """Return whether ParallelCluster updates the system before it builds modules for its kernel.

    Elsewhere the step does it alone, which also honours `minimal`.
    """
    return definition.parallelcluster_version is not None and definition.kernel.policy != "minimal"


def _render_dev_settings(definition: ImageDefinition, environment: Environment) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    if definition.parallelcluster_version is None:
        settings["DisablePclusterComponent"] = True
    if definition.kernel.policy != "full":
        settings["DisableKernelUpdate"] = True
    if definition.launch_accounts:
        settings["DistributionConfiguration"] = {
            "Regions": environment.region,
            "LaunchPermission": json.dumps({"UserIds": definition.launch_accounts}),
        }
    return settings


def _render_tags(
    definition: ImageDefinition, environment: Environment, bundle: Bundle
) -> list[dict[str, str]]:
    tags = {
        **definition.tags,
        **environment.tags.model_dump(),
        names.TAG_ENVIRONMENT: environment.name,
        "clusterbox:image": definition.name,
        "clusterbox:bundle": bundle.digest,
    }
    return [{"Key": key, "Value": value} for key, value in sorted(tags.items())]


def _role_arn(environment: Environment, purpose: str) -> str:
    path, role = environment.hosting.iam_path, names.role_name(environment, purpose)
    return f"arn:{environment.partition}:iam::{environment.account}:role{path}{role}"
