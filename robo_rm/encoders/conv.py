"""From pixels and words to tokens: the encoders that are trained with the reward model."""

from __future__ import annotations

import itertools
import re
import zlib
from collections.abc import Sequence

import torch
from torch import nn

INSTRUCTION_BUCKETS = 1024


class ConvEncoder(nn.Module):
    """A small convolutional net: an image to one token.

    Strided convolutions down to a grid of about 6 x 8 cells, then one linear map of the whole grid, not an average
    over it: where the gripper and the object are is what progress is made of.

    Args:
        size: (height, width) of the images.
        width: D, length of the token.
        channels: of the convolutions; the first shrinks the image by ``stem``, each further one by 2.
        stem: stride of the first convolution. At 4 it takes half the time of two convolutions of stride 2.
        dropout: of the grid's features, before the linear map.
    """

    def __init__(self, size: tuple[int, int], width: int, channels: Sequence[int], stem: int, dropout: float) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before, (height, breadth) = 3, size
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
        """Images (F, 3, H, W), float in [-1, 1), to tokens (F, D)."""
        token: torch.Tensor = self.head(self.grid(images))
        return token


class StateEncoder(nn.Module):
    """Joint state, and how far it has moved since the episode began, to one token.

    Statistics of the training split are part of the weights.

    Args:
        size: D_s, length of the state.
        width: D, length of the token.
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

    def standardise(self, state: torch.Tensor) -> torch.Tensor:
        """State (F, D_s) in units of its spread in training, held to 5 of them."""
        return ((state - self.mean) / self.scale).clamp(-5, 5)

    def forward(self, state: torch.Tensor, first: torch.Tensor) -> torch.Tensor:
        """Tokens (F, D) of states (F, D_s) and the states (F, D_s) that their episodes began with, standardised."""
        token: torch.Tensor = self.net(torch.cat([state, state - first], dim=-1))
        return token


class InstructionEncoder(nn.Module):
    """An instruction to one token: the mean of learned vectors of its words and word pairs, found by a stable hash.

    It tells the tasks of a store apart; it knows nothing of language. Vectors begin at zero, so words that were not in
    the training store say nothing.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.table = nn.EmbeddingBag(INSTRUCTION_BUCKETS, width, mode="mean")
        nn.init.zeros_(self.table.weight)

    def forward(self, instructions: Sequence[str]) -> torch.Tensor:
        """B instructions to tokens (B, D)."""
        buckets = [hash_words(text) for text in instructions]
        offsets = torch.tensor([0, *(len(b) for b in buckets[:-1])]).cumsum(0)
        flat = torch.tensor([bucket for b in buckets for bucket in b], dtype=torch.long)
        device = self.table.weight.device
        token: torch.Tensor = self.table(flat.to(device), offsets.to(device))
        return token


def hash_words(text: str) -> list[int]:
    """Buckets of an instruction's words and neighbouring pairs, the same on every machine."""
    words = re.findall(r"\w+", text.lower())
    grams = words + [f"{a} {b}" for a, b in itertools.pairwise(words)]
    return [zlib.crc32(gram.encode()) % INSTRUCTION_BUCKETS for gram in grams]
