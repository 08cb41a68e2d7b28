"""Tiny encoders of random weights, saved as the library saves them, for tests without a network."""

from __future__ import annotations

import json
from pathlib import Path

import torch

WORDS = ["move", "the", "square", "open", "drawer"]


def save_clip(folder: Path, seed: int = 0) -> Path:
    """A CLIP of two layers with a tokenizer of a few words; reads images of 32 x 32."""
    from transformers import CLIPConfig, CLIPModel

    small = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    small["projection_dim"] = 24
    torch.manual_seed(seed)
    config = CLIPConfig(
        vision_config={**small, "image_size": 32, "patch_size": 8},
        text_config={**small, "vocab_size": 32, "max_position_embeddings": 16, "eos_token_id": 1, "bos_token_id": 0},
        projection_dim=24,
    )
    CLIPModel(config).save_pretrained(folder)
    save_tokenizer(folder)
    return folder


def save_siglip(folder: Path) -> Path:
    """A SigLIP of one layer."""
    from transformers import SiglipConfig, SiglipModel

    small = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2}
    torch.manual_seed(0)
    config = SiglipConfig(
        vision_config={**small, "image_size": 32, "patch_size": 8},
        text_config={**small, "vocab_size": 32, "max_position_embeddings": 16},
    )
    SiglipModel(config).save_pretrained(folder)
    return folder


def save_dinov2(folder: Path) -> Path:
    """A DINOv2 of one layer."""
    from transformers import Dinov2Config, Dinov2Model

    torch.manual_seed(0)
    config = Dinov2Config(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, mlp_ratio=2, image_size=28, patch_size=14
    )
    Dinov2Model(config).save_pretrained(folder)
    return folder


def save_tokenizer(folder: Path) -> None:
    """A tokenizer of whole words with a beginning and an end."""
    vocabulary = {"<s>": 0, "</s>": 1, "<unk>": 2, **{word: 3 + place for place, word in enumerate(WORDS)}}
    tokenizer = {
        "version": "1.0",
        "added_tokens": [],
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [
                {"SpecialToken": {"id": "<s>", "type_id": 0}},
                {"Sequence": {"id": "A", "type_id": 0}},
                {"SpecialToken": {"id": "</s>", "type_id": 0}},
            ],
            "pair": [],
            "special_tokens": {
                name: {"id": name, "ids": [number], "tokens": [name]} for name, number in (("<s>", 0), ("</s>", 1))
            },
        },
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "<unk>"},
    }
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    (folder / "tokenizer_config.json").write_text(
        json.dumps(
            {
                "tokenizer_class": "PreTrainedTokenizerFast",
                "bos_token": "<s>",
                "eos_token": "</s>",
                "unk_token": "<unk>",
                "pad_token": "</s>",
                "model_max_length": 16,
            }
        )
    )
