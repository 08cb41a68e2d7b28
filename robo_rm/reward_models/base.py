"""The base of reward models: what they read, episodes one by one, and their folder."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from robo_rm.reward_models.prediction import Prediction
from robo_rm.reward_models.protocol import Observations, RewardStream
from robo_rm.reward_models.saving import save_model_folder


@dataclass(frozen=True)
class InputSpec:
    """What a reward model reads and says, besides its network: the beginning of the descriptions of most types.

    Attributes:
        stages: names of the K stages.
        priors: (K,) share of each in progress, of the training split.
        cameras: image key -> (height, width) at the encoder.
        state_key: key of the state, or None.
        state_size: its length, 0 without one.
        fps: frames per second of the store; a stream expects the same.
    """

    stages: list[str]
    priors: list[float]
    cameras: dict[str, tuple[int, int]]
    state_key: str | None
    state_size: int
    fps: float


class BaseRewardModel:
    """What reward models have in common; a type gives `predict`, `stream` and `card`, and says what makes it.

    Args:
        stages: names of the K stages.
        cameras: keys of the images it reads.
        state_key: key of the state it reads, or None.
        provenance: where it came from.
        device: cpu or cuda.

    Attributes:
        type_name: of the reward model type, as in ``reward=NAME``.
        description: a dataclass of plain values that, with the weights, makes the model.
        network: its weights; models without a network override `tensors`.
    """

    type_name: str
    description: Any
    network: torch.nn.Module

    def __init__(
        self,
        stages: Sequence[str],
        cameras: Sequence[str],
        state_key: str | None,
        provenance: Mapping[str, Any],
        device: str = "cpu",
    ) -> None:
        self.stages, self.cameras, self.state_key = list(stages), list(cameras), state_key
        self.provenance: Mapping[str, Any] = dict(provenance)
        self.device = device
        self.frames_encoded = 0

    def predict(self, episode: Observations, task: str | None = None) -> Prediction:
        """Estimates for every frame of one episode."""
        raise NotImplementedError

    def predict_batch(self, episodes: Sequence[Observations], task: str | None = None) -> list[Prediction]:
        """Estimates for several episodes; a batch is made of frames, so one episode already fills it."""
        return [self.predict(episode, task) for episode in episodes]

    def stream(self, task: str | None = None) -> RewardStream:
        """Follow an episode frame by frame."""
        raise NotImplementedError

    def card(self) -> str:
        """The model card, in Markdown."""
        raise NotImplementedError

    def described(self) -> Mapping[str, Any]:
        """The description as plain values; the type's ``load`` gets it back."""
        return asdict(self.description)

    def tensors(self) -> Mapping[str, torch.Tensor]:
        """The weights."""
        return self.network.state_dict()

    def save(self, folder: str | os.PathLike[str], settings: Mapping[str, Any] | None = None) -> None:
        """Write the model folder, which `robo_rm.load_reward_model` reads back exactly.

        ``settings`` are further sections of its config.yaml, such as the command's.
        """
        save_model_folder(
            folder,
            kind=self.type_name,
            description=self.described(),
            tensors=self.tensors(),
            provenance=self.provenance,
            card=self.card(),
            settings=settings,
        )
