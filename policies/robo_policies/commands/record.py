"""Record scripted demonstrations of a simulated task into a demo store, one process per core.

Run it again with more episodes, or after an interruption, to resume: an episode is fixed by environment, quality, seed
and index, and those that the store holds are skipped.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field

from omegaconf import MISSING

import robo_datasets
from robo_core.cli.following import beside_store, say_next
from robo_core.console import progress_bar, say
from robo_core.errors import ConfigError
from robo_core.outputs import OutputFolder
from robo_core.threads import available_cores
from robo_datasets import store as stores
from robo_policies import recording

GROUP = "datasets"


@dataclass(frozen=True)
class Mixture:
    """Relative frequency of each quality in ``quality=mixed``."""

    clean: float = 0.0
    """Straight through."""
    slow: float = 0.0
    """Slower, and hesitating."""
    wandering: float = 0.0
    """Detours and missed grasps."""
    drop_and_regrasp: float = 0.0
    """Drops the object on the way and fetches it again."""
    stops_partway: float = 0.0
    """Gives up: a failure."""
    wrong_order: float = 0.0
    """Does the parts in an impossible order: a failure."""


@dataclass(frozen=True)
class Config:
    """Settings of ``robo-rm record``."""

    store: str = MISSING
    """Demo store to record into; created if it does not exist."""
    env: str = "tidy_drawer"
    """Environment to record: tidy_drawer, or metaworld/<task> such as metaworld/drawer-open-v3."""
    episodes: int = 80
    """Total number of episodes to record of this environment, quality and seed."""
    quality: str = "mixed"
    """clean, slow, wandering, drop_and_regrasp, stops_partway, wrong_order, or mixed: all of them,
    in the mixture's frequencies."""
    seed: int = 0
    """Seed of the episodes; another seed gives other episodes."""
    cameras: list[str] = field(default_factory=lambda: ["front", "wrist"])
    """Cameras to record; [] for none."""
    image_size: int = 128
    """Height and width of the frames, pixels."""
    codec: str = "jpeg"
    """How a new store keeps frames: jpeg, lossless, or raw (fastest to read, and largest)."""
    render: str = "fast"
    """Render preset: fast (no shadows, multisampling, reflections) or default."""
    contract: str | None = "auto"
    """Robot contract to record under, a file or a packaged name; auto: the environment's own where images and rate are
    the contract's; null: none."""
    environment_state: bool = True
    """Record what the simulator knows of the objects; false for policies that have to see them through cameras."""
    action_repeat: int | None = None
    """Control steps that one action lasts, in metaworld/<task>; null for the environment's own."""
    mixture: Mixture = field(default_factory=Mixture)
    """Relative frequency of each quality in quality=mixed."""
    processes: int = 0
    """Recording processes; 0 for one per core."""
    out: str | None = None
    """Folder to write metrics.json to; nothing is written without it."""


def run(config: Config) -> None:
    """Record what is missing and print what the store holds of it."""
    import numpy as np

    if config.episodes < 1:
        raise ConfigError(f"episodes={config.episodes} must be at least 1")
    if config.processes < 0:
        raise ConfigError(f"processes={config.processes} must be 0 (one per core) or more")
    plan = recording.RecordingPlan(
        config.env,
        config.quality,
        config.seed,
        config.image_size,
        tuple(config.cameras),
        config.render,
        asdict(config.mixture),
        config.action_repeat,
        config.environment_state,
    )
    env = plan.make_env()
    try:
        env.reset(seed=0)
        # An environment without a scripted operator says so.
        plan.demonstrate(env, 0, np.random.default_rng(0))
        # Rendering once finds a wrong camera or a missing GL backend before anything is written.
        env.render_cameras(plan.cameras)
        contract = recording.recorded_contract(config.contract, plan, env.fps)
        store = robo_datasets.DemoStore.open_or_create(
            config.store,
            plan.features(env),
            env.fps,
            env.stages,
            robot=f"{plan.env} arm",
            codec=config.codec,
            contract_hash=None if contract is None else contract.hash,
            contract=None if contract is None else contract.to_dict(),
        )
    finally:
        env.close()
    wanted = range(config.episodes)
    missing = recording.missing_indices(store, plan, config.episodes)
    created = recording.creation_time(store, plan, wanted) or stores.utc_now()
    if len(missing) < config.episodes:
        say(f"{config.store} holds {config.episodes - len(missing)} of these {config.episodes} episodes already")
    successes = frames = 0
    began = time.monotonic()
    with progress_bar("record", config.episodes, "episodes", done=config.episodes - len(missing)) as bar:

        def note(recorded: recording.Recorded) -> None:
            nonlocal successes, frames
            successes += recorded.success
            frames += recorded.length
            bar.advance(1, note=f"{frames} frames, {successes} successes")

        if missing:
            recording.record_episodes(config.store, plan, missing, created, config.processes or available_cores(), note)
    store.refresh()
    metrics = recording.summarise(store, [plan.uuid_of(index) for index in wanted])
    recording.print_summary(config.store, metrics)
    if missing:
        seconds = time.monotonic() - began
        metrics |= {"seconds": seconds, "recorded": len(missing), "frames_per_second": frames / seconds}
        say(f"recorded {len(missing)} episodes, {frames} frames in {seconds:.1f} s ({frames / seconds:.0f} frames/s)")
    if config.out is not None:
        out = OutputFolder(config.out, config)
        out.write_metrics(metrics)
        out.announce()
    say_next("train-reward", store=config.store, out=beside_store(config.store, "rm"))
