"""Stable-Baselines3's SAC and PPO as baselines, on the same macro-actions, shaped reward and evaluations.

Its own saves are pickles, which are neither written nor read here: weights, the optimizers' memory, the replay buffer
and the random states are stored as safetensors, and a run resumes exactly. Demonstrations and behaviour priors are not
used. One difference to our learners remains: Stable-Baselines3 discounts every macro-action by g^k, so one that a time
limit cuts short is bootstrapped with g^k where the shaping has g^steps; episodes as long as a whole number of
macro-actions have none.

Stable-Baselines3 draws from the global generators of numpy and torch, and seeds them.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping
from typing import TypedDict, cast

import numpy as np
import numpy.typing as npt
import torch
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.sac.policies import SACPolicy
from torch import nn

from robo_core.errors import ConfigError, ModelError
from robo_policies.rl.modules.checkpoint import cpu_copies, optimizer_state, restore_optimizer
from robo_policies.rl.modules.mlp_actor import ActorShape, MlpActor
from robo_policies.rl.runners.runner import RunContext, Runner
from robo_policies.rl.runners.sb3_vec_env import MacroActionVecEnv
from robo_policies.rl.settings import LearnerSettings, LearningSettings, Sb3PpoSettings, Sb3SacSettings
from robo_policies.rl.storage.replay_buffer import ReplayBuffer
from robo_policies.rl.types import Floats
from robo_rm.training.checkpoint import under

REMEMBERED = 2000
"""Transitions remembered for the reward terms' variances in the log."""
BUFFER_FIELDS = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts")


class RandomStates(TypedDict):
    """The global generators that Stable-Baselines3 draws from, in plain values."""

    numpy: tuple[str, list[int], int, int, float]
    actions: Mapping[str, object]


class Sb3Algorithm:
    """One of Stable-Baselines3's algorithms behind the interface of our learners.

    Args:
        env: what it steps.
        settings: of the algorithm.
        loop: discount of a control step, learning starts, gradient steps, buffer size.
        seed: of everything.
        device: cpu or cuda.

    Raises:
        ConfigError: the settings are not Stable-Baselines3's, or out of range.
    """

    def __init__(
        self, env: VecEnv, settings: LearnerSettings, loop: LearningSettings, seed: int, device: str = "cpu"
    ) -> None:
        self.settings, self.device = settings, device
        self._episode_starts: list[bool] | None = None
        gamma = loop.discount**loop.action_repeat
        policy = {"net_arch": [settings.width, settings.width]}
        self.model: SAC | PPO
        if isinstance(settings, Sb3SacSettings):
            if not settings.temperature > 0:
                raise ConfigError(f"learner.temperature={settings.temperature}: give a number above 0")
            self.model = SAC(
                "MlpPolicy", env, learning_starts=loop.learning_starts,
                gradient_steps=loop.gradient_steps * env.num_envs, train_freq=1, buffer_size=loop.buffer_size,
                tau=settings.tau, ent_coef=f"auto_{settings.temperature}", gamma=gamma,
                learning_rate=settings.learning_rate, seed=seed, device=device, batch_size=settings.batch_size,
                policy_kwargs=policy,
            )  # fmt: skip
        elif isinstance(settings, Sb3PpoSettings):
            if settings.rollout_steps * env.num_envs % settings.batch_size:
                raise ConfigError(
                    f"learner.rollout_steps={settings.rollout_steps} macro-actions of learning.num_envs={env.num_envs} "
                    f"are not a whole number of batches of learner.batch_size={settings.batch_size}"
                )
            self.model = PPO(
                "MlpPolicy", env, n_steps=settings.rollout_steps, n_epochs=settings.epochs, gamma=gamma,
                learning_rate=settings.learning_rate, seed=seed, device=device, batch_size=settings.batch_size,
                policy_kwargs=policy,
            )  # fmt: skip
        else:
            raise ConfigError(f"learner {settings.name!r} is not one of Stable-Baselines3's")
        self._num_envs = env.num_envs
        self.model.set_logger(Logger(None, []))

    def collect_and_update(self) -> dict[str, float]:
        """The smallest round: SAC a macro-action in every environment, PPO a rollout; returns its updates' metrics.

        Raises:
            ModelError: a metric or an action is not finite.
        """
        model = self.model
        count = self._num_envs if isinstance(model, SAC) else self._num_envs * model.n_steps
        try:
            model.learn(count, reset_num_timesteps=False)
        except ValueError as error:
            # Its distributions refuse means and standard deviations that are NaN in this way.
            first = str(error).splitlines()[0]
            raise ModelError(f"Stable-Baselines3 stopped at {model.num_timesteps} macro-actions: {first}") from error
        metrics = {
            name.removeprefix("train/"): float(value)
            for name, value in model.logger.name_to_value.items()
            if name.startswith("train/")
        }
        bad = [name for name, value in metrics.items() if not np.isfinite(value) and name != "explained_variance"]
        if bad:
            raise ModelError(f"learning diverged at {model.num_timesteps} macro-actions: {bad[0]} is not finite")
        return {name: value for name, value in metrics.items() if np.isfinite(value)}

    def act(
        self, observations: Floats, explore: bool = False, prior_actions: Floats | None = None
    ) -> tuple[Floats, npt.NDArray[np.bool_]]:
        """Actions (n, A) for observations (n, O + 1)."""
        action, _ = self.model.predict(observations, deterministic=not explore)
        return np.asarray(action, dtype=np.float32), np.zeros(len(observations), dtype=bool)

    def mlp_actor(self) -> MlpActor:
        """The policy alone, which needs no Stable-Baselines3."""
        is_sac = isinstance(self.model, SAC)
        if is_sac:
            actor_network = cast(SACPolicy, self.model.policy).actor
            body, last = actor_network.latent_pi, actor_network.mu
        else:
            policy = cast(ActorCriticPolicy, self.model.policy)
            body, last = policy.mlp_extractor.policy_net, policy.action_net
        layers = [layer for layer in (*body, last) if isinstance(layer, nn.Linear)]
        widths = tuple(layer.out_features for layer in layers[:-1])
        activation = "relu" if is_sac else "tanh"
        shape = ActorShape(layers[0].in_features, layers[-1].out_features, widths, activation, False, is_sac, True)
        # Its initial weights are overwritten, and must not draw from the generator that Stable-Baselines3 draws from.
        with torch.random.fork_rng(devices=[]):
            actor = MlpActor(shape, self.settings, self.device)
        actor.copy_layers(layers)
        return actor

    def state(self) -> dict[str, torch.Tensor]:
        """Everything the next round depends on, as tensors by name."""
        model = self.model
        tensors = cpu_copies(model.policy.state_dict(), "policy.")
        for name, optimizer in self._optimizers().items():
            tensors |= optimizer_state(name, optimizer)
        numbers = {"timesteps": model.num_timesteps, "updates": model._n_updates, "random": self._random_states()}
        if isinstance(model, SAC):
            assert model.log_ent_coef is not None
            assert model.replay_buffer is not None
            tensors |= cpu_copies({"log_ent_coef": model.log_ent_coef})
            buffer = model.replay_buffer
            numbers |= {"place": buffer.pos, "full": buffer.full}
            used = buffer.buffer_size if buffer.full else buffer.pos
            arrays = {name: np.ascontiguousarray(getattr(buffer, name)[:used]) for name in BUFFER_FIELDS}
            tensors |= cpu_copies({name: torch.from_numpy(values) for name, values in arrays.items()}, "buffer.")
        if model._last_episode_starts is not None:
            numbers["starts"] = np.asarray(model._last_episode_starts, dtype=bool).tolist()
        tensors["torch_random"] = torch.get_rng_state()
        tensors["numbers"] = torch.frombuffer(bytearray(json.dumps(numbers).encode()), dtype=torch.uint8).clone()
        return tensors

    def load_state(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Restore a `state`; `resume_at` follows once the environments are restored.

        Raises:
            ModelError: it is of another learner.
        """
        model = self.model
        try:
            numbers = json.loads(bytes(tensors["numbers"].numpy()))
            model.policy.load_state_dict(under(tensors, "policy."))
            for name, optimizer in self._optimizers().items():
                restore_optimizer(name, optimizer, tensors)
            if isinstance(model, SAC):
                assert model.log_ent_coef is not None
                assert model.replay_buffer is not None
                with torch.no_grad():
                    model.log_ent_coef.copy_(tensors["log_ent_coef"])
                buffer = model.replay_buffer
                buffer.pos, buffer.full = int(numbers["place"]), bool(numbers["full"])
                for name in BUFFER_FIELDS:
                    values = tensors[f"buffer.{name}"].numpy()
                    getattr(buffer, name)[: len(values)] = values
            model.num_timesteps, model._n_updates = int(numbers["timesteps"]), int(numbers["updates"])
            self._episode_starts = numbers.get("starts")
            torch.set_rng_state(tensors["torch_random"])
            name, keys, place, has_gauss, gauss = numbers["random"]["numpy"]
            np.random.set_state((name, np.array(keys, dtype=np.uint32), place, has_gauss, gauss))
            model.action_space.np_random.bit_generator.state = numbers["random"]["actions"]
        except (KeyError, RuntimeError, ValueError, TypeError) as error:
            raise ModelError(f"the checkpoint is of another learner or damaged ({error})") from error

    def resume_at(self, observations: Floats) -> None:
        """Continue from the restored environments' observations (N, O + 1), rather than from a reset."""
        self.model._last_obs = observations
        self.model._last_episode_starts = np.array(self._episode_starts or [True] * len(observations))
        self.model.ep_info_buffer, self.model.ep_success_buffer = deque(maxlen=100), deque(maxlen=100)

    def _optimizers(self) -> dict[str, torch.optim.Optimizer]:
        model = self.model
        if isinstance(model, PPO):
            return {"policy_optimizer": model.policy.optimizer}
        assert model.ent_coef_optimizer is not None
        return {
            "actor_optimizer": model.policy.actor.optimizer,
            "critic_optimizer": model.policy.critic.optimizer,
            "temperature_optimizer": model.ent_coef_optimizer,
        }

    def _random_states(self) -> RandomStates:
        name, keys, place, has_gauss, gauss = np.random.get_state(legacy=True)
        drawn = (str(name), np.asarray(keys).tolist(), int(place), int(has_gauss), float(gauss))
        return {"numpy": drawn, "actions": self.model.action_space.np_random.bit_generator.state}


class Sb3Runner(Runner):
    """One run of a baseline: Stable-Baselines3 acts and learns, the loop evaluates and saves checkpoints.

    Args:
        context: environments, settings and folder.
        settings: of the algorithm.
        device: cpu or cuda.
    """

    def __init__(self, context: RunContext, settings: LearnerSettings, device: str = "cpu") -> None:
        self._vec_env = MacroActionVecEnv(context.envs, self._record)
        self.algorithm = Sb3Algorithm(self._vec_env, settings, context.settings, context.seed, device)
        super().__init__(context, self.algorithm)

    @property
    def policy(self) -> MlpActor:
        """The policy alone."""
        return self.algorithm.mlp_actor()

    def load(self) -> bool:
        """As `Runner.load`."""
        found = super().load()
        if found:
            self.algorithm.resume_at(self.envs.observations())
        return found

    def _empty_replay(self) -> ReplayBuffer:
        envs = self.envs
        return ReplayBuffer(REMEMBERED, envs.observation_size, envs.action_size, envs.potential.version)

    def _step(self) -> None:
        try:
            self._losses = self.algorithm.collect_and_update()
        except (ModelError, ConfigError) as error:
            self._dump_crash(self._vec_env.actions, error)
            raise
