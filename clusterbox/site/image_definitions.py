"""Definitions of machine images: `ami/images/NAME.yaml`, with the steps and checks they name."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from clusterbox.errors import InputError, Problem, ProblemsError
from clusterbox.site.fields import (
    AccountId,
    AmiId,
    Finding,
    Identifier,
    InstanceType,
    Once,
    Section,
    TagValue,
    Version,
    matching,
    raise_findings,
)
from clusterbox.site.load import parse_model, sort_problems
from clusterbox.site.yaml_file import YamlFile, read_yaml, value_at

FOLDER = Path("ami") / "images"
STEPS_FOLDER = Path("ami") / "steps"
CHECKS_FOLDER = Path("ami") / "verify"
# The Slurm that each version of ParallelCluster brings. Source: its release notes, "CHANGES".
SLURM_VERSIONS = {"3.16.1": "25.11.8"}
# At most 15 components may be added to a build (pcluster's ComponentsValidator); one lays down files.
MOST_STEPS = 14
# Kernel modules that ParallelCluster installs and a definition may demand.
KernelModule = Literal["efa", "lustre", "nvidia"]


def _text(pattern: str, allowed: str) -> Any:
    return BeforeValidator(matching(pattern, allowed))


ImageOwner = Annotated[
    str,
    _text(
        r"self|\d{12}",
        'must be self, or the 12 digits of an AWS account in quotes, such as "427491229895"',
    ),
]
# A filter that starts with a star would take up anything its owner ever made.
NameFilter = Annotated[
    str,
    _text(
        r"[A-Za-z0-9][\w.-]{3}[\w ./()*?-]{0,120}",
        "must be the name of an AMI, of which at least the first four characters are written out; "
        "* stands for any characters and ? for one, such as csr-al2023-base-*",
    ),
]
StepFile = Annotated[
    str,
    _text(
        r"\d\d-[a-z0-9]+(-[a-z0-9]+)*\.sh",
        "must be the name of a file in ami/steps/, such as 10-os-updates.sh",
    ),
]
CheckName = Annotated[
    str,
    _text(
        r"[a-z]+(-[a-z]+)*", "must be the name of a file in ami/verify/ without .sh, such as units"
    ),
]
PackageName = Annotated[
    str, _text(r"[A-Za-z0-9][\w.+-]*", "must be the name of an RPM package, such as gdal")
]
ModuleName = Annotated[
    str, _text(r"[A-Za-z_]\w*(\.\w+)*", "must be the name of a Python module, such as numpy")
]
UnitName = Annotated[
    str,
    _text(
        r"[\w.@-]+\.(service|socket|timer|mount|path)",
        "must be the name of a systemd unit, such as node-exporter.service",
    ),
]
KernelVersion = Annotated[
    str, _text(r"\d+\.\d+\.\d+", "must be the three numbers of a kernel in quotes, such as 6.1.150")
]
TimeZone = Annotated[
    str, _text(r"[A-Z]\w*(/[A-Z][\w+-]*)*", "must be a time zone, such as UTC or America/Denver")
]
TagKey = Annotated[
    str,
    _text(
        r"(?!aws:|parallelcluster:|Name$)[\w .:/=+@-]{1,128}",
        "must be the key of a tag that neither AWS nor ParallelCluster nor the bake sets",
    ),
]


class ParentImage(Section):
    """The image that a bake starts from: one id, or the newest of an owner's that have a name."""

    id: AmiId | None = Field(None, description="one AMI, which no newer one replaces")
    owner: ImageOwner | None = Field(
        None, description="account whose images are approved as parents; self for the own one"
    )
    name_filter: NameFilter | None = Field(
        None, description="name of the owner's images, of which the newest is taken"
    )

    @model_validator(mode="after")
    def _is_one_of_two(self) -> ParentImage:
        findings = []
        if self.id is not None:
            findings = [
                Finding((key,), "must be left out beside id")
                for key in ("owner", "name_filter")
                if getattr(self, key) is not None
            ]
        else:
            findings = [
                Finding((key,), "must be given where there is no id")
                for key in ("owner", "name_filter")
                if getattr(self, key) is None
            ]
        raise_findings(findings)
        return self


class KernelPolicy(Section):
    """What a bake may do to the kernel of the parent image."""

    policy: Literal["full", "minimal", "capped"] = Field(
        description="full: all updates; minimal: security updates and the parent's kernel; "
        "capped: all updates but the parent's kernel"
    )
    newest: KernelVersion | None = Field(
        None, description="newest kernel that verification accepts, where the policy is capped"
    )
    reason: Annotated[str, Field(min_length=1)] | None = Field(
        None, description="why the kernel may not be newer, where the policy is capped"
    )

    @model_validator(mode="after")
    def _explains_the_cap(self) -> KernelPolicy:
        capped = self.policy == "capped"
        message = (
            "must be given where the policy is capped"
            if capped
            else "must be left out where the policy is not capped"
        )
        raise_findings(
            [
                Finding((key,), message)
                for key in ("newest", "reason")
                if (getattr(self, key) is None) == capped
            ]
        )
        return self


class Expectations(Section):
    """What the checks of `verify` look for on a booted instance."""

    packages: Once[PackageName] = Field((), strict=False, description="RPM packages")
    imports: Once[ModuleName] = Field(
        (), strict=False, description="Python modules of the science environment"
    )
    units: Once[UnitName] = Field(
        (), strict=False, description="systemd units that are enabled and active"
    )
    kernel_modules: Once[KernelModule] = Field(
        (),
        strict=False,
        description="modules of the running kernel; lustre and nvidia are installed where listed",
    )
    time_zone: TimeZone = Field("UTC", description="time zone of the machine")


class ImageDefinition(Section):
    """An image, parsed: what it is baked from, with what, and how it is proven."""

    name: Identifier = Field(description="name of the image; the file is NAME.yaml")
    description: str = Field(min_length=1, description="one sentence for people")
    # Those that ParallelCluster 3.16.1 supports (pcluster.constants.SUPPORTED_OSES).
    os: Literal["alinux2023", "rhel8", "rhel9", "rocky8", "rocky9", "ubuntu2204", "ubuntu2404"] = (
        Field(description="operating system, which every step must support")
    )
    architecture: Literal["x86_64", "arm64"] = Field("x86_64", description="processor architecture")
    parent: ParentImage = Field(description="image that the bake starts from")
    parallelcluster_version: Version | None = Field(
        description="version that is installed; null where no cluster uses the image"
    )
    root_gib: int = Field(ge=8, le=16384, description="size of the root volume in GiB")
    build_instance_type: InstanceType = Field(description="EC2 instance type that bakes")
    kernel: KernelPolicy = Field(description="what the bake may do to the kernel")
    steps: Once[StepFile] = Field(
        strict=False, min_length=1, description="files of ami/steps/, in the order of their numbers"
    )
    verify: Once[CheckName] = Field(
        strict=False, min_length=1, description="checks of ami/verify/ that a baked image must pass"
    )
    expect: Expectations = Field(Expectations(), description="what the checks look for")
    tags: dict[TagKey, TagValue] = Field({}, description="tags of the image and of its build")
    launch_accounts: Once[AccountId] = Field(
        (), strict=False, description="other accounts that may start instances of it"
    )

    @property
    def slurm_version(self) -> str | None:
        """Slurm that the image has, or None where it is not a cluster's."""
        version = self.parallelcluster_version
        return None if version is None else SLURM_VERSIONS[version]


def bake_name(environment: str, image: str, stamp: str) -> str:
    """Return the name and id of one bake of an image: `ws-dev-compute-2026-11-22`.

    `stamp` tells the bakes of an image apart; letters, digits and dashes.
    """
    return f"{environment}-{image}-{stamp}".replace("_", "-")


def image_definition_names(root: Path) -> list[str]:
    """Return the names of all images that the repository at `root` defines, sorted."""
    return sorted(
        path.stem for path in (root / FOLDER).glob("*.yaml") if not path.name.startswith(".")
    )


def load_image_definition(root: Path, name: str) -> ImageDefinition:
    """Return the definition of the image called `name`.

    Raises InputError when there is none and ProblemsError with everything wrong in its file.
    """
    if name not in (names := image_definition_names(root)):
        known = ", ".join(names) or "none yet"
        raise InputError(f"there is no image {name!r}; {FOLDER}/ has: {known}")
    problems: list[Problem] = []
    definition = _load(root, name, problems)
    if definition is None or problems:
        raise ProblemsError(sort_problems(problems))
    return definition


def load_image_definitions(root: Path) -> dict[str, ImageDefinition]:
    """Return all definitions by name; raises ProblemsError with everything wrong in any file."""
    problems: list[Problem] = []
    found = {name: _load(root, name, problems) for name in image_definition_names(root)}
    if problems:
        raise ProblemsError(sort_problems(problems))
    return {name: definition for name, definition in found.items() if definition is not None}


def _load(root: Path, name: str, problems: list[Problem]) -> ImageDefinition | None:
    file = read_yaml(root / FOLDER / f"{name}.yaml", name=f"{FOLDER}/{name}.yaml")
    found: list[Problem] = []
    definition = parse_model(ImageDefinition, file, found)
    reported = {problem.path for problem in found}
    crossing = [*_find_cross_problems(root, file, name)]
    problems += found
    problems += [problem for problem in crossing if problem.path not in reported]
    return definition


def _find_cross_problems(root: Path, file: YamlFile, name: str) -> Iterator[Problem]:
    """Yield what is wrong between keys and with the files they name, from the plain data."""
    if (found := file.data.get("name")) != name:
        yield file.problem(("name",), f"must be {name}, as the file is called", found)
    yield from _find_step_problems(root, file)
    yield from _find_check_problems(root, file)
    yield from _find_parallelcluster_problems(file)
    yield from _find_own_child(root, file, name)


def _find_own_child(root: Path, file: YamlFile, name: str) -> Iterator[Problem]:
    """Yield a problem where the newest parent would be the last bake: layer would lie on layer."""
    name_filter = value_at(file.data, ("parent", "name_filter"))
    if not isinstance(name_filter, str):
        return
    environments = sorted(path.stem for path in (root / "environments").glob("*.yaml"))
    for environment in environments:
        if fnmatchcase(own := bake_name(environment, name, "2024-01-31"), name_filter):
            yield file.problem(
                ("parent", "name_filter"),
                f"must not take up what this definition bakes itself, such as {own}",
                name_filter,
            )
            return


def _find_step_problems(root: Path, file: YamlFile) -> Iterator[Problem]:
    steps = value_at(file.data, ("steps",))
    steps = steps if isinstance(steps, list) else []
    known = sorted(path.name for path in (root / STEPS_FOLDER).glob("[0-9]*.sh"))
    system = file.data.get("os")
    before = ""
    for index, step in enumerate(steps):
        where = ("steps", index)
        if not isinstance(step, str):
            continue
        if step not in known:
            listed = ", ".join(known) or "none yet"
            yield file.problem(where, f"must be a file of {STEPS_FOLDER}/: {listed}", step)
        elif isinstance(system, str) and system not in (able := read_systems(root, step)):
            yield file.problem(where, f"must support {system}; it is for: {', '.join(able)}", step)
        elif step[:2] <= before:
            yield file.problem(where, f"must have a higher number than {before} before it", step)
        if re.match(r"\d\d-", step):
            before = max(before, step[:2])
    if len(steps) > MOST_STEPS:
        yield file.problem(("steps",), f"must be at most {MOST_STEPS}", len(steps))


def read_systems(root: Path, step: str) -> list[str]:
    """Return the operating systems that a step says it is for, in its line `# os: NAME...`."""
    text = (root / STEPS_FOLDER / step).read_text(encoding="utf-8")
    found = re.search(r"^# os: (.+)$", text, re.MULTILINE)
    return found[1].split() if found else []


def _find_check_problems(root: Path, file: YamlFile) -> Iterator[Problem]:
    checks = value_at(file.data, ("verify",))
    known = sorted(
        path.stem
        for path in (root / CHECKS_FOLDER).glob("*.sh")
        if path.stem not in ("run", "common")
    )
    for index, check in enumerate(checks if isinstance(checks, list) else ()):
        where = ("verify", index)
        if isinstance(check, str) and check not in known:
            listed = ", ".join(known) or "none yet"
            yield file.problem(where, f"must be a check of {CHECKS_FOLDER}/: {listed}", check)
        elif check == "slurm" and file.data.get("parallelcluster_version") is None:
            yield file.problem(
                where, "must be left out: without parallelcluster_version there is no Slurm", check
            )


def _find_parallelcluster_problems(file: YamlFile) -> Iterator[Problem]:
    version = file.data.get("parallelcluster_version")
    if isinstance(version, str) and version not in SLURM_VERSIONS:
        known = ", ".join(SLURM_VERSIONS)
        yield file.problem(
            ("parallelcluster_version",), f"must be one whose Slurm is known here: {known}", version
        )
    modules = value_at(file.data, ("expect", "kernel_modules"))
    if version is None and isinstance(modules, list) and modules:
        yield file.problem(
            ("expect", "kernel_modules"),
            "must be empty without parallelcluster_version: ParallelCluster installs them",
        )
