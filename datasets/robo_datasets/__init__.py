"""Demo stores: robot demonstrations that survive crashes and read fast, with importers and checks. Needs no torch."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from robo_datasets.store.demo_store import DemoStore
    from robo_datasets.store.derived import Derived
    from robo_datasets.store.episode import Episode, StageSegment
    from robo_datasets.store.writer import EpisodeWriter

_HOMES = {
    "DemoStore": "robo_datasets.store.demo_store",
    "Derived": "robo_datasets.store.derived",
    "Episode": "robo_datasets.store.episode",
    "EpisodeWriter": "robo_datasets.store.writer",
    "StageSegment": "robo_datasets.store.episode",
}

__all__ = ["DemoStore", "Derived", "Episode", "EpisodeWriter", "StageSegment"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
