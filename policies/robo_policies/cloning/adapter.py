"""Any other policy of LeRobot's as a learner: SmolVLA, pi0, or one of your own, with a loss per sample.

SmolVLA, pi0 and pi0.5 give their loss per sample when asked for it (``reduction="none"``). A policy that does not is
asked for the loss of one sample at a time, which is exact and slow. `robo_policies.cloning.lerobot_training` trains it.

A loss is divided by what lies inside the episode, as in `robo_policies.cloning.learner.within_episode`. LeRobot's
policies differ: some set what lies past the end to 0 and divide by the whole chunk all the same (all of 0.4.4), some
divide by the valid entries (SmolVLA of 0.6), and pi0 trains on the repeated last action. What a policy does is measured
on the first batch with padding, whatever its version: losses of the first kind are scaled, the others stay as they are.
Where losses are scaled, a term that does not come from the actions, such as the divergence of ACT's latent, is scaled
with the rest; `ActLearner` keeps it apart.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from robo_core.console import say
from robo_core.errors import ConfigError, ModelError
from robo_policies.cloning.learner import Learner
from robo_policies.cloning.windows import ACTION, Span

if TYPE_CHECKING:
    import torch

# LeRobot 0.4.4's SmolVLA looks for the padding of actions under this name, and under no other. Later ones ignore it.
PADDING_OF_SMOLVLA = "actions_id_pad"


class PolicyLearner(Learner):
    """A policy of LeRobot's in training, by its public ``forward``.

    Args:
        policy: any ``lerobot.policies.pretrained.PreTrainedPolicy``.
        constant: further entries of a batch that are the same for every sample, without the dimension of the batch: the
            tokens of the instruction, and their mask.
        processors: LeRobot's pre- and post-processor, saved with the policy; None: none is saved.

    Raises:
        ConfigError: the policy's configuration does not say how many actions it predicts.
    """

    def __init__(
        self,
        policy: Any,
        constant: Mapping[str, torch.Tensor] | None = None,
        processors: tuple[Any, ...] | None = None,
    ) -> None:
        self.policy, self._constant, self._processors = policy, dict(constant or {}), processors
        self._reduces = "reduction" in inspect.signature(policy.forward).parameters
        self._divides_by_chunk: bool | None = None
        self.span = span_of(policy.config)

    @property
    def network(self) -> torch.nn.Module:
        """What is trained: those of the policy's parameters that its configuration does not freeze."""
        network: torch.nn.Module = self.policy
        return network

    def losses(self, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The loss of each sample, (B,).

        Raises:
            ModelError: the policy gives something else than a loss per sample.
        """
        losses = self._losses(batch)
        padded = batch["action_is_pad"]
        if bool(padded.any()) and self._to_be_scaled(batch):
            inside = (~padded).sum(-1).clamp(min=1)
            losses = losses * (padded.shape[-1] / inside)
        return losses

    def _to_be_scaled(self, batch: Mapping[str, torch.Tensor]) -> bool:
        """Whether the policy leaves the padding out of its losses and divides by the whole chunk; measured once."""
        if self._divides_by_chunk is None:
            masks = self._masks_padding(batch)
            if not masks:
                say(
                    f"note: {type(self.policy).__name__} trains on what lies past the end of an episode too, the last "
                    "action again and again, as LeRobot trains it; other policies leave that out here"
                )
            self._divides_by_chunk = masks and not self._divides_by_valid(batch)
        return self._divides_by_chunk

    def _masks_padding(self, batch: Mapping[str, torch.Tensor]) -> bool:
        """Whether actions that are padding have no loss: where all of them are, other ones then change nothing.

        Where only some are padding, they change the losses of the others by the network's attention.
        """
        import torch

        padding = {**batch, "action_is_pad": torch.ones_like(batch["action_is_pad"])}
        moved = {**padding, ACTION: batch[ACTION] + 1}
        # Nothing divided by nothing may be NaN.
        return _alike(self._repeatable(padding).nan_to_num(), self._repeatable(moved).nan_to_num())

    def _divides_by_valid(self, batch: Mapping[str, torch.Tensor]) -> bool:
        """Whether the loss of two valid actions is the mean of the losses of each of them (else it is their sum)."""
        import torch

        if batch[ACTION].shape[1] < 2:
            return True  # with a single action, chunk and valid entries are one
        losses = []
        for valid in ([0], [1], [0, 1]):
            padded = torch.ones_like(batch["action_is_pad"])
            padded[:, valid] = False
            losses.append(self._repeatable({**batch, "action_is_pad": padded}))
        return _alike((losses[0] + losses[1]) / 2, losses[2])

    def _repeatable(self, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The policy's own losses without a gradient, with noise that is the same at every call here."""
        import torch

        devices = [batch[ACTION].device] if batch[ACTION].is_cuda else []
        with torch.random.fork_rng(devices=devices), torch.no_grad():
            return self._losses(batch).float()

    def _losses(self, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The policy's own losses, (B,)."""
        import torch

        count = len(batch[ACTION])
        whole = {key: value for key, value in batch.items() if key != "weight"}
        whole |= {key: value[None].expand(count, *value.shape) for key, value in self._constant.items()}
        whole[PADDING_OF_SMOLVLA] = whole["action_is_pad"]
        if self._reduces:
            losses = self.policy.forward(whole, reduction="none")[0]
        else:
            rows = [{key: value[row : row + 1] for key, value in whole.items()} for row in range(count)]
            losses = torch.stack([self.policy.forward(row)[0] for row in rows])
        if tuple(losses.shape) != (count,):
            raise ModelError(
                f"{type(self.policy).__name__} gives a loss of shape {tuple(losses.shape)} for {count} samples; "
                f"weights need one a sample, ({count},)"
            )
        result: torch.Tensor = losses
        return result

    def keep_processors(self, processors: tuple[Any, ...]) -> None:
        """Save these with the policy."""
        self._processors = processors

    def processors(self, statistics: Mapping[str, Mapping[str, torch.Tensor]]) -> tuple[Any, ...]:
        """The processors that were given."""
        return self._processors or ()


def _alike(one: torch.Tensor, other: torch.Tensor) -> bool:
    import torch

    return torch.allclose(one, other, rtol=1e-4, atol=1e-6)


def span_of(config: Any) -> Span:
    """Which frames a policy takes, from the frame offsets in its configuration.

    Raises:
        ConfigError: the configuration has none for actions, or they are not in a row.
    """
    actions = list(getattr(config, "action_delta_indices", None) or ())
    seen = list(getattr(config, "observation_delta_indices", None) or [0])
    if not actions or actions != list(range(actions[0], actions[-1] + 1)) or seen != list(range(seen[0], 1)):
        raise ConfigError(
            f"{type(config).__name__} takes the actions at frames {actions} and the observations at {seen}; "
            "only frames in a row, up to the present one, are supported"
        )
    if len(seen) > 1 and actions[0] != seen[0]:
        raise ConfigError(
            f"{type(config).__name__} takes observations from {seen[0]} on and actions from {actions[0]} on"
        )
    return Span(actions[-1] + 1, -seen[0], stacked=len(seen) > 1)
