"""Recording scripted demonstrations into a demo store: what each episode is, and how one is recorded.

An episode is fixed by the world, the quality asked for, the seed and its index: the same four give the same episode,
whichever process records it and however many others are recorded.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from robo_core.errors import ConfigError, StoreError
from robo_datasets import DemoStore
from robo_datasets.store.layout import STAGING
from robo_policies.worlds import make_env
from robo_policies.worlds.world import MIXED, QUALITIES

if TYPE_CHECKING:
    from robo_policies.worlds.world import World

LONGEST = 900
"""Decisions after which a recording ends, done or not."""
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

    def make_env(self) -> World:
        """The world to record in; its observations carry no images, they are rendered when a frame is kept."""
        return make_env(self.env, self.render, self.image_size, max_steps=LONGEST, action_repeat=self.action_repeat)

    def features(self, env: World | None = None) -> dict[str, dict[str, Any]]:
        """Features in LeRobot's form of a store of this plan's episodes; ``env``: the world, where it is made."""
        env = env or self.make_env()
        image = {"dtype": "video", "shape": (self.image_size, self.image_size, 3)}
        named = {
            "observation.state": env.state_names,
            ENVIRONMENT_STATE: env.environment_state_names,
            "action": env.action_names,
            "simulator.progress": ("progress",),
        }
        if not self.environment_state:
            del named[ENVIRONMENT_STATE]
        low_dim = {
            key: {"dtype": "float32", "shape": (len(names),), "names": list(names)} for key, names in named.items()
        }
        frames = {
            f"observation.images.{camera}": {**image, "names": ["height", "width", "channels"]}
            for camera in self.cameras
        }
        return {**frames, **low_dim}

    def quality_of(self, index: int) -> str:
        """Quality of an episode: drawn from the mixture so that any run of indices holds it in about its shares."""
        if self.quality != MIXED:
            return self.quality
        mixture = check_mixture(self.mixture)
        # A Kronecker sequence: even coverage of [0, 1) at every length, unlike independent draws.
        first = np.random.default_rng([self.seed, 0x51]).random()
        place = (first + index * _GOLDEN) % 1.0
        bounds = np.cumsum(list(mixture.values())) / sum(mixture.values())
        return list(mixture)[min(int(np.searchsorted(bounds, place, side="right")), len(mixture) - 1)]

    def uuid_of(self, index: int) -> str:
        """Name of an episode in the store; the same for the same world, quality, mixture, seed and index."""
        mixture = sorted(check_mixture(self.mixture).items()) if self.quality == MIXED else None
        identity: list[Any] = [self.env, self.quality, mixture, self.seed, index]
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
    for name, share in given.items():
        if name not in QUALITIES:
            raise ConfigError(f"mixture.{name} is no quality; choose among: {', '.join(QUALITIES)}")
        if not (np.isfinite(share) and share >= 0):
            raise ConfigError(f"mixture.{name}={share} must be 0 or more")
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


def record_episode(store: DemoStore, env: World, plan: RecordingPlan, index: int, created: str) -> Recorded:
    """Record one demonstration and commit it.

    A frame holds what the operator saw and the action then taken, the true stage and progress at that moment; the
    last frame repeats the last action. ``created`` with ``index`` orders the episodes of one plan,
    whichever is done first.

    Raises:
        StoreError: the episode cannot be written.
    """
    quality = plan.quality_of(index)
    seeds = np.random.SeedSequence([plan.seed, index])
    world_seed = int(seeds.generate_state(1)[0])
    random = np.random.default_rng(seeds.spawn(1)[0])
    observation, info = env.reset(seed=world_seed)
    attributes = {"quality": quality, "seed": plan.seed, "index": index, "env": plan.env, "requested": plan.quality}
    source = {"kind": "simulator", "env": plan.env, "render": plan.render}
    name = plan.uuid_of(index)
    with (
        _cleared(store.path, name),
        store.writer(
            task=env.task, source=source, attributes=attributes, uuid=name, created=created, sequence=index
        ) as episode,
    ):
        action = np.zeros(len(env.action_names), np.float32)
        after = 0
        for action in env.demonstrate(quality, random):
            _add(episode, env, plan, observation, info, action)
            observation, _, _, truncated, info = env.step(action)
            after += info["success"]
            if truncated or after > FRAMES_AFTER_SUCCESS:
                break
        _add(episode, env, plan, observation, info, action)
        episode.success = bool(info["success"])
        length = len(episode)
    return Recorded(index, quality, bool(info["success"]), length)


def _add(
    episode: Any,
    env: World,
    plan: RecordingPlan,
    observation: Mapping[str, np.ndarray],
    info: Mapping[str, Any],
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
    episode.add(frame, timestamp=len(episode) / env.fps, stage=info["stage"])


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
