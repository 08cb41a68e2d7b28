"""The stage-aware model keeps the contract: causal, streaming as in whole episodes, exact after saving."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
import yaml
from moving_square import CAMERA, REWARD, STATE, arrays, description

from robo_core.errors import ModelError
from robo_rm.reward_models.protocol import RewardModel
from robo_rm.reward_models.saving import load_reward_model
from robo_rm.reward_models.stage.model import StageRewardModel
from robo_rm.reward_models.stage.network import Heads, block_causal_mask, compose

WRIST = "observation.images.wrist"


def fresh_model(**changes) -> StageRewardModel:
    torch.manual_seed(0)
    made = description(**changes)
    network = made.network()
    for module in network.modules():
        # Statistics that a training would leave, so that no layer is the identity.
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2.0)
    return StageRewardModel(network, made, {"priors": [0.4, 0.6]})


@pytest.fixture(scope="module")
def model() -> StageRewardModel:
    return fresh_model()


@pytest.fixture(scope="module")
def saved(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "rm"
    model.save(folder)
    return folder


def same(a, b) -> bool:
    fields = ("progress", "stage_probabilities", "uncertainty")
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in fields)


def test_it_is_a_reward_model(model):
    assert isinstance(model, RewardModel)


def test_a_prediction_has_a_row_for_each_frame(model):
    guess = model.predict(arrays(37))
    assert guess.progress.shape == (37,)
    assert guess.stage_probabilities.shape == (37, 2)
    assert guess.uncertainty.shape == (37,)
    assert ((guess.progress >= 0) & (guess.progress <= 1)).all()
    assert guess.stage_probabilities.sum(axis=1) == pytest.approx(np.ones(37), abs=1e-5)
    assert np.ptp(guess.progress) > 0


@pytest.mark.parametrize("t", [0, 5, 31, 32, 33, 60])
def test_later_frames_change_nothing_bit_for_bit(model, t):
    data = arrays(70)
    other = {key: value.copy() for key, value in data.items()}
    rng = np.random.default_rng(1)
    other[CAMERA][t + 1 :] = rng.integers(0, 256, other[CAMERA][t + 1 :].shape)
    other[STATE][t + 1 :] += 3
    shorter = {key: value[: t + 1] for key, value in data.items()}
    whole, changed, cut = model.predict(data), model.predict(other), model.predict(shorter)
    assert np.array_equal(whole.progress[: t + 1], changed.progress[: t + 1])
    assert np.array_equal(whole.stage_probabilities[: t + 1], changed.stage_probabilities[: t + 1])
    assert np.array_equal(whole.progress[: t + 1], cut.progress)
    if t + 1 < 70:
        assert not np.array_equal(whole.progress, changed.progress)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"state_key": None, "state_size": 0},
        {"cameras": {CAMERA: (16, 24), WRIST: (24, 32)}},
        {"reward": dataclasses.replace(REWARD, composition="argmax")},
    ],
    ids=["image and state", "image alone", "two cameras, resized", "argmax"],
)
def test_a_stream_equals_the_whole_episode(changes):
    model = fresh_model(**changes)
    data = arrays(45)
    data[WRIST] = data[CAMERA][:, ::-1].copy()
    whole = model.predict(data, task="move the square")
    stream = model.stream(task="move the square")
    for _ in range(2):
        stream.reset()
        for t in range(45):
            encoded = model.frames_encoded
            step = stream.step({key: data[key][t] for key in model.cameras}, state=data[STATE][t])
            assert model.frames_encoded - encoded == len(model.cameras)
            assert step.progress == pytest.approx(whole.progress[t], abs=1e-5)
            assert step.stage_probabilities == pytest.approx(whole.stage_probabilities[t], abs=1e-5)
            assert step.uncertainty == pytest.approx(whole.uncertainty[t], abs=1e-5)
            assert step.stage == whole.stage[t]


def test_a_whole_episode_encodes_each_frame_once(model):
    before = model.frames_encoded
    model.predict(arrays(45))
    assert model.frames_encoded - before == 45


def test_a_batch_is_its_episodes(model):
    episodes = [arrays(20, 1), arrays(41, 2)]
    for row, alone in zip(model.predict_batch(episodes), episodes, strict=True):
        assert same(row, model.predict(alone))


def test_an_empty_episode_gives_an_empty_prediction(model):
    assert len(model.predict({key: value[:0] for key, value in arrays(3).items()})) == 0


def test_a_saved_model_is_the_same_model(model, saved):
    loaded = load_reward_model(saved, device="cpu")
    data = arrays(40)
    assert same(loaded.predict(data), model.predict(data))
    assert loaded.stages == model.stages
    assert loaded.provenance == model.provenance
    assert sorted(path.name for path in saved.iterdir()) == [
        "card.md",
        "config.yaml",
        "model.safetensors",
        "provenance.json",
    ]


def edit_config(folder, **changes):
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["model"].update(changes)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))


def break_weights(folder):
    raw = bytearray((folder / "model.safetensors").read_bytes())
    raw[len(raw) // 2] ^= 1
    (folder / "model.safetensors").write_bytes(raw)


def cut_weights(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


BREAKAGES = {
    "weights bit-flipped": (break_weights, r"model\.safetensors is damaged"),
    "weights truncated": (cut_weights, r"model\.safetensors is damaged"),
    "weights missing": (lambda f: (f / "model.safetensors").unlink(), r"model\.safetensors cannot be read"),
    "config missing": (lambda f: (f / "config.yaml").unlink(), r"holds no reward model.*config\.yaml is missing"),
    "config not yaml": (lambda f: (f / "config.yaml").write_text("a: [1"), "damaged: it is not YAML"),
    "config of training only": (lambda f: (f / "config.yaml").write_text("store: x\n"), "does not describe a reward"),
    "foreign": (lambda f: edit_config(f, format="other"), "does not describe a reward model of robo-rm"),
    "newer": (lambda f: edit_config(f, version=99), r"newer robo-rm \(model version 99, known 1\)"),
    "unknown kind": (lambda f: edit_config(f, kind="oracle"), "unknown kind 'oracle'"),
    "wrong type": (lambda f: edit_config(f, fps="fast"), r"model\.fps is 'fast', expected float"),
    "unknown key": (lambda f: edit_config(f, colour="red"), "unknown keys"),
    "another shape": (lambda f: edit_config(f, state_size=5), r"tensor state\.\S+ is .*expected"),
    "provenance damaged": (lambda f: (f / "provenance.json").write_text("{"), r"provenance\.json is damaged"),
}


@pytest.mark.parametrize("breakage", BREAKAGES)
def test_a_broken_folder_gives_one_clear_error(breakage, model, tmp_path):
    act, says = BREAKAGES[breakage]
    model.save(tmp_path / "rm")
    act(tmp_path / "rm")
    with pytest.raises(ModelError, match=says):
        load_reward_model(tmp_path / "rm")


def test_a_missing_folder_is_an_error(tmp_path):
    with pytest.raises(ModelError, match="there is no model folder"):
        load_reward_model(tmp_path / "nothing")
    with pytest.raises(ModelError, match="holds no reward model"):
        load_reward_model(tmp_path)


def test_a_folder_holds_nothing_to_unpickle(saved):
    for path in saved.iterdir():
        assert path.suffix in (".yaml", ".safetensors", ".json", ".md")
    json.loads((saved / "provenance.json").read_text())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda d: d.pop(CAMERA), "the episode lacks"),
        (lambda d: d.pop(STATE), "the episode lacks"),
        (lambda d: d.update({CAMERA: d[CAMERA].astype(np.float32)}), "expected uint8 RGB images"),
        (lambda d: d.update({STATE: d[STATE][:, :1]}), "was trained on 2 values"),
        (lambda d: d.update({STATE: d[STATE][:-1]}), "arrays of different lengths"),
        (lambda d: d[STATE].fill(np.nan), "not a finite number"),
    ],
)
def test_an_episode_that_does_not_fit_is_named(model, change, says):
    data = arrays(12)
    change(data)
    with pytest.raises(ModelError, match=says):
        model.predict(data)


def test_a_step_that_does_not_fit_is_named(model):
    data = arrays(3)
    with pytest.raises(ModelError, match="the step lacks"):
        model.stream().step({}, state=data[STATE][0])
    with pytest.raises(ModelError, match=r"give step\(frames, state="):
        model.stream().step({CAMERA: data[CAMERA][0]})


def test_progress_is_the_expectation_over_stages():
    heads = Heads(torch.log(torch.tensor([0.25, 0.75])), torch.tensor([0.5, 0.2]))
    progress, probabilities, spread = compose(heads, torch.tensor([0.0, 0.4, 1.0]))
    values = np.array([0.2, 0.4 + 0.6 * 0.2])
    assert float(progress) == pytest.approx(0.25 * values[0] + 0.75 * values[1])
    assert probabilities.tolist() == pytest.approx([0.25, 0.75])
    assert float(spread) == pytest.approx(np.sqrt(0.25 * 0.75) * (values[1] - values[0]))
    assert float(compose(heads, torch.tensor([0.0, 0.4, 1.0]), argmax=True)[0]) == pytest.approx(values[1])


def test_a_time_step_sees_itself_whole_and_nothing_later():
    mask = block_causal_mask(3, 2)
    assert mask.shape == (7, 7)
    assert mask[:, 0].all()
    assert mask[1].tolist() == [True, True, True, False, False, False, False]
    assert mask[4].tolist() == [True, True, True, True, True, False, False]
