"""A score of states learnt from preferences between pairs of frames, as RL-VLM-F learns its reward.

RL-VLM-F (arXiv 2402.03681, equations 1 and 2) asks a judge which of two observations is nearer to the goal and fits a
reward by the Bradley-Terry model,

    P(a over b) = exp s(a) / (exp s(a) + exp s(b)),     loss = cross-entropy with the judge's answer,

leaving out the pairs that the judge cannot tell apart. Here the judge is the reward model: of two demonstrated frames,
from any episodes, the one with more progress is preferred. Only the order of its progress enters, not its scale, and
the score looks at the state instead of images. It is brought to [0, 1] over the demonstrations, and takes the place of
the potential, so that every shaping mode can be made of it: ``additive`` gives the paper's reward.
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
from robo_policies.rl.replay import Floats, Replay
from robo_rm.training.constant import mean_and_scale

PAIRS = 256
# Share of the demonstrated frames whose pairs are kept for measuring the agreement.
HELD_OUT = 0.1
# Score at which the least and the most preferred twentieth of the frames count as 0 and 1.
RANGE = (0.05, 0.95)
LEARNING_RATE = 1e-3


@dataclass(frozen=True)
class PreferenceScore:
    """A learnt score and how well it agrees with the judge.

    Attributes:
        network: standardised states (B, O) to scores (B, 1).
        mean: (O,) of the states.
        scale: (O,) of the states.
        low: score that counts as 0.
        high: score that counts as 1.
        agreement: share of held-out pairs that it orders as the judge does.
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


def learn_preferences(replay: Replay, steps: int, margin: float, width: int, seed: int) -> PreferenceScore:
    """Fit a score to the order that the replay's potentials give its states.

    Args:
        replay: demonstrated decisions with the judge's progress as their potentials.
        steps: of training, on `PAIRS` pairs each.
        margin: least difference of progress for a pair to be asked about.
        width: of the two hidden layers.
        seed: of weights and pairs.

    Raises:
        ConfigError: steps or margin make no sense, or no two frames differ by the margin.
    """
    if steps < 1 or not 0 <= margin < 1:
        raise ConfigError(
            f"learner.preference_steps={steps} learner.preference_margin={margin}: give 1 step or more and a margin "
            "from 0 to below 1"
        )
    states = torch.from_numpy(replay["observation"].copy())
    progress = replay["potential"].astype(np.float64)
    if progress.max() - progress.min() <= margin:
        raise ConfigError(
            f"progress in the demonstrations lies between {progress.min():.3f} and {progress.max():.3f}; "
            f"no pair differs by more than learner.preference_margin={margin}"
        )
    mean, scale = (torch.from_numpy(values) for values in mean_and_scale(replay["observation"]))
    seen = (states - mean) / scale
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(seen))
    held = order[: max(2, round(HELD_OUT * len(seen)))]
    used = order[len(held) :] if len(order) > 2 * len(held) else order
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = nn.Sequential(
            nn.Linear(seen.shape[1], width), nn.LayerNorm(width), nn.ReLU(),
            nn.Linear(width, width), nn.LayerNorm(width), nn.ReLU(),
            nn.Linear(width, 1),
        )  # fmt: skip
    optimiser = torch.optim.AdamW(network.parameters(), LEARNING_RATE, weight_decay=1e-3)
    for _ in range(steps):
        first, second, preferred = _pairs(rng, used, progress, margin, PAIRS)
        gap = network(seen[first]).squeeze(-1) - network(seen[second]).squeeze(-1)
        loss = functional.binary_cross_entropy_with_logits(gap, preferred)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        raw = network(seen).squeeze(-1).numpy().astype(np.float64)
    first, second, preferred = _pairs(rng, held, progress, margin, 4 * PAIRS)
    agreed = (raw[first] > raw[second]) == (preferred.numpy() > 0.5)
    low, high = (float(value) for value in np.quantile(raw, RANGE))
    return PreferenceScore(network, mean, scale, low, max(high, low + 1e-6), float(np.mean(agreed)))


def relabel_with(replay: Replay, score: PreferenceScore, version: str) -> None:
    """Put the score in the place of the replay's potentials."""

    def potentials(held: Replay) -> Mapping[str, npt.ArrayLike]:
        here = score(held["observation"])
        start, starts = here[0], []
        ended = held["terminated"] | held["truncated"]
        for place, value in enumerate(here):
            start = value if place == 0 or ended[place - 1] else start
            starts.append(start)
        return {
            "potential": here,
            "next_potential": score(held["next_observation"]),
            "start_potential": np.array(starts),
        }

    replay.relabel(version, potentials)


def _pairs(
    rng: np.random.Generator, among: npt.NDArray[np.int64], progress: npt.NDArray[np.float64], margin: float, count: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], torch.Tensor]:
    """Places of pairs and whether the first is preferred; pairs within the margin are left out."""
    first, second = rng.choice(among, count), rng.choice(among, count)
    told = np.abs(progress[first] - progress[second]) > margin
    if not told.any():
        ends = among[[int(np.argmin(progress[among])), int(np.argmax(progress[among]))]]
        first, second, told = ends[:1], ends[1:], np.ones(1, dtype=bool)
    first, second = first[told], second[told]
    return first, second, torch.from_numpy((progress[first] > progress[second]).astype(np.float32))
