"""What a recording holds, by quality: counts, successes, lengths."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import numpy as np

from robo_core.console import print_table
from robo_datasets import DemoStore
from robo_policies.envs.demonstrations import QUALITIES


def summarise(store: DemoStore, names: Iterable[str]) -> dict[str, float]:
    """Flat metrics over the episodes ``names``: ``episodes``, ``frames``, ``success``, and with a prefix ``<quality>/``
    ``episodes``, ``success`` (fraction), ``mean_length``, ``shortest`` and ``longest`` (frames).
    """
    groups: dict[str, list[tuple[bool, int]]] = defaultdict(list)
    for name in names:
        episode = store.episode(name)
        groups[str(episode.attributes["quality"])].append((bool(episode.success), episode.length))
    everything = [entry for group in groups.values() for entry in group]
    metrics: dict[str, float] = {
        "episodes": len(everything),
        "frames": sum(length for _, length in everything),
        "success": float(np.mean([success for success, _ in everything])),
    }
    for quality in QUALITIES:
        if quality in groups:
            successes, lengths = zip(*groups[quality], strict=True)
            metrics |= {
                f"{quality}/episodes": len(lengths),
                f"{quality}/success": float(np.mean(successes)),
                f"{quality}/mean_length": float(np.mean(lengths)),
                f"{quality}/shortest": min(lengths),
                f"{quality}/longest": max(lengths),
            }
    return metrics


def print_summary(title: str, metrics: dict[str, float]) -> None:
    """Print ``summarise``'s metrics as a table, a row a quality."""
    keys = ("episodes", "success", "mean_length", "shortest", "longest")
    rows = [
        [quality, *(metrics[f"{quality}/{key}"] for key in keys)]
        for quality in QUALITIES
        if f"{quality}/episodes" in metrics
    ]
    print_table(title, ["quality", "episodes", "success", "mean frames", "shortest", "longest"], rows)
