"""Stable-Baselines3's SAC and PPO on the same decisions, shaped reward and evaluations: controls to compare with.

Its own saves are pickles, which we neither write nor read: weights, the optimisers' memory, the replay buffer and the
random states are kept as safetensors, and a run goes on exactly where it stood. Demonstrations and proposals are not
used. One difference to our learners remains: Stable-Baselines3 discounts every decision by g^k, so a decision that a
time limit cuts short is bootstrapped with g^k where the shaping has g^steps; episodes as long as a whole number of
decisions have none.

Stable-Baselines3 draws from the global generators of numpy and torch, and seeds them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from gymnasium import spaces

from robo_core.errors import ConfigError, MissingPartError, ModelError
from robo_policies.rl.actors import ActorShape, PlainActor
from robo_policies.rl.decisions import DecisionWorlds, Outcome
from robo_policies.rl.learning import Learning
from robo_policies.rl.optimisers import optimiser_state, restore_optimiser
from robo_policies.rl.replay import Floats, Replay
from robo_policies.rl.settings import ControlPpoSettings, ControlSacSettings, LearnerSettings, LearningSettings
from robo_rm.shaping.modes import ShapingSettings

if TYPE_CHECKING:
    from stable_baselines3.common.vec_env import VecEnv

# Decisions remembered for the shares of the reward's terms in the log.
REMEMBERED = 2000
_BUFFER = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts")


class Control:
    """One of Stable-Baselines3's learners behind the interface of ours.

    Args:
        name: ``sb3_sac`` or ``sb3_ppo``.
        env: what it steps.
        settings: of the learner.
        loop: discount of a control step, decisions before the first update, updates of a decision, capacity.
        seed: of everything.
        device: cpu or cuda.

    Raises:
        MissingPartError: Stable-Baselines3 is not installed.
    """

    def __init__(
        self, env: VecEnv, settings: LearnerSettings, loop: LearningSettings, seed: int, device: str = "cpu"
    ) -> None:
        stable = _stable_baselines()
        self.settings, self.device = settings, device
        self._starts: list[bool] | None = None
        shared: dict[str, Any] = {
            "gamma": loop.discount**loop.repeat, "learning_rate": settings.learning_rate, "seed": seed,
            "device": device, "batch_size": settings.batch,
            "policy_kwargs": {"net_arch": [settings.width, settings.width]},
        }  # fmt: skip
        self._sac = isinstance(settings, ControlSacSettings)
        if isinstance(settings, ControlSacSettings):
            if not settings.temperature > 0:
                raise ConfigError(f"learner.temperature={settings.temperature}: give a number above 0")
            self.model: Any = stable.SAC(
                "MlpPolicy", env, learning_starts=loop.warmup, gradient_steps=loop.updates_per_decision * env.num_envs,
                train_freq=1, buffer_size=loop.capacity, tau=settings.tau,
                ent_coef=f"auto_{settings.temperature}", **shared,
            )  # fmt: skip
        elif isinstance(settings, ControlPpoSettings):
            if settings.rollout * env.num_envs % settings.batch:
                raise ConfigError(
                    f"learner.rollout={settings.rollout} decisions of learning.worlds={env.num_envs} are no whole "
                    f"number of batches of learner.batch={settings.batch}"
                )
            self.model = stable.PPO(
                "MlpPolicy", env, n_steps=settings.rollout, n_epochs=settings.epochs, **shared
            )  # fmt: skip
        else:
            raise ConfigError(f"learner {settings.name!r} is not one of Stable-Baselines3's")
        from stable_baselines3.common.logger import Logger

        self.model.set_logger(Logger(None, []))

    def collect_and_update(self) -> dict[str, float]:
        """The learner's smallest round: SAC a decision in every world, PPO a rollout; returns its updates' figures.

        Raises:
            ModelError: a figure or an action is no number.
        """
        count = self.model.env.num_envs
        try:
            self.model.learn(count if self._sac else count * self.model.n_steps, reset_num_timesteps=False)
        except ValueError as error:
            # Its distributions refuse means and spreads that are no numbers in this way.
            first = str(error).splitlines()[0]
            raise ModelError(f"Stable-Baselines3 stopped at {self.model.num_timesteps} decisions: {first}") from error
        figures = {
            name.removeprefix("train/"): float(value)
            for name, value in self.model.logger.name_to_value.items()
            if name.startswith("train/")
        }
        bad = [name for name, value in figures.items() if not np.isfinite(value) and name != "explained_variance"]
        if bad:
            raise ModelError(f"learning diverged at {self.model.num_timesteps} decisions: {bad[0]} is no number")
        return {name: value for name, value in figures.items() if np.isfinite(value)}

    def act(
        self, observations: Floats, explore: bool = False, proposed: Floats | None = None
    ) -> tuple[Floats, npt.NDArray[np.bool_]]:
        """Actions (n, A) for observations (n, O + 1)."""
        action, _ = self.model.predict(observations, deterministic=not explore)
        return np.asarray(action, dtype=np.float32), np.zeros(len(observations), dtype=bool)

    def plain_actor(self) -> PlainActor:
        """The policy alone, which needs no Stable-Baselines3."""
        from torch import nn

        policy = self.model.policy
        body, last = (policy.actor.latent_pi, policy.actor.mu) if self._sac else (
            policy.mlp_extractor.policy_net, policy.action_net
        )  # fmt: skip
        layers = [*(layer for layer in body if isinstance(layer, nn.Linear)), last]
        shape = ActorShape(
            layers[0].in_features, last.out_features, tuple(layer.out_features for layer in layers[:-1]),
            "relu" if self._sac else "tanh", False, self._sac, True,
        )  # fmt: skip
        actor = PlainActor(shape, self.settings, self.device)
        actor.copy_layers(layers)
        return actor

    def state(self) -> dict[str, torch.Tensor]:
        """Everything the next round depends on, as tensors by name."""
        model = self.model
        held = {f"policy.{k}": v.detach().cpu().contiguous().clone() for k, v in model.policy.state_dict().items()}
        for name, steps in self._optimisers().items():
            held |= optimiser_state(name, steps)
        numbers = {"timesteps": model.num_timesteps, "updates": model._n_updates, "random": _random_states(model)}
        if self._sac:
            held["log_ent_coef"] = model.log_ent_coef.detach().cpu().clone()
            buffer = model.replay_buffer
            numbers |= {"place": buffer.pos, "full": buffer.full}
            used = buffer.buffer_size if buffer.full else buffer.pos
            for name in _BUFFER:
                held[f"buffer.{name}"] = torch.from_numpy(np.ascontiguousarray(getattr(buffer, name)[:used])).clone()
        if model._last_episode_starts is not None:
            numbers["starts"] = np.asarray(model._last_episode_starts, dtype=bool).tolist()
        held["torch_random"] = torch.get_rng_state()
        held["numbers"] = torch.frombuffer(bytearray(json.dumps(numbers).encode()), dtype=torch.uint8).clone()
        return held

    def load_state(self, held: Mapping[str, torch.Tensor]) -> None:
        """Take up a `state`; the worlds must have been restored before (`resume_at`).

        Raises:
            ModelError: it is of another learner.
        """
        model = self.model
        try:
            numbers = json.loads(bytes(held["numbers"].numpy()))
            model.policy.load_state_dict(
                {n.removeprefix("policy."): v for n, v in held.items() if n.startswith("policy.")}
            )
            for name, steps in self._optimisers().items():
                restore_optimiser(name, steps, held)
            if self._sac:
                with torch.no_grad():
                    model.log_ent_coef.copy_(held["log_ent_coef"])
                buffer = model.replay_buffer
                buffer.pos, buffer.full = int(numbers["place"]), bool(numbers["full"])
                for name in _BUFFER:
                    kept = held[f"buffer.{name}"].numpy()
                    getattr(buffer, name)[: len(kept)] = kept
            model.num_timesteps, model._n_updates = int(numbers["timesteps"]), int(numbers["updates"])
            self._starts = numbers.get("starts")
            torch.set_rng_state(held["torch_random"])
            _restore_random(model, numbers["random"])
        except (KeyError, RuntimeError, ValueError, TypeError) as error:
            raise ModelError(f"the checkpoint is of another learner or damaged ({error})") from error

    def resume_at(self, observations: Floats) -> None:
        """Go on from what the restored worlds show (N, O + 1), rather than from a reset."""
        from collections import deque

        self.model._last_obs = observations
        self.model._last_episode_starts = np.array(self._starts or [True] * len(observations))
        self.model.ep_info_buffer, self.model.ep_success_buffer = deque(maxlen=100), deque(maxlen=100)

    def _optimisers(self) -> dict[str, torch.optim.Optimizer]:
        policy = self.model.policy
        if not self._sac:
            return {"policy_steps": policy.optimizer}
        return {
            "actor_steps": policy.actor.optimizer,
            "critic_steps": policy.critic.optimizer,
            "temperature_steps": self.model.ent_coef_optimizer,
        }


class ControlLearning(Learning):
    """A run of a control: Stable-Baselines3 takes the decisions, the loop evaluates and keeps checkpoints.

    Args:
        worlds: to learn in.
        evaluation_worlds: as `Learning`.
        settings: of the learner.
        shaping: how the learning reward is made.
        loop: of the loop.
        seed: of everything.
        folder: for the checkpoint.
        fingerprint: as `Learning`.
        device: cpu or cuda.
    """

    def __init__(
        self,
        worlds: DecisionWorlds,
        evaluation_worlds: Callable[[int], DecisionWorlds],
        settings: LearnerSettings,
        shaping: ShapingSettings,
        loop: LearningSettings,
        seed: int,
        folder: Path,
        fingerprint: str,
        device: str = "cpu",
    ) -> None:
        self._stepped = _vector(worlds, self._take)
        self.control = Control(self._stepped, settings, loop, seed, device)
        super().__init__(
            worlds, evaluation_worlds, self.control, None, shaping, loop, seed, folder, fingerprint
        )  # fmt: skip

    @property
    def acting(self) -> PlainActor:
        """The policy alone."""
        return self.control.plain_actor()

    def load(self) -> bool:
        """As `Learning.load`."""
        found = super().load()
        if found:
            self.control.resume_at(self.worlds.observations())
        return found

    def _empty_replay(self) -> Replay:
        world = self.worlds
        return Replay(REMEMBERED, world.observation_size, len(world.actions.low), world.potential.version)

    def _decide(self) -> None:
        try:
            self._losses = self.control.collect_and_update()
        except (ModelError, ConfigError) as error:
            self._dump(self._stepped.chosen, error)
            raise

    def _take(self, outcome: Outcome) -> npt.NDArray[np.float64]:
        self._store(outcome)
        return self._rewards(outcome.rows)


def _vector(worlds: DecisionWorlds, take: Callable[[Outcome], npt.NDArray[np.float64]]) -> Any:
    """The worlds as Stable-Baselines3's vector environment.

    Args:
        worlds: with the last observation of each episode in the outcome's rows, whatever begins then.
        take: keeps the books of an outcome and returns its rewards (N,).
    """
    _stable_baselines()
    from stable_baselines3.common.vec_env import VecEnv

    class Stepped(VecEnv):
        """Decisions as steps; episodes that end begin anew at once, as Stable-Baselines3 expects."""

        def __init__(self) -> None:
            size, actions = worlds.observation_size + 1, len(worlds.actions.low)
            self.chosen: Floats = np.zeros((len(worlds.worlds), actions), np.float32)
            super().__init__(
                len(worlds.worlds),
                spaces.Box(-np.inf, np.inf, (size,), np.float32),
                spaces.Box(-1.0, 1.0, (actions,), np.float32),
            )

        def reset(self) -> Floats:
            """What the worlds show; the loop has begun their episodes."""
            return worlds.observations()

        def step_async(self, actions: Floats) -> None:
            """Note the actions (N, A)."""
            self.chosen = np.asarray(actions, dtype=np.float32)

        def step_wait(self) -> Any:
            """Carry them out."""
            outcome = worlds.step(self.chosen)
            rewards = take(outcome)
            rows, infos = outcome.rows, []
            for place in range(self.num_envs):
                info: dict[str, Any] = {}
                if outcome.ended[place]:
                    last = np.append(rows["next_observation"][place], rows["next_potential"][place])
                    info["terminal_observation"] = last.astype(np.float32)
                    info["TimeLimit.truncated"] = bool(rows["truncated"][place])
                infos.append(info)
            return worlds.observations(), rewards.astype(np.float32), outcome.ended.copy(), infos

        def close(self) -> None:
            """The loop closes its worlds."""

        def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
            """Attributes of the worlds."""
            return [getattr(worlds.worlds[i].unwrapped, attr_name) for i in self._get_indices(indices)]

        def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
            """Nothing is set from outside."""
            raise ConfigError(f"{attr_name} of a world cannot be set by the learner")

        def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
            """Call a method of the worlds."""
            chosen = self._get_indices(indices)
            return [getattr(worlds.worlds[i].unwrapped, method_name)(*args, **kwargs) for i in chosen]

        def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
            """Decisions are not wrapped."""
            return [False for _ in self._get_indices(indices)]

        def seed(self, seed: int | None = None) -> Sequence[int | None]:
            """Episodes have seeds of their own."""
            return [None] * self.num_envs

    return Stepped()


def _stable_baselines() -> Any:
    try:
        import stable_baselines3
    except ImportError as error:
        raise MissingPartError(
            "Stable-Baselines3 is not installed; learner=sb3_sac and learner=sb3_ppo need it: pip install 'robo-rm[rl]'"
        ) from error
    return stable_baselines3


def _random_states(model: Any) -> dict[str, Any]:
    kind, keys, place, has_gauss, gauss = np.random.get_state()
    drawn = [kind, np.asarray(keys).tolist(), int(place), int(has_gauss), float(gauss)]
    return {"numpy": drawn, "actions": model.action_space.np_random.bit_generator.state}


def _restore_random(model: Any, states: Mapping[str, Any]) -> None:
    kind, keys, place, has_gauss, gauss = states["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), place, has_gauss, gauss))
    model.action_space.np_random.bit_generator.state = states["actions"]
