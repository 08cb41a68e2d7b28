"""What, besides the weights, makes a hop model."""

from __future__ import annotations

from dataclasses import dataclass, field

from robo_rm.reward_models.base import InputSpec
from robo_rm.reward_models.grm.network import HopNetwork
from robo_rm.reward_models.grm.settings import HopSettings
from robo_rm.settings import ConvSettings


@dataclass(frozen=True)
class HopDescription(InputSpec):
    """What, besides the weights, makes a hop model.

    Attributes:
        references: number of reference pairs of each task, in their order.
        reward: shape and training of the model.
        encoder: shape of the image encoder.
        stage_head: whether the stage is read off the images, or follows from progress.
        instruction_groups: instructions that mean the same; they share the references of the first of their group.
    """

    references: dict[str, int]
    reward: HopSettings
    encoder: ConvSettings
    stage_head: bool = False
    instruction_groups: list[list[str]] = field(default_factory=list)

    @property
    def gap(self) -> int:
        """Frames between the two moments of an incremental hop."""
        return max(1, round(self.reward.gap_seconds * self.fps))

    def network(self) -> HopNetwork:
        """A network of this shape with fresh weights and empty references."""
        count = sum(self.references.values())
        stages = len(self.stages) if self.stage_head else 0
        return HopNetwork(self.cameras, self.state_size, count, self.reward, self.encoder, stages)
