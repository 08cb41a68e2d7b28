"""Folders of mp4 files with stages marked by hand, one folder an episode.

task_instruction.json                   phrasings of the instruction; the first is the task
episode_001/<camera>.mp4                as many cameras as there are, all of the same length
episode_001/annotated_keyframes.json    [{"anotation": name, "start_frame_id": 8, "end_frame_id": 147}, ...]

``end_frame_id`` is exclusive: it is the first frame of the next stage. Frames before the first and after the last stage
stay unlabelled. An episode without the file is unlabelled throughout.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from robo_datasets.errors import ImportSourceError, StoreError
from robo_datasets.features import parse_features
from robo_datasets.importers.files import counting_order, read_json
from robo_datasets.importers.source import Source, SourceEpisode, SourceFrame
from robo_datasets.importers.stage_files import Segment, check_segments
from robo_datasets.jpeg import resize
from robo_datasets.video import VideoHeader, video_frames, video_header, video_times

KEYFRAMES = "annotated_keyframes.json"
INSTRUCTION = "task_instruction.json"

# Published annotation files misspell the first of these.
_NAME_KEYS = ("anotation", "annotation", "name")
_PREFIX = "observation.images."


@dataclass(frozen=True)
class _Folder:
    path: Path
    videos: dict[str, Path]
    """Camera key to file."""


class KeyframeSource(Source):
    """A folder of episode folders, or one episode folder; see ``robo_datasets.importers.source.Source``.

    Raises:
        ImportSourceError: no episode is found, a file is damaged, or the annotation does not fit the videos.
    """

    format = "keyframes"
    robot: str | None = None

    def __init__(
        self,
        path: str | Path,
        cameras: Sequence[str] | None = None,
        size: tuple[int, int] | None = None,
        task: str = "",
    ) -> None:
        self.path = Path(path)
        self._size = size
        self._folders = self._find(cameras)
        instructions = self._instructions()
        self._task = task or (instructions[0] if instructions else "")
        self._more = {"instructions": instructions} if len(instructions) > 1 else {}
        first = self._folders[0]
        headers = {key: video_header(file) for key, file in first.videos.items()}
        self.fps = self._rate(next(iter(first.videos.values())), next(iter(headers.values())))
        self._shapes = {key: (header.height, header.width, 3) for key, header in headers.items()}
        self.features = {key: self._feature(shape) for key, shape in self._shapes.items()}
        try:
            parse_features(self.features)
        except StoreError as error:
            raise ImportSourceError(f"{first.path}: {error}") from error
        self.episodes = [self._episode(number) for number in range(len(self._folders))]

    def check(self, episode: SourceEpisode) -> None:
        """Check that the episode's videos have one length, one rate and the sizes of the first episode's."""
        folder = self._folders[episode.number]
        for key, file in folder.videos.items():
            header = video_header(file)
            if self._length(file, header) != episode.length:
                raise ImportSourceError(
                    f"{file} has {self._length(file, header)} frames, the episode's other cameras have "
                    f"{episode.length}; all cameras must be cut to the same frames"
                )
            if (header.height, header.width, 3) != self._shapes[key]:
                raise ImportSourceError(
                    f"{file} is {header.height}x{header.width}, the first episode's {key} is "
                    f"{self._shapes[key][0]}x{self._shapes[key][1]}; give size=[height,width]"
                )
            if self._rate(file, header) != self.fps:
                raise ImportSourceError(f"{file} has {header.fps:g} frames/s, the first video has {self.fps:g}")

    def frames(self, episode: SourceEpisode) -> Iterator[SourceFrame]:
        """Yield the frames of all cameras together, with the first camera's presentation times."""
        folder = self._folders[episode.number]
        times = video_times(next(iter(folder.videos.values())))
        videos = {key: video_frames(file) for key, file in folder.videos.items()}
        for row in range(episode.length):
            values = {}
            for key, frames in videos.items():
                frame = next(frames, None)
                if frame is None or row >= len(times):
                    raise ImportSourceError(
                        f"{folder.videos[key]} ends at frame {row} of {episode.length}: it is truncated"
                    )
                values[key] = self._fit(frame, key, row, folder)
            yield SourceFrame(values, float(times[row] - times[0]))
        for key, frames in videos.items():
            if next(frames, None) is not None:
                raise ImportSourceError(f"{folder.videos[key]} has more than the {episode.length} frames it declares")

    def _fit(self, frame: np.ndarray, key: str, row: int, folder: _Folder) -> np.ndarray:
        if frame.shape != self._shapes[key]:
            raise ImportSourceError(
                f"{folder.videos[key]}, frame {row} is {frame.shape}, the video is declared {self._shapes[key]}"
            )
        return frame if self._size is None else resize(frame, self._size)

    def _find(self, cameras: Sequence[str] | None) -> list[_Folder]:
        if not self.path.is_dir():
            raise ImportSourceError(f"there is no folder {self.path}; give the folder of episode folders as source=DIR")
        places = sorted((p for p in self.path.iterdir() if p.is_dir()), key=lambda p: counting_order(p.name))
        if any(self.path.glob("*.mp4")):
            places = [self.path]
        folders = []
        for place in places:
            videos = {f"{_PREFIX}{file.stem}": file for file in sorted(place.glob("*.mp4"))}
            if not videos and not (place / KEYFRAMES).exists():
                continue
            folders.append(_Folder(place, self._choose(place, videos, cameras)))
        if not folders:
            raise ImportSourceError(f"{self.path} holds no folder with mp4 files")
        wanted = folders[0].videos.keys()
        for folder in folders:
            if folder.videos.keys() != wanted:
                raise ImportSourceError(
                    f"{folder.path} has the cameras {sorted(folder.videos)}, {folders[0].path} has {sorted(wanted)}"
                )
        return folders

    def _choose(self, place: Path, videos: dict[str, Path], cameras: Sequence[str] | None) -> dict[str, Path]:
        if not videos:
            raise ImportSourceError(f"{place} has {KEYFRAMES} and no mp4 file")
        if cameras is None:
            return videos
        keys = [name if name.startswith(_PREFIX) else f"{_PREFIX}{name}" for name in cameras]
        missing = [key for key in keys if key not in videos]
        if missing or not keys:
            raise ImportSourceError(f"{place} has no cameras {missing}; it has {sorted(videos)}")
        return {key: file for key, file in videos.items() if key in keys}

    def _instructions(self) -> list[str]:
        for file in (self.path / INSTRUCTION, self.path.parent / INSTRUCTION):
            if file.is_file() and (file.parent == self.path or self._folders[0].path == self.path):
                found = read_json(file)
                if isinstance(found, str):
                    return [found]
                if not isinstance(found, list) or not all(isinstance(text, str) for text in found):
                    raise ImportSourceError(f"{file} must hold a list of instructions")
                return list(found)
        return []

    def _episode(self, number: int) -> SourceEpisode:
        folder = self._folders[number]
        first = next(iter(folder.videos.values()))
        length = self._length(first, video_header(first))
        file = folder.path / KEYFRAMES
        segments = read_keyframes(file, length) if file.exists() else []
        attributes = {"folder": folder.path.resolve().name, **self._more}
        return SourceEpisode(number, length, self._task, attributes=attributes, segments=segments)

    def _feature(self, shape: tuple[int, int, int]) -> dict[str, Any]:
        shape = shape if self._size is None else (*self._size, 3)
        return {"dtype": "uint8", "shape": shape, "names": ["height", "width", "channel"]}

    def _length(self, file: Path, header: VideoHeader) -> int:
        length = header.frames or len(video_times(file))
        if not length:
            raise ImportSourceError(f"{file} holds no frames")
        return length

    def _rate(self, file: Path, header: VideoHeader) -> float:
        if not header.fps > 0:
            raise ImportSourceError(f"{file} does not say how many frames a second it has")
        return header.fps


def read_keyframes(path: Path, length: int) -> list[Segment]:
    """Stages (name, start, end) of one episode of ``length`` frames, end exclusive.

    Raises:
        ImportSourceError: the file is damaged or of another layout.
        LabelError: stages overlap, leave a gap between them, or lie outside the episode; names file and frame.
    """
    entries = read_json(path)
    if not isinstance(entries, list):
        raise ImportSourceError(f"{path} must hold a list of keyframes")
    segments: list[Segment] = []
    for position, entry in enumerate(entries):
        fields = entry if isinstance(entry, dict) else {}
        name = next((fields[key] for key in _NAME_KEYS if key in fields), None)
        start, end = fields.get("start_frame_id"), fields.get("end_frame_id")
        whole = all(isinstance(value, int) and not isinstance(value, bool) for value in (start, end))
        if not isinstance(name, str) or not name or not whole:
            raise ImportSourceError(
                f"{path}, entry {position} needs anotation, start_frame_id and end_frame_id, got {str(entry)[:200]}"
            )
        segments.append((name, int(fields["start_frame_id"]), int(fields["end_frame_id"])))
    check_segments(segments, length, str(path), whole=False)
    return segments
