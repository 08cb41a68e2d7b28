"""The table of metrics that a training prints at its end: name, value, what it is; and why there is no value."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from robo_core.console import print_table

COLUMNS = ("metric", "value", "what it is")


def print_metrics(
    title: str, metrics: Mapping[str, object], meanings: Mapping[str, str], missing: Mapping[str, str] | None = None
) -> None:
    """Print metrics in the order of ``meanings``, then the others in their own.

    Args:
        title: of the table.
        metrics: numbers and words by name; None and NaN are what was not measured.
        meanings: name to what it is.
        missing: name to why it was not measured, where it was not.
    """
    print_table(title, COLUMNS, metric_rows(metrics, meanings, missing or {}))


def metric_rows(
    metrics: Mapping[str, object], meanings: Mapping[str, str], missing: Mapping[str, str]
) -> list[Sequence[str]]:
    """`COLUMNS` of the metrics."""
    names = [*(name for name in meanings if name in metrics), *(name for name in metrics if name not in meanings)]
    return [(name, _value(metrics[name], missing.get(name, "")), meanings.get(name, "")) for name in names]


def _value(value: object, why_missing: str) -> str:
    if hasattr(value, "item"):
        value = value.item()
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return f"- ({why_missing})" if why_missing else "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.0f}" if value.is_integer() and abs(value) < 1e15 else f"{value:.4g}"
    return str(value)
