"""Steering a trained diffusion policy, while it acts, by a reward that can be differentiated.

As in VLS (Liu et al., arXiv 2602.03973): the policy stays as it is; while it takes the noise out of a chunk of actions,
each estimate of the finished chunk is moved up the gradient of a reward, so that what the policy knows is carried out
where it never was. Several chunks may be denoised side by side; those with a better reward take the place of others
(Feynman-Kac resampling), and the best one is carried out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from robo_core.errors import ConfigError, ModelError

Reward = Callable[[torch.Tensor, Mapping[str, np.ndarray]], torch.Tensor]

REWARD_ERRORS = (ArithmeticError, AttributeError, LookupError, NameError, RuntimeError, TypeError, ValueError)
"""What a reward that is wrong about shapes, keys or names raises."""


@dataclass(frozen=True)
class Steering:
    """How chunks are steered.

    Attributes:
        reward: called with actions (B, K, H, A) in the units of the demonstrations, and the observation that the policy
            was given (its arrays with B rows); returns (B, K), greater is better. It must be differentiable by torch.
        scale: how far an estimate moves along the gradient at each guided step. Actions and gradient are those of the
            normalised actions, whose demonstrated range is [-1, 1].
        guided_steps: guide the last so many denoising steps only; None: all.
        largest_move: no number of a chunk moves by more than this in one step, however steep the reward.
        repeats: gradient steps at each guided denoising step.
        particles: chunks that are denoised side by side for each environment, K.
        temperature: how readily a particle with a poorer reward gives way; in units of the reward.

    Raises:
        ConfigError: a number is out of range.
    """

    reward: Reward
    scale: float = 0.1
    guided_steps: int | None = None
    largest_move: float = 0.2
    repeats: int = 1
    particles: int = 1
    temperature: float = 1.0

    def __post_init__(self) -> None:
        for name in ("scale", "largest_move", "temperature"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"steering {name}={getattr(self, name)} must be above 0")
        if self.guided_steps is not None and self.guided_steps < 0:
            raise ConfigError(f"steering guided_steps={self.guided_steps} must not be negative")
        if self.repeats < 1 or self.particles < 1:
            raise ConfigError("steering repeats and particles must be at least 1")


def guided_sample(
    diffusion: Any,
    condition: torch.Tensor,
    generator: torch.Generator,
    noise: torch.Tensor | None,
    steering: Steering,
    to_actions: Callable[[torch.Tensor], torch.Tensor],
    observation: Mapping[str, np.ndarray],
    past: int = 0,
) -> torch.Tensor:
    """LeRobot's denoising loop with the estimates of the finished chunk moved up a reward.

    At noise level t, with a the cumulative product of the schedule, the network's noise e gives the estimate
    x0 = (x_t - sqrt(1 - a) e) / sqrt(a). It is moved, x0' = x0 + scale * dR/dx0 within ``largest_move``, and the
    scheduler goes on with the noise that belongs to x0'.

    Args:
        diffusion: LeRobot's ``DiffusionModel``.
        condition: (B, C) what the network is conditioned on.
        generator: of the noise.
        noise: (B, H, A) to start from; drawn if None.
        steering: how.
        to_actions: normalised (n, H, A) to the units of the demonstrations.
        observation: what the reward is given.
        past: actions at the start of a chunk that lie in the past, and that the reward does not see.

    Returns:
        (B, H, A) normalised actions.

    Raises:
        ModelError: the reward fails, has another shape than (B, K), is not finite, or does not depend on the actions.
    """
    config, scheduler, count = diffusion.config, diffusion.noise_scheduler, steering.particles
    environments = len(condition)
    shape = (environments * count, config.horizon, config.action_feature.shape[0])
    if noise is None:
        sample = torch.randn(shape, generator=generator, device=condition.device)
    else:
        sample = noise.repeat_interleave(count, 0)
        if count > 1:  # the first particle starts from the noise given, the others from their own
            own = torch.randn(shape, generator=generator, device=condition.device)
            sample = torch.where((torch.arange(len(sample)) % count == 0)[:, None, None], sample, own)
    condition = condition.repeat_interleave(count, 0)

    def rewards(estimate: torch.Tensor) -> torch.Tensor:
        actions = to_actions(estimate)[:, past:]
        try:
            found = steering.reward(actions.reshape(environments, count, *actions.shape[1:]), observation)
        except REWARD_ERRORS as error:
            what = " ".join(str(error).split())
            raise ModelError(f"the steering reward fails with {type(error).__name__}: {what}") from error
        if not isinstance(found, torch.Tensor):
            raise ModelError(f"the steering reward returns {type(found).__name__}; it must be a torch tensor")
        if tuple(found.shape) != (environments, count):
            raise ModelError(f"the steering reward has shape {tuple(found.shape)}; it must be {(environments, count)}")
        return found

    scheduler.set_timesteps(diffusion.num_inference_steps)
    steps = scheduler.timesteps
    first_guided = 0 if steering.guided_steps is None else len(steps) - steering.guided_steps
    before: torch.Tensor | None = None
    for number, level in enumerate(steps):
        levels = torch.full(sample.shape[:1], int(level), dtype=torch.long, device=sample.device)
        predicted = diffusion.unet(sample, levels, global_cond=condition)
        if number >= first_guided:
            kept = scheduler.alphas_cumprod[level].to(sample.device)
            if config.prediction_type == "epsilon":
                estimate = (sample - (1 - kept).sqrt() * predicted) / kept.sqrt()
            else:
                estimate = predicted
            if config.clip_sample:
                estimate = estimate.clamp(-config.clip_sample_range, config.clip_sample_range)
            for _ in range(steering.repeats):
                estimate, value = _moved(estimate, rewards, steering)
            if config.prediction_type == "epsilon":
                predicted = (sample - kept.sqrt() * estimate) / (1 - kept).sqrt()
            else:
                predicted = estimate
            if count > 1:
                chosen = _resampled(value if before is None else value - before, steering.temperature, generator)
                before = value.gather(1, chosen)
                flat = (torch.arange(environments, device=chosen.device)[:, None] * count + chosen).flatten()
                sample, predicted = sample[flat.to(sample.device)], predicted[flat.to(sample.device)]
        sample = scheduler.step(predicted, level, sample, generator=generator).prev_sample
    if count == 1:
        return sample
    best = rewards(sample).argmax(1).to(sample.device)
    return sample.reshape(environments, count, *sample.shape[1:])[torch.arange(environments), best]


def _moved(
    estimate: torch.Tensor, rewards: Callable[[torch.Tensor], torch.Tensor], steering: Steering
) -> tuple[torch.Tensor, torch.Tensor]:
    """The estimate (n, H, A) one step up the reward, and the reward (B, K) before the step."""
    with torch.enable_grad():
        free = estimate.detach().requires_grad_()
        value = rewards(free)
        if not value.requires_grad:
            raise ModelError("the steering reward does not depend on the actions in a way that torch can differentiate")
        (gradient,) = torch.autograd.grad(value.sum(), free)
    if not torch.isfinite(gradient).all() or not torch.isfinite(value).all():
        raise ModelError("the steering reward or its gradient is not finite")
    move = (steering.scale * gradient).clamp(-steering.largest_move, steering.largest_move)
    return estimate + move, value.detach()


def _resampled(gain: torch.Tensor, temperature: float, generator: torch.Generator) -> torch.Tensor:
    """For each environment, which particles go on (B, K): drawn by exp(gain / temperature)."""
    chances = torch.softmax(gain / temperature, 1).to(generator.device)
    return torch.multinomial(chances, chances.shape[1], replacement=True, generator=generator)
