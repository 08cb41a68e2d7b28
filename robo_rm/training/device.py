"""Where a training computes: the device, its precision, its random numbers, and the processes that share the work."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import torch

from robo_datasets.errors import ConfigError


def pick_device(name: str) -> str:
    """``auto`` becomes cuda where there is one and cpu elsewhere; anything else must exist.

    Of several processes on one machine (``accelerate launch``, ``torchrun``) each takes a GPU of its own.

    Raises:
        ConfigError: an unknown device, or cuda without a GPU.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"device={name}: auto, cpu or cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device=cuda, but PyTorch finds no GPU here; use device=auto")
    if name == "cpu" or not torch.cuda.is_available():
        return "cpu"
    if "LOCAL_RANK" in os.environ:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    return "cuda"


def process_count() -> int:
    """Processes that train one model together, each on batches of its own."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def process_index() -> int:
    """Which of them this is."""
    return int(os.environ.get("RANK", "0"))


@cache
def computes_bf16(device: str) -> bool:
    """Whether bfloat16 is computed in hardware there; emulated, it is slower than float32."""
    if device != "cpu":
        return torch.cuda.is_bf16_supported()
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def autocast(device: str, bf16: bool) -> torch.autocast:
    """Forward passes inside compute in bfloat16, or (``bf16`` false) as they are."""
    return torch.autocast(device, torch.bfloat16, enabled=bf16)


@contextmanager
def own_random_numbers(device: str) -> Iterator[None]:
    """Leave the caller's torch random numbers as they were."""
    with torch.random.fork_rng(devices=[torch.cuda.current_device()] if device == "cuda" else []):
        yield
