"""What a file or folder is that was given in another's place, and the command that reads it."""

from __future__ import annotations

import json
import re
import shlex
import zipfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

VIDEOS = (".mp4", ".mkv", ".avi", ".mov", ".webm")
ROS1_BAG, ROS2_BAGS = ".bag", (".mcap", ".db3")
# As many entries of a folder are looked at; a dataset shows itself in the first ones.
_LOOKED_AT = 64
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_HUB_URL = re.compile(r"(?:https?://)?(?:huggingface\.co|hf\.co)/datasets/([\w.-]+/[\w.-]+)/?.*")


class Recognised(NamedTuple):
    """What something is, in words, and what reads it."""

    what: str
    importer: str
    """The word after ``robo-rm import``; ``store`` for a demo store."""
    path: Path
    """What to give that importer; for a video file, the folder around it."""


def recognise(path: Path) -> list[Recognised]:
    """Everything that a path may be taken for, the likeliest first; empty where nothing is known of it."""
    try:
        return list(_folder(path) if path.is_dir() else _file(path) if path.is_file() else ())
    except OSError:
        return []


def hub_id(text: str) -> str:
    """The dataset of the Hugging Face hub that a text names, or an empty string.

    A path of two parts looks the same; where the folder around it exists it is a path.
    """
    found = _HUB_URL.fullmatch(text)
    if found:
        return found.group(1)
    named = _HUB_ID.fullmatch(text) and not Path(text).suffix and not Path(text).parent.is_dir()
    return text if named else ""


def download_advice(name: str, command: str) -> str:
    """How to get a dataset of the hub and what to type then; ``command`` takes it as ``source=``."""
    folder = name.split("/")[1]
    return (
        f"datasets of the Hugging Face hub are downloaded first: hf download {name} --repo-type dataset "
        f"--local-dir {folder}, then {command} source={folder}"
    )


def not_a_store(root: Path | str, why: str) -> str:
    """The error for a path that holds no demo store: what it is where that is known, and what to type.

    Args:
        root: the path.
        why: what is said of it where nothing is known.
    """
    text = str(root)
    name = hub_id(text)
    if name:
        return f"there is no demo store at {text}; {download_advice(name, 'robo-rm import lerobot')} store=demos.zarr"
    for found in recognise(Path(text)):
        if found.importer == "store":
            continue
        store = f"{Path(text).absolute().name.split('.')[0] or 'demos'}.zarr"
        return f"{text} is {found.what}, not a demo store; make one of it: {import_command(found, store)}"
    return why


def mistaken_source(source: str, importer: str, store: str) -> str:
    """The error for a source that is of another format than the command reads; empty where nothing speaks against it.

    Args:
        source: what was given.
        importer: the command's own word, such as ``lerobot``.
        store: the store it was to go to.
    """
    name = hub_id(source)
    if name and not Path(source).exists():
        return f"there is no folder {source}; {download_advice(name, f'robo-rm import {importer}')} store={store}"
    found = recognise(Path(source))
    if not found or importer in {one.importer for one in found}:
        return ""
    if found[0].importer == "store":
        return f"{source} is a demo store already; look at it with: robo-rm info {shlex.quote(f'store={source}')}"
    return f"{source} is {found[0].what}; type: {import_command(found[0], store)}"


def import_command(found: Recognised, store: str) -> str:
    """The command line that imports what was recognised."""
    if found.importer == "rosbag" and found.path.suffix == ROS1_BAG:
        return f"rosbags-convert --src {shlex.quote(str(found.path))} --dst bag, then robo-rm import rosbag source=bag"
    words = ["robo-rm", "import", found.importer, f"source={found.path}", f"store={store}"]
    more = " robot=CONTRACT" if found.importer == "rosbag" else ""
    return shlex.join(words) + more


def _file(path: Path) -> Iterator[Recognised]:
    suffix = path.suffix.lower()
    with open(path, "rb") as file:
        magic = file.read(8)
    if magic == b"\x89HDF\r\n\x1a\n" or suffix in (".hdf5", ".h5"):
        yield Recognised("an HDF5 file", "robomimic", path)
    elif suffix == ROS1_BAG:
        yield Recognised("a bag of ROS 1", "rosbag", path)
    elif suffix in ROS2_BAGS:
        yield Recognised("a ROS 2 bag", "rosbag", path)
    elif suffix in VIDEOS:
        yield Recognised("a video file", "keyframes", path.parent)
    elif zipfile.is_zipfile(path) and path.name.endswith(".zip"):
        with zipfile.ZipFile(path) as archive:
            umi = any(re.match(r"data/camera\d+_rgb/", name) for name in archive.namelist())
        buffers = [Recognised("a UMI dataset", "umi", path), Recognised("a replay buffer", "diffusion-policy", path)]
        yield from buffers if umi else buffers[::-1]


def _folder(path: Path) -> Iterator[Recognised]:
    names = {entry.name for entry in islice(path.iterdir(), _LOOKED_AT)}
    if _is_store(path):
        yield Recognised("a demo store", "store", path)
        return
    if (path / "meta/info.json").is_file():
        yield Recognised("a LeRobot dataset", "lerobot", path)
        return
    if (path / "replay_buffer.zarr").exists() or (path / "meta/episode_ends").exists():
        yield Recognised("a replay buffer of diffusion_policy", "diffusion-policy", path)
        yield Recognised("a UMI dataset", "umi", path)
    if any(name.endswith(ROS2_BAGS) for name in names) or _below(path, ROS2_BAGS):
        yield Recognised("a folder of ROS 2 bags", "rosbag", path)
    if any(name.endswith((".hdf5", ".h5")) for name in names):
        first = sorted(name for name in names if name.endswith((".hdf5", ".h5")))[0]
        yield Recognised("a folder of HDF5 files", "robomimic", path / first)
    if any(name.lower().endswith(VIDEOS) for name in names) or _below(path, VIDEOS):
        yield Recognised("a folder of videos", "keyframes", path)


def _is_store(path: Path) -> bool:
    try:
        document = json.loads((path / "zarr.json").read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(document, dict) and "robo_demos" in (document.get("attributes") or {})


def _below(path: Path, endings: tuple[str, ...]) -> bool:
    """Whether a folder in this one holds files of these endings."""
    for folder in islice((entry for entry in path.iterdir() if entry.is_dir()), _LOOKED_AT):
        if any(entry.name.lower().endswith(endings) for entry in islice(folder.iterdir(), _LOOKED_AT)):
            return True
    return False
