"""What, besides the weights, makes a stage-aware model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from robo_datasets.store.instructions import Phrasings
from robo_rm.encoders.conv import WORD_VECTOR
from robo_rm.labels.plan import WindowShape
from robo_rm.labels.progress import cumulative_priors
from robo_rm.reward_models.base import InputSpec
from robo_rm.reward_models.stage.network import StageNetwork
from robo_rm.reward_models.stage.sparse import DENSE, SparseStages
from robo_rm.settings import StageSettings


@dataclass(frozen=True)
class StageDescription(InputSpec):
    """What, besides the weights, makes a stage-aware model.

    Attributes:
        task: the instruction to assume where none is given.
        reward: shape and training of the model.
        encoder: shape of the image encoder, `ConvSettings` or `FrozenSettings`.
        features: F, length of a frozen encoder's features; 0 with one that is trained.
        text: E, length of an instruction's vector.
        task_priors: (K,) by instruction, where tasks have stages of their own.
        sparse: the `SparseStages` of a second pair of heads, or None.
        head: which pair is shown, dense or sparse.
        identity: of a frozen encoder, so that other weights are not taken for it.
        text_identity: the same of a sentence encoder; empty without one.
        instruction_groups: instructions that mean the same; each is read as the first of its group.
    """

    task: str
    reward: StageSettings
    encoder: Any
    features: int = 0
    text: int = WORD_VECTOR
    identity: dict[str, Any] = field(default_factory=dict)
    task_priors: dict[str, list[float]] = field(default_factory=dict)
    sparse: Any = None
    head: str = DENSE
    text_identity: str = ""
    instruction_groups: list[list[str]] = field(default_factory=list)

    @property
    def shape(self) -> WindowShape:
        """History and gap in frames."""
        return WindowShape(self.reward.history, max(1, round(self.reward.gap_seconds * self.fps)))

    def cumulative(self, device: str, head: str = DENSE) -> Callable[[str], torch.Tensor]:
        """From an instruction to P_0 .. P_K, (K + 1,), of the stages of a pair of heads."""
        mine: StageDescription | SparseStages = self if head == DENSE else self.sparse
        common = torch.as_tensor(cumulative_priors(mine.priors), dtype=torch.float32, device=device)
        known = Phrasings(self.instruction_groups)
        own = {
            task: torch.as_tensor(cumulative_priors(priors), dtype=torch.float32, device=device)
            for task, priors in mine.task_priors.items()
        }
        return lambda task: own.get(task, own.get(known.task(task), common))

    def network(self) -> StageNetwork:
        """A network of this shape with fresh weights."""
        return StageNetwork(
            self.cameras,
            self.state_size,
            len(self.stages),
            self.reward,
            self.encoder,
            self.features,
            self.text,
            0 if self.sparse is None else len(self.sparse.groups),
        )
