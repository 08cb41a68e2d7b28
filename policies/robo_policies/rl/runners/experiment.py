"""Set up a run of reinforcement learning: environment, demonstrations, potential, behaviour prior, learner."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from robo_core.errors import ConfigError, StoreError
from robo_datasets import DemoStore, Episode
from robo_policies.cloning.learned import load_policy
from robo_policies.envs import make_env
from robo_policies.rl.envs.macro_action import (
    ENVIRONMENT_STATE,
    STATE,
    ActionMap,
    Environment,
    SimulatedEnv,
    action_map,
)
from robo_policies.rl.envs.vector_env import MacroActionVectorEnv, make_vector_env
from robo_policies.rl.imitation.behavior_prior import ClonedPrior, PolicyPrior
from robo_policies.rl.imitation.self_imitation import SelfImitation
from robo_policies.rl.modules.normalization import RunningMeanStd
from robo_policies.rl.policy import RlPolicyParts, reads_potential, save_rl_policy
from robo_policies.rl.runners.factory import LearnerInputs, check_run, make_runner
from robo_policies.rl.runners.runner import RunContext
from robo_policies.rl.settings import IqlSettings, RunSettings
from robo_policies.rl.storage.demonstrations import ACTION, demonstrated_reach, demonstrated_transitions
from robo_policies.rl.storage.replay_buffer import ReplayBuffer
from robo_policies.rl.types import BehaviorPrior
from robo_rm import load_reward_model
from robo_rm.reward_models.baselines.ensemble import with_rule
from robo_rm.reward_models.calibration import CalibratedModel
from robo_rm.reward_models.protocol import RewardModel
from robo_rm.scoring import model_hash, read_prediction, score_progress
from robo_rm.shaping.potential import TRUE_PROGRESS, NoPotential, Potential, TrueProgress, VideoPotential

EVALUATION_ENVS = 4
"""Environments that an evaluation steps together."""


class Experiment:
    """A run that is set up.

    Args:
        settings: what to learn from and how.
        folder: for the checkpoint and the policy.
        device: cpu or cuda; the reward model runs there too.

    Attributes:
        runner: the loop with its learner.
        actions: how actions are carried out.
        prior: the network that clones the demonstrations, or None.
        prior_error: mean squared error of its first training; NaN without one.

    Raises:
        ConfigError: settings that do not fit each other.
        StoreError: the store lacks what learning needs.
        ModelError: the reward model or the policy does not fit the environment.
    """

    def __init__(self, settings: RunSettings, folder: Path, device: str = "cpu") -> None:
        check_run(settings)
        self.settings, self.folder, self.device = settings, folder, device
        learning = settings.learning
        self._make_env = functools.partial(make_env, settings.env, max_steps=settings.max_steps)
        self._store = DemoStore.open(settings.store) if settings.store else None
        self._episodes = _chosen_episodes(self._store, settings)
        env = cast(Environment, self._make_env())
        self.dims = _dims(env, self._store)
        self._ignored = _ignored_columns(env, learning.ignored_states, self.dims)
        self.actions = self._action_map(env)
        simulated = cast(SimulatedEnv, env.unwrapped)
        self._fps, self._task = float(simulated.fps), str(simulated.task)
        env.close()
        self._reward_model = self._load_reward_model()
        self._reference_uncertainty = 0.0
        self.version = self._potential_version()
        size = sum(value for key, value in self.dims.items() if key != ACTION)
        self.prior: ClonedPrior | None = None
        self._acting_prior = self._behavior_prior(size)
        demonstrations = self._demonstrations(size)
        statistics = RunningMeanStd(size + 1, self._ignored)
        if demonstrations is not None:
            statistics.add(demonstrations.observations())
        self.prior_error = float("nan")
        self_imitation: SelfImitation | None = None
        if self.prior is not None and demonstrations is not None:
            filtered = learning.prior_filter and settings.potential != "none"
            imitation = SelfImitation(
                self.prior, demonstrations, learning.prior_steps, learning.self_imitation_growth, filtered
            )
            self.prior_error = imitation.begin()
            self_imitation = imitation if learning.self_imitation else None
        inputs = LearnerInputs(
            size, self.dims[ACTION], demonstrations, statistics, self._acting_prior is not None, self_imitation, device
        )
        # An offline learner's policy does not read the potential, so nothing has to be rendered to evaluate it.
        scored = not isinstance(settings.learner, IqlSettings)
        context = RunContext(
            self.training_envs(scored),
            functools.partial(self.evaluation_envs, scored=scored),
            settings.shaping,
            learning,
            settings.seed,
            folder / "training",
            self.fingerprint(),
        )
        self.runner = make_runner(settings, context, inputs)

    def training_envs(self, scored: bool = True) -> MacroActionVectorEnv:
        """The environments to learn in; the potential of unscored ones is 0."""
        learning = self.settings.learning
        patience = learning.early_termination_patience if scored and self.settings.potential != "none" else 0
        return self._envs(learning.num_envs, self.settings.seed, scored, learning.processes, patience)

    def evaluation_envs(self, seed: int, scored: bool = True) -> MacroActionVectorEnv:
        """Fresh environments for an evaluation, their episodes' seeds counting from the one given."""
        return self._envs(min(EVALUATION_ENVS, self.settings.learning.evaluation_episodes), seed, scored)

    def fingerprint(self) -> str:
        """Hash of the settings and of what they name: a checkpoint of another run is refused."""
        identity = {
            "settings": _non_default_values(self.settings),
            "version": self.version,
            "demonstrations": [episode.uuid for episode in self._episodes],
        }
        return hashlib.sha256(json.dumps(identity, sort_keys=True, default=str).encode()).hexdigest()

    def save_policy(self, facts: Mapping[str, object]) -> None:
        """Write the policy folder beside the checkpoint; ``facts`` are further entries of its card."""
        shaping, policy = self.settings.shaping, self.runner.policy
        uses_model = self._reward_model is not None and reads_potential(policy)
        rule = {"rule": shaping.ensemble, "pessimism": shaping.pessimism} if shaping.ensemble else None
        parts = RlPolicyParts(
            policy,
            self.prior,
            self.actions,
            self.dims,
            Path(str(self.settings.reward_model)) if uses_model else None,
            Path(self.settings.policy) if self.settings.policy else None,
        )
        source = {"env": self.settings.env, "store": {"path": self.settings.store}, "fps": self._fps}
        save_rl_policy(self.folder, parts, {"ensemble": rule, **source, **facts})

    def described_potential(self) -> list[list[str]]:
        """A row (name, what it is) for the table of terms; none without a potential."""
        if self.settings.potential == "none":
            return []
        if self._reward_model is None:
            return [["Phi", "the simulator's own progress"]]
        every = self.settings.learning.action_repeat
        return [["Phi", f"progress by {self.settings.reward_model}, every {every} steps"]]

    def _action_map(self, env: Environment) -> ActionMap:
        repeat = self.settings.learning.action_repeat
        absolute = getattr(env.unwrapped, "absolute_actions", None)
        if absolute is None:
            return action_map(env.action_space, repeat)
        if not self._episodes:
            raise ConfigError(
                f"{self.settings.env} takes joint targets, whose reach comes from demonstrations; give store=..."
            )
        return action_map(env.action_space, repeat, demonstrated_reach(self._episodes, repeat, absolute))

    def _load_reward_model(self) -> RewardModel | None:
        if self.settings.potential != "model":
            return None
        shaping = self.settings.shaping
        model = load_reward_model(str(self.settings.reward_model), self.device)
        if shaping.ensemble:
            model = with_rule(model, shaping.ensemble, shaping.pessimism)
        rate = model.provenance.get("fps")
        if rate is not None and abs(float(rate) - self._fps) > 0.01 * self._fps:
            raise ConfigError(
                f"the reward model was trained at {float(rate):g} frames/s and {self.settings.env} runs at "
                f"{self._fps:g}"
            )
        return model

    @property
    def _model_id(self) -> str:
        """Of the reward model with its rule."""
        shaping = self.settings.shaping
        rule = f" {shaping.ensemble} {shaping.pessimism:g}" if shaping.ensemble else ""
        return model_hash(str(self.settings.reward_model)) + rule

    def _potential_version(self) -> str:
        if self._reward_model is None:
            return {"true": TrueProgress.version, "none": NoPotential.version}[self.settings.potential]
        digest, _, rule = self._model_id.partition(" ")
        # Runs from before calibration reached the environments' potentials must not be resumed with calibrated ones.
        calibrated = "calibrated" if isinstance(self._reward_model, CalibratedModel) else ""
        return " ".join(filter(None, ("model", digest[:16], calibrated, rule)))

    def _potential(self, num_envs: int) -> Potential:
        if self._reward_model is not None:
            every = self.settings.learning.action_repeat
            return VideoPotential(
                self._reward_model, num_envs, every, self._task, 0.0, self.version, self._reference_uncertainty
            )
        return TrueProgress() if self.settings.potential == "true" else NoPotential()

    def _envs(self, count: int, seed: int, scored: bool, processes: int = 0, patience: int = 0) -> MacroActionVectorEnv:
        potential = self._potential(count) if scored else NoPotential()
        envs = make_vector_env(self._make_env, count, self.actions, potential, processes)
        discount = self.settings.learning.discount
        return MacroActionVectorEnv(envs, self.actions, potential, discount, seed, self._acting_prior, patience)

    def _behavior_prior(self, size: int) -> BehaviorPrior | None:
        if not self.settings.uses_prior:
            return None
        if self.settings.policy:
            return PolicyPrior(load_policy(self.settings.policy, self.device), self.actions)
        if self._episodes and self.settings.learning.prior_steps:
            width, seed = self.settings.learner.width, self.settings.seed
            self.prior = ClonedPrior(size, self.dims[ACTION], width, seed, self._ignored)
        return self.prior

    def _demonstrations(self, size: int) -> ReplayBuffer | None:
        if not self._episodes or not self.settings.uses_demonstrations:
            return None
        potentials, discount = self._demonstrated_potentials(), self.settings.learning.discount
        episodes = list(
            demonstrated_transitions(self._episodes, self.actions, discount, potentials, self._acting_prior)
        )  # fmt: skip
        count = sum(len(episode["task_reward"]) for episode in episodes)
        replay = ReplayBuffer(count, size, self.dims[ACTION], self.version)
        for episode in episodes:
            replay.add(episode, self.version)
        return replay

    def _demonstrated_potentials(self) -> list[npt.NDArray[np.float64]] | None:
        """(T,) the potential of every frame of each demonstration; None for 0."""
        if self._reward_model is not None and self._store is not None:
            derived = score_progress(self._reward_model, self._model_id, self._store)
            predictions = [read_prediction(derived, episode.uuid) for episode in self._episodes]
            self._reference_uncertainty = float(np.concatenate([one.uncertainty for one in predictions]).mean())
            return [one.progress.astype(np.float64) for one in predictions]
        if self.settings.potential == "true":
            lacking = [episode.uuid for episode in self._episodes if TRUE_PROGRESS not in episode]
            if lacking:
                raise StoreError(f"episode {lacking[0]} has no {TRUE_PROGRESS}; potential=true needs it")
            return [np.asarray(e[TRUE_PROGRESS][:], dtype=np.float64).ravel() for e in self._episodes]
        return None


def _non_default_values(settings: object) -> dict[str, object]:
    """What was chosen, except how fast it is computed.

    A setting at its default is left out, so that one which is added later invalidates no checkpoint.
    """
    values: dict[str, object] = {}
    assert is_dataclass(settings)
    for place in fields(settings):
        if place.name == "compile":
            continue
        value = getattr(settings, place.name)
        if is_dataclass(value):
            values[place.name] = {"type": type(value).__name__, **_non_default_values(value)}
        elif value != (place.default if place.default_factory is MISSING else place.default_factory()):
            values[place.name] = value
    return values


def _chosen_episodes(store: DemoStore | None, settings: RunSettings) -> list[Episode]:
    if store is None:
        return []
    uuids = list(store.uuids)
    if settings.demonstrations is not None:
        if settings.demonstrations < 1:
            raise ConfigError(f"demonstrations={settings.demonstrations}: give 1 or more, or leave store out")
        order = np.random.default_rng(settings.seed).permutation(len(uuids))[: settings.demonstrations]
        uuids = [uuids[index] for index in sorted(order.tolist())]
    if not uuids:
        raise StoreError(f"{store.path} holds no episode to learn from")
    return [store.episode(uuid) for uuid in uuids]


def _dims(env: Environment, store: DemoStore | None) -> dict[str, int]:
    """Sizes of the learner's inputs, in their order, and of the action; the store must have the same."""
    space = cast(spaces.Dict, env.observation_space).spaces
    dims = {key: int(np.prod(space[key].shape or ())) for key in (STATE, ENVIRONMENT_STATE) if key in space}
    dims[ACTION] = int((env.action_space.shape or (0,))[0])
    if store is not None:
        for key, size in dims.items():
            if key not in store.features:
                raise StoreError(f"{store.path} has no {key}, which this environment has; record demonstrations in it")
            stored = int(np.prod(store.features[key]["shape"]))
            if stored != size:
                raise StoreError(f"{key} has {stored} values in {store.path} and {size} in this environment")
    return dims


def _ignored_columns(env: Environment, names: list[str], dims: Mapping[str, int]) -> list[int]:
    """Columns of the observation hidden from the learner."""
    known = list(getattr(env.unwrapped, "environment_state_names", ())) if ENVIRONMENT_STATE in dims else []
    for name in names:
        if name not in known:
            available = f"it has {', '.join(known)}" if known else "this environment has none"
            raise ConfigError(f"learning.ignored_states: no {name!r} in the environment's state; {available}")
    return [dims[STATE] + known.index(name) for name in names]
