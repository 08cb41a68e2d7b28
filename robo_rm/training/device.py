"""Where a training computes: the device, its precision, its random numbers, and the processes that share the work."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import torch

from robo_core.errors import ConfigError


def pick_device(name: str) -> str:
    """``auto`` becomes cuda where there is one and cpu elsewhere; anything else must exist.

    Of several processes on one machine (``accelerate launch``, ``torchrun``) each takes a GPU of its own.

    Raises:
        ConfigError: an unknown device, or cuda without a GPU.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"device={name} is not known; use auto, cpu or cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device=cuda, but PyTorch finds no GPU here; use device=auto")
    device = "cuda" if name != "cpu" and torch.cuda.is_available() else "cpu"
    if process_count() > 1:
        from accelerate import PartialState

        # Each process takes a device and finds the others.
        PartialState(cpu=device == "cpu")
    return device


def process_count() -> int:
    """Processes that train one model together, each on batches of its own."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def process_index() -> int:
    """Which of them this is."""
    return int(os.environ.get("RANK", "0"))


def wait_for_all() -> None:
    """Wait until all of them are here."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()


@contextmanager
def first_process_first() -> Iterator[None]:
    """The first process goes through the block before the others, which find what it wrote."""
    first = process_index() == 0
    if not first:
        wait_for_all()
    yield
    if first:
        wait_for_all()


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
