"""What a scrape gives, as a table of samples."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

Samples = dict[tuple[str, ...], float]


def scrape(collector: Collector) -> str:
    """Return the text of one scrape."""
    registry = CollectorRegistry()
    registry.register(collector)
    return generate_latest(registry).decode()


def samples(text: str, name: str, *labels: str) -> Samples:
    """Return the samples of a metric by the values of the given labels."""
    return {
        tuple(sample.labels[label] for label in labels): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name
    }


def names(text: str) -> set[str]:
    """Return the names of all samples."""
    return {
        sample.name for family in text_string_to_metric_families(text) for sample in family.samples
    }
