"""A sentence encoder from a folder: made here, tiny, with random weights."""

from __future__ import annotations

import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch
from moving_square import ENCODER, REWARD, make_store

from robo_core.errors import ConfigError, ModelError
from robo_rm.encoders.sentences import SentenceEncoder
from robo_rm.reward_models.registry import FitRequest
from robo_rm.reward_models.saving import load_reward_model
from robo_rm.reward_models.stage.model_type import fit
from robo_rm.settings import FrozenSettings, OptimiserSettings
from robo_rm.training.budget import Budget

transformers = pytest.importorskip("transformers")
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "move", "the", "square", "shift", "block", "open", "\u79fb", "\u52a8"]


def make_encoder(folder, seed=0):
    """A BERT of two small layers with its tokenizer, written as transformers writes one."""
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    transformers.BertTokenizerFast(vocab_file=str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(seed)
    config = transformers.BertConfig(
        vocab_size=len(WORDS), hidden_size=24, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32
    )
    transformers.BertModel(config).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_encoder(tmp_path_factory.mktemp("text") / "bert")


def test_sentences_have_vectors_of_one_length_that_do_not_depend_on_their_neighbours(folder):
    encoder = SentenceEncoder(folder)
    vectors = encoder.encode(["move the square", "", "\u79fb\u52a8 the block"])
    assert vectors.shape == (3, 24)
    assert encoder.size == 24
    assert vectors.norm(dim=-1).tolist() == pytest.approx([24**0.5, 0, 24**0.5])
    assert torch.equal(vectors[0], encoder.encode(["move the square"])[0])
    assert not torch.equal(vectors[0], encoder.encode(["open the square"])[0])


def test_a_model_is_trained_with_it_saved_and_needs_the_same_one(folder, tmp_path):
    moved = shutil.copytree(folder, tmp_path / "bert")
    store = make_store(tmp_path / "s.zarr", episodes=4, frames=8)
    reward = dataclasses.replace(REWARD, text=str(moved))
    optimiser = OptimiserSettings(batch=4, warmup=2)
    request = FitRequest(store, reward, tmp_path / "rm", ENCODER, optimiser, Budget(4), holdout=1, device="cpu")
    fitted = fit(request)
    model = load_reward_model(tmp_path / "rm")
    assert np.array_equal(model.predict(store[0]).progress, fitted.model.predict(store[0]).progress)
    assert model.description.text == 24
    assert "text_weights" in model.provenance
    shutil.rmtree(moved)
    make_encoder(tmp_path / "bert", seed=1)
    with pytest.raises(ModelError, match="not the sentence encoder that the model was trained with"):
        load_reward_model(tmp_path / "rm").predict(store[0])
    with pytest.raises(ConfigError, match="one of them reads instructions"):
        fit(dataclasses.replace(request, encoder=FrozenSettings(text=True), folder=tmp_path / "other"))


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda folder: shutil.rmtree(folder), "there is no config.json"),
        (lambda folder: (folder / "model.safetensors").unlink(), "has no model.safetensors"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"nonsense"), "cannot be read"),
        (lambda folder: (folder / "config.json").write_text("{"), "cannot be read"),
        (lambda folder: (folder / "config.json").write_text(json.dumps({"model_type": "no"})), "cannot be read"),
    ],
)
def test_a_folder_that_holds_no_encoder_is_named(tmp_path, spoil, says):
    folder = make_encoder(tmp_path / "bert")
    spoil(tmp_path / "bert")
    with pytest.raises(ModelError, match=says) as caught:
        SentenceEncoder(folder)
    assert len(str(caught.value).splitlines()) == 1
