"""The folder of a policy: its card and the checksums of LeRobot's files.

Beside LeRobot's own files stands ``robo_policy.json``: what the policy was trained on, how it is to be executed, and a
checksum of each of LeRobot's files.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from robo_core.errors import ModelError
from robo_core.outputs import write_atomically

CARD = "robo_policy.json"
FORMAT = 1


def policy_files(folder: Path) -> list[Path]:
    """The files of LeRobot's that make up the policy in ``folder``."""
    names = ("config.json", "model.safetensors", "policy_preprocessor*", "policy_postprocessor*")
    return sorted(path for name in names for path in folder.glob(name))


def write_card(folder: Path, card: Mapping[str, Any]) -> None:
    """Write ``robo_policy.json``, last of all, with the SHA-256 of each of LeRobot's files."""
    files = {path.name: _sha256(path) for path in policy_files(folder)}
    write_atomically(folder / CARD, json.dumps({"format": FORMAT, **card, "files": files}, indent=1) + "\n")


def read_card(folder: Path) -> dict[str, Any] | None:
    """What ``robo_policy.json`` says, or None where there is none (a folder that LeRobot wrote).

    Raises:
        ModelError: the card is damaged or of a newer format, or a file does not match its checksum.
    """
    path = folder / CARD
    if not path.exists():
        return None
    try:
        card = json.loads(path.read_text())
    except ValueError as error:
        raise ModelError(f"{path} is damaged: {error}") from error
    if not isinstance(card, dict) or card.get("format") != FORMAT:
        raise ModelError(f"{path} is not of format {FORMAT}, which this version reads")
    for name, expected in card.get("files", {}).items():
        if not (folder / name).is_file():
            raise ModelError(f"{folder} lacks {name}; the policy was copied or saved only in part")
        if _sha256(folder / name) != expected:
            raise ModelError(f"{folder / name} does not match its checksum; the file was changed or damaged")
    return card


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
