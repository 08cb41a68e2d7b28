"""Record episodes in which nothing is being achieved, to probe a reward model with: eval-reward probe_store=STORE.

There are three kinds: an empty scene in which the arm moves as usual, the wrong object in place of the cube, and a hand
that hovers. Each frame carries its true stage. Run it again to resume.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from omegaconf import MISSING

import robo_datasets
from robo_core.cli.following import say_next
from robo_core.console import print_table, progress_bar
from robo_core.errors import ConfigError
from robo_datasets import store as stores
from robo_policies import recording

GROUP = "datasets"


@dataclass(frozen=True)
class Config:
    """Settings of ``robo-rm record-probes``."""

    store: str = MISSING
    """Demo store to record into, made where there is none; one of its own, not that of the demonstrations."""
    env: str = "tidy_drawer"
    """Environment to record."""
    probes: list[str] = field(default_factory=lambda: ["empty_scene", "wrong_object", "hovering_hand"])
    """Which probes."""
    episodes: int = 4
    """Total number of episodes to record of each probe and seed."""
    seed: int = 0
    """Episodes of another seed are other episodes."""
    cameras: list[str] = field(default_factory=lambda: ["front", "wrist"])
    """Cameras to record: those that the model reads."""
    image_size: int = 128
    """Height and width of the frames, pixels: that of the demonstrations."""
    render: str = "fast"
    """Render preset: that of the demonstrations."""


def run(config: Config) -> None:
    """Record what is missing and say what the store holds."""
    if config.episodes < 1:
        raise ConfigError(f"episodes={config.episodes} must be at least 1")
    plans = recording.probe_plans(
        config.env, config.probes, config.seed, config.image_size, config.cameras, config.render
    )
    first = plans[0].make_env()
    try:
        # Rendering once finds a missing GL backend before anything is written.
        first.reset(seed=0)
        first.render_cameras(plans[0].cameras)
        features, fps, stages = plans[0].features(first), first.fps, first.stages
    finally:
        first.close()
    store = robo_datasets.DemoStore.open_or_create(config.store, features, fps, stages, robot=f"{config.env} arm")
    missing = [recording.missing_indices(store, plan, config.episodes) for plan in plans]
    total, left = config.episodes * len(plans), sum(map(len, missing))
    lengths: dict[str, int] = {}
    with progress_bar("record", total, "episodes", done=total - left) as bar:

        def note(recorded: recording.Recorded) -> None:
            bar.advance(1, note=recorded.quality)

        for plan, indices in zip(plans, missing, strict=True):
            created = recording.creation_time(store, plan, range(config.episodes)) or stores.utc_now()
            if indices:
                recording.record_episodes(config.store, plan, indices, created, 1, note)
    store.refresh()
    known = store.lengths
    for plan in plans:
        lengths[plan.quality] = sum(known[plan.uuid_of(index)] for index in range(config.episodes))
    rows = [(probe, config.episodes, frames) for probe, frames in lengths.items()]
    print_table(f"Probes in {config.store}", ["probe", "episodes", "frames"], rows)
    say_next("eval-reward", model="MODEL", store="DEMOS.zarr", probe_store=config.store, out="report")
