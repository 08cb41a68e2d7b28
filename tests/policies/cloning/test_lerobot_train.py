"""LeRobot's own ``lerobot-train`` on an export with our progress file, nothing of robo-rm in its process."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from robo_datasets.exporters.lerobot.exporter import export_lerobot
from robo_datasets.exporters.lerobot.layout import LeRobotSettings
from robo_rm.lerobot_files import write_lerobot_progress, write_lerobot_weights
from robo_rm.weights.rabc import store_weights

pytest.importorskip("lerobot.utils.sample_weighting", reason="LeRobot 0.4.4 has no sample weighting in lerobot-train")

CHUNK = 8

PROGRAM = """
import json, sys
from pathlib import Path
from types import SimpleNamespace
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers

root, out = Path({root!r}), Path({out!r})
vlm = out / "vlm"
text = {{"model_type": "llama", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "head_dim": 8,
        "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 64}}
vision = {{"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
          "image_size": 32, "patch_size": 8}}
transformers.SmolVLMConfig(text_config=text, vision_config=vision, scale_factor=2).save_pretrained(vlm)
words = Tokenizer(models.WordLevel({{"[UNK]": 0, "[PAD]": 1}}, unk_token="[UNK]"))
words.pre_tokenizer = pre_tokenizers.Whitespace()
transformers.PreTrainedTokenizerFast(
    tokenizer_object=words, unk_token="[UNK]", pad_token="[PAD]").save_pretrained(out / "tokenizer")

from lerobot.configs.default import DatasetConfig
from lerobot.configs.train import TrainPipelineConfig
from lerobot.policies.smolvla import processor_smolvla, smolvlm_with_expert
from lerobot.policies.smolvla.configuration_smolvla import SmolVLAConfig
from lerobot.scripts import lerobot_train
from lerobot.utils.sample_weighting import SampleWeightingConfig

# A vision-language model of random weights has no processor to load.
tokens = SimpleNamespace(fake_image_token_id=1, global_image_token_id=2)
processor = SimpleNamespace(from_pretrained=lambda _: SimpleNamespace(tokenizer=tokens))
smolvlm_with_expert.AutoProcessor = processor
steps = processor_smolvla.TokenizerProcessorStep
processor_smolvla.TokenizerProcessorStep = lambda **k: steps(**{{**k, "tokenizer_name": str(out / "tokenizer")}})

seen = {{"losses": [], "index": [], "weights": []}}
update = lerobot_train.update_policy
def watched(metrics, policy, batch, *rest, sample_weighter=None, **more):
    weights, _ = sample_weighter.compute_batch_weights(batch)
    metrics, found = update(metrics, policy, batch, *rest, sample_weighter=sample_weighter, **more)
    seen["losses"].append(float(metrics.loss.val))
    seen["index"].append(batch["index"].tolist())
    seen["weights"].append(weights.tolist())
    return metrics, found
lerobot_train.update_policy = watched

policy = SmolVLAConfig(
    vlm_model_name=str(vlm), num_vlm_layers=2, chunk_size={chunk}, n_action_steps=2, max_state_dim=4, max_action_dim=4,
    resize_imgs_with_padding=(32, 32), tokenizer_max_length=8, device="cpu", push_to_hub=False, optimizer_lr=1e-2,
    scheduler_warmup_steps=1)
lerobot_train.train.__wrapped__(TrainPipelineConfig(
    dataset=DatasetConfig(repo_id="local/demos", root=str(root)), policy=policy, output_dir=out / "run", num_workers=0,
    prefetch_factor=None, persistent_workers=False, dataloader_multiprocessing_context=None, batch_size=16, steps=30,
    save_checkpoint=False, env_eval_freq=0, log_freq=1000,
    sample_weighting=SampleWeightingConfig(type="rabc", **{weighting!r})))
assert not [name for name in sys.modules if name.startswith("robo_")]
(out / "seen.json").write_text(json.dumps(seen))
"""


@pytest.fixture(scope="module")
def dataset(picture_store, tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("lerobot") / "dataset"
    export_lerobot(picture_store, root, LeRobotSettings(images="png"), workers=0)
    return root


@pytest.fixture(scope="module")
def progress(picture_store) -> dict[str, np.ndarray]:
    """Progress with pauses and steps back, so that weights differ."""
    random = np.random.default_rng(0)
    found = {}
    for uuid, length in picture_store.lengths.items():
        steps = random.choice([-0.5, 0, 1], length, p=[0.3, 0.2, 0.5]).cumsum()
        found[uuid] = ((steps - steps.min()) / np.ptp(steps)).astype(np.float32)
    return found


def trained(dataset: Path, out: Path, weighting: dict[str, object]) -> dict[str, list]:
    program = PROGRAM.format(root=str(dataset), out=str(out), chunk=CHUNK, weighting=weighting)
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=False, timeout=280
    )
    assert done.returncode == 0, done.stderr[-3000:]
    seen: dict[str, list] = json.loads((out / "seen.json").read_text())
    return seen


@pytest.mark.parametrize("kind", ["progress", "weights"])
def test_its_loss_falls_and_its_weights_are_those_computed_here(kind, picture_store, dataset, progress, tmp_path):
    if kind == "progress":
        write_lerobot_progress(picture_store, dataset, progress)
        weighting: dict[str, object] = {}
        wanted = store_weights(progress, CHUNK, "paper").weights
    else:
        wanted = {uuid: one.copy() for uuid, one in store_weights(progress, CHUNK).weights.items()}
        file = write_lerobot_weights(picture_store, dataset, wanted, CHUNK, "weights")
        weighting = {"progress_path": str(file), "kappa": 1.0}
        for one in wanted.values():
            one[-1] = 0
    seen = trained(dataset, tmp_path, weighting)
    assert np.mean(seen["losses"][-8:]) < 0.8 * np.mean(seen["losses"][:4])
    flat = np.concatenate(list(wanted.values()))
    assert len(np.unique(flat)) > 2
    for index, weights in zip(seen["index"], seen["weights"], strict=True):
        expected = flat[index] * len(index) / flat[index].sum()
        np.testing.assert_allclose(weights, expected, atol=1e-4)
