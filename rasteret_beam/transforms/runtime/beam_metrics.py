"""Add counts to Beam metrics and to the progress line of a local run."""

from collections.abc import Mapping
from functools import cache

from apache_beam.metrics import Metrics
from apache_beam.metrics.metric import Metrics as _Metrics

from rasteret_beam.metrics import NAMESPACE, PROGRESS


@cache
def _counter(name: str) -> "_Metrics.DelegatingCounter":
    return Metrics.counter(NAMESPACE, name)


def count(counts: Mapping[str, int]) -> None:
    """Add counts to the metrics of the current bundle; call it from the bundle's thread."""
    for name, amount in counts.items():
        _counter(name).inc(amount)
        PROGRESS.add(name, amount)
