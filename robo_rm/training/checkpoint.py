"""The checkpoint file of a training: tensors and a note of plain JSON in one safetensors file, written atomically."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import safetensors
import safetensors.torch
import torch

from robo_core.errors import ModelError
from robo_core.outputs import write_atomically

VERSION = 2


def write_checkpoint(path: Path, tensors: Mapping[str, torch.Tensor], note: Mapping[str, object]) -> None:
    """Write both, whole or not at all."""
    plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    write_atomically(path, safetensors.torch.save(plain, {"note": json.dumps({"version": VERSION, **note})}))


def read_note(path: Path) -> dict[str, object]:
    """The note of a checkpoint.

    Raises:
        ModelError: the file is damaged, or of another version.
    """
    try:
        with safetensors.safe_open(path, "pt") as file:
            note = json.loads((file.metadata() or {}).get("note", "{}"))
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise ModelError(f"{path} is damaged ({error}); remove it to train again") from error
    if not isinstance(note, dict) or note.get("version") != VERSION:
        raise ModelError(f"{path} is not a checkpoint of version {VERSION}; remove it to train again")
    return note


def read_tensors(path: Path, device: str) -> dict[str, torch.Tensor]:
    """The tensors of a checkpoint.

    Raises:
        ModelError: the file is damaged.
    """
    try:
        with safetensors.safe_open(path, "pt", device=device) as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except (safetensors.SafetensorError, OSError) as error:
        raise ModelError(f"{path} is damaged ({error}); remove it to train again") from error


def under(tensors: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    """Those whose name begins with ``prefix``, without it."""
    return {name[len(prefix) :]: value for name, value in tensors.items() if name.startswith(prefix)}
