"""One frame to one vector: a small conv net for each camera and the joint state, joined by two layers; and its
training samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from robo_core.console import progress_bar
from robo_core.errors import ConfigError
from robo_rm.encoders.conv import ConvEncoder, StateEncoder
from robo_rm.reward_models.baselines.episodes import OneStage
from robo_rm.reward_models.blocks import to_pixels
from robo_rm.reward_models.frames import resize
from robo_rm.reward_models.per_frame import InputSpec
from robo_rm.reward_models.placing import stages_and_priors
from robo_rm.reward_models.registry import FitRequest
from robo_rm.settings import ConvSettings, ImageAugmentation
from robo_rm.training.augment import augment_window
from robo_rm.training.cameras import chosen_cameras
from robo_rm.training.data import TrainingData

STATE_KEY = "observation.state"


class FrameNetwork(nn.Module):
    """Frames (n) to vectors (n, D).

    Args:
        looks: cameras and state.
        encoder: of the images.
        width: of the tokens.
        out: D.
    """

    def __init__(self, input_spec: InputSpec, encoder: ConvSettings, width: int, out: int) -> None:
        super().__init__()
        self.cameras = list(input_spec.cameras)
        self.images = nn.ModuleList(
            ConvEncoder(size, width, encoder.channels, encoder.stem, encoder.dropout)
            for size in input_spec.cameras.values()
        )
        self.state = StateEncoder(input_spec.state_size, width) if input_spec.state_size else None
        tokens = len(self.cameras) + (self.state is not None)
        self.join = nn.Sequential(nn.Linear(tokens * width, 2 * width), nn.ReLU(), nn.Linear(2 * width, out))

    def forward(self, pixels: Mapping[str, torch.Tensor], state: torch.Tensor | None) -> torch.Tensor:
        """Pixels (n, 3, h, w) in [-1, 1) by key and raw states (n, D_s) to vectors (n, D)."""
        tokens = [net(pixels[key]) for key, net in zip(self.cameras, self.images, strict=True)]
        if self.state is not None and state is not None:
            joint = self.state.standardise(state)
            # Every frame by itself: what it has moved since the beginning is left to the reading of two vectors.
            tokens.append(self.state(joint, torch.zeros_like(joint)))
        vector: torch.Tensor = self.join(torch.cat([token.float() for token in tokens], dim=-1))
        return vector


def look_at(request: FitRequest, train: Sequence[Any]) -> InputSpec:
    """What a per-frame model reads of a store.

    Raises:
        ConfigError: the store has no camera, or the encoder is not the conv one.
    """
    if not isinstance(request.encoder, ConvSettings):
        raise ConfigError(f"reward={request.reward.name} trains its own images; use encoder=conv")
    store = request.store
    state_key = STATE_KEY if request.reward.use_state and STATE_KEY in store.features else None
    size = int(store.features[state_key]["shape"][0]) if state_key else 0
    stages, priors = stages_and_priors(store, train)
    return InputSpec(stages, priors, chosen_cameras(request), state_key, size, float(store.fps))


def run_network(
    network: nn.Module,
    input_spec: InputSpec,
    images: Mapping[str, npt.NDArray[np.uint8]],
    state: npt.NDArray[np.float32] | None,
    device: str,
) -> torch.Tensor:
    """Vectors (n, D) of images of any size."""
    pixels = {
        key: to_pixels(torch.from_numpy(resize(images[key], size)).to(device))
        for key, size in input_spec.cameras.items()
    }
    vectors: torch.Tensor = network(pixels, None if state is None else torch.from_numpy(state).to(device))
    return vectors


@dataclass
class Samples:
    """S frames from each of B episodes: images (B * S, h, w, 3) by key, states (B * S, D) or None, and their places."""

    images: dict[str, npt.NDArray[np.uint8]]
    state: npt.NDArray[np.float32] | None
    frames: npt.NDArray[np.int64]
    """(B, S)"""
    episode: npt.NDArray[np.int64]
    """(B,)"""


class FrameData:
    """Training episodes to draw frames from, whatever their labels."""

    def __init__(self, request: FitRequest, train: Sequence[Any], input_spec: InputSpec) -> None:
        total = sum(episode.length for episode in train) * len(input_spec.cameras)
        whole = [OneStage(episode) for episode in train]
        with progress_bar("read images", total, "frames") as bar:
            self.data = TrainingData.load(
                whole, [1.0], input_spec.cameras, input_spec.state_key, request.cache_gb * 1e9, bar.advance
            )
        self.lengths = np.array([episode.length for episode in train])
        self.success = [episode.success for episode in train]

    def gather(
        self,
        episode: npt.NDArray[np.int64],
        frames: npt.NDArray[np.int64],
        rng: np.random.Generator,
        augmentation: ImageAugmentation,
    ) -> Samples:
        """The frames (B, S) of episodes (B,); frames of one row share the draw of the augmentation."""
        images: dict[str, npt.NDArray[np.uint8]] = {}
        for key, (height, width) in self.data.cameras.items():
            block = np.empty((*frames.shape, height, width, 3), dtype=np.uint8)
            for row, number in enumerate(episode):
                found = self.data.reader.read(int(number), key, frames[row])
                augment_window(found, rng, augmentation, out=block[row])
            images[key] = block.reshape(-1, height, width, 3)
        state = None
        if self.data.states is not None:
            state = np.concatenate([self.data.states[e][f] for e, f in zip(episode, frames, strict=True)])
        return Samples(images, state, frames, episode)

    def set_state_statistics(self, network: FrameNetwork) -> None:
        """Give the network the mean and spread of the states of the training split."""
        if network.state is None or self.data.states is None:
            return
        network.state.measure(np.concatenate(self.data.states))
