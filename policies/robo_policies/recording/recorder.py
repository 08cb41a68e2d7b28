"""Recording scripted demonstrations into a demo store: what each episode is, and how one is recorded.

An episode is fixed by the environment, the quality, the seed and its index: the same four give the same episode,
whichever process records it and however many others are recorded.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from robo_core.errors import ConfigError, StoreError
from robo_core.processes import run_in_processes
from robo_datasets import DemoStore
from robo_datasets.store.layout import STAGING
from robo_policies.envs import demonstrate, make_env
from robo_policies.envs.demonstrations import MIXED, QUALITIES, Actions

if TYPE_CHECKING:
    from robo_datasets.store.writer import EpisodeWriter
    from robo_policies.envs.base import Info, MujocoEnv, Observation

LONGEST = 900
"""Steps after which a recording ends, done or not."""
FRAMES_AFTER_SUCCESS = 8
"""How long the operator's recording runs on after success."""

ENVIRONMENT_STATE = "observation.environment_state"
_NAMESPACE = uuid.UUID("6b1e1c61-4a6e-4c1c-9d6c-1f0f6b2d7f1a")
_GOLDEN = 0.6180339887498949


@dataclass(frozen=True)
class RecordingPlan:
    """What to record.

    ``quality``: one of ``QUALITIES`` or ``mixed``; ``mixture``: relative frequency of each quality in ``mixed``.

    Raises:
        ConfigError: a quality is unknown or the mixture is empty; a number is out of range.
    """

    env: str
    quality: str
    seed: int
    image_size: int = 128
    cameras: tuple[str, ...] = ("front", "wrist")
    render: str = "fast"
    mixture: Mapping[str, float] | None = None
    action_repeat: int | None = None
    environment_state: bool = True

    def __post_init__(self) -> None:
        if self.quality not in (*QUALITIES, MIXED):
            raise ConfigError(f"quality={self.quality!r} is unknown; choose one of: {', '.join((*QUALITIES, MIXED))}")
        if self.seed < 0:
            raise ConfigError(f"seed={self.seed} must be 0 or more")
        if self.quality == MIXED:
            check_mixture(self.mixture)

    def make_env(self) -> MujocoEnv:
        """The environment to record in; its observations carry no images, they are rendered when a frame is stored."""
        return make_env(self.env, self.render, self.image_size, max_steps=LONGEST, action_repeat=self.action_repeat)

    def demonstrate(self, env: MujocoEnv, index: int, random: np.random.Generator) -> Actions:
        """Actions of an episode from the environment's present state."""
        return demonstrate(env, self.quality_of(index), random)

    def features(self, env: MujocoEnv | None = None) -> dict[str, dict[str, object]]:
        """Features in LeRobot's form of a store of this plan's episodes; ``env``: the environment, where it is made."""
        env = env or self.make_env()
        image: dict[str, object] = {"dtype": "video", "shape": (self.image_size, self.image_size, 3)}
        named = {
            "observation.state": env.state_names,
            ENVIRONMENT_STATE: env.environment_state_names,
            "action": env.action_names,
            "simulator.progress": ("progress",),
        }
        if not self.environment_state:
            del named[ENVIRONMENT_STATE]
        low_dim: dict[str, dict[str, object]] = {
            key: {"dtype": "float32", "shape": (len(names),), "names": list(names)} for key, names in named.items()
        }
        frames = {
            f"observation.images.{camera}": {**image, "names": ["height", "width", "channels"]}
            for camera in self.cameras
        }
        return {**frames, **low_dim}

    def quality_of(self, index: int) -> str:
        """Quality of an episode: drawn from the mixture so that any run of indices has about its frequencies."""
        if self.quality != MIXED:
            return self.quality
        mixture = check_mixture(self.mixture)
        # A Kronecker sequence: even coverage of [0, 1) at every length, unlike independent draws.
        first = np.random.default_rng([self.seed, 0x51]).random()
        place = (first + index * _GOLDEN) % 1.0
        bounds = np.cumsum(list(mixture.values())) / sum(mixture.values())
        return list(mixture)[min(int(np.searchsorted(bounds, place, side="right")), len(mixture) - 1)]

    def uuid_of(self, index: int) -> str:
        """Name of an episode in the store; the same for the same environment, quality, mixture, seed and index."""
        mixture = sorted(check_mixture(self.mixture).items()) if self.quality == MIXED else None
        identity: list[object] = [self.env, self.quality, mixture, self.seed, index]
        if self.action_repeat is not None:
            identity.append(self.action_repeat)
        if not self.environment_state:
            identity.append("without environment state")
        return str(uuid.uuid5(_NAMESPACE, json.dumps(identity)))


def check_mixture(mixture: Mapping[str, float] | None) -> dict[str, float]:
    """The mixture's positive entries in the order of ``QUALITIES``.

    Raises:
        ConfigError: an unknown quality, a negative frequency, or nothing at all.
    """
    given = dict(mixture or {})
    for name, frequency in given.items():
        if name not in QUALITIES:
            raise ConfigError(f"mixture.{name} is not a quality; choose among: {', '.join(QUALITIES)}")
        if not (np.isfinite(frequency) and frequency >= 0):
            raise ConfigError(f"mixture.{name}={frequency} must be 0 or more")
    positive = {name: float(given[name]) for name in QUALITIES if given.get(name, 0) > 0}
    if not positive:
        raise ConfigError("quality=mixed needs a mixture with at least one positive frequency (configs/record.yaml)")
    return positive


@dataclass(frozen=True)
class Recorded:
    """One recorded episode, as reported to the user."""

    index: int
    quality: str
    success: bool
    length: int


def record_episode(store: DemoStore, env: MujocoEnv, plan: RecordingPlan, index: int, created: str) -> Recorded:
    """Record one demonstration and commit it.

    A frame holds the observation, the action then taken, and the true stage and progress at that moment; the last
    frame repeats the last action. ``created`` with ``index`` orders the episodes of one plan, whichever is done first.

    Raises:
        StoreError: the episode cannot be written.
    """
    quality = plan.quality_of(index)
    seeds = np.random.SeedSequence([plan.seed, index])
    env_seed = int(seeds.generate_state(1)[0])
    random = np.random.default_rng(seeds.spawn(1)[0])
    observation, info = env.reset(seed=env_seed)
    attributes = {"quality": quality, "seed": plan.seed, "index": index, "env": plan.env, "requested": plan.quality}
    source = {"kind": "simulator", "env": plan.env, "render": plan.render}
    name = plan.uuid_of(index)
    with (
        _cleared(store.path, name),
        store.writer(
            task=env.task, source=source, attributes=attributes, uuid=name, created=created, sequence=index
        ) as episode,
    ):
        action: npt.NDArray[np.float32] = np.zeros(len(env.action_names), np.float32)
        after = 0
        for action in plan.demonstrate(env, index, random):
            _add(episode, env, plan, observation, info, action)
            observation, _, _, truncated, info = env.step(action)
            after += bool(info["success"])
            if truncated or after > FRAMES_AFTER_SUCCESS:
                break
        _add(episode, env, plan, observation, info, action)
        episode.success = bool(info["success"])
        length = len(episode)
    return Recorded(index, quality, bool(info["success"]), length)


def _add(
    episode: EpisodeWriter,
    env: MujocoEnv,
    plan: RecordingPlan,
    observation: Observation,
    info: Info,
    action: np.ndarray,
) -> None:
    frame = {
        **observation,
        **env.render_cameras(plan.cameras),
        "action": action,
        "simulator.progress": np.array([info["progress"]], np.float32),
    }
    if not plan.environment_state:
        del frame[ENVIRONMENT_STATE]
    episode.add(frame, timestamp=len(episode) / env.fps, stage=int(info["stage"]))


@contextmanager
def _cleared(path: Path, name: str) -> Iterator[None]:
    """Remove what a killed recorder left of this episode; its writer held a lock that died with it."""
    left = path / STAGING / name
    if left.is_dir():
        folder = os.open(left, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StoreError(f"episode {name} of {path} is being recorded by another process") from error
        else:
            shutil.rmtree(left)
        finally:
            os.close(folder)
    yield


def missing_indices(store: DemoStore, plan: RecordingPlan, episodes: int) -> list[int]:
    """Indices below ``episodes`` that the store does not hold yet."""
    return [index for index in range(episodes) if plan.uuid_of(index) not in store]


def creation_time(store: DemoStore, plan: RecordingPlan, indices: Sequence[int]) -> str | None:
    """When an earlier run of this plan began, or None; a resumed run keeps it, so the order of episodes is the same."""
    present = [store.episode(name).created for index in indices if (name := plan.uuid_of(index)) in store]
    return min(present, default=None)


def record_episodes(
    path: str | os.PathLike[str],
    plan: RecordingPlan,
    indices: Sequence[int],
    created: str,
    processes: int,
    report: Callable[[Recorded], None],
) -> None:
    """Record ``indices`` into the store at ``path``; ``report`` is called in this thread as episodes are committed.

    Args:
        path: of a store with the plan's features.
        plan: what to record.
        indices: which episodes.
        created: see `record_episode`.
        processes: worker processes; below 2 this process records.
        report: given each episode.

    Raises:
        WorkerDiedError: a worker process died; committed episodes stay.
        StoreError: an episode cannot be written.
    """
    run_in_processes(
        _record_in_worker,
        indices,
        min(processes, len(indices)),
        partial(_open_recorder, os.fspath(path), plan, created),
        report,
        f"recording into {os.fspath(path)}",
        "committed episodes are stored; run the same command again to resume",
    )


_Recorder = tuple[DemoStore, "MujocoEnv", RecordingPlan, str]


@contextmanager
def _open_recorder(path: str, plan: RecordingPlan, created: str) -> Iterator[_Recorder]:
    env = plan.make_env()
    try:
        yield DemoStore.open(path), env, plan, created
    finally:
        env.close()


def _record_in_worker(state: _Recorder, index: int) -> Recorded:
    store, env, plan, created = state
    return record_episode(store, env, plan, index, created)
