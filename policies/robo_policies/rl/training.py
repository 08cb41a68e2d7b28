"""Setting up a run of reinforcement learning: world, demonstrations, potential, proposals, learner."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from robo_core.errors import ConfigError, StoreError
from robo_policies.rl.cloning_again import CloneOfSuccess
from robo_policies.rl.decisions import ENVIRONMENT_STATE, STATE, ActionMap, DecisionWorlds, Proposer, action_map
from robo_policies.rl.demonstrations import SIMULATOR_PROGRESS, demonstrated_decisions, demonstrated_reach
from robo_policies.rl.learners import check_learner, learns_from_demonstrations, make_learning, proposes
from robo_policies.rl.policy import save_rl_policy, sees_potential
from robo_policies.rl.proposals import ClonedDecisions, PolicyProposals
from robo_policies.rl.replay import Replay
from robo_policies.rl.scaling import RunningScaling
from robo_policies.rl.settings import LearnerSettings, LearningSettings
from robo_policies.rl.workers import IMAGES, WorldProcesses
from robo_rm.shaping.modes import ShapingSettings, check_settings
from robo_rm.shaping.potential import NoPotential, Potential, TrueProgress, VideoPotential

POTENTIALS = ("model", "true", "none")
# Worlds that an evaluation steps together.
EVALUATION_WORLDS = 4


@dataclass(frozen=True)
class RunSettings:
    """Everything that makes a run.

    Attributes:
        env: world to learn in.
        store: demo store, or None to learn without demonstrations.
        demonstrations: most demonstrations used; None for all.
        reward_model: folder of the reward model, or None.
        potential: ``model``, ``true`` (the simulator's progress) or ``none``.
        policy: folder of the cloned policy that proposes, or None.
        shaping: how the learning reward is made.
        learning: the loop.
        learner: the networks and their training.
        seed: of everything.
        max_steps: control steps of an episode; None for the world's own.
    """

    env: str
    store: str | None
    demonstrations: int | None
    reward_model: str | None
    potential: str
    policy: str | None
    shaping: ShapingSettings
    learning: LearningSettings
    learner: LearnerSettings
    seed: int
    max_steps: int | None


class RlTraining:
    """A run that is set up.

    Args:
        settings: what to learn from and how.
        folder: for the checkpoint and the policy.
        device: cpu or cuda; the reward model runs there too.

    Raises:
        ConfigError: settings that do not fit each other.
        StoreError: the store lacks what learning needs.
        ModelError: the reward model or the policy does not fit the world.
    """

    def __init__(self, settings: RunSettings, folder: Path, device: str = "cpu") -> None:
        from robo_policies.envs import make_env

        check_settings(settings.shaping)
        _check(settings)
        check_learner(settings)
        self.settings, self.folder, self.device = settings, folder, device
        self._make = lambda: make_env(settings.env, max_steps=settings.max_steps)
        world = self._make()
        self.store = _open(settings.store)
        self.episodes = _chosen(self.store, settings)
        self.dims = _dims(world, self.store)
        self.unseen = _unseen(world, settings.learning.unseen, self.dims)
        absolute = getattr(world.unwrapped, "absolute_actions", None)
        repeat = settings.learning.repeat
        reach = None
        if absolute is not None:
            if not self.episodes:
                raise ConfigError(
                    f"{settings.env} takes joint targets, whose reach is learnt from demonstrations; give store=..."
                )
            reach = demonstrated_reach(self.episodes, repeat, absolute)
        self.actions: ActionMap = action_map(world.action_space, repeat, reach)
        inner: Any = world.unwrapped
        self._fps, self._task = float(inner.fps), str(inner.task)
        world.close()
        self.reward_model = self._load_reward_model()
        self.reference_uncertainty = 0.0
        self.version = self._version()
        self.clone: ClonedDecisions | None = None
        self.clone_again: CloneOfSuccess | None = None
        size = sum(value for key, value in self.dims.items() if key != "action")
        propose = self._proposer(size)
        self.demonstrations = self._replay(propose)
        self.seen = RunningScaling(size + 1, self.unseen)
        if self.demonstrations is not None:
            self.seen.add(self.demonstrations.seen())
        self._propose = propose
        if self.clone is not None and self.demonstrations is not None:
            shown, steps = self.demonstrations, settings.learning.clone_steps
            aligned = settings.learning.clone_aligned and settings.potential != "none"
            growth = settings.learning.clone_growth
            again = CloneOfSuccess(self.clone, shown, steps, self.dims, growth, aligned)
            self.clone_error = again.begin()
            self.clone_again = again if settings.learning.clone_again else None
        self.proposes = propose is not None
        self.learning = make_learning(self, size, folder / "training")

    def learning_worlds(self, blind: bool = False) -> DecisionWorlds:
        """The worlds to learn in; blind ones are not looked at by the potential."""
        learning = self.settings.learning
        sees = self.settings.potential != "none" and not blind
        patience = learning.patience if sees else 0
        return self._worlds(learning.worlds, self.settings.seed, blind, learning.processes, patience)

    def evaluation_worlds(self, seed: int, blind: bool = False) -> DecisionWorlds:
        """Fresh worlds for an evaluation, their episodes' seeds counting from the one given."""
        return self._worlds(min(EVALUATION_WORLDS, self.settings.learning.evaluation_episodes), seed, blind)

    def fingerprint(self) -> str:
        """Hash of the settings and of what they name: a checkpoint of another run is not taken up."""
        held = {
            "settings": _chosen_values(self.settings),
            "version": self.version,
            "demonstrations": [episode.uuid for episode in self.episodes],
        }
        return hashlib.sha256(json.dumps(held, sort_keys=True, default=str).encode()).hexdigest()

    def save_policy(self, facts: dict[str, Any]) -> None:
        """Write the policy folder beside the checkpoint."""
        uses_model = self.reward_model is not None and sees_potential(self.learning.acting)
        save_rl_policy(
            self.folder,
            self.learning.acting,
            self.clone,
            self.actions,
            self.dims,
            Path(str(self.settings.reward_model)) if uses_model else None,
            Path(self.settings.policy) if self.settings.policy else None,
            {
                "ensemble": _rule(self.settings.shaping),
                "env": self.settings.env,
                "store": {"path": self.settings.store},
                "fps": self._fps,
                **facts,
            },
        )

    def described_potential(self) -> list[list[str]]:
        """A row (name, what it is) of the table of terms."""
        if self.settings.potential == "none":
            return []
        what = "the simulator's own progress"
        if self.reward_model is not None:
            what = f"progress seen by {self.settings.reward_model}, every {self.settings.learning.repeat} steps"
        return [["F", what]]

    def _load_reward_model(self) -> Any:
        if self.settings.potential != "model":
            return None
        from robo_rm import load_reward_model

        model = load_reward_model(str(self.settings.reward_model), self.device)
        if self.settings.shaping.ensemble:
            from robo_rm.reward_models.baselines.ensemble import with_rule

            model = with_rule(model, self.settings.shaping.ensemble, self.settings.shaping.pessimism)
        rate = model.provenance.get("fps")
        if rate is not None and abs(float(rate) - self._fps) > 0.01 * self._fps:
            raise ConfigError(
                f"the reward model was trained at {float(rate):g} frames/s and {self.settings.env} runs at "
                f"{self._fps:g}"
            )
        return model

    @property
    def _model_id(self) -> str:
        """Of the reward model as it is used here."""
        from robo_rm.scoring import model_hash

        shaping = self.settings.shaping
        rule = f" {shaping.ensemble} {shaping.pessimism:g}" if shaping.ensemble else ""
        return model_hash(str(self.settings.reward_model)) + rule

    def _version(self) -> str:
        if self.reward_model is None:
            return {"true": TrueProgress.version, "none": NoPotential.version}[self.settings.potential]
        digest, _, rule = self._model_id.partition(" ")
        return f"model {digest[:16]} {rule}".strip()

    def _potential(self, worlds: int) -> Potential:
        if self.reward_model is not None:
            repeat = self.settings.learning.repeat
            return VideoPotential(
                self.reward_model, worlds, repeat, self._task, 0.0, self.version, self.reference_uncertainty
            )
        return TrueProgress() if self.settings.potential == "true" else NoPotential()

    def _worlds(
        self, count: int, seed: int, blind: bool = False, processes: int = 0, patience: int = 0
    ) -> DecisionWorlds:
        potential = NoPotential() if blind else self._potential(count)
        worlds: list[Any]
        if processes:
            cameras = [key.removeprefix(IMAGES) for key in potential.cameras]
            limit = self.settings.max_steps
            worlds = list(WorldProcesses(self.settings.env, count, processes, limit, cameras=cameras).worlds)
        else:
            worlds = [self._make() for _ in range(count)]
        discount = self.settings.learning.discount
        return DecisionWorlds(worlds, self.actions, potential, discount, seed, self._propose, patience)

    def _proposer(self, size: int) -> Proposer | None:
        if not proposes(self.settings):
            return None
        if self.settings.policy:
            from robo_policies import load_policy

            return PolicyProposals(load_policy(self.settings.policy, self.device), self.actions)
        if self.episodes and self.settings.learning.clone_steps:
            width = self.settings.learner.width
            self.clone = ClonedDecisions(size, self.dims["action"], width, self.settings.seed, self.unseen)
            return self.clone
        return None

    def _replay(self, propose: Proposer | None) -> Replay | None:
        if not self.episodes or not learns_from_demonstrations(self.settings):
            return None
        rows = list(
            demonstrated_decisions(
                self.episodes, self.actions, self.settings.learning.discount, self._demonstrated(), propose
            )
        )
        size = sum(value for key, value in self.dims.items() if key != "action")
        replay = Replay(sum(len(row["gold"]) for row in rows), size, self.dims["action"], self.version)
        for row in rows:
            replay.add(row, self.version)
        return replay

    def _demonstrated(self) -> list[npt.NDArray[np.float64]] | None:
        """The potential of every frame of every demonstration."""
        if self.reward_model is not None:
            from robo_rm.scoring import read_prediction, score_progress

            derived = score_progress(self.reward_model, self._model_id, self.store)
            said = [read_prediction(derived, episode.uuid) for episode in self.episodes]
            self.reference_uncertainty = float(np.concatenate([one.uncertainty for one in said]).mean())
            return [one.progress.astype(np.float64) for one in said]
        if self.settings.potential == "true":
            lacking = [episode.uuid for episode in self.episodes if SIMULATOR_PROGRESS not in episode]
            if lacking:
                raise StoreError(f"episode {lacking[0]} has no {SIMULATOR_PROGRESS}; potential=true needs it")
            return [np.asarray(e[SIMULATOR_PROGRESS][:], dtype=np.float64).ravel() for e in self.episodes]
        return None


def _rule(shaping: ShapingSettings) -> dict[str, Any] | None:
    return {"rule": shaping.ensemble, "pessimism": shaping.pessimism} if shaping.ensemble else None


def _chosen_values(settings: Any) -> dict[str, Any]:
    """What was chosen, but for how fast it is computed.

    A setting at its default is left out, so that one which comes later disturbs no checkpoint.
    """
    values = {}
    for place in fields(settings):
        if place.name == "compile":
            continue
        value = getattr(settings, place.name)
        if is_dataclass(value):
            values[place.name] = {"kind": type(value).__name__, **_chosen_values(value)}
        elif value != (place.default if place.default_factory is MISSING else place.default_factory()):
            values[place.name] = value
    return values


def _check(settings: RunSettings) -> None:
    if settings.potential not in POTENTIALS:
        raise ConfigError(f"potential={settings.potential!r} is not known; choose one of: {', '.join(POTENTIALS)}")
    if settings.potential == "model" and not settings.reward_model:
        raise ConfigError("potential=model needs reward_model=FOLDER; train one with robo-rm train-reward")
    if settings.shaping.ensemble and settings.potential != "model":
        raise ConfigError(f"shaping.ensemble={settings.shaping.ensemble} needs reward_model=FOLDER of an ensemble")
    if settings.potential == "none" and settings.shaping.mode != "sparse":
        raise ConfigError(
            f"shaping={settings.shaping.mode} needs a potential: reward_model=FOLDER, or potential=true for the "
            "simulator's own progress"
        )


def _open(path: str | None) -> Any:
    if not path:
        return None
    from robo_datasets import DemoStore

    return DemoStore.open(path)


def _chosen(store: Any, settings: RunSettings) -> list[Any]:
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


def _dims(world: Any, store: Any) -> dict[str, int]:
    """Sizes of what the learner sees and does, in the order it sees them; the store must have the same."""
    spaces = world.observation_space.spaces
    dims = {key: int(np.prod(spaces[key].shape)) for key in (STATE, ENVIRONMENT_STATE) if key in spaces}
    dims["action"] = int(world.action_space.shape[0])
    if store is not None:
        for key, size in dims.items():
            if key not in store.features:
                raise StoreError(f"{store.path} has no {key}, which this world gives; record demonstrations in it")
            held = int(np.prod(store.features[key]["shape"]))
            if held != size:
                raise StoreError(f"{key} has {held} values in {store.path} and {size} in this world")
    return dims


def _unseen(world: Any, names: Sequence[str], dims: Mapping[str, int]) -> list[int]:
    """Columns of the observation that the learner shall not see."""
    known = list(world.unwrapped.environment_state_names) if ENVIRONMENT_STATE in dims else []
    for name in names:
        if name not in known:
            there = f"it has {', '.join(known)}" if known else "this world gives none"
            raise ConfigError(f"learning.unseen: no {name!r} in the environment's state; {there}")
    return [dims[STATE] + known.index(name) for name in names]
