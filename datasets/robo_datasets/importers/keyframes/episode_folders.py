"""Folders of episodes, one below another: which folders are episodes, and what the folders around them say.

An episode is a folder with video files. Folders above it may say how it went (success/, failure/, suboptimal/) and what
was asked for (task_instruction.json in the nearest folder that has one); labels.json at the top says both by path.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from robo_core.errors import ImportSourceError
from robo_datasets.importers.files import counting_order, read_json
from robo_datasets.importers.grades import LABELS, Grade, Label, grade_of, is_grade, read_labels

KEYFRAMES = "annotated_keyframes.json"
INSTRUCTION = "task_instruction.json"
VIDEOS = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v", ".gif")
_IMAGES = frozenset((".jpg", ".jpeg", ".png"))
_DEPTH = 5
# Files that hold states, actions or notes for which this format has no rule.
_DATA = frozenset(".h5 .hdf5 .npz .npy .parquet .csv .pkl .pickle .json .jsonl .db3 .mcap .bag .zarr".split())


@dataclass(frozen=True)
class EpisodeFolder:
    """An episode's folder and what is said of it."""

    path: Path
    name: str
    """Its path below the source."""
    videos: dict[str, Path]
    """Name of the camera to file."""
    instructions: tuple[str, ...] = ()
    grade: Grade | None = None


@dataclass
class FolderReport:
    """What was assumed on the way."""

    notes: list[str] = field(default_factory=list)


def find_episodes(root: Path, outcomes: Mapping[str, bool | None], report: FolderReport) -> list[EpisodeFolder]:
    """The episodes at or below ``root``, in counting order.

    Args:
        root: the folder, or one episode.
        outcomes: what the user says that grades mean.
        report: takes notes on what was assumed.

    Raises:
        ImportSourceError: there are none, or a file about them is malformed.
    """
    if not root.is_dir():
        raise ImportSourceError(f"there is no folder {root}; give the folder of episode folders as source=DIR")
    if (root / "meta/info.json").is_file():
        raise ImportSourceError(
            f"{root} is a LeRobot dataset: robo-rm import lerobot reads it with states and actions, this command "
            "would take its videos alone"
        )
    whole = bool(videos_of(root))
    places = [root] if whole else _below(root, _DEPTH)
    if not places:
        raise ImportSourceError(f"{root} holds no folder with mp4 files or other videos{_images_below(root)}")
    top = root.parent if whole else root
    labels = _labels(root, top, outcomes)
    names = {place: place.relative_to(root).as_posix() if place != root else root.resolve().name for place in places}
    graded = _graded_by_folder(root, names, outcomes, bool(labels), report)
    used: set[str] = set()
    found = []
    for place in places:
        label, key = _label_of(labels, names[place], place)
        if key:
            used.add(key)
        grade = label.grade or graded.get(place)
        instructions = (label.task,) if label.task else tuple(_instructions(place, top))
        found.append(EpisodeFolder(place, names[place], videos_of(place), instructions, grade))
    _note_data(list(dict.fromkeys([root, *places])), report)
    if labels:
        _note_labels(labels, used, found, whole, report)
    unknown = sorted({item.grade.word for item in found if item.grade is not None and item.grade.value is None})
    unclear = [word for word in unknown if word.lower() not in outcomes]
    if unclear:
        report.notes.append(
            f"the labels {', '.join(unclear)} are kept as grades, but say nothing of success; for example "
            f"outcomes={{{unclear[0]}: false}} says it"
        )
    return found


def videos_of(place: Path) -> dict[str, Path]:
    """Video files directly in a folder, by name without ending."""
    files = [path for path in sorted(place.iterdir()) if path.suffix.lower() in VIDEOS and path.is_file()]
    found: dict[str, Path] = {}
    for file in files:
        if file.name.startswith("."):
            continue
        if file.stem in found:
            raise ImportSourceError(f"{found[file.stem]} and {file.name} would be one camera; keep one of them")
        found[file.stem] = file
    return found


def _below(root: Path, depth: int) -> list[Path]:
    places = []
    for place in sorted((p for p in root.iterdir() if p.is_dir()), key=lambda p: counting_order(p.name)):
        if place.name.startswith("."):
            continue
        if videos_of(place) or (place / KEYFRAMES).exists():
            places.append(place)
        elif depth > 1:
            places += _below(place, depth - 1)
    return places


def _images_below(root: Path) -> str:
    """What to do with a folder of single images, where there is one."""
    for place in (root, *_folders(root), *(inner for outer in _folders(root) for inner in _folders(outer))):
        image = next((file for file in sorted(place.iterdir()) if file.suffix.lower() in _IMAGES), None)
        if image is not None:
            return (
                f"; {place} holds single images: make a video of each camera in each episode's folder, for example "
                f"ffmpeg -framerate 30 -pattern_type glob -i '{place}/*{image.suffix}' -c:v libx264 -crf 12 "
                f"-pix_fmt yuv420p {place}.mp4"
            )
    return ""


def _folders(root: Path) -> list[Path]:
    return sorted(place for place in root.iterdir() if place.is_dir() and not place.name.startswith("."))


def _labels(root: Path, top: Path, outcomes: Mapping[str, bool | None]) -> dict[str, Label]:
    file = next((place / LABELS for place in (root, top) if (place / LABELS).is_file()), None)
    return {} if file is None else read_labels(file, outcomes)


def _label_of(labels: Mapping[str, Label], name: str, place: Path) -> tuple[Label, str]:
    """The label of an episode: by its path, or by that of its only video."""
    keys = [name, *(f"{name}/{file.name}" for file in videos_of(place).values())]
    for key in keys:
        if key in labels:
            return labels[key], key
    return Label(), ""


def _graded_by_folder(
    root: Path, names: Mapping[Path, str], outcomes: Mapping[str, bool | None], labelled: bool, report: FolderReport
) -> dict[Path, Grade]:
    """Grades by the folders directly below the source, where every one of them is named for a grade."""
    firsts = {place: name.split("/")[0] for place, name in names.items()}
    if any("/" not in name for name in names.values()) or not all(is_grade(word, outcomes) for word in firsts.values()):
        return {}
    if not labelled:
        words = ", ".join(sorted(set(firsts.values())))
        report.notes.append(f"how an episode went was taken from the name of its folder: {words} (success= overrides)")
    return {place: grade_of(word, outcomes) for place, word in firsts.items()}


def _instructions(place: Path, top: Path) -> list[str]:
    """Phrasings of the instruction, from the nearest folder that has some; empty where there are none."""
    for folder in (place, *place.parents):
        file = folder / INSTRUCTION
        if file.is_file():
            found = read_json(file)
            found = [found] if isinstance(found, str) else found
            if not isinstance(found, list) or not all(isinstance(text, str) for text in found):
                raise ImportSourceError(f"{file} must hold a list of instructions")
            return [text for text in found if text.strip()]
        if folder == top:
            break
    return []


def _note_data(places: list[Path], report: FolderReport) -> None:
    """Say where something else than videos lies beside them, which nobody should believe to be in the store."""
    read = {KEYFRAMES, INSTRUCTION, LABELS}
    beside = [
        path
        for place in places
        for path in sorted(place.iterdir())
        if path.suffix.lower() in _DATA and path.name not in read and not path.name.startswith(".")
    ]
    if beside:
        report.notes.append(
            f"{len(beside)} files beside the videos were not read, for example {beside[0]}: this format takes videos, "
            f"{KEYFRAMES}, {INSTRUCTION} and {LABELS}"
        )


def _note_labels(
    labels: Mapping[str, Label], used: set[str], found: list[EpisodeFolder], whole: bool, report: FolderReport
) -> None:
    gone = sorted(labels.keys() - used)
    if gone and not whole:
        report.notes.append(f"{LABELS} names {len(gone)} episodes that are not there, for example {gone[0]}")
    bare = [item.name for item in found if item.grade is None]
    if bare and used:
        report.notes.append(f"{LABELS} does not say how {len(bare)} episodes went, for example {bare[0]}")
