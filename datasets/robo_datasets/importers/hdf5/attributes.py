"""What HDF5 demonstrations say of themselves, each family in its own place: instruction, outcome, rate.

robosuite, robomimic   data.attrs["env_args"]: env_name, env_kwargs.control_freq, .robots, .reward_shaping
RoboCasa, MimicGen     data/demo_N.attrs["ep_meta"] (or ep_info): lang
LIBERO                 data.attrs["problem_info"]: language_instruction
Isaac Lab              data/demo_N.attrs["success"]; env_args: sim_args.dt and .decimation, or data.attrs["fps"]
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import cast

import h5py
import numpy as np

from robo_core.errors import ImportSourceError
from robo_datasets.store.features import is_positive

_LANGUAGE_KEYS = ("lang", "language_instruction", "language", "instruction", "task_description", "env_lang", "task")
# Words of an attribute that are kept; longer ones are documents, such as a simulator's model.
_LONGEST = 300
# Members of a demonstration that say again what others say.
_SAID_ELSEWHERE = ("obs", "next_obs", "initial_state")
_EPISODE_DOCUMENTS = ("ep_meta", "ep_info")


def attributes_of(node: h5py.HLObject, path: Path) -> dict[str, object]:
    """Attributes as plain values; those that cannot be read are left out.

    Raises:
        ImportSourceError: the list of attributes is damaged.
    """
    found = {}
    try:
        names = list(node.attrs)
    except (OSError, RuntimeError) as error:
        raise ImportSourceError(f"{path}: the attributes of {node.name} are damaged: {error}") from error
    for name in names:
        try:
            value = node.attrs[name]
        except (OSError, RuntimeError, TypeError, ValueError):
            continue
        if isinstance(value, bytes | np.bytes_):
            value = bytes(value).decode(errors="replace")
        elif isinstance(value, np.generic):
            value = value.item()
        found[name] = value
    return found


def environment_of(data: h5py.Group, path: Path) -> dict[str, object]:
    """The document env_args; empty where there is none.

    Raises:
        ImportSourceError: it is not JSON.
    """
    text = attributes_of(data, path).get("env_args")
    try:
        found = {} if text is None else json.loads(cast(str, text))
    except (ValueError, TypeError, RecursionError) as error:
        raise ImportSourceError(f"{path}: the attribute env_args of data is not JSON: {error}") from error
    return found if isinstance(found, dict) else {}


def instruction_in(attributes: Mapping[str, object]) -> str:
    """The instruction among attributes (of a demonstration, of ``data``, of the file); empty where there is none."""
    for name in _EPISODE_DOCUMENTS:
        found = _language(_document(attributes.get(name)))
        if found:
            return found
    found = _language(_document(attributes.get("problem_info")))
    if found:
        return found
    environment = _document(attributes.get("env_args"))
    inner = environment.get("env_kwargs")
    return (
        _language(attributes)
        or _language({key: value for key, value in environment.items() if key != "task"})
        or _language(inner if isinstance(inner, dict) else {}, ("lang", "language_instruction", "env_lang"))
    )


def instruction_beside(demo: h5py.Group) -> str:
    """The instruction in an array of text of a demonstration, of its first frame; empty where there is none."""
    for name in _LANGUAGE_KEYS:
        try:
            value = np.asarray(demo[name][()]).ravel() if name in demo else np.array([])
        except (OSError, RuntimeError, TypeError, ValueError, KeyError, AttributeError):
            continue
        first = value[0] if len(value) else ""
        text = first.decode(errors="replace") if isinstance(first, bytes) else first
        if isinstance(text, str) and text.strip():
            return text.strip()
    return ""


def plain_notes(attributes: Mapping[str, object]) -> dict[str, object]:
    """Attributes of a demonstration that somebody noted: words and numbers that have no meaning elsewhere."""
    read = {*_LANGUAGE_KEYS, *_EPISODE_DOCUMENTS, "success", "num_samples", "total", "problem_info", "env_args"}
    return {
        name: value
        for name, value in attributes.items()
        if name not in read
        and ((isinstance(value, str) and 0 < len(value) <= _LONGEST) or isinstance(value, bool | int | float))
        and not (isinstance(value, float) and not math.isfinite(value))
    }


def unread_members(demo: h5py.Group, read: Iterable[str]) -> str:
    """What to report of members of a demonstration for which there is no rule; empty where there are none."""
    left = sorted(set(demo) - {*read, *_LANGUAGE_KEYS, *_SAID_ELSEWHERE})
    return f"{', '.join(left)} of the demonstrations were left out: no rule says what they are" if left else ""


def is_libero(attributes: Mapping[str, object]) -> bool:
    """Whether a file comes from LIBERO, whose images are stored as its renderer gives them."""
    return "problem_info" in attributes or "bddl_file_name" in attributes or "bddl_file_content" in attributes


def outcome_in(attributes: Mapping[str, object]) -> bool | None:
    """The attribute ``success`` of a demonstration; None where there is none, or it is no yes or no."""
    value = attributes.get("success")
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.ravel()[0].item()
    if isinstance(value, bool):
        return value
    if isinstance(value, int | float) and value in (0, 1):
        return bool(value)
    return {"true": True, "false": False}.get(str(value).strip().lower())


def sparse_outcome(rewards: np.ndarray) -> bool | None:
    """Whether a sparse reward, 0 but for 1 (or more) on success, was reached; None for rewards of another kind."""
    values = np.unique(rewards[np.isfinite(rewards)]) if rewards.dtype.kind == "f" else np.unique(rewards)
    if not len(values) or len(values) > 2 or not all(value == 0 or value >= 1 for value in values):
        return None
    return bool((values >= 1).any())


def rate_in(
    given: float | None, environment: Mapping[str, object], attributes: Mapping[str, object], path: Path
) -> float:
    """Frames per second: as given, or as the file says.

    Raises:
        ImportSourceError: neither is there.
    """
    kwargs, simulation = environment.get("env_kwargs"), environment.get("sim_args")
    places = [place for place in (simulation, environment) if isinstance(place, dict)]
    candidates: list[object] = [given, attributes.get("fps")]
    candidates.append(kwargs.get("control_freq") if isinstance(kwargs, dict) else None)
    for place in places:
        step, decimation = place.get("dt"), place.get("decimation", 1)
        if is_positive(step) and is_positive(decimation):
            candidates.append(round(1 / (step * decimation), 6))
    rate = next(filter(is_positive, candidates), None)
    if rate is None or not 0 < rate < 1e6:
        raise ImportSourceError(f"{path} does not say how many frames per second it has; give, say, fps=20")
    return float(rate)


def _document(text: object) -> dict[str, object]:
    if not isinstance(text, str):
        return {}
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _language(fields: Mapping[str, object], keys: tuple[str, ...] = _LANGUAGE_KEYS) -> str:
    for key in keys:
        value = fields.get(key)
        if isinstance(value, np.ndarray):
            value = value.tolist()
        if isinstance(value, list) and value and all(isinstance(part, str) for part in value):
            # LIBERO's own reader joins the letters of a list.
            value = "".join(value) if all(len(part) == 1 for part in value) else value[0]
        if isinstance(value, str) and value.strip().strip('"').strip():
            return value.strip().strip('"').strip()
    return ""
