"""The stage-aware network: tokens of a window, block-causal attention over them, heads for stage and progress.

After SARM (arXiv 2509.25358), with every slot of a window supervised at once, which the mask makes legal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from robo_rm.encoders.conv import WORD_VECTOR, ConvEncoder, FeatureProjection, InstructionEncoder, StateEncoder
from robo_rm.settings import ConvSettings, FrozenSettings, StageSettings


class Heads(NamedTuple):
    """Outputs for every slot of B windows: stage logits and shares within each stage, both (B, S, K)."""

    logits: torch.Tensor
    within: torch.Tensor


class StageNetwork(nn.Module):
    """Tokens of a window to stage and progress at each slot.

    Args:
        cameras: image key -> (height, width) that the encoder takes.
        state_size: D_s, or 0 without a state.
        stages: K.
        reward: shape of the transformer.
        encoder: shape of the image encoder.
        features: F, length of a frozen encoder's features; 0 where images are encoded here.
        text: E, length of an instruction's vector.
        sparse: G, stages of a second pair of heads; 0 for none.
    """

    mask: torch.Tensor

    def __init__(
        self,
        cameras: Mapping[str, tuple[int, int]],
        state_size: int,
        stages: int,
        reward: StageSettings,
        encoder: ConvSettings | FrozenSettings,
        features: int = 0,
        text: int = WORD_VECTOR,
        sparse: int = 0,
    ) -> None:
        super().__init__()
        width, slots = reward.width, reward.history + 2
        self.cameras = list(cameras)
        self.stages, self.slots = stages, slots
        self.images = nn.ModuleList(
            FeatureProjection(features, width, encoder.dropout, encoder.change)
            if isinstance(encoder, FrozenSettings)
            else ConvEncoder(
                size, width, encoder.channels, encoder.stem, encoder.dropout, inputs=6 if encoder.change else 3
            )
            for size in cameras.values()
        )
        self.state = StateEncoder(state_size, width) if state_size else None
        self.instruction = InstructionEncoder(width, text)
        # The last token of a slot is its readout: the state's place, a learned vector where there is no
        # state.
        self.readout = nn.Parameter(torch.zeros(width))
        self.tokens = len(self.cameras) + 1
        self.slot_embedding = nn.Parameter(0.02 * torch.randn(slots, 1, width))
        self.kind_embedding = nn.Parameter(0.02 * torch.randn(self.tokens, width))
        self.layers = nn.ModuleList(_Layer(reward) for _ in range(reward.layers))
        self.norm = nn.LayerNorm(width)
        self.stage_head = nn.Linear(width, stages)
        self.stage_to_within = nn.Linear(stages, width)
        self.within_head = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, stages))
        self.sparse = _SparseHeads(width, sparse) if sparse else None
        self.register_buffer("mask", block_causal_mask(slots, self.tokens), persistent=False)

    def encode(
        self,
        images: Mapping[str, torch.Tensor],
        state: torch.Tensor | None,
        first: torch.Tensor | None,
        shown: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Tokens (F, C + 1, D) of F frames.

        Args:
            images: (F, C, H, W) in [-1, 1) by key, or the features of a frozen encoder; see
                `robo_rm.reward_models.frames.with_change`.
            state: standardised state (F, D_s).
            first: standardised state (F, D_s) at the first frame of the same episode.
            shown: (F,) bool, False where the state is hidden from the network.
        """
        tokens = [net(images[key]) for key, net in zip(self.cameras, self.images, strict=True)]
        readout = self.readout.expand(len(tokens[0]), -1)
        if self.state is not None and state is not None and first is not None:
            seen = self.state(state, first)
            readout = readout + (seen if shown is None else seen * shown[:, None])
        return torch.stack([token.to(readout.dtype) for token in (*tokens, readout)], dim=1)

    def forward(
        self,
        tokens: torch.Tensor,
        instructions: Sequence[str] | torch.Tensor,
        true_stage: torch.Tensor | None = None,
        sparse: bool = False,
    ) -> Heads:
        """Heads for windows of tokens (B, S, C + 1, D), S in the order of time; arguments as in `look` and `read`."""
        return self.read(self.look(tokens, instructions), true_stage, sparse)

    def look(self, tokens: torch.Tensor, instructions: Sequence[str] | torch.Tensor) -> torch.Tensor:
        """What the transformer makes of every slot, (B, S, D).

        Args:
            tokens: (B, S, C + 1, D) from `encode`, gathered into windows.
            instructions: B of them, or their vectors (B, E) from a text tower.
        """
        slots = tokens.shape[1]
        x = tokens + self.slot_embedding[:slots] + self.kind_embedding
        x = x.flatten(1, 2)
        token = self.instruction(instructions)[:, None].to(x.dtype)
        x = torch.cat([token, x], dim=1)
        mask = self.mask[: x.shape[1], : x.shape[1]]
        for layer in self.layers:
            x = layer(x, mask)
        seen: torch.Tensor = self.norm(x[:, self.tokens :: self.tokens]).float()
        return seen

    def read(self, seen: torch.Tensor, true_stage: torch.Tensor | None = None, sparse: bool = False) -> Heads:
        """One pair of heads over `look`, the dense or the sparse one.

        Args:
            seen: (B, S, D).
            true_stage: (B, S) stages of that pair that its within-stage head is given instead of the predicted
                distribution (teacher forcing), -1 where it is not given.
            sparse: which pair.
        """
        heads: StageNetwork | _SparseHeads = self
        if sparse:
            assert self.sparse is not None
            heads = self.sparse
        logits = heads.stage_head(seen)
        given = logits.softmax(-1).detach()
        if true_stage is not None:
            truth = F.one_hot(true_stage.clamp(min=0), logits.shape[-1]).to(given.dtype)
            given = torch.where((true_stage >= 0)[..., None], truth, given)
        within = heads.within_head(seen + heads.stage_to_within(given)).sigmoid()
        return Heads(logits, within)


class _SparseHeads(nn.Module):
    """The second pair of heads; the first one's parameters are the network's own, as saved models have them."""

    def __init__(self, width: int, stages: int) -> None:
        super().__init__()
        self.stage_head = nn.Linear(width, stages)
        self.stage_to_within = nn.Linear(stages, width)
        self.within_head = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, stages))


class _Layer(nn.Module):
    """A pre-norm transformer layer with a given mask."""

    def __init__(self, settings: StageSettings) -> None:
        super().__init__()
        width = settings.width
        self.heads, self.dropout = settings.heads, settings.dropout
        self.norm_attention, self.norm_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Dropout(settings.dropout), nn.Linear(4 * width, width)
        )
        self.drop = nn.Dropout(settings.dropout)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        batch, length, width = x.shape
        qkv = self.qkv(self.norm_attention(x)).view(batch, length, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        x = x + self.drop(self.out(attended.transpose(1, 2).reshape(batch, length, width)))
        return x + self.drop(self.mlp(self.norm_mlp(x)))


def block_causal_mask(slots: int, tokens: int) -> torch.Tensor:
    """(L, L) bool for L = 1 + slots * tokens, True where a row may look at a column.

    The instruction is first; then time-major blocks of ``tokens``, each seeing itself whole and every block before it.
    """
    block = torch.cat([torch.tensor([-1]), torch.arange(slots).repeat_interleave(tokens)])
    return block[:, None] >= block[None, :]


def compose(heads: Heads, cumulative: torch.Tensor, argmax: bool = False) -> tuple[torch.Tensor, ...]:
    """Progress from the heads: y = sum_k p_k (P_k + a_k tau_k).

    Args:
        heads: logits and within, (..., K).
        cumulative: (K + 1,) or (..., K + 1) P_0 .. P_K.
        argmax: take the most probable stage alone instead of the expectation.

    Returns:
        Progress (...), stage probabilities (..., K), and the standard deviation (...) of the progress under
        the stage
        distribution: how far apart the stages that the model holds possible lie. It knows nothing of errors within a
            stage.
    """
    probabilities = heads.logits.softmax(-1)
    values = cumulative[..., :-1] + (cumulative[..., 1:] - cumulative[..., :-1]) * heads.within
    expected = (probabilities * values).sum(-1)
    spread = (probabilities * (values - expected[..., None]).square()).sum(-1).sqrt()
    if argmax:
        best = probabilities.argmax(-1, keepdim=True)
        expected = values.gather(-1, best)[..., 0]
    return expected.clamp(0, 1), probabilities, spread
