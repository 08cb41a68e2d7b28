"""A deterministic actor: one MLP from observation to action, which is all that some learners' policies are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from robo_core.errors import ModelError
from robo_policies.rl.modules.checkpoint import cpu_copies
from robo_policies.rl.modules.normalization import MeanScale, Normalizer
from robo_policies.rl.settings import LearnerSettings
from robo_policies.rl.types import Floats
from robo_rm.training.checkpoint import under


@dataclass(frozen=True)
class ActorShape:
    """What defines the network, as a policy's card stores it.

    Attributes:
        observation_size: input size, the potential included where the network reads it.
        action_size: A.
        widths: of the hidden layers.
        activation: ``relu`` or ``tanh``.
        norm: LayerNorm in each hidden layer.
        squash: the action is tanh of the output rather than the output clipped to [-1, 1].
        reads_potential: whether the potential, the last entry of an observation, is an input.
    """

    observation_size: int
    action_size: int
    widths: tuple[int, ...]
    activation: str
    norm: bool
    squash: bool
    reads_potential: bool


class MlpActor(nn.Module):
    """Acts as the mode of what a learner found best.

    Args:
        shape: of the network.
        settings: of the learner that it comes from, for the card.
        device: cpu or cuda.
        scaling: mean and scale (observation_size,) by which its inputs are normalized; None leaves them unmodified.

    Raises:
        ModelError: an unknown activation.
    """

    def __init__(
        self,
        shape: ActorShape,
        settings: LearnerSettings,
        device: str = "cpu",
        scaling: MeanScale | None = None,
    ) -> None:
        super().__init__()
        if shape.activation not in ("relu", "tanh"):
            raise ModelError(f"an actor with activation {shape.activation!r} is of another version; upgrade")
        layers: list[nn.Module] = []
        inside = shape.observation_size
        for width in shape.widths:
            layers += [nn.Linear(inside, width), *([nn.LayerNorm(width)] if shape.norm else [])]
            layers.append(nn.ReLU() if shape.activation == "relu" else nn.Tanh())
            inside = width
        layers.append(nn.Linear(inside, shape.action_size))
        self.body = nn.Sequential(*layers).to(device)
        self._normalized = None if scaling is None else Normalizer(shape.observation_size, device, scaling)
        self.shape, self.settings, self.device = shape, settings, device

    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        """Actions (B, A) in [-1, 1] for observations (B, observation_size)."""
        if self._normalized is not None:
            observation = self._normalized(observation)
        output: torch.Tensor = self.body(observation)
        return torch.tanh(output) if self.shape.squash else output.clamp(-1, 1)

    @torch.no_grad()
    def act(
        self, observations: Floats, explore: bool = False, prior_actions: Floats | None = None
    ) -> tuple[Floats, npt.NDArray[np.bool_]]:
        """Actions (n, A) for observations (n, O + 1), the potential last; it neither explores nor takes a prior's."""
        inputs = observations if self.shape.reads_potential else observations[:, :-1]
        action: Floats = self(torch.from_numpy(np.ascontiguousarray(inputs)).to(self.device)).cpu().numpy()
        return action, np.zeros(len(action), dtype=bool)

    def state(self) -> dict[str, torch.Tensor]:
        """Its weights by name."""
        tensors = cpu_copies(self.body.state_dict(), "actor.")
        if self._normalized is not None:
            tensors |= cpu_copies({"mean": self._normalized.mean, "scale": self._normalized.scale}, "scaling_")
        return tensors

    def load_state(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Restore a `state`.

        Raises:
            ModelError: it is of another actor.
        """
        try:
            self.body.load_state_dict(under(tensors, "actor."))
            if "scaling_mean" in tensors:
                self._normalized = Normalizer(self.shape.observation_size, self.device)
                self._normalized.set(tensors["scaling_mean"], tensors["scaling_scale"])
        except (KeyError, RuntimeError) as error:
            raise ModelError(f"the weights are of another actor ({error})") from error

    def copy_layers(self, layers: list[nn.Linear]) -> None:
        """Copy the weights of another network's linear layers, from the first to the last."""
        own = [layer for layer in self.body if isinstance(layer, nn.Linear)]
        for target, source in zip(own, layers, strict=True):
            target.load_state_dict(source.state_dict())

    def description(self) -> dict[str, object]:
        """The shape as a card stores it."""
        return {**asdict(self.shape), "widths": list(self.shape.widths)}
