"""A saved reward model is a folder that holds no pickle:

config.yaml           `model`: format, version, kind, settings, checksum of the weights
model.safetensors     the weights
provenance.json       where it came from: episodes trained on and held out, store, priors, code version
card.md               the same for people
calibration.json      only where `robo-rm calibrate` has run
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast, get_origin, get_type_hints

from robo_core.errors import ModelError
from robo_core.outputs import MARKER, write_atomically
from robo_rm.reward_models.calibration import CalibratedModel, read_calibration
from robo_rm.reward_models.files import CALIBRATION, CARD, CONFIG, PROVENANCE, WEIGHTS
from robo_rm.reward_models.protocol import RewardModel

if TYPE_CHECKING:
    import torch

FORMAT = "robo-rm reward model"
VERSION = 1
Described = TypeVar("Described")


def load_reward_model(folder: str | os.PathLike[str], device: str = "auto") -> RewardModel:
    """Load a saved reward model of any installed kind; ``device`` is auto, cpu or cuda.

    Raises:
        ModelError: there is no model in the folder, it is damaged, of another program, or of a newer version.
    """
    from robo_rm.reward_models.registry import reward_kind, reward_kinds

    root = Path(folder)
    described = _read_config(root)
    name = described.get("kind")
    if not isinstance(name, str) or name not in reward_kinds():
        raise ModelError(
            f"{root} holds a reward model of the unknown kind {name!r}; known: {', '.join(reward_kinds())}. "
            "A kind of another package is known where that package is installed"
        )
    if hashlib.sha256(_read(root / WEIGHTS)).hexdigest() != described.get("weights_sha256"):
        raise ModelError(f"{root / WEIGHTS} is damaged or half written: its checksum is not the one in {CONFIG}")
    provenance = read_provenance(root)
    description = {key: value for key, value in described.items() if key not in _HEADER}
    model = reward_kind(name).load(root, description, provenance, device)
    calibration = read_calibration(root, str(described["weights_sha256"]))
    return model if calibration is None else CalibratedModel(model, calibration)


def save_model_folder(
    folder: str | os.PathLike[str],
    *,
    kind: str,
    description: Mapping[str, Any],
    tensors: Mapping[str, torch.Tensor],
    provenance: Mapping[str, Any],
    card: str,
    settings: Mapping[str, Any] | None = None,
) -> None:
    """Write a model folder; each file is whole or not there, and config.yaml comes last.

    Args:
        folder: where to.
        kind: name of the kind in the registry.
        description: what, besides the weights, makes the model: plain values that YAML can hold; the kind's ``load``
            gets them back.
        tensors: the weights; may be empty.
        provenance: plain values that JSON can hold.
        card: Markdown for people.
        settings: further sections of config.yaml, such as the command's.
    """
    import safetensors.torch
    import yaml

    root = Path(folder)
    raw = safetensors.torch.save({name: tensor.cpu().contiguous() for name, tensor in tensors.items()})
    described = {
        "format": FORMAT,
        "version": VERSION,
        "kind": kind,
        "weights_sha256": hashlib.sha256(raw).hexdigest(),
        **_plain(dict(description)),
    }
    config = yaml.safe_dump({**_plain(dict(settings or {})), "model": described}, sort_keys=False, allow_unicode=True)
    root.mkdir(parents=True, exist_ok=True)
    # A calibration that is left in the folder belongs to the model before.
    (root / CALIBRATION).unlink(missing_ok=True)
    write_atomically(root / WEIGHTS, raw)
    write_atomically(root / PROVENANCE, json.dumps(dict(provenance), indent=1, ensure_ascii=False) + "\n")
    write_atomically(root / CARD, card)
    write_atomically(root / CONFIG, config)
    (root / MARKER).unlink(missing_ok=True)


def _read_config(root: Path) -> dict[str, Any]:
    import yaml

    path = root / CONFIG
    if not root.is_dir():
        raise ModelError(f"there is no model folder at {root}; train one with robo-rm train-reward out={root}")
    if not path.exists():
        raise ModelError(
            f"{root} holds no reward model of robo-rm ({CONFIG} is missing); is it another program's folder, or was "
            "its training interrupted? The same robo-rm train-reward goes on with it"
        )
    try:
        config = yaml.safe_load(_read(path))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ModelError(f"{path} is damaged: it is not YAML ({str(error).splitlines()[0]})") from error
    described = config.get("model") if isinstance(config, dict) else None
    if not isinstance(described, dict) or described.get("format") != FORMAT:
        raise ModelError(f"{path} does not describe a reward model of robo-rm; was its training interrupted?")
    version = described.get("version")
    if not isinstance(version, int) or version < 1:
        raise ModelError(f"{path} is damaged: version {version!r}")
    if version > VERSION:
        raise ModelError(f"{root} was written by a newer robo-rm (model version {version}, known {VERSION}); upgrade")
    return described


def read_provenance(root: Path) -> dict[str, Any]:
    """Where the model in a folder came from.

    Raises:
        ModelError: the file is missing or damaged.
    """
    try:
        provenance = json.loads(_read(root / PROVENANCE))
    except ValueError as error:
        raise ModelError(f"{root / PROVENANCE} is damaged: it is not JSON") from error
    if not isinstance(provenance, dict):
        raise ModelError(f"{root / PROVENANCE} is damaged: it is not a JSON object")
    return provenance


def built(kind: type[Described], values: Mapping[str, Any], folder: Path) -> Described:
    """The description of a model, a dataclass, from what config.yaml says; nested dataclasses are built too.

    Raises:
        ModelError: a key is missing, unknown or of a wrong type; names it and the file.
    """
    try:
        return cast(Described, _build(kind, dict(values)))
    except (TypeError, ValueError) as error:
        raise ModelError(f"{folder / CONFIG} is damaged: {error}") from error


_HEADER = ("format", "version", "kind", "weights_sha256")
_NUMBERS = {float: (int, float), int: (int,), str: (str,), bool: (bool,)}


def _build(kind: type, values: Any, where: str = "model") -> Any:
    """An instance of a dataclass from plain values; TypeError names the key that is missing, unknown or of a wrong
    type. A key with a default may be missing: it came after the folder was written."""
    if not isinstance(values, dict):
        raise TypeError(f"{where} is not a mapping")
    hints = get_type_hints(kind)
    mandatory = {f.name for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING}
    unknown, missing = set(values) - set(hints), mandatory - set(values)
    if unknown or missing:
        raise TypeError(f"{where} has the unknown keys {sorted(unknown)} and lacks {sorted(missing)}")
    built = {}
    for name, hint in hints.items():
        if name not in values:
            continue
        value = values[name]
        if is_dataclass(hint):
            value = _build(cast(type, hint), value, f"{where}.{name}")
        elif hint in _NUMBERS and not isinstance(value, _NUMBERS[hint]):
            raise TypeError(f"{where}.{name} is {value!r}, expected {hint.__name__}")
        elif get_origin(hint) in (list, dict) and not isinstance(value, get_origin(hint)):
            raise TypeError(f"{where}.{name} is {value!r}, expected {hint}")
        built[name] = value
    return kind(**built)


def read_tensors(folder: Path) -> dict[str, torch.Tensor]:
    """The tensors of a saved model, on the CPU.

    Raises:
        ModelError: the file is missing or damaged.
    """
    import safetensors
    import safetensors.torch

    path = folder / WEIGHTS
    try:
        return dict(safetensors.torch.load(_read(path)))
    except safetensors.SafetensorError as error:
        raise ModelError(f"{path} is damaged: {error}") from error


def fill_weights(network: torch.nn.Module, folder: Path) -> None:
    """Give a network the weights of a saved model.

    Raises:
        ModelError: the file is missing or damaged, or a tensor is missing, unknown or of another shape; names it.
    """
    tensors = read_tensors(folder)
    expected = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            raise ModelError(
                f"{folder / WEIGHTS} does not fit {CONFIG}: tensor {name} is {found.get(name)}, "
                f"expected {expected.get(name)}"
            )
    network.load_state_dict(tensors)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from error


def _plain(value: Any) -> Any:
    """Tuples as lists, which YAML can hold."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
