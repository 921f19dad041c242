"""Commands that print what Slurm's did, slowly or wrongly where a test wants it, and are counted."""

from __future__ import annotations

from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from clusterbox.slurm import Slurm
from tests.observe.recorded import read_recorded

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


class StandIns:
    """Slurm's commands in a folder; `door` leads to them."""

    def __init__(self, folder: Path, version: str = "22.05") -> None:
        """Let them print what was recorded of a version."""
        self.folder = folder
        (folder / "log").write_text("")
        for name in ("nodes", "jobs", "scheduler", "partitions", "licenses", "accounting"):
            self.say(name, read_recorded(version, name))
        for command, name in (("squeue", "jobs"), ("sdiag", "scheduler"), ("sacct", "accounting")):
            self.write(command, f'cat "{folder}/{name}"')
        self.write("scontrol", f'cat "{folder}/$2"')

    @property
    def door(self) -> Slurm:
        """Slurm's commands as these."""
        return Slurm({"PATH": f"{self.folder}:/usr/bin:/bin"})

    def say(self, name: str, text: str) -> None:
        """Let a command print another text from now on."""
        (self.folder / name).write_text(text, encoding="utf-8")

    def write(self, command: str, script: str) -> None:
        """Make a command of a shell script; each call is logged."""
        path = self.folder / command
        new = self.folder / f"{command}.new"
        new.write_text(f'#!/bin/sh\necho {command} "$2" >> "{self.folder}/log"\n{script}\n')
        new.chmod(0o755)
        new.rename(path)

    def calls(self) -> list[str]:
        """Return the commands that were called, the first first."""
        return [line.strip() for line in (self.folder / "log").read_text().splitlines()]


def scrape(collector: Collector) -> Samples:
    """Return the value of each sample by name and labels, from the text that Prometheus gets."""
    registry = CollectorRegistry()
    registry.register(collector)
    return parse(generate_latest(registry).decode())


def parse(text: str) -> Samples:
    """Return the value of each sample of a text; fails where one is there twice."""
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            key = (sample.name, tuple(sorted(sample.labels.items())))
            assert key not in found, f"twice: {key}"
            found[key] = sample.value
    return found


def value(samples: Samples, name: str, **labels: str) -> float | None:
    """Return one sample; None where it is not there."""
    return samples.get((name, tuple(sorted(labels.items()))))


def names(samples: Samples) -> set[str]:
    """Return the names of all samples."""
    return {name for name, _ in samples}
