"""From folders to what a policy server serves, with every misfit said in one line before anything is served."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

import robo_policies
import robo_rm
from robo_core.errors import ConfigError
from robo_hw import RobotContract, transport
from robo_policies.serving.cartesian import CartesianActions, CartesianError, CartesianSettings
from robo_policies.serving.fit import policy_findings, refuse, refuse_wider, reward_findings
from robo_policies.serving.served import ServedLearnedPolicy, ServedRewardModel
from robo_rm.monitor.promise import MonitorCalibration, read_monitor
from robo_rm.monitor.settings import Watch

if TYPE_CHECKING:
    from robo_policies.cloning.learned import SavedPolicy
    from robo_rm.reward_models.protocol import RewardModel


@dataclass(frozen=True)
class Loaded:
    """A policy, a reward model, or both."""

    policy: SavedPolicy | None
    reward_model: RewardModel | None
    cartesian: CartesianSettings | None = None
    """What the policy's actions mean, where they are poses of the hand."""
    monitor: MonitorCalibration | None = None
    """The calibration in the reward model's folder."""

    def actions(self, contract: RobotContract) -> CartesianActions | None:
        """What turns the policy's poses into joints; None where its actions are joints.

        Raises:
            ConfigError: the model, the frame or a setting is wrong.
        """
        if self.cartesian is None or self.cartesian.model is None:
            return None
        return CartesianActions(self.cartesian, contract)

    def served(
        self,
        contract: RobotContract,
        watch: Watch | None = None,
        confirm_wider_limits: bool = False,
    ) -> tuple[ServedLearnedPolicy | None, ServedRewardModel | None]:
        """Both as the policy server takes them.

        Raises:
            ModelError: one does not fit the contract, or limits are wider than in training and not confirmed; names
            the first field.
            ConfigError: the monitor does not promise so few false alarms.
        """
        cartesian = self.actions(contract)
        watch = watch or Watch()
        self._check_rate(watch.false_alarm_rate)
        if self.policy is not None:
            findings, what = policy_findings(self.policy, contract, cartesian), f"the policy in {self.policy.folder}"
            refuse(findings, what)
            refuse_wider(findings, what, confirm_wider_limits)
        if self.reward_model is not None:
            refuse(reward_findings(self.reward_model, contract), "the reward model")
        return (
            None if self.policy is None else ServedLearnedPolicy(self.policy, contract, cartesian),
            None if self.reward_model is None else ServedRewardModel(self.reward_model, contract, watch, self.monitor),
        )

    def _check_rate(self, rate: float) -> None:
        if self.monitor is None or any(promised <= rate for promised in self.monitor.promised()):
            return
        offered = ", ".join(f"{promised:g}" for promised in self.monitor.promised())
        raise ConfigError(
            f"watch.false_alarm_rate={rate:g}: the monitor promises {offered}; give one of these, or calibrate it with "
            "more successful runs (robo-rm calibrate-monitor)"
        )


def load(
    policy: str | None, reward_model: str | None, device: str = "auto", cartesian: CartesianSettings | None = None
) -> Loaded:
    """Load from folders.

    Raises:
        ConfigError: neither is given.
        ModelError: a folder holds no readable model.
        MissingPartError: LeRobot is not installed.
    """
    if not policy and not reward_model:
        raise ConfigError("give policy=DIR, reward_model=DIR, or both")
    return Loaded(
        robo_policies.load_policy(policy, device) if policy else None,
        robo_rm.load_reward_model(reward_model, device) if reward_model else None,
        cartesian,
        read_monitor(reward_model) if reward_model else None,
    )


def warm_up(policy: ServedLearnedPolicy, task: str = "") -> None:
    """Act once on nothing: the first call of a network is many times slower than the others."""
    values = {
        key: np.zeros(shape, np.uint8 if len(shape) == 3 else np.float32) for key, shape in policy.info.needs.items()
    }
    with contextlib.suppress(CartesianError):  # a hand pose made from nothing need not be one
        policy.start(task).act(transport.Observation(0, 0.0, values, past=(values,) * (policy.info.history - 1)))
