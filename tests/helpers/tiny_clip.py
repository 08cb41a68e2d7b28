"""A CLIP of transformers with random weights, small enough for a test, written to a folder as the hub has them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch


def make_clip(folder: Path, sentences: Sequence[str], seed: int = 0) -> Path:
    """Write model and tokenizer; the vocabulary knows the letters and words of ``sentences``."""
    from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

    folder.mkdir(parents=True, exist_ok=True)
    letters = sorted({letter for sentence in sentences for letter in sentence.replace(" ", "")})
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({token: number for number, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt")).save_pretrained(folder)
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    ends = {"bos_token_id": len(tokens) - 2, "eos_token_id": len(tokens) - 1, "pad_token_id": len(tokens) - 1}
    config = CLIPConfig(
        text_config={**shape, **ends, "vocab_size": len(tokens), "max_position_embeddings": 48},
        vision_config={**shape, "image_size": 32, "patch_size": 16},
        projection_dim=8,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        CLIPModel(config).save_pretrained(folder)
    return folder
