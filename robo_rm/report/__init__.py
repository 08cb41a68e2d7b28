"""Images and pages: film strips with progress under them, weights over time, charts, self-contained HTML."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from robo_rm.report.charts import confusion_figure, reliability_figure, roc_figure, scores_figure, success_figure
    from robo_rm.report.film_strip import EpisodeView, episode_figure, episode_view, weights_figure
    from robo_rm.report.page import Page
    from robo_rm.report.style import image_bytes, save_image

__all__ = [
    "EpisodeView",
    "Page",
    "confusion_figure",
    "episode_figure",
    "episode_view",
    "image_bytes",
    "reliability_figure",
    "roc_figure",
    "save_image",
    "scores_figure",
    "success_figure",
    "weights_figure",
]

_HOMES = {
    "film_strip": ("EpisodeView", "episode_figure", "episode_view", "weights_figure"),
    "charts": ("confusion_figure", "reliability_figure", "roc_figure", "scores_figure", "success_figure"),
    "page": ("Page",),
    "style": ("image_bytes", "save_image"),
}


def __getattr__(name: str) -> object:
    # Loaded at first use: drawing needs matplotlib, which takes a while to import.
    for module, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
