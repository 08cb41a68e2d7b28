"""The loop around a learner: step, evaluate, save a checkpoint; the runners differ in what a step is.

Run the same command again to resume a run that was killed: learner, replay buffer, random generators and the running
episodes are all in the checkpoint, so it takes the actions that it would have taken.

Learners are not trained by `robo_rm.training.engine`: it descends one loss with one optimizer on batches known before
the run, while they alternate losses with an optimizer each, on transitions that their own actions lead to.
"""

from __future__ import annotations

import json
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.torch
import torch

from robo_core.errors import ModelError
from robo_core.outputs import write_atomically
from robo_policies.rl.algorithms.sac import Sac
from robo_policies.rl.envs.vector_env import MacroActionVectorEnv, Snapshot, StepResult
from robo_policies.rl.logging.reward_hacking import MonitorState, RewardHackingMonitor
from robo_policies.rl.modules.mlp_actor import MlpActor
from robo_policies.rl.modules.normalization import Statistics
from robo_policies.rl.settings import LearningSettings
from robo_policies.rl.storage.replay_buffer import ReplayBuffer
from robo_policies.rl.types import Floats, TransitionColumns
from robo_rm.shaping.modes import ShapingSettings, Transitions, compose_reward
from robo_rm.shaping.potential import VideoPotential

STATE_FILE, CRASH_FILE = "learning.json", "crash.json"
FORMAT = 2
SECONDS_BETWEEN_CHECKPOINTS = 60.0
FIRST_EVALUATION_SEED = 1_000_000_000
"""Seeds of evaluation episodes lie far from those of training, which count up from the run's seed."""


@dataclass
class RunState:
    """What a checkpoint stores besides tensors; plain JSON."""

    format: int = FORMAT
    steps: int = 0
    macro_actions: int = 0
    episodes: int = 0
    successes: int = 0
    seconds: float = 0.0
    curve: list[dict[str, float]] = field(default_factory=list)
    evaluated_at: int = -1
    envs: Snapshot | None = None
    random: Mapping[str, object] = field(default_factory=dict)
    monitor: MonitorState | None = None
    statistics: Statistics | None = None
    losses: dict[str, float] = field(default_factory=dict)
    fingerprint: str = ""


class Learner(Protocol):
    """What every runner asks of its learner."""

    def act(
        self, observations: Floats, explore: bool = False, prior_actions: Floats | None = None
    ) -> tuple[Floats, npt.NDArray[np.bool_]]:
        """Actions (n, A) for observations (n, O + 1), and which of them (n,) are the behaviour prior's."""

    def state(self) -> dict[str, torch.Tensor]:
        """Everything the next update depends on, as tensors by name."""

    def load_state(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Restore a `state`."""


@dataclass(frozen=True)
class RunContext:
    """What every runner needs besides its learner.

    Attributes:
        envs: environments to learn in.
        evaluation_envs: makes fresh ones for an evaluation, their episodes' seeds counting from the one given.
        shaping: how the learning reward is composed.
        settings: of the loop.
        seed: of exploration and sampling.
        folder: for the checkpoint.
        fingerprint: of everything that identifies the run; a checkpoint of another run is refused.
    """

    envs: MacroActionVectorEnv
    evaluation_envs: Callable[[int], MacroActionVectorEnv]
    shaping: ShapingSettings
    settings: LearningSettings
    seed: int
    folder: Path
    fingerprint: str


class Runner(ABC):
    """One run.

    Args:
        context: environments, settings and folder.
        learner: acts and learns.

    Attributes:
        state: where the run stands.
        cut_off: whether the cap in minutes ended the last call of `run`.
        replay: the replay buffer, once the run has begun.
    """

    def __init__(self, context: RunContext, learner: Learner) -> None:
        self.envs, self.shaping, self.settings = context.envs, context.shaping, context.settings
        self.folder, self.state = context.folder, RunState(fingerprint=context.fingerprint)
        self.learner = learner
        self.cut_off = False
        self.replay: ReplayBuffer | None = None
        potential = self.envs.potential
        reference = potential.reference_uncertainty if isinstance(potential, VideoPotential) else 0.0
        self.monitor = RewardHackingMonitor(self.envs.num_envs, reference)
        self._evaluation_envs = context.evaluation_envs
        self._seed, self._rng = context.seed, np.random.default_rng(context.seed)
        self._losses: dict[str, float] = {}

    @property
    @abstractmethod
    def policy(self) -> Sac | MlpActor:
        """What acts when learning is over."""

    @abstractmethod
    def _step(self) -> None:
        """The smallest step of the run: it advances `state.steps`."""

    @abstractmethod
    def _empty_replay(self) -> ReplayBuffer:
        """A replay buffer of the size that a checkpoint has."""

    def run(
        self, steps: int, on_step: Callable[[RunState, Mapping[str, float]], None], minutes: float | None = None
    ) -> list[dict[str, float]]:
        """Learn until so many steps were taken; returns the curve, one point for each evaluation.

        Args:
            steps: control steps, those before an interruption included.
            on_step: callback after each step of the run.
            minutes: cap on this call; None for none. `cut_off` says whether it ended the call.

        Raises:
            ModelError: NaN or infinity in an action, an observation, a potential or a loss; ``crash.json`` holds the
                seeds and actions from which the last states can be replayed.
            ConfigError: the same for a task reward.
        """
        self._begin()
        self.cut_off = False
        started = saved = time.monotonic()
        before = self.state.seconds
        while self.state.steps < steps:
            self._evaluate_if_due()
            self._step()
            now = time.monotonic()
            self.state.seconds = before + now - started
            on_step(self.state, self._losses)
            if now - saved > SECONDS_BETWEEN_CHECKPOINTS:
                self.save()
                saved = now
            if minutes is not None and now - started > 60 * minutes and self.state.steps < steps:
                self.cut_off = True
                break
        self._evaluate_if_due(last=True)
        self.save()
        return self.state.curve

    def evaluate(self) -> dict[str, float]:
        """Success rate and mean length of the evaluation's episodes, without exploration."""
        envs = self._evaluation_envs(FIRST_EVALUATION_SEED)
        envs.reset()
        wanted = self.settings.evaluation_episodes
        results: dict[int, tuple[bool, int]] = {}
        lengths = np.zeros(envs.num_envs, dtype=int)
        while len(results) < wanted:
            result = envs.step(self._evaluation_action(envs))
            lengths += result.transitions["steps"]
            for index in np.flatnonzero(result.done).tolist():
                number = int(result.seeds[index]) - FIRST_EVALUATION_SEED
                if number < wanted:
                    success = bool(result.transitions["task_reward"][index] > 0)
                    results[number] = (success, int(lengths[index]))
                lengths[index] = 0
        envs.close()
        # Short episodes end first: of all that ended, only the first `wanted` seeds count, whatever their length.
        counted = [results[number] for number in range(wanted)]
        return {
            "success": float(np.mean([success for success, _ in counted])),
            "length": float(np.mean([length for _, length in counted])),
        }

    def variance_fractions(self) -> dict[str, float]:
        """Each reward term's fraction of the learning reward's variance; empty while nothing is stored."""
        if self.replay is None or not len(self.replay):
            return {}
        return self.replay.variance_fractions(self.shaping, self.settings.discount)

    def save(self) -> None:
        """Write a checkpoint; the state file, written last, makes it valid, and the one before stays until then."""
        if self.replay is None:
            return
        self.state.envs = self.envs.snapshot()
        self.state.random = dict(self._rng.bit_generator.state)
        self.state.monitor = self.monitor.snapshot()
        self.state.losses = dict(self._losses)
        self.folder.mkdir(parents=True, exist_ok=True)
        learner, replay = self._files(self.state.macro_actions)
        self.replay.save(replay)
        write_atomically(learner, safetensors.torch.save(self._tensors()))
        write_atomically(self.folder / STATE_FILE, json.dumps(asdict(self.state)) + "\n")
        for old in self.folder.glob("*-[0-9]*.safetensors"):
            if old not in (learner, replay):
                old.unlink()

    def load(self) -> bool:
        """Resume from a checkpoint; False where there is none.

        Raises:
            ModelError: it is damaged, of another run or of another version.
        """
        path = self.folder / STATE_FILE
        if not path.exists():
            return False
        try:
            values = json.loads(path.read_text())
            version = values.get("format", 1)
            if version == FORMAT:
                state = RunState(**values)
        except (ValueError, TypeError, AttributeError) as error:
            raise ModelError(f"{path} is damaged ({error}); remove {self.folder} to start again") from error
        if version != FORMAT:
            raise ModelError(
                f"{path} is of format {version}, this version reads {FORMAT}; give another out=, or overwrite=true"
            )
        if state.fingerprint != self.state.fingerprint:
            raise ModelError(f"{self.folder} holds a run of other settings; give another out=, or overwrite=true")
        learner, stored = self._files(state.macro_actions)
        replay = self._empty_replay()
        replay.load(stored)
        try:
            tensors = safetensors.torch.load_file(learner)
        except (OSError, safetensors.SafetensorError) as error:
            raise ModelError(f"{learner} is damaged ({error}); remove {self.folder} to start again") from error
        self._load_tensors(tensors)
        self.replay, self.state, self._losses = replay, state, dict(state.losses)
        self._rng.bit_generator.state = state.random
        if state.envs is not None:
            self.envs.restore(state.envs)
        if state.monitor is not None:
            self.monitor.restore(state.monitor)
        return True

    def _begin(self) -> None:
        if self.replay is None:
            self.envs.reset()
            self.replay = self._empty_replay()

    def _tensors(self) -> dict[str, torch.Tensor]:
        """What a checkpoint stores besides the replay buffer."""
        return self.learner.state()

    def _load_tensors(self, tensors: Mapping[str, torch.Tensor]) -> None:
        self.learner.load_state(tensors)

    def _evaluation_action(self, envs: MacroActionVectorEnv) -> Floats:
        """(N, A) the actions of an evaluation."""
        return self.learner.act(envs.observations(), explore=False, prior_actions=envs.prior_actions())[0]

    def _files(self, macro_actions: int) -> tuple[Path, Path]:
        names = (f"learner-{macro_actions}.safetensors", f"replay-{macro_actions}.safetensors")
        return self.folder / names[0], self.folder / names[1]

    def _record(self, result: StepResult) -> npt.NDArray[np.float64]:
        """Store and count what a macro-action led to; returns the learning rewards (N,)."""
        assert self.replay is not None
        transitions, potential = result.transitions, self.envs.potential
        self.replay.add(transitions, potential.version)
        rewards = self._rewards(transitions)
        # Where an episode ended, the uncertainty of the next one's first observation stands for its last one's.
        self.monitor.add(transitions, rewards, potential.uncertainty if isinstance(potential, VideoPotential) else 0.0)
        self.state.steps += int(transitions["steps"].sum())
        self.state.macro_actions += len(result.done)
        self.state.episodes += int(result.done.sum())
        self.state.successes += int((result.done & (transitions["task_reward"] > 0)).sum())
        return rewards

    def _rewards(self, transitions: TransitionColumns) -> npt.NDArray[np.float64]:
        batch = Transitions(
            transitions["task_reward"], transitions["potential"], transitions["next_potential"],
            transitions["start_potential"], transitions["terminated"], transitions["truncated"], transitions["steps"],
        )  # fmt: skip
        return compose_reward(self.shaping, batch, self.settings.discount)

    def _evaluate_if_due(self, last: bool = False) -> None:
        due = self.state.steps // self.settings.evaluate_every
        if due == self.state.evaluated_at and not last:
            return
        if last and self.state.curve and self.state.curve[-1]["steps"] == self.state.steps:
            return
        taken = {"steps": float(self.state.steps), "episodes": float(self.state.episodes)}
        point = {**taken, **self.evaluate(), "seconds": self.state.seconds}
        metrics = {f"training_{name}": value for name, value in self.monitor.metrics().items()}
        self.state.curve.append({**point, **metrics, **self._losses})
        self.state.evaluated_at = due

    def _dump_crash(self, action: Floats, error: Exception) -> None:
        """Write the seeds and actions of the running episodes, from which the crash can be replayed."""
        crash = {
            "error": str(error),
            "envs": self.envs.snapshot(),
            "action": [[repr(float(value)) for value in row] for row in action],
            "steps": self.state.steps,
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomically(self.folder / CRASH_FILE, json.dumps(crash, indent=1) + "\n")
