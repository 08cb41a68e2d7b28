"""The loop of reinforcement learning: decide, store, update, evaluate, keep a checkpoint.

A run that is killed goes on with the same command: learner, replay, random draws and the episodes under way are all in
the checkpoint, so it takes the decisions that it would have taken.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.torch

from robo_core.errors import ConfigError, ModelError
from robo_core.outputs import write_atomically
from robo_policies.rl.cloning_again import FEWEST, CloneOfSuccess
from robo_policies.rl.decisions import DecisionWorlds, Outcome
from robo_policies.rl.monitor import HackingMonitor
from robo_policies.rl.replay import Batch, Floats, Replay
from robo_policies.rl.scaling import RunningScaling
from robo_policies.rl.settings import LearningSettings
from robo_rm.shaping.modes import Decisions, ShapingSettings, compose_reward

NOTE, CRASH = "learning.json", "crash.json"
SECONDS_BETWEEN_CHECKPOINTS = 60.0
# Seeds of evaluation episodes lie far from those of training, which count up from the run's seed.
EVALUATION_SEEDS = 1_000_000_000


@dataclass
class Note:
    """What a checkpoint knows besides tensors; plain JSON."""

    steps: int = 0
    decisions: int = 0
    episodes: int = 0
    successes: int = 0
    seconds: float = 0.0
    curve: list[dict[str, float]] = field(default_factory=list)
    evaluated_at: int = -1
    worlds: dict[str, Any] = field(default_factory=dict)
    random: dict[str, Any] = field(default_factory=dict)
    monitor: dict[str, Any] = field(default_factory=dict)
    scaling: dict[str, Any] = field(default_factory=dict)
    losses: dict[str, float] = field(default_factory=dict)
    fingerprint: str = ""


class Learning:
    """One run.

    Args:
        worlds: to learn in.
        evaluation_worlds: makes fresh ones for evaluations, their episodes' seeds counting from the one given.
        sac: the learner.
        demonstrations: replay of demonstrated decisions, or None.
        shaping: how the learning reward is made.
        settings: of the loop.
        seed: of exploration and sampling.
        folder: for the checkpoint.
        fingerprint: of everything that makes the run; a checkpoint of another run is not taken up.
        clone: trains the clone anew from what succeeded; None to leave it as it is.
        scaling: of what the learner sees, by the demonstrations so far; it goes on with what is learnt from.
    """

    def __init__(
        self,
        worlds: DecisionWorlds,
        evaluation_worlds: Callable[[int], DecisionWorlds],
        sac: Any,
        demonstrations: Replay | None,
        shaping: ShapingSettings,
        settings: LearningSettings,
        seed: int,
        folder: Path,
        fingerprint: str,
        clone: CloneOfSuccess | None = None,
        scaling: RunningScaling | None = None,
    ) -> None:
        if not 0 <= settings.demonstration_share < 1:
            raise ConfigError(f"demonstration_share={settings.demonstration_share}: give a share from 0 to below 1")
        for name in ("success_share", "clone_share"):
            if not 0 <= getattr(settings, name) <= 1:
                raise ConfigError(f"{name}={getattr(settings, name)}: give a share from 0 to 1")
        if settings.ahead < 1:
            raise ConfigError(f"learning.ahead={settings.ahead}: give 1 decision or more")
        self.worlds, self.sac, self.shaping, self.settings = worlds, sac, shaping, settings
        self.folder, self.note = folder, Note(fingerprint=fingerprint)
        reference = float(getattr(worlds.potential, "reference_uncertainty", 0.0))
        self.monitor = HackingMonitor(len(worlds.worlds), reference)
        self._evaluation_worlds, self._demonstrations = evaluation_worlds, demonstrations
        self._seed, self._rng = seed, np.random.default_rng(seed)
        self._clone = clone
        self._scaling = scaling or RunningScaling(worlds.observation_size + 1)
        self._begun = False
        self.cut_off = False
        """Whether the cap in minutes ended the last call."""
        self._losses: dict[str, float] = {}
        self.replay: Replay | None = None

    @property
    def acting(self) -> Any:
        """What acts when learning is over."""
        return getattr(self.sac, "acting", self.sac)

    def run(
        self, steps: int, tell: Callable[[Note, Mapping[str, float]], None], minutes: float | None = None
    ) -> list[dict[str, float]]:
        """Learn until so many control steps were taken; returns the curve, one point for each evaluation.

        Args:
            steps: control steps, those before an interruption included.
            tell: called after each decision.
            minutes: a cap on this call; None for none. `cut_off` tells whether it ended the call.

        Raises:
            ModelError: NaN or infinity in a reward, an action, an observation or a loss; the last decisions are in
                ``crash.json``, from which they can be replayed.
        """
        self._begin()
        self.cut_off = False
        started = saved = time.monotonic()
        before = self.note.seconds
        while self.note.steps < steps:
            self._evaluate_if_due()
            self._decide()
            now = time.monotonic()
            self.note.seconds = before + now - started
            tell(self.note, self._losses)
            if now - saved > SECONDS_BETWEEN_CHECKPOINTS:
                self.save()
                saved = now
            if minutes is not None and now - started > 60 * minutes and self.note.steps < steps:
                self.cut_off = True
                break
        self._evaluate_if_due(last=True)
        self.save()
        return self.note.curve

    def evaluate(self) -> dict[str, float]:
        """Success over the evaluation's episodes, without exploration; of the cloned policy while nothing is learnt."""
        worlds = self._evaluation_worlds(EVALUATION_SEEDS)
        worlds.reset()
        wanted = self.settings.evaluation_episodes
        results: dict[int, tuple[bool, int]] = {}
        lengths = np.zeros(len(worlds.worlds), dtype=int)
        while len(results) < wanted:
            proposed = worlds.proposals()
            if proposed is not None and self.note.decisions <= self.settings.warmup:
                # Critics that know nothing would pick at random between the clone and the actor.
                action = proposed
            else:
                action, _ = self.sac.act(worlds.observations(), explore=False, proposed=proposed)
            outcome = worlds.step(action)
            lengths += outcome.rows["steps"]
            for place in np.flatnonzero(outcome.ended).tolist():
                number = int(outcome.seeds[place]) - EVALUATION_SEEDS
                if number < wanted:
                    results[number] = (bool(outcome.rows["gold"][place] > 0), int(lengths[place]))
                lengths[place] = 0
        for world in worlds.worlds:
            world.close()
        success = [results[number][0] for number in range(wanted)]
        return {"success": float(np.mean(success)), "length": float(np.mean([results[n][1] for n in range(wanted)]))}

    def save(self) -> None:
        """Write a checkpoint; the note, written last, is what makes it count, and the one before stays until then."""
        if self.replay is None:
            return
        self.note.worlds = self.worlds.snapshot()
        self.note.random = dict(self._rng.bit_generator.state)
        self.note.monitor = self.monitor.snapshot()
        self.note.scaling = self._scaling.snapshot()
        self.note.losses = dict(self._losses)
        self.folder.mkdir(parents=True, exist_ok=True)
        learner, replay = self._files(self.note.decisions)
        self.replay.save(replay)
        cloned = self._clone.state() if self._clone is not None else {}
        write_atomically(learner, safetensors.torch.save({**self.sac.state(), **cloned}))
        write_atomically(self.folder / NOTE, json.dumps(asdict(self.note)) + "\n")
        for old in self.folder.glob("*-[0-9]*.safetensors"):
            if old not in (learner, replay):
                old.unlink()

    def load(self) -> bool:
        """Take up a checkpoint; False where there is none.

        Raises:
            ModelError: it is damaged or of another run.
        """
        path = self.folder / NOTE
        if not path.exists():
            return False
        try:
            note = Note(**json.loads(path.read_text()))
        except (ValueError, TypeError) as error:
            raise ModelError(f"{path} is damaged ({error}); remove {self.folder} to learn anew") from error
        if note.fingerprint != self.note.fingerprint:
            raise ModelError(f"{self.folder} holds a run of other settings; give another out=, or overwrite=true")
        learner, stored = self._files(note.decisions)
        replay = self._empty_replay()
        replay.load(stored)
        try:
            held = safetensors.torch.load_file(learner)
        except (OSError, safetensors.SafetensorError) as error:
            raise ModelError(f"{learner} is damaged ({error}); remove {self.folder} to learn anew") from error
        self.sac.load_state(held)
        if self._clone is not None:
            self._clone.load_state(held)
        self.replay, self.note, self._losses = replay, note, dict(note.losses)
        self._rng.bit_generator.state = note.random
        self.worlds.restore(note.worlds)
        self.monitor.restore(note.monitor)
        self._scaling.restore(note.scaling)
        self._begun = True
        return True

    def _files(self, decisions: int) -> tuple[Path, Path]:
        return self.folder / f"learner-{decisions}.safetensors", self.folder / f"replay-{decisions}.safetensors"

    def _begin(self) -> None:
        if self._begun:
            return
        self.worlds.reset()
        self.replay = self._empty_replay()
        self._begun = True

    def _empty_replay(self) -> Replay:
        world = self.worlds
        size, actions = world.observation_size, len(world.actions.low)
        return Replay(self.settings.capacity, size, actions, world.potential.version)

    def _decide(self) -> None:
        action = self._choose()
        try:
            # Worlds in other processes work while this one learns from what it had before.
            self.worlds.start(action)
            if self.note.decisions > self.settings.warmup:
                for batches in self._batches(self.settings.updates_per_decision * len(action)):
                    self._losses = self.sac.update(*batches)
            outcome = self.worlds.finish()
            self._store(outcome)
            self._clone_again(outcome)
        except (ModelError, ConfigError) as error:
            self._dump(action, error)
            raise

    def _clone_again(self, outcome: Outcome) -> None:
        assert self.replay is not None
        if self._clone is not None and outcome.ended.any() and self._clone.learn(self.replay):
            self.worlds.propose_again()

    def _choose(self) -> Floats:
        proposed = self.worlds.proposals()
        led, widely = self._led()
        if proposed is not None:
            spread = np.where(led & widely, self.settings.clone_noise, self.settings.proposal_noise)
            noise = spread[:, None] * self._rng.normal(size=proposed.shape)
            proposed = np.clip(proposed + noise, -1, 1).astype(np.float32)
        if self.note.decisions < self.settings.warmup:
            if proposed is not None:
                return proposed
            shape = (len(self.worlds.worlds), len(self.worlds.actions.low))
            return self._rng.uniform(-1, 1, shape).astype(np.float32)
        action, _ = self.sac.act(self.worlds.observations(), explore=True, proposed=proposed)
        return action if proposed is None else np.where(led[:, None], proposed, action)

    def _led(self) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        """(N,) which episodes the clone carries out alone, and which it would with wide noise.

        While nothing has succeeded critics choose by what they do not know, and steer away from what a clone that gets
        better by itself, from its own progress, would come to.
        """
        number, share = self.worlds.seeds - self._seed, self.settings.clone_share
        turn = np.floor((number + 1) * share)
        led = (turn > np.floor(number * share)) & (self.note.successes < FEWEST)
        return led, turn % 2 == 0

    def _store(self, outcome: Outcome) -> None:
        assert self.replay is not None
        self.replay.add(outcome.rows, self.worlds.potential.version)
        rows = outcome.rows
        self._scaling.add(np.concatenate([rows["observation"], rows["potential"][:, None]], axis=1))
        if outcome.ended.any() and hasattr(self.acting, "rescale"):
            self.acting.rescale(self._scaling.scaling())
        # Where an episode ended, the first look at the next one stands for the last at it.
        drift = getattr(self.worlds.potential, "uncertainty", 0.0)
        self.monitor.add(outcome.rows, self._rewards(outcome.rows), drift)
        self.note.steps += int(outcome.rows["steps"].sum())
        self.note.decisions += len(outcome.ended)
        self.note.episodes += int(outcome.ended.sum())
        self.note.successes += int((outcome.ended & (outcome.rows["gold"] > 0)).sum())

    def _rewards(self, rows: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[np.float64]:
        fields = ("gold", "potential", "next_potential", "start_potential", "terminated", "truncated", "steps")
        return compose_reward(self.shaping, Decisions(*(rows[name] for name in fields)), self.settings.discount)

    def _batches(self, updates: int) -> Iterator[tuple[Batch, Batch | None]]:
        """What so many updates learn from: the learner's own decisions, and demonstrated ones where there are any.

        They are drawn together, since composing the rewards of a few dozen decisions costs calls, not arithmetic.
        """
        assert self.replay is not None
        total, share = self.sac.settings.batch, self.settings.demonstration_share
        shown = round(total * share) if self._demonstrations is not None else 0
        settings = self.settings
        drawn = (self.shaping, settings.discount, settings.ahead)
        # A few short successes among long failures would hardly be looked at.
        succeeded = round(total * settings.success_share) if len(self.replay.led_to_success) else 0
        shown = max(shown - succeeded, 0)
        fresh = self.replay.sample(self._rng, updates * (total - shown), *drawn, succeeded=updates * succeeded)
        if not shown or self._demonstrations is None:
            return ((batch, None) for batch in fresh.deal(updates))
        demonstrated = self._demonstrations.sample(self._rng, updates * shown, *drawn)
        return zip(fresh.deal(updates), demonstrated.deal(updates), strict=True)

    def _evaluate_if_due(self, last: bool = False) -> None:
        due = self.note.steps // self.settings.evaluate_every
        if due == self.note.evaluated_at and not last:
            return
        if last and self.note.curve and self.note.curve[-1]["steps"] == self.note.steps:
            return
        taken = {"steps": float(self.note.steps), "episodes": float(self.note.episodes)}
        point = {**taken, **self.evaluate(), "seconds": self.note.seconds}
        figures = {f"training_{name}": value for name, value in self.monitor.figures().items()}
        self.note.curve.append({**point, **figures, **self._losses})
        self.note.evaluated_at = due

    def _dump(self, action: Floats, error: Exception) -> None:
        """The last states, from which the crash can be replayed: seeds and actions of the episodes under way."""
        crash = {
            "error": str(error),
            "worlds": self.worlds.snapshot(),
            "action": [[repr(float(value)) for value in row] for row in action],
            "steps": self.note.steps,
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomically(self.folder / CRASH, json.dumps(crash, indent=1) + "\n")
