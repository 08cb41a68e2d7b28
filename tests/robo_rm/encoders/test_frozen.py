"""Frozen encoders: features kept once, the same one by one and many at once, clear words where weights are missing."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from moving_square import CAMERA, REWARD, STATE, arrays, make_store
from tiny import save_clip, save_dinov2, save_siglip

from robo_core.errors import ModelError
from robo_datasets import DemoStore
from robo_rm.encoders.frozen import FrozenEncoder
from robo_rm.encoders.stored import StoredFeatures
from robo_rm.reward_models.checker import check_reward_model
from robo_rm.reward_models.registry import FitRequest
from robo_rm.reward_models.saving import load_reward_model
from robo_rm.reward_models.stage.model_type import fit
from robo_rm.settings import FrozenSettings, OptimiserSettings
from robo_rm.training.budget import Budget


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return save_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture
def store(tmp_path):
    return make_store(tmp_path / "square.zarr", episodes=5, frames=20)


def settings(folder: Path, **changes) -> FrozenSettings:
    return FrozenSettings(**{"name": "clip", "source": str(folder), **changes})


def trained(store, folder: Path, encoder: FrozenSettings, **changes):
    values = {
        "store": store,
        "reward": REWARD,
        "folder": folder,
        "encoder": encoder,
        "optimiser": OptimiserSettings(batch=4, warmup=2),
        "budget": Budget(6, None),
        "holdout": 1,
        "device": "cpu",
    }
    return fit(FitRequest(**{**values, **changes}))


def test_one_by_one_and_many_at_once_give_the_same_bits(clip):
    encoder = FrozenEncoder(settings(clip))
    frames = arrays(40)[CAMERA]
    many = encoder.encode(frames)
    assert many.shape == (40, 24)
    assert many.dtype == np.float16
    assert np.array_equal(many, np.concatenate([encoder.encode(frame[None]) for frame in frames]))
    assert np.abs(many.astype(np.float32)).max() > 0


@pytest.mark.parametrize(("name", "save"), [("siglip", save_siglip), ("dinov2", save_dinov2)])
def test_other_families_are_read_too(tmp_path, name, save):
    encoder = FrozenEncoder(settings(save(tmp_path), name=name))
    assert encoder.encode(arrays(3)[CAMERA]).shape == (3, 32)
    assert encoder.identity["family"] == name


def test_features_are_computed_once_and_training_scoring_and_streams_agree(clip, store, tmp_path):
    model = trained(store, tmp_path / "rm", settings(clip)).model
    kept = StoredFeatures(store, model.description.identity, [CAMERA])
    for episode in store:
        assert np.array_equal(kept.read(episode.uuid, CAMERA), FrozenEncoder(settings(clip)).encode(episode[CAMERA][:]))
    assert model.frames_encoded == 0, "the held-out metrics read what was kept"

    again = load_reward_model(tmp_path / "rm", "cpu")
    episode = store[0]
    fresh = again.predict(episode)
    assert again.frames_encoded == episode.length
    assert again.store_features(store, list(store)) == 0, "nothing is encoded twice"
    stored = again.predict(episode)
    assert np.array_equal(fresh.progress, stored.progress)
    assert again.frames_encoded == episode.length
    stream = again.stream()
    for t in range(episode.length):
        estimate = stream.step({CAMERA: episode[CAMERA][t]}, episode[STATE][t])
        assert abs(estimate.progress - fresh.progress[t]) < 1e-5
    assert again.frames_encoded == 2 * episode.length
    check_reward_model(again, episode)


def test_the_text_tower_tells_instructions_apart(clip, store, tmp_path):
    encoder = FrozenEncoder(settings(clip))
    texts = encoder.encode_text(["move the square", "open the drawer", "move the square"])
    assert texts.shape == (3, 24)
    assert np.array_equal(texts[0], texts[2])
    assert not np.array_equal(texts[0], texts[1])
    model = trained(store, tmp_path / "rm", settings(clip, text=True)).model
    assert model.description.text == 24
    check_reward_model(load_reward_model(tmp_path / "rm", "cpu"), store[1])


def test_memory_for_features_is_bounded_and_changes_nothing(clip, store, tmp_path):
    whole = trained(store, tmp_path / "whole", settings(clip)).model
    streamed = trained(store, tmp_path / "streamed", settings(clip), cache_gb=1e-9).model
    for name, value in whole.network.state_dict().items():
        assert value.equal(streamed.network.state_dict()[name])


def test_other_weights_are_not_taken_for_those_of_the_training(clip, store, tmp_path):
    source = save_clip(tmp_path / "encoder")
    trained(store, tmp_path / "rm", settings(source))
    save_clip(source, seed=1)
    model = load_reward_model(tmp_path / "rm", "cpu")
    with pytest.raises(ModelError, match="not the encoder that the model was trained with"):
        model.predict(arrays(5))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda folder: (folder / "config.json").unlink(), "no config.json in it"),
        (lambda folder: (folder / "model.safetensors").unlink(), "no model.safetensors"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"\0" * 100), "cannot be read"),
        (lambda folder: (folder / "config.json").write_text("{"), "cannot be read"),
        (lambda folder: (folder / "config.json").write_text('{"model_type": "bert"}'), "type 'bert', not clip"),
    ],
)
def test_a_folder_without_a_model_is_refused_in_one_line(tmp_path, change, words):
    folder = save_clip(tmp_path / "encoder")
    change(folder)
    with pytest.raises(ModelError, match=words) as caught:
        FrozenEncoder(settings(folder))
    assert "\n" not in str(caught.value)


def test_a_missing_folder_and_a_missing_tokenizer_are_named(tmp_path):
    with pytest.raises(ModelError, match="there is no such folder"):
        FrozenEncoder(settings(tmp_path / "nowhere"))
    folder = save_clip(tmp_path / "encoder")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match="no tokenizer that can be read"):
        FrozenEncoder(settings(folder)).encode_text(["move"])
    dino = save_dinov2(tmp_path / "dino")
    with pytest.raises(ModelError, match="has no text tower"):
        FrozenEncoder(settings(dino, name="dinov2")).encode_text(["move"])


def test_a_name_on_the_hub_that_cannot_be_reached_says_what_to_do(tmp_path):
    code = (
        "from robo_rm.encoders.frozen import FrozenEncoder; from robo_rm.settings import FrozenSettings\n"
        "from robo_core.errors import ModelError\n"
        "try:\n    FrozenEncoder(FrozenSettings())\nexcept ModelError as error:\n    print(error)"
    )
    quiet = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=quiet, capture_output=True, text=True, timeout=120)
    assert "openai/clip-vit-base-patch32: the weights are neither on this machine" in done.stdout, done.stderr
    assert "encoder.source=FOLDER; or use encoder=conv" in done.stdout
    assert done.stdout.count("\n") == 1


def test_encoding_that_is_killed_goes_on_where_it_stood(clip, tmp_path):
    store = make_store(tmp_path / "square.zarr", episodes=8, frames=30)
    code = (
        "import sys, time; from robo_datasets import DemoStore; from robo_rm.encoders import frozen, stored\n"
        "from robo_rm.settings import FrozenSettings\n"
        "encoder = frozen.FrozenEncoder(FrozenSettings('clip', sys.argv[2])); encode = encoder.encode\n"
        "encoder.encode = lambda frames: (time.sleep(0.3), encode(frames))[1]\n"
        "store = DemoStore.open(sys.argv[1])\n"
        f"stored.StoredFeatures(store, encoder.identity, ['{CAMERA}']).make(lambda: encoder, list(store))"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(store.path), str(clip)], stdout=subprocess.DEVNULL)
    encoder = FrozenEncoder(settings(clip))
    kept = StoredFeatures(store, encoder.identity, [CAMERA])
    end = time.monotonic() + 60
    while not any(kept.has(uuid) for uuid in store.uuids) and time.monotonic() < end:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = sum(kept.has(uuid) for uuid in store.uuids)
    assert 1 <= done < 8
    left = kept.make(lambda: encoder, list(store))
    assert left == sum(store.episode(uuid).length for uuid in store.uuids) - sum(
        store.episode(uuid).length for uuid in list(store.uuids)[:done]
    )
    for episode in DemoStore.open(store.path):
        assert np.array_equal(kept.read(episode.uuid, CAMERA), encoder.encode(episode[CAMERA][:]))


def test_features_are_kept_apart_by_encoder(clip, store, tmp_path):
    one, other = FrozenEncoder(settings(clip)), FrozenEncoder(settings(save_clip(tmp_path / "other", seed=1)))
    StoredFeatures(store, one.identity, [CAMERA]).make(lambda: one, list(store))
    assert not StoredFeatures(store, other.identity, [CAMERA]).has(store[0].uuid)


def test_settings_that_make_no_sense_are_refused_before_anything_is_written(clip, store, tmp_path):
    from robo_core.errors import ConfigError

    wrong = dataclasses.replace(settings(clip), dropout=2.0)
    with pytest.raises(ConfigError, match=r"encoder\.dropout"):
        trained(store, tmp_path / "rm", wrong)
    with pytest.raises(ModelError, match="no such folder"):
        trained(store, tmp_path / "rm", settings(tmp_path / "nowhere"))
    assert not (tmp_path / "rm").exists()
