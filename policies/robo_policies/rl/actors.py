"""A plain actor: one network from what is seen to an action, which is all that some learners' policies are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from robo_core.errors import ModelError
from robo_policies.rl.replay import Floats
from robo_policies.rl.scaling import MOST, Scaling
from robo_policies.rl.settings import LearnerSettings


@dataclass(frozen=True)
class ActorShape:
    """What makes the network, as it stands in a policy's card.

    Attributes:
        observation_size: length of what it sees, the potential included where it sees that.
        action_size: A.
        widths: of the hidden layers.
        activation: ``relu`` or ``tanh``.
        norm: LayerNorm in each hidden layer.
        squash: the action is a tanh of the output rather than the output cut to [-1, 1].
        sees_potential: whether the potential, the last number of an observation, is seen.
    """

    observation_size: int
    action_size: int
    widths: tuple[int, ...]
    activation: str
    norm: bool
    squash: bool
    sees_potential: bool


class PlainActor(nn.Module):
    """Acts as the middle of what a learner found best.

    Args:
        shape: of the network.
        settings: of the learner that it comes from, for the card.
        device: cpu or cuda.
        scaling: mean and scale (observation_size,) that its inputs are brought to; None leaves them as they are.

    Raises:
        ModelError: an activation that is not known.
    """

    def __init__(
        self,
        shape: ActorShape,
        settings: LearnerSettings,
        device: str = "cpu",
        scaling: Scaling | None = None,
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
        self._scaling = None if scaling is None else [torch.from_numpy(values).to(device) for values in scaling]
        self.shape, self.settings, self.device = shape, settings, device

    def forward(self, seen: torch.Tensor) -> torch.Tensor:
        """Actions (B, A) in [-1, 1] for what is seen (B, observation_size)."""
        if self._scaling is not None:
            mean, scale = self._scaling
            seen = ((seen - mean) / scale).clamp(-MOST, MOST)
        made: torch.Tensor = self.body(seen)
        return torch.tanh(made) if self.shape.squash else made.clamp(-1, 1)

    @torch.no_grad()
    def act(
        self, observations: Floats, explore: bool = False, proposed: Floats | None = None
    ) -> tuple[Floats, npt.NDArray[np.bool_]]:
        """Actions (n, A) for observations (n, O + 1), the potential last; nothing is explored and no proposal taken."""
        seen = observations if self.shape.sees_potential else observations[:, :-1]
        made: Floats = self(torch.from_numpy(np.ascontiguousarray(seen)).to(self.device)).cpu().numpy()
        return made, np.zeros(len(made), dtype=bool)

    def state(self) -> dict[str, torch.Tensor]:
        """Its weights by name."""
        held = {f"actor.{name}": v.detach().cpu().contiguous().clone() for name, v in self.body.state_dict().items()}
        if self._scaling is not None:
            held |= {"scaling_mean": self._scaling[0].cpu().clone(), "scaling_scale": self._scaling[1].cpu().clone()}
        return held

    def load_state(self, held: Mapping[str, torch.Tensor]) -> None:
        """Take up a `state`.

        Raises:
            ModelError: it is of another actor.
        """
        try:
            self.body.load_state_dict({n.removeprefix("actor."): v for n, v in held.items() if n.startswith("actor.")})
            if "scaling_mean" in held:
                self._scaling = [held[name].to(self.device) for name in ("scaling_mean", "scaling_scale")]
        except (KeyError, RuntimeError) as error:
            raise ModelError(f"the weights are of another actor ({error})") from error

    def copy_layers(self, layers: list[nn.Linear]) -> None:
        """Take the weights of another network's linear layers, from the first to the last."""
        mine = [layer for layer in self.body if isinstance(layer, nn.Linear)]
        for own, other in zip(mine, layers, strict=True):
            own.load_state_dict(other.state_dict())

    def described(self) -> dict[str, object]:
        """The shape as it stands in a card."""
        return {**asdict(self.shape), "widths": list(self.shape.widths)}
