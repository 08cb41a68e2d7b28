"""What the trained models of single frames share: a small conv net for each camera and the joint state, joined by two
layers; its training samples; its description, plan and saved folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from robo_core.errors import ConfigError
from robo_rm.encoders.conv import ConvEncoder, StateEncoder
from robo_rm.reward_models.base import InputSpec
from robo_rm.reward_models.baselines.episodes import OneStage
from robo_rm.reward_models.blocks import to_pixels
from robo_rm.reward_models.frames import resize
from robo_rm.reward_models.per_frame import PerFrameModel
from robo_rm.reward_models.placing import stages_and_priors
from robo_rm.reward_models.registry import FitRequest
from robo_rm.reward_models.saving import built, fill_weights
from robo_rm.settings import ConvSettings, ImageAugmentation
from robo_rm.training.augment import augment_window
from robo_rm.training.cameras import chosen_cameras, chosen_state
from robo_rm.training.data import TrainingData
from robo_rm.training.device import pick_device
from robo_rm.training.objective import Network, RewardObjective

# Images as they are stored.
UNCHANGED = ImageAugmentation(0, 0, 0, 0, 0, 0, 0)


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
    stages, priors = stages_and_priors(request.store, train)
    return InputSpec(stages, priors, chosen_cameras(request), *chosen_state(request), float(request.store.fps))


@dataclass(frozen=True)
class FrameDescription(InputSpec):
    """What, besides the weights, makes a trained model of single frames."""

    reward: Any
    encoder: ConvSettings

    def network(self) -> FrameNetwork:
        """A network of this shape with fresh weights."""
        return FrameNetwork(self, self.encoder, self.reward.width, 1)


Description = TypeVar("Description", bound=FrameDescription)


class NetworkModel(PerFrameModel, Generic[Description, Network]):
    """A model of single frames whose vectors come from a `FrameNetwork`."""

    description: Description
    network: Network

    def __init__(self, network: Network, description: Description, provenance: Mapping[str, Any], device: str) -> None:
        super().__init__(description, provenance, device)
        self.description = description
        self.network = network.to(device).eval().requires_grad_(False)

    def features(
        self, images: Mapping[str, npt.NDArray[np.uint8]], state: npt.NDArray[np.float32] | None
    ) -> torch.Tensor:
        """Vectors (n, D) of the network."""
        return run_network(self.network, self.input_spec, images, state, self.device)

    @classmethod
    def restore(
        cls,
        kind: type[Description],
        folder: Path,
        described: Mapping[str, Any],
        provenance: Mapping[str, Any],
        device: str,
    ) -> NetworkModel[Description, Network]:
        """Read a saved model whose description is a ``kind``.

        Raises:
            ModelError: the folder is damaged.
        """
        description = built(kind, described, folder)
        network: Any = description.network()
        fill_weights(network, folder)
        return cls(network, description, provenance, pick_device(device))


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
        whole = [OneStage(episode) for episode in train]
        cache = request.cache_gb * 1e9
        self.data = TrainingData.load(whole, [1.0], input_spec.cameras, input_spec.state_key, cache)
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


class FrameObjective(RewardObjective[Samples, Network], Generic[Description, Network]):
    """A fresh network of a description, and the episodes it is trained on."""

    def __init__(self, description: Description, data: FrameData, request: FitRequest, device: str) -> None:
        self.description, self.data, self.reward = description, data, description.reward
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(request.seed)
            network: Any = description.network()
        data.set_state_statistics(network)
        super().__init__(network.to(device), request.optimiser, request.seed, device)

    def vectors(self, batch: Samples) -> torch.Tensor:
        """Vectors (B * S, D) of a batch, float32."""
        with self.half():
            return run_network(self.network, self.description, batch.images, batch.state, self.device)

    def still(
        self, model: PerFrameModel, episode: npt.NDArray[np.int64], frames: npt.NDArray[np.int64]
    ) -> torch.Tensor:
        """A model's vectors of frames (B, S) of episodes (B,), images unchanged."""
        samples = self.data.gather(episode, frames, np.random.default_rng(0), UNCHANGED)
        with torch.inference_mode():
            return model.features(samples.images, samples.state)


class FramePlan:
    """See `robo_rm.training.fit.Plan`; a type says how it describes the model and what trains it."""

    labelled = False

    def __init__(
        self,
        request: FitRequest,
        train: Sequence[Any],
        describe: Callable[..., Description],
        objective: Callable[[Description, FrameData, FitRequest, str], RewardObjective[Samples, Network]],
    ) -> None:
        self.input_spec = spec = look_at(request, train)
        description = describe(**vars(spec), reward=request.reward, encoder=request.encoder)
        self.objective = lambda device: objective(description, FrameData(request, train, spec), request, device)
        self.state_key = spec.state_key
        self.notes: list[str] = []
        self.frames_per_step = request.optimiser.batch * request.reward.frames
        self.provenance: Mapping[str, Any] = {
            "priors": spec.priors,
            "fps": spec.fps,
            "encoder": request.encoder.name,
        }
