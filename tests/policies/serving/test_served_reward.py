"""A reward model behind the policy server: stepped at its own rate, and watched."""

from __future__ import annotations

import numpy as np
import pytest
from standing_reward import Reward

from robo_core.errors import ModelError
from robo_hw import RobotContract
from robo_hw.transport import Observation
from robo_policies.serving.loading import Loaded
from robo_policies.serving.served import ServedRewardModel

ARM = RobotContract.load("tidy_drawer")


def test_the_reward_model_is_stepped_at_its_own_rate_and_a_stall_is_told():
    model = Reward()
    follower = ServedRewardModel(model, ARM).start("")
    estimates = []
    for i in range(50 * 14):  # 14 s of a 50 Hz bridge
        values = {"observation.images.front": np.full((128, 128, 3), i % 250, np.uint8)}
        estimates.append(follower.step(Observation(i, i * 0.02 + 0.001 * (i % 2), values)))
    assert len(model.steps) == pytest.approx(14 * 20, rel=0.03)
    assert (estimates[10].stage_name, estimates[10].verdict) == ("grasp", "on_track")
    assert estimates[-1].verdict == "stalled"
    assert "0.50" in estimates[-1].message
    first = next(i for i, estimate in enumerate(estimates) if estimate.verdict == "stalled")
    assert 8.0 < first * 0.02 < 10.5


def test_a_reward_model_of_another_contract_is_refused():
    model = Reward()
    model.provenance = {"fps": 20.0, "contract_hash": "0" * 64}
    with pytest.raises(ModelError, match="the reward model does not fit the contract: contract hash"):
        Loaded(None, model).served(ARM)
    model.provenance = {"fps": 20.0, "contract_hash": ARM.hash}
    assert Loaded(None, model).served(ARM)[1] is not None
