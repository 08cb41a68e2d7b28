"""Pictures and pages: film strips with progress under them, weights over time, charts, self-contained HTML."""

from __future__ import annotations

import importlib
from typing import Any

_WHERE = {
    "EpisodeView": "robo_rm.report.film_strip",
    "episode_figure": "robo_rm.report.film_strip",
    "episode_view": "robo_rm.report.film_strip",
    "weights_figure": "robo_rm.report.film_strip",
    "confusion_figure": "robo_rm.report.charts",
    "reliability_figure": "robo_rm.report.charts",
    "roc_figure": "robo_rm.report.charts",
    "scores_figure": "robo_rm.report.charts",
    "success_figure": "robo_rm.report.charts",
    "Page": "robo_rm.report.page",
    "picture_bytes": "robo_rm.report.style",
    "save_picture": "robo_rm.report.style",
}

__all__ = [
    "EpisodeView",
    "Page",
    "confusion_figure",
    "episode_figure",
    "episode_view",
    "picture_bytes",
    "reliability_figure",
    "roc_figure",
    "save_picture",
    "scores_figure",
    "success_figure",
    "weights_figure",
]


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(importlib.import_module(_WHERE[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
