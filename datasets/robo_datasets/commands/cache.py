"""Keep a store's frames decoded as well, so that training reads them many times faster.

The decoded frames stand under derived/ in the store, and every reader takes them from there by itself: whole frames,
or with size=[H,W] those that training scales them to. They equal the decoded ones bit for bit, are checked on every
read and by robo-rm doctor, and may be thrown away at any time (remove=true). After a kill, the
same command resumes.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from omegaconf import MISSING

import robo_datasets
from robo_core.cli.following import say_next
from robo_core.console import progress_bar, say
from robo_core.errors import ConfigError
from robo_core.outputs import OutputFolder
from robo_datasets import importers
from robo_datasets import store as stores
from robo_datasets.commands.following import say_training

GROUP = "datasets"


@dataclass(frozen=True)
class Config:
    """Settings of ``robo-rm cache``."""

    store: str = MISSING
    """Demo store whose decoded frames to cache."""
    cameras: list[str] | None = None
    """Cameras, for example [front]; all by default."""
    size: list[int] | None = None
    """Height and width at which training reads the frames, for example [96,96]; whole frames by default."""
    remove: bool = False
    """Remove all cached frames instead."""
    out: str = ""
    """Folder for config.yaml and metrics.json; none by default."""


def run(config: Config) -> None:
    """Decode what is not cached yet, and say what it takes."""
    if not config.store or "://" in config.store:
        raise ConfigError("give store=PATH, a folder on this machine")
    store = robo_datasets.DemoStore.open(config.store)
    if config.remove:
        count = stores.drop_cache(Path(config.store))
        say(f"{config.store}: removed {count} set{'' if count == 1 else 's'} of cached frames")
        say_next("cache", store=config.store)
        return
    started = time.monotonic()
    caches = [
        stores.FrameCache(store.path, camera, store.lengths)
        for camera in stores.cameras_to_cache(store, config.cameras, importers.frame_size(config.size))
    ]
    todo = [(cache, uuid) for uuid in store.uuids for cache in caches if not cache.holds(store.episode(uuid).entry)]
    stores.check_space(store.path, [(cache, store.lengths[uuid]) for cache, uuid in todo])
    size = frames = 0
    total = len(store) * len(caches)
    with progress_bar("cache", total=total, unit="episodes", done=total - len(todo)) as bar:
        for cache, uuid in todo:
            size += cache.fill(store.episode(uuid))
            frames += store.lengths[uuid]
            bar.advance()
    seconds = time.monotonic() - started
    already = f"; {total - len(todo)} of {total} shards were there already" if len(todo) < total else ""
    say(f"{config.store}: {frames} frames kept decoded, {size / 1e6:.1f} MB, in {seconds:.1f} s{already}")
    if config.out:
        output = OutputFolder(config.out, config)
        output.write_metrics({"frames": frames, "bytes": size, "seconds": seconds, "episodes": len(todo)})
        output.announce()
    say_training(config.store)
