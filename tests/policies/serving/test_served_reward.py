"""A reward model behind the policy server: stepped at its own rate, and watched."""

from __future__ import annotations

import numpy as np
import pytest

from robo_datasets.errors import ModelError
from robo_hw import RobotContract
from robo_hw.transport import Observation
from robo_policies.serving.loading import Loaded
from robo_policies.serving.served import ServedRewardModel
from robo_rm.models.prediction import Estimate

ARM = RobotContract.load("tidy_drawer")


class Stream:
    def __init__(self, steps: list) -> None:
        self.steps = steps

    def step(self, frames, state=None) -> Estimate:
        self.steps.append(int(frames["observation.images.front"][0, 0, 0]))
        return Estimate(min(len(self.steps) / 40, 0.5), np.array([0.2, 0.8], np.float32), 0.1)


class Reward:
    """A reward model of 20 frames a second that stops rising half way."""

    stages, cameras, state_key = ["reach", "grasp"], ["observation.images.front"], None
    provenance = {"fps": 20.0}  # noqa: RUF012 - as the protocol has it

    def __init__(self) -> None:
        self.steps: list[int] = []

    def stream(self, task=None) -> Stream:
        return Stream(self.steps)


def test_the_reward_model_is_stepped_at_its_own_rate_and_a_stall_is_told():
    model = Reward()
    follower = ServedRewardModel(model, ARM).start("")
    estimates = []
    for i in range(50 * 14):  # 14 s of a 50 Hz bridge
        values = {"observation.images.front": np.full((128, 128, 3), i % 250, np.uint8)}
        estimates.append(follower.step(Observation(i, i * 0.02 + 0.001 * (i % 2), values)))
    assert len(model.steps) == pytest.approx(14 * 20, rel=0.03)
    assert (estimates[10].stage_name, estimates[10].stalled) == ("grasp", False)
    assert estimates[-1].stalled
    assert "0.50" in estimates[-1].message
    first = next(i for i, estimate in enumerate(estimates) if estimate.stalled)
    assert 8.0 < first * 0.02 < 10.5


def test_a_reward_model_of_another_contract_is_refused():
    model = Reward()
    model.provenance = {"fps": 20.0, "contract_hash": "0" * 64}
    with pytest.raises(ModelError, match="the reward model does not fit the contract: contract hash"):
        Loaded(None, model).served(ARM)
    model.provenance = {"fps": 20.0, "contract_hash": ARM.hash}
    assert Loaded(None, model).served(ARM)[1] is not None
