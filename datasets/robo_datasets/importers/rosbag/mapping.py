"""The file that says which topic of a bag becomes which feature.

fps: 30
topics:
  - {topic: /front/image_raw, feature: observation.images.front, align: hold, max_age: 0.2}
  - {topic: /joint_states, feature: observation.state, names: [shoulder, elbow], max_age: 0.1}
  - {topic: /target_pose, feature: action, fields: [pose.position.x, pose.position.y], align: nearest}
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from robo_core.errors import ImportSourceError
from robo_datasets.importers.rosbag.messages import TopicMapping
from robo_datasets.store.features import is_positive

_WORDS = ("topic", "feature", "align", "point", "dtype", "type")
_LISTS = ("fields", "names")


def read_mapping(path: str | Path) -> tuple[list[TopicMapping], float | None]:
    """Topics, and the frame rate where the file gives one.

    Raises:
        ImportSourceError: the file is missing or malformed; names topic and key.
    """
    file = Path(path)
    try:
        document = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ImportSourceError(f"the mapping {file} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ImportSourceError(f"the mapping {file} is not YAML: {' '.join(str(error).split())}") from error
    topics = document.get("topics") if isinstance(document, dict) else None
    if not isinstance(topics, list) or not topics:
        raise ImportSourceError(f"the mapping {file} needs a list of topics")
    fps = document.get("fps")
    if fps is not None and not is_positive(fps):
        raise ImportSourceError(f"the mapping {file}: fps is {fps!r}, a positive number is needed")
    mappings = [_read_topic(entry, f"the mapping {file}, entry {number}") for number, entry in enumerate(topics)]
    features = [mapping.feature for mapping in mappings]
    twice = sorted({feature for feature in features if features.count(feature) > 1})
    if twice:
        raise ImportSourceError(f"the mapping {file}: {twice} are mapped twice")
    return mappings, None if fps is None else float(fps)


def _read_topic(entry: object, where: str) -> TopicMapping:
    if not isinstance(entry, dict) or not {"topic", "feature"} <= entry.keys():
        raise ImportSourceError(f"{where}: topic and feature are needed, got {str(entry)[:200]}")
    values: dict[str, Any] = {}  # checked against the fields of `TopicMapping`
    for key, value in entry.items():
        if key in _WORDS and isinstance(value, str):
            values[key] = value
        elif key in _LISTS and isinstance(value, list) and all(isinstance(item, str) for item in value):
            values[key] = tuple(value)
        elif key == "channel" and isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            values[key] = value
        elif key == "max_age" and is_positive(value):
            values[key] = float(value)
        else:
            known = ", ".join((*_WORDS, *_LISTS, "max_age", "channel"))
            raise ImportSourceError(f"{where}: {key}: {value!r} is not understood; keys are {known}")
    mapping = TopicMapping(**values)
    mapping.check(where)
    return mapping
