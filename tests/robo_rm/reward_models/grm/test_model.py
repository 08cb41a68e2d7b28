"""The hop model keeps the contract of reward models, and its folder is exact."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from moving_square import CAMERA, HEIGHT, INPUTS, STATE, WIDTH, arrays

from robo_core.errors import ConfigError, ModelError
from robo_rm.reward_models.checker import check_reward_model
from robo_rm.reward_models.grm.model import HopDescription, HopRewardModel
from robo_rm.reward_models.grm.settings import FUSIONS, HopPlan, HopSettings
from robo_rm.reward_models.saving import load_reward_model
from robo_rm.settings import ConvSettings

REWARD = HopSettings(gap_seconds=0.4, width=16, hidden=24, bins=17, references=2, plan=HopPlan(value_bins=5))
ENCODER = ConvSettings(image_size=24, channels=[8, 8, 16], stem=2, dropout=0.0)


def description(**changes) -> HopDescription:
    values = {
        **INPUTS,
        "references": {"move the square": 2},
        "reward": REWARD,
        "encoder": ENCODER,
    }
    return HopDescription(**{**values, **changes})


def untrained(tilt: float = 2.0, **changes) -> HopRewardModel:
    """Random weights, which the contract holds for as well, and references that are pictures."""
    described = description(**changes)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        network = described.network()
        for buffer in network.references.buffers():
            if buffer.dtype == torch.uint8:
                buffer.random_(0, 255)
            else:
                buffer.normal_()
        # Away from the uniform distribution, so that hops differ, and to one side, so that not all are clamped.
        with torch.no_grad():
            network.head[-1].weight.mul_(6)
            network.head[-1].bias.add_(tilt * network.points)
    provenance = {"train_uuids": [], "holdout_uuids": [], "priors": described.priors, "fps": described.fps}
    return HopRewardModel(network, described, provenance, "cpu")


@pytest.mark.parametrize("fusion", FUSIONS)
def test_the_contract_is_kept_with_every_fusion(fusion):
    model = untrained(tilt=-2.0 if fusion == "backward" else 2.0, reward=replace(REWARD, fusion=fusion))
    progress = model.predict(arrays(40)).progress
    assert progress.std() > 1e-3  # else the contract would be kept by saying nothing
    check_reward_model(model, arrays(40))


@pytest.mark.parametrize(
    "changes",
    [
        {"state_key": None, "state_size": 0},
        {"cameras": {CAMERA: (HEIGHT, WIDTH), "observation.images.wrist": (16, 24)}},
        {"stages": ["all of it"], "priors": [1.0]},
        {"encoder": replace(ENCODER, change=False)},
        {"stage_head": True},
    ],
    ids=["no state", "two cameras", "one stage", "no change shown", "stage head"],
)
def test_the_contract_is_kept_for_every_make(changes):
    data = arrays(30)
    data["observation.images.wrist"] = data[CAMERA][:, ::-1].copy()
    check_reward_model(untrained(**changes), data)


def test_stage_probabilities_are_those_of_progress_without_a_stage_head():
    model = untrained()
    prediction = model.predict(arrays(30))
    expected = (prediction.progress >= 0.4).astype(int)
    clear = np.abs(prediction.progress - 0.4) > 0.01
    assert clear.any()
    # One of two stages is likelier wherever progress lies on its side of the edge.
    np.testing.assert_array_equal(prediction.stage[clear], expected[clear])


def test_another_fusion_shares_the_weights():
    model = untrained()
    forward = model.with_fusion("forward").predict(arrays(25)).progress
    moments = model.fused(arrays(25))
    np.testing.assert_allclose(forward, [moment.forward for moment in moments], atol=1e-6)
    with pytest.raises(ConfigError, match=r"reward.fusion=sum: choose one of incremental"):
        model.with_fusion("sum")


def test_references_of_the_task_are_taken_and_other_tasks_refused(tmp_path):
    model = untrained(references={"open": 1, "shut": 1})
    data = arrays(20)
    opened, shut = model.predict(data, "open").progress, model.predict(data, "shut").progress
    assert not np.allclose(opened, shut)
    with pytest.raises(ModelError, match="start and goal images of 'open', 'shut', but none of the task 'fly'"):
        model.predict(data, "fly")
    with pytest.raises(ModelError, match="none of the task None"):
        model.stream()
    model.save(tmp_path / "m")
    np.testing.assert_array_equal(load_reward_model(tmp_path / "m", "cpu").predict(data, "shut").progress, shut)


def test_a_saved_folder_is_itself_again(tmp_path):
    model = untrained()
    model.save(tmp_path / "m")
    loaded = load_reward_model(tmp_path / "m", "cpu")
    assert isinstance(loaded, HopRewardModel)
    assert loaded.description == model.description
    assert loaded.provenance == model.provenance
    assert "2 pairs of start and goal images" in (tmp_path / "m" / "card.md").read_text()
    names = {path.name for path in (tmp_path / "m").iterdir()}
    assert names == {"config.yaml", "model.safetensors", "provenance.json", "card.md"}
    json.loads((tmp_path / "m" / "provenance.json").read_text())


def test_a_damaged_folder_is_one_clear_error(tmp_path):
    untrained().save(tmp_path / "m")
    config = tmp_path / "m" / "config.yaml"
    text = config.read_text()
    config.write_text(text.replace("state_size: 2", "state_size: 3"))
    with pytest.raises(ModelError, match="does not fit"):
        load_reward_model(tmp_path / "m")
    config.write_text(text.replace("gap_seconds", "gap_secs"))
    with pytest.raises(ModelError, match="gap_secs"):
        load_reward_model(tmp_path / "m")


def test_an_episode_of_other_shapes_is_refused():
    model = untrained()
    data = arrays(10)
    with pytest.raises(ModelError, match="lacks"):
        model.predict({CAMERA: data[CAMERA]})
    with pytest.raises(ModelError, match="2 values"):
        model.predict({CAMERA: data[CAMERA], STATE: data[STATE][:, :1]})
    with pytest.raises(ModelError, match=r"give step\(frames, state=...\)"):
        model.stream().step({CAMERA: data[CAMERA][0]})


def test_an_empty_episode_gives_an_empty_answer():
    prediction = untrained().predict({key: value[:0] for key, value in arrays(10).items()})
    assert len(prediction) == 0
    assert prediction.stage_probabilities.shape == (0, 2)


@pytest.mark.parametrize("every", [1, 2, 4])
@pytest.mark.parametrize("stage_head", [False, True])
def test_episodes_followed_at_once_are_told_what_each_is_told_alone(every, stage_head):
    model = untrained(stage_head=stage_head)
    episodes = [arrays(25, seed) for seed in range(3)]
    expected = [model.predict(episode) for episode in episodes]
    streams, before = model.streams(3, every=every), model.frames_encoded
    for t in range(0, 25, every):
        images = {CAMERA: np.stack([episode[CAMERA][t] for episode in episodes])}
        progress, stages, spread = streams.step(images, [episode[STATE][t] for episode in episodes])
        np.testing.assert_allclose(progress, [said.progress[t] for said in expected], atol=1e-5)
        np.testing.assert_allclose(stages, [said.stage_probabilities[t] for said in expected], atol=1e-5)
        np.testing.assert_allclose(spread, [said.uncertainty[t] for said in expected], atol=1e-5)
    assert model.frames_encoded - before == 3 * len(range(0, 25, every))


def test_an_episode_begins_anew_while_another_goes_on():
    model = untrained()
    first, second, third = (arrays(20, seed) for seed in (4, 5, 6))
    streams = model.streams(2)
    for t in range(9):
        streams.step({CAMERA: np.stack([first[CAMERA][t], second[CAMERA][t]])}, [first[STATE][t], second[STATE][t]])
    streams.reset([1])
    wanted = model.predict(first).progress[9:], model.predict(third).progress
    for t in range(11):
        images = {CAMERA: np.stack([first[CAMERA][9 + t], third[CAMERA][t]])}
        progress, _, _ = streams.step(images, [first[STATE][9 + t], third[STATE][t]])
        np.testing.assert_allclose(progress, [wanted[0][t], wanted[1][t]], atol=1e-5)
    with pytest.raises(ModelError, match="3 does not divide"):
        model.streams(2, every=3)
