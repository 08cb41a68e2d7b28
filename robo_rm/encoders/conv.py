"""From pixels and words to tokens: the encoders that are trained with the reward model."""

from __future__ import annotations

import functools
import itertools
import re
import unicodedata
import zlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from robo_rm.training.constant import mean_and_scale

INSTRUCTION_BUCKETS = 8192
WORD_VECTOR = 64


class ConvEncoder(nn.Module):
    """A small convolutional net: an image to one token.

    Strided convolutions down to a grid of about 6 x 8 cells, then one linear map of the whole grid, not an average
    over it: where the gripper and the object are is what progress is made of.

    Args:
        size: (height, width) of the images.
        width: D, embedding dimension.
        channels: of the convolutions; the first shrinks the image by ``stem``, each further one by 2.
        stem: stride of the first convolution. At 4 it takes half the time of two convolutions of stride 2.
        dropout: of the grid's features, before the linear map.
        inputs: channels of an image.
    """

    def __init__(
        self,
        size: tuple[int, int],
        width: int,
        channels: Sequence[int],
        stem: int,
        dropout: float,
        inputs: int = 3,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before, (height, breadth) = inputs, size
        for index, after in enumerate(channels):
            stride = stem if index == 0 else 2
            kernel, padding = (2 * stem, stem // 2) if index == 0 else (3, 1)
            layers += [
                nn.Conv2d(before, after, kernel, stride, padding, bias=False),
                nn.BatchNorm2d(after),
                nn.ReLU(inplace=True),
            ]
            before = after
            height, breadth = ((side + 2 * padding - kernel) // stride + 1 for side in (height, breadth))
        narrow = max(8, before // 4)
        layers += [nn.Conv2d(before, narrow, 1, bias=False), nn.BatchNorm2d(narrow), nn.ReLU(inplace=True)]
        self.grid = nn.Sequential(*layers)
        self.head = nn.Sequential(
            nn.Flatten(), nn.Dropout(dropout), nn.Linear(narrow * height * breadth, width), nn.LayerNorm(width)
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images (F, C, H, W), float in [-1, 1), to tokens (F, D)."""
        token: torch.Tensor = self.head(self.grid(images))
        return token


class StateEncoder(nn.Module):
    """Joint state, and how far it has moved since the episode began, to one token.

    Statistics of the training split are part of the weights.

    Args:
        size: D_s, length of the state.
        width: D, embedding dimension.
    """

    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("scale", torch.ones(size))
        self.net = nn.Sequential(
            nn.Linear(2 * size, 2 * width), nn.ReLU(), nn.Linear(2 * width, width), nn.LayerNorm(width)
        )

    def measure(self, states: npt.NDArray[np.float32]) -> None:
        """Take the statistics of the training split's states (N, D_s)."""
        # A joint that never moves is left in its own units, not blown up.
        mean, scale = mean_and_scale(states)
        self.mean.copy_(torch.from_numpy(mean))
        self.scale.copy_(torch.from_numpy(scale))

    def standardise(self, state: torch.Tensor) -> torch.Tensor:
        """State (F, D_s) in standard deviations of the training split, clipped to 5 of them."""
        return ((state - self.mean) / self.scale).clamp(-5, 5)

    def forward(self, state: torch.Tensor, first: torch.Tensor) -> torch.Tensor:
        """Tokens (F, D) of states (F, D_s) and the states (F, D_s) that their episodes began with, standardised."""
        token: torch.Tensor = self.net(torch.cat([state, state - first], dim=-1))
        return token


class FeatureProjection(nn.Module):
    """Features of a frozen encoder, and where asked for how far they differ from the first frame's, to one token.

    Args:
        features: F.
        width: D, embedding dimension.
        dropout: of the features.
        change: whether the difference is given too.
    """

    def __init__(self, features: int, width: int, dropout: float, change: bool) -> None:
        super().__init__()
        self.features = features
        self.norm = nn.LayerNorm(features)
        self.net = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(features * (2 if change else 1), 2 * width),
            nn.ReLU(),
            nn.Linear(2 * width, width),
            nn.LayerNorm(width),
        )

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Features (N, F), or (N, 2 F) with the difference behind them, to tokens (N, D)."""
        own, change = features[:, : self.features], features[:, self.features :]
        # In units of the features' own standard deviation: its size is what counts, so it is not normalised away.
        change = 2 * change / own.std(dim=-1, keepdim=True).clamp(min=1e-6)
        token: torch.Tensor = self.net(torch.cat([self.norm(own), change], dim=-1))
        return token


class InstructionEncoder(nn.Module):
    """An instruction to one token, through a small net.

    Its words and word pairs have fixed random vectors, found by a stable hash; their mean stands for the instruction.
    So an unknown one differs from those of the training store, but its meaning is not known. Where a text tower gives
    the vectors, ``size`` is their length.

    Args:
        width: D, embedding dimension.
        size: E, length of an instruction's vector.
    """

    def __init__(self, width: int, size: int = WORD_VECTOR) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(size, width), nn.ReLU(), nn.Linear(width, width))
        # With nothing learned yet, the instruction says nothing.
        for parameter in self.net[-1].parameters():
            nn.init.zeros_(parameter)

    def forward(self, instructions: Sequence[str] | torch.Tensor) -> torch.Tensor:
        """B instructions, or their vectors (B, E), to tokens (B, D)."""
        device = next(self.parameters()).device
        vectors = instructions if isinstance(instructions, torch.Tensor) else word_vectors(instructions)
        token: torch.Tensor = self.net(vectors.to(device))
        return token


def word_vectors(instructions: Sequence[str]) -> torch.Tensor:
    """(B, E) float32 vectors of length 1 of B instructions, zero where one has no words."""
    table = _word_table()
    rows = torch.zeros(len(instructions), WORD_VECTOR)
    for row, text in enumerate(instructions):
        buckets = hash_words(text)
        if buckets:
            rows[row] = torch.nn.functional.normalize(table[buckets].mean(dim=0), dim=0)
    return rows * WORD_VECTOR**0.5


@functools.cache
def _word_table() -> torch.Tensor:
    # The generator of which numpy promises the same numbers permanently.
    return torch.from_numpy(np.random.RandomState(0).standard_normal((INSTRUCTION_BUCKETS, WORD_VECTOR))).float()


# Scripts written without spaces between words: Thai, Lao, Burmese, Khmer, kana, Bopomofo and Han.
_UNSPACED = re.compile(
    "[\u0e00-\u0e7f\u0e80-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3100-\u312f\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff]+"
)


def hash_words(text: str) -> list[int]:
    """Buckets of an instruction's words and neighbouring pairs, the same on every machine.

    Where a script has no spaces its characters are the words, so that a sentence shares most of them with a like one.
    """
    plain = unicodedata.normalize("NFKC", text.lower())
    parts = _UNSPACED.sub(lambda found: f" {' '.join(found.group())} ", plain)
    words = re.findall(r"\w+", parts)
    grams = words + [f"{a} {b}" for a, b in itertools.pairwise(words)]
    return [zlib.crc32(gram.encode()) % INSTRUCTION_BUCKETS for gram in grams]
