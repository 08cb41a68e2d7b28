"""A score of states learned from preferences between pairs of frames, as RL-VLM-F learns its reward.

RL-VLM-F (arXiv 2402.03681, equations 1 and 2) asks a model which of two observations is nearer to the goal and fits a
reward by the Bradley-Terry model,

    P(a over b) = exp s(a) / (exp s(a) + exp s(b)),     loss = cross-entropy with the model's answer,

leaving out the pairs that the model cannot tell apart. Here the answers come from the reward model: of two
demonstrated frames, from any episodes, the one with more progress is preferred. Only the order of its progress enters,
not its scale, and the score reads the state instead of images. It is scaled to [0, 1] over the demonstrations, and
replaces the potential, so that every shaping mode can be used with it: ``additive`` gives the paper's reward.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional

from robo_core.errors import ConfigError
from robo_policies.rl.modules.actor_critic import layer_norm_mlp
from robo_policies.rl.storage.replay_buffer import ReplayBuffer
from robo_policies.rl.types import Floats
from robo_rm.training.constant import mean_and_scale

PAIRS = 256
HELD_OUT = 0.1
"""Fraction of the demonstrated frames whose pairs measure the agreement."""
RANGE = (0.05, 0.95)
"""Quantiles of the score that count as 0 and 1."""
LEARNING_RATE = 1e-3


@dataclass(frozen=True)
class PreferenceScore:
    """A learned score and how well it agrees with the reward model.

    Attributes:
        network: standardized states (B, O) to scores (B, 1).
        mean: (O,) of the states.
        scale: (O,) of the states.
        low: score that counts as 0.
        high: score that counts as 1.
        agreement: fraction of held-out pairs that it orders as the reward model does.
    """

    network: nn.Module
    mean: torch.Tensor
    scale: torch.Tensor
    low: float
    high: float
    agreement: float

    @torch.no_grad()
    def __call__(self, states: Floats) -> npt.NDArray[np.float64]:
        """(n,) in [0, 1] for states (n, O)."""
        raw = self.network((torch.from_numpy(states) - self.mean) / self.scale).squeeze(-1).numpy()
        return np.clip((raw.astype(np.float64) - self.low) / (self.high - self.low), 0.0, 1.0)


def learn_preferences(replay: ReplayBuffer, steps: int, margin: float, width: int, seed: int) -> PreferenceScore:
    """Fit a score to the order of the states by the replay buffer's potentials.

    Args:
        replay: demonstrated transitions with the reward model's progress as their potentials.
        steps: of training, on `PAIRS` pairs each.
        margin: minimum difference of progress within a pair.
        width: of the two hidden layers.
        seed: of weights and pairs.

    Raises:
        ConfigError: steps or margin out of range, or no two frames differ by the margin.
    """
    if steps < 1 or not 0 <= margin < 1:
        raise ConfigError(
            f"learner.preference_steps={steps} learner.preference_margin={margin}: give 1 step or more and a margin "
            "from 0 to below 1"
        )
    progress = replay.floats("potential").astype(np.float64)
    if progress.max() - progress.min() <= margin:
        raise ConfigError(
            f"progress in the demonstrations lies between {progress.min():.3f} and {progress.max():.3f}; "
            f"no pair differs by more than learner.preference_margin={margin}"
        )
    mean, scale = (torch.from_numpy(values) for values in mean_and_scale(replay.floats("observation")))
    states = (torch.from_numpy(replay.floats("observation").copy()) - mean) / scale
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(states))
    held_out = order[: max(2, round(HELD_OUT * len(states)))]
    # With so few frames that nothing would be left, the score is measured on what it learned from.
    used = order[len(held_out) :] if len(order) > 2 * len(held_out) else order
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = layer_norm_mlp(states.shape[1], width, 1)
    optimizer = torch.optim.AdamW(network.parameters(), LEARNING_RATE, weight_decay=1e-3)
    for _ in range(steps):
        first, second, preferred = _pairs(rng, used, progress, margin, PAIRS)
        # log-odds of P(a over b) is s(a) - s(b).
        log_odds = network(states[first]).squeeze(-1) - network(states[second]).squeeze(-1)
        loss = functional.binary_cross_entropy_with_logits(log_odds, preferred)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        raw = network(states).squeeze(-1).numpy().astype(np.float64)
    first, second, preferred = _pairs(rng, held_out, progress, margin, 4 * PAIRS)
    agreed = (raw[first] > raw[second]) == (preferred.numpy() > 0.5)
    low, high = (float(value) for value in np.quantile(raw, RANGE))
    return PreferenceScore(network, mean, scale, low, max(high, low + 1e-6), float(np.mean(agreed)))


def relabel_with(replay: ReplayBuffer, score: PreferenceScore, version: str) -> None:
    """Replace the potentials of a replay buffer, filled in the order of its episodes, by the score."""

    def potentials(stored: ReplayBuffer) -> Mapping[str, npt.ArrayLike]:
        phi = score(stored.floats("observation"))
        done = stored.flags("terminated") | stored.flags("truncated")
        # The first transition of each episode is the one after an end.
        first = np.concatenate([[True], done[:-1]])
        start = phi[np.maximum.accumulate(np.where(first, np.arange(len(phi)), 0))]
        return {
            "potential": phi,
            "next_potential": score(stored.floats("next_observation")),
            "start_potential": start,
        }

    replay.relabel(version, potentials)


def _pairs(
    rng: np.random.Generator, among: npt.NDArray[np.int64], progress: npt.NDArray[np.float64], margin: float, count: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], torch.Tensor]:
    """Indices of pairs and whether the first is preferred; pairs within the margin are left out."""
    first, second = rng.choice(among, count), rng.choice(among, count)
    distinct = np.abs(progress[first] - progress[second]) > margin
    if not distinct.any():
        ends = among[[int(np.argmin(progress[among])), int(np.argmax(progress[among]))]]
        first, second, distinct = ends[:1], ends[1:], np.ones(1, dtype=bool)
    first, second = first[distinct], second[distinct]
    return first, second, torch.from_numpy((progress[first] > progress[second]).astype(np.float32))
