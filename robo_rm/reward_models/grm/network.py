"""The hop network: moments to embeddings, and two moments, seen with a start and a goal, to a distribution
of the hop."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import nn

from robo_rm.encoders.conv import ConvEncoder, StateEncoder
from robo_rm.reward_models.grm.references import References
from robo_rm.reward_models.grm.settings import HopSettings
from robo_rm.settings import ConvSettings


class Hop(NamedTuple):
    """Hops (B,) in [-1, 1]: expected value, and variance of the distribution."""

    value: torch.Tensor
    variance: torch.Tensor


class Compared(NamedTuple):
    """What the head says of B hops: logits (B, bins) of the hop and, with a stage head, (B, K) of the stage there."""

    hop: torch.Tensor
    stage: torch.Tensor | None


class HopNetwork(nn.Module):
    """Embeddings of moments, and the head that compares them.

    Args:
        cameras: image key -> (height, width) that the encoder takes.
        state_size: D_s, or 0 without a state.
        references: pairs of start and goal that are kept with the weights.
        reward: shape of the model.
        encoder: shape of the image encoder.
        stages: K that the stage head tells apart; 0 without one.
    """

    points: torch.Tensor

    def __init__(
        self,
        cameras: Mapping[str, tuple[int, int]],
        state_size: int,
        references: int,
        reward: HopSettings,
        encoder: ConvSettings,
        stages: int = 0,
    ) -> None:
        super().__init__()
        width, hidden = reward.width, reward.hidden
        self.cameras = list(cameras)
        self.images = nn.ModuleList(
            ConvEncoder(size, width, encoder.channels, encoder.stem, encoder.dropout, inputs=6 if encoder.change else 3)
            for size in cameras.values()
        )
        self.state = StateEncoder(state_size, width) if state_size else None
        tokens = len(self.cameras) + (self.state is not None)
        self.width = tokens * width
        # One linear map of (start, goal, here, there): it can take the differences that a hop is made of.
        self.compare = nn.Linear(4 * self.width, hidden)
        self.head = nn.Sequential(
            nn.LayerNorm(hidden),
            nn.GELU(),
            nn.Dropout(reward.dropout),
            nn.Linear(hidden, hidden),
            nn.GELU(),
            nn.Dropout(reward.dropout),
            nn.Linear(hidden, reward.bins),
        )
        self.stage = nn.Linear(hidden, stages) if stages else None
        self.references = References(cameras, state_size, references, encoder.change)
        self.register_buffer("points", torch.linspace(-1, 1, reward.bins), persistent=False)

    def encode(
        self,
        images: Mapping[str, torch.Tensor],
        state: torch.Tensor | None,
        first: torch.Tensor | None,
        see: torch.Tensor | None = None,
        feel: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Embeddings (F, E) of F moments.

        Args:
            images: (F, C, H, W) in [-1, 1) by key, with the change since the first frame where the encoder reads it.
            state: standardised state (F, D_s).
            first: standardised state (F, D_s) at the first frame of the same episode.
            see: (F,) bool, False where the images are hidden from the network.
            feel: (F,) bool, False where the state is.
        """
        tokens = [net(images[key]) for key, net in zip(self.cameras, self.images, strict=True)]
        if see is not None:
            tokens = [token * see[:, None] for token in tokens]
        if self.state is not None and state is not None and first is not None:
            felt = self.state(state, first)
            tokens.append(felt if feel is None else felt * feel[:, None])
        return torch.cat([token.to(tokens[0].dtype) for token in tokens], dim=-1)

    def forward(self, start: torch.Tensor, goal: torch.Tensor, here: torch.Tensor, there: torch.Tensor) -> Compared:
        """Logits of the hop from ``here`` to ``there``, and of the stage there, all embeddings (B, E)."""
        seen = self.head[:-1](self.compare(torch.cat([start, goal, here, there], dim=-1)))
        return Compared(self.head[-1](seen).float(), None if self.stage is None else self.stage(seen).float())

    def expected(self, logits: torch.Tensor) -> Hop:
        """Mean and variance of the distributions over the points."""
        chance = logits.softmax(-1)
        value = (chance * self.points).sum(-1)
        return Hop(value, (chance * (self.points - value[..., None]).square()).sum(-1))
