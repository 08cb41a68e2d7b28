"""The folder a verb writes its results to: the resolved settings, flat metrics, pictures.

Written whole or not at all: each file is written beside its place and moved there.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

from robo_datasets.console import say
from robo_datasets.errors import ConfigError


def write_atomically(path: Path, data: str | bytes) -> None:
    """Write ``data`` to ``path`` so that a reader sees the old content or the new, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    raw = data.encode() if isinstance(data, str) else data
    with open(temporary, "wb") as file:
        file.write(raw)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


class OutputFolder:
    """A verb's ``out=DIR``. Make it only after every input has been validated: it writes at once.

    Writes ``config.yaml``, the resolved settings, where ``config`` is given.

    Raises:
        ConfigError: ``folder`` is empty, is a file, or cannot be made.
    """

    def __init__(self, folder: str | os.PathLike[str], config: Any = None) -> None:
        if not str(folder):
            raise ConfigError("out is empty; give the folder to write to, for example out=results")
        self.folder = Path(folder)
        if self.folder.exists() and not self.folder.is_dir():
            raise ConfigError(f"out={self.folder} is a file; give a folder")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"out={self.folder} cannot be made: {error.strerror}") from error
        if config is not None:
            self.write_config(config)

    def path(self, name: str) -> Path:
        """The path of a file called ``name`` in this folder."""
        return self.folder / name

    def write_config(self, config: Any) -> None:
        """Write the resolved settings (a dataclass or a mapping) as ``config.yaml``."""
        from omegaconf import OmegaConf

        node = OmegaConf.structured(config) if is_dataclass(config) else OmegaConf.create(config)
        write_atomically(self.path("config.yaml"), OmegaConf.to_yaml(node, resolve=True))

    def write_metrics(self, metrics: Mapping[str, Any]) -> None:
        """Write flat metrics as ``metrics.json``; NaN and infinities become null, which JSON can hold."""
        clean = {key: _plain(value) for key, value in metrics.items()}
        write_atomically(self.path("metrics.json"), json.dumps(clean, indent=1, sort_keys=True) + "\n")

    def announce(self) -> None:
        """Tell the user where the results stand."""
        say(f"wrote {self.folder}/")


def _plain(value: Any) -> Any:
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
