"""The page of the metrics that ``eval-reward`` writes, from the table that its report shows."""

from __future__ import annotations

from pathlib import Path

from robo_rm.evaluation.advice import METRICS, USES
from site_pages.project import write

HEAD = """# Metrics of a reward model

`eval-reward` writes these keys to `metrics.json`. Each comes with `KEY_low` and `KEY_high`, the ends of its 95 %
interval, and with `KEY_episodes`, how many episodes count for it. `null` means that the data do not support it.
[Evaluating](../evaluating.md) explains them, and lists the other keys.

| key | what it is | better | needed for |
|---|---|---|---|
"""


def write_metrics(path: Path) -> None:
    """Write the page."""
    rows = []
    for key, metric in METRICS.items():
        bounds = [
            f"{title}: {'at least' if metric.better == 'high' else 'at most'} {needed[key]:.2f}"
            for title, needed in USES.values()
            if key in needed
        ]
        rows.append(f"| `{key}` | {metric.meaning} | {metric.better} | {'; '.join(bounds)} |")
    write(path, HEAD + "\n".join(rows))
