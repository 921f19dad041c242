"""A made month of a cluster, with which the meter's error is measured: docs/costs.md publishes it."""
