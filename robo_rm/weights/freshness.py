"""Whether weights in a store still belong to what they were made from: outcomes, stages, episodes, and the model."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from robo_core.errors import ModelError
from robo_rm.weights.options import Calibration

if TYPE_CHECKING:
    from robo_datasets import DemoStore

MADE_FROM = "made_from"


def model_hash(folder: str | os.PathLike[str]) -> str:
    """SHA-256 over the names and bytes of a model folder's weights and settings, whatever kind of model it is.

    Raises:
        ModelError: there is nothing of the kind in the folder.
    """
    root = Path(folder)
    names = ("*.safetensors", "config.yaml", "config.json", "calibration.json")
    files = sorted(path for name in names for path in root.glob(name))
    if not files:
        raise ModelError(f"{root} holds no reward model; train one with robo-rm train-reward out={root}")
    total = hashlib.sha256()
    for path in files:
        total.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()


def made_from(store: DemoStore, uuids: Iterable[str]) -> dict[str, str]:
    """By UUID, what the weights of an episode depend on: "<content> <outcome> <stages>"."""
    found = {}
    for uuid in uuids:
        episode = store.episode(uuid)
        stages = hashlib.blake2b(np.asarray(episode.stage, "<i2").tobytes(), digest_size=6).hexdigest()
        found[uuid] = f"{episode.entry.commit[:12]} {episode.success} {stages}"
    return found


def what_changed(store: DemoStore, provenance: Mapping[str, Any]) -> str:
    """What is not any more as it was when weights of this provenance were made, in words; empty where all is.

    Weights that came from somewhere else say nothing of it and are taken as they are.
    """
    changes = [_model_changed(provenance.get("model"))]
    recorded = provenance.get(MADE_FROM)
    if not isinstance(recorded, Mapping):
        if provenance.get("store_hash", "") not in ("", store.content_hash()):
            changes.append("the store changed")
        return "; ".join(filter(None, changes))
    now = made_from(store, store.uuids)
    if not now.keys() & recorded.keys():
        return ""  # of another store altogether, which is reported where they are read
    for place, what in enumerate(("the content", "the outcome", "the stage labels")):
        both = [
            (uuid, recorded[uuid].split(" ")[place], now[uuid].split(" ")[place]) for uuid in now if uuid in recorded
        ]
        changes.append(_said([uuid for uuid, before, after in both if before != after], what))
    added, removed = [uuid for uuid in now if uuid not in recorded], [uuid for uuid in recorded if uuid not in now]
    if added:
        changes.append(f"{len(added)} episode(s) were added, the first {added[0]}")
    if removed:
        changes.append(f"{len(removed)} episode(s) were removed")
    return "; ".join(filter(None, changes))


def _said(changed: list[str], what: str) -> str:
    return f"{what} of {len(changed)} episode(s) changed, the first {changed[0]}" if changed else ""


def _model_changed(model: Any) -> str:
    """Whether the model folder that the weights came from holds another model now; one that has gone says nothing."""
    if not isinstance(model, Mapping) or not Path(str(model.get("folder"))).is_dir():
        return ""
    try:
        same = model_hash(str(model["folder"])) == model.get("sha256")
    except ModelError:
        return ""
    return "" if same else f"the model in {model['folder']} was trained or calibrated again"


def score_command(store: DemoStore, name: str, provenance: Mapping[str, Any]) -> str:
    """The command that makes weights of this provenance again."""
    source = provenance.get("progress") or {}
    model = provenance.get("model") or {}
    by = f"progress_key={source['key']}" if source.get("key") else f"model={model.get('folder', 'MODEL')}"
    words = ["robo-rm score", by, f"store={store.path}"]
    if model.get("head"):
        words.append(f"head={model['head']}")
    if name != "weights":
        words.append(f"name={name}")
    if provenance.get("mode", "calibrated") != "calibrated":
        words.append(f"mode={provenance['mode']}")
    if provenance.get("horizon"):
        words.append(f"horizon={provenance['horizon']}")
    usual = Calibration()
    for key, value in (provenance.get("calibration") or {}).items():
        if getattr(usual, key, value) != value:
            words.append(f"calibration.{key}={'null' if value is None else str(value).lower()}")
    return " ".join(words)
