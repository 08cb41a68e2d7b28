"""Many episodes followed at once give what each gives alone, also when only every k-th frame is looked at."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from moving_square import CAMERA, STATE, arrays, description

from robo_core.errors import ModelError
from robo_rm.reward_models.stage.model import StageRewardModel, StageStreams


@pytest.fixture(scope="module")
def model() -> StageRewardModel:
    torch.manual_seed(0)
    made = description()
    return StageRewardModel(made.network(), made, {})


@pytest.mark.parametrize("every", [1, 2, 4])
def test_streams_equal_prediction_at_the_frames_looked_at(model: StageRewardModel, every: int) -> None:
    episodes = [arrays(33, seed) for seed in range(3)]
    streams = StageStreams(model, 3, every=every)
    expected = [model.predict(episode).progress for episode in episodes]
    before = model.frames_encoded
    for t in range(0, 33, every):
        images = {CAMERA: np.stack([episode[CAMERA][t] for episode in episodes])}
        progress, probabilities, spread = streams.step(images, [episode[STATE][t] for episode in episodes])
        np.testing.assert_allclose(progress, [values[t] for values in expected], atol=1e-5)
        assert probabilities.shape == (3, 2)
        assert spread.shape == (3,)
    assert model.frames_encoded - before == 3 * len(range(0, 33, every))


def test_episodes_begin_and_step_apart(model: StageRewardModel) -> None:
    """Episode 1 starts again while episode 0 goes on; steps without it leave it alone."""
    first, second, third = (arrays(30, seed) for seed in (4, 5, 6))
    streams = StageStreams(model, 2)
    for t in range(12):
        streams.step({CAMERA: np.stack([first[CAMERA][t], second[CAMERA][t]])}, [first[STATE][t], second[STATE][t]])
    for t in range(12, 15):
        streams.step({CAMERA: first[CAMERA][t][None]}, first[STATE][t][None], which=[0])
    streams.reset([1])
    wanted = model.predict(first).progress[15:30], model.predict(third).progress[:15]
    for t in range(15):
        images = {CAMERA: np.stack([first[CAMERA][15 + t], third[CAMERA][t]])}
        progress, _, _ = streams.step(images, [first[STATE][15 + t], third[STATE][t]])
        np.testing.assert_allclose(progress, [wanted[0][t], wanted[1][t]], atol=1e-5)


def test_nobody_stepping_is_no_fault(model: StageRewardModel) -> None:
    progress, probabilities, _ = StageStreams(model, 2).step({}, None, which=[])
    assert progress.shape == (0,)
    assert probabilities.shape == (0, 2)


def test_wrong_use_is_told(model: StageRewardModel) -> None:
    with pytest.raises(ModelError, match="steps of 4 frames, which 3 does not divide; score every 1, 2, 4 frames"):
        StageStreams(model, 2, every=3)
    with pytest.raises(ModelError, match="both must be 1"):
        StageStreams(model, 0)
    streams = StageStreams(model, 2)
    image = arrays(3)[CAMERA][:1]
    with pytest.raises(ModelError, match="which the step lacks"):
        streams.step({}, np.zeros((2, 2)))
    with pytest.raises(ModelError, match="2 episodes step"):
        streams.step({CAMERA: image}, np.zeros((2, 2)))
    with pytest.raises(ModelError, match=r"give step\(frames, state"):
        streams.step({CAMERA: np.repeat(image, 2, axis=0)})
