"""The folder a command writes its results to: the resolved settings, flat metrics, images.

Written whole or not at all: each file is written beside its place and moved there. A folder that holds somebody else's
files is refused, and a place that cannot be written to is found out before any work: the command line asks
`check_output` of every command that has ``out``.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import is_dataclass
from pathlib import Path
from typing import cast

import yaml

from robo_core.console import say
from robo_core.errors import ConfigError


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


CONFIG, METRICS = "config.yaml", "metrics.json"
MARKER = ".robo-rm"
"""Stands in an output folder from the beginning of work that writes config.yaml last."""


REWARD_MODEL, POLICY, RL_POLICY = "reward model", "policy", "RL policy"
"""What a training leaves in its folder."""


def check_output(folder: str | os.PathLike[str], holds: str = "") -> None:
    """Check that a command may write its results to ``folder``, there or not yet; leaves nothing behind.

    Args:
        folder: the place.
        holds: what the command trains there, one of `REWARD_MODEL`, `POLICY`, `RL_POLICY`; empty for one that trains
            nothing.

    Raises:
        ConfigError: the place is a file, lies in a store (for one that trains: in a model's folder), holds what no
            command of ours wrote or a model that the command would write over, or cannot be written to.
    """
    place = Path(folder)
    made: list[Path] = []
    try:
        if place.exists() and not place.is_dir():
            raise ConfigError(f"out={place} is a file; give a folder")
        _refuse_store(place)
        if holds:
            _refuse_inside_model(place)
        if place.is_dir():
            _refuse_foreign(place)
            _refuse_model(place, holds)
        else:
            made = [path for path in (place, *place.parents) if not path.exists()]
            place.mkdir(parents=True)
        _probe(place)
    except (OSError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        # A path with a null byte is a ValueError.
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ConfigError(f"out={place} cannot be written to: {reason}; give another folder") from error
    finally:
        for path in made:
            if path.is_dir() and not any(path.iterdir()):
                path.rmdir()


def _refuse_foreign(place: Path) -> None:
    """Raise ConfigError where a folder holds files and none of those by which ours are known."""
    names = sorted(path.name for path in place.iterdir())
    shown = [name for name in names if not name.startswith(".")]
    if not shown or _is_ours(place):
        return
    # Work in several parts, such as the members of an ensemble, has a folder of ours for each.
    if all(_is_ours(place / name) for name in shown):
        return
    listed = ", ".join(shown[:4]) + (", ..." if len(shown) > 4 else "")
    raise ConfigError(
        f"out={place} holds {listed}, which no robo-rm command wrote there; give a folder that does not exist yet or "
        "is empty"
    )


def _refuse_store(place: Path) -> None:
    """Raise ConfigError inside a demo store, which holds episodes and what is computed of them and nothing else."""
    for folder in place.resolve().parents:
        if (folder / "zarr.json").is_file() and (folder / "index.json").is_file() and (folder / "episodes").is_dir():
            raise ConfigError(f"out={place} lies inside the demo store {folder}; give a folder outside of it")


def _refuse_inside_model(place: Path) -> None:
    """Raise ConfigError inside a model's folder, which is copied, loaded and removed as one thing."""
    for folder in place.resolve().parents:
        if found := _model_in(folder):
            article = "an" if found == RL_POLICY else "a"
            raise ConfigError(f"out={place} lies inside {folder}, {article} {found}; give a folder beside it")


def _refuse_model(place: Path, holds: str) -> None:
    """Raise ConfigError where a model stands whose config.yaml and metrics.json another command would replace."""
    found = _model_in(place)
    if found and found != holds:
        article = "an" if found == RL_POLICY else "a"
        raise ConfigError(f"out={place} holds {article} {found}, which this would write over; give another folder")


def _model_in(place: Path) -> str:
    if (place / "rl_policy.json").exists():
        return RL_POLICY
    if (place / "config.json").exists() and any(place.glob("*.safetensors")):
        return POLICY
    model = _settings_in(place).get("model")
    return REWARD_MODEL if isinstance(model, dict) and str(model.get("format", "")).startswith("robo") else ""


def _settings_in(folder: Path) -> dict[str, object]:
    """What config.yaml holds; empty where there is none or it is no mapping."""
    try:
        settings = yaml.safe_load((folder / CONFIG).read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return {}
    return settings if isinstance(settings, dict) else {}


def _is_ours(folder: Path) -> bool:
    """Whether a folder has our marker, or a config.yaml of a command (all have ``out``) or of a saved model."""
    if (folder / MARKER).exists():
        return True
    settings = _settings_in(folder)
    return bool(settings) and ("out" in settings or bool(_model_in(folder)) or (folder / METRICS).exists())


def _probe(place: Path) -> None:
    probe = place / f".probe.{os.getpid()}.{os.urandom(4).hex()}"
    try:
        with open(probe, "xb") as file:
            file.write(b"\0")
    finally:
        probe.unlink(missing_ok=True)


class OutputFolder:
    """A command's ``out=DIR``. Make it only after every input has been validated: it writes at once.

    Writes ``config.yaml``, the resolved settings, where ``config`` is given, and else a marker by which the folder is
    known as ours when the same command comes again.

    Raises:
        ConfigError: ``folder`` is empty, or see `check_output`, whose ``holds`` this takes.
    """

    def __init__(self, folder: str | os.PathLike[str], config: object = None, holds: str = "") -> None:
        if not str(folder):
            raise ConfigError("out is empty; give the folder to write to, for example out=results")
        self.folder = Path(folder)
        check_output(self.folder, holds)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if config is not None:
                self.write_config(config)
            if (self.folder / CONFIG).exists():
                (self.folder / MARKER).unlink(missing_ok=True)
            else:
                (self.folder / MARKER).touch()
        except OSError as error:
            raise ConfigError(f"out={self.folder} cannot be written to: {error.strerror}") from error

    def path(self, name: str) -> Path:
        """The path of a file called ``name`` in this folder."""
        return self.folder / name

    def write_config(self, config: object) -> None:
        """Write the resolved settings (a dataclass or a mapping) as ``config.yaml``."""
        from omegaconf import OmegaConf

        node = (
            OmegaConf.structured(config) if is_dataclass(config) else OmegaConf.create(cast(dict[str, object], config))
        )
        write_atomically(self.path(CONFIG), OmegaConf.to_yaml(node, resolve=True))

    def write_metrics(self, metrics: Mapping[str, object]) -> None:
        """Write flat metrics as ``metrics.json``; NaN and infinities become null, which JSON can hold."""
        clean = {key: _plain(value) for key, value in metrics.items()}
        write_atomically(self.path(METRICS), json.dumps(clean, indent=1, sort_keys=True) + "\n")

    def announce(self) -> None:
        """Tell the user where the results stand."""
        say(f"wrote {self.folder}/")


def _plain(value: object) -> object:
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
