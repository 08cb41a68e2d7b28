"""Folders of video files, one folder an episode, with stages marked by hand and outcomes where they were noted.

labels.json                             [{"path": "success/episode_001", "label": "success", "task": ...}, ...]
success/  failure/  suboptimal/         folders of episodes, named for how these went
task_instruction.json                   phrasings of the instruction; the first is the task
episode_001/<camera>.mp4                as many cameras as there are, all of the same span
episode_001/annotated_keyframes.json    [{"anotation": name, "start_frame_id": 8, "end_frame_id": 147}, ...]

``end_frame_id`` is exclusive: it is the first frame of the next stage. Frames before the first and after the last stage
stay unlabelled. An episode without the file is unlabelled throughout. See
``.episode_folders`` and ``..grades`` for what folders and labels say, ``..frame_plan`` for how frames are aligned.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from robo_core.console import progress_bar
from robo_core.errors import ImportSourceError, LabelError
from robo_datasets.importers.content import ContentHash
from robo_datasets.importers.files import read_json
from robo_datasets.importers.frame_plan import FramePlan, VideoClock, clock_of, common_rate, plan_frames
from robo_datasets.importers.keyframes.episode_folders import KEYFRAMES, EpisodeFolder, FolderReport, find_episodes
from robo_datasets.importers.source import Source, SourceEpisode, SourceFrame
from robo_datasets.importers.stage_files import Segment, check_segments
from robo_datasets.store.jpeg import resize
from robo_datasets.store.planar import PlanarFrame
from robo_datasets.video.decoder import video_header
from robo_datasets.video.presentation_times import colours_shown_at, shown_frames
from robo_datasets.video.rotation import quarter_turns, turned

FITS = ("auto", "stretch", "pad")

# Published annotation files misspell the first of these.
_NAME_KEYS = ("anotation", "annotation", "name")
_PREFIX = "observation.images."
# What people call an episode's file where there is one camera; "0", "1" may be cameras as well.
_EPISODE_NAME = re.compile(r"(?:ep|eps|episode|demo|demonstration|rollout|traj|trajectory|trial|run)[ _-]?\d+", re.I)
_LISTED = 3


@dataclass(frozen=True)
class _Video:
    path: Path
    size: tuple[int, int]
    ticks: np.ndarray
    """Presentation times (n,) in the file's own units."""
    clock: VideoClock
    turns: int = 0
    """Quarter turns counterclockwise to how it is shown; ``size`` is that of the shown image."""


class KeyframeSource(Source):
    """A folder of episode folders, or one episode folder; see ``robo_datasets.importers.source.Source``.

    Args:
        path: the folder.
        cameras: names of cameras to keep, all by default.
        size: (height, width) to scale frames to; that of most videos where they differ.
        task: the instruction of all episodes; what the folders say by default.
        fps: frames per second of all episodes, picked by time; the episodes' own by default.
        fit: "stretch" or "pad" images to their size; "auto" pads where videos differ in size.
        outcomes: what grades mean for success, see ``robo_datasets.importers.grades``.
        skip: cameras (by name or feature) to leave out, also such as some episodes lack.

    Raises:
        ImportSourceError: no episode is found, or a file about them is malformed.
    """

    format = "keyframes"
    robot: str | None = None

    def __init__(
        self,
        path: str | Path,
        cameras: Sequence[str] | None = None,
        size: tuple[int, int] | None = None,
        task: str = "",
        fps: float | None = None,
        fit: str = "auto",
        outcomes: Mapping[str, bool | None] | None = None,
        skip: Collection[str] = (),
    ) -> None:
        self.path = Path(path)
        report = FolderReport()
        self._folders = find_episodes(self.path, outcomes or {}, report)
        self._left_out = set(skip)
        keys = self._choose(cameras)
        self._videos: list[dict[str, _Video]] = []
        problems = []
        with progress_bar("read times", total=len(self._folders), unit="episodes") as bar:
            for folder in self._folders:
                videos, problem = _read_videos(folder, keys)
                self._videos.append(videos)
                report.notes += [
                    f"{video.path} has a turn of {90 * video.turns} degrees: its images were turned as players show "
                    "them"
                    for video in videos.values()
                    if video.turns
                ]
                problems.append(problem)
                bar.advance()
        good = [videos for videos, problem in zip(self._videos, problems, strict=True) if not problem]
        if not good:
            raise ImportSourceError(problems[0])
        leads = [max((video.clock for video in videos.values()), key=lambda clock: clock.fps) for videos in good]
        self.fps = float(fps or common_rate(leads))
        self._sizes = _common_sizes(good, keys, size)
        self._pad = self._choose_fit(fit, good, size, report)
        self.features = {
            key: {"dtype": "uint8", "shape": (*self._sizes[key], 3), "names": ["height", "width", "channel"]}
            for key in keys
        }
        self._plans: list[FramePlan | None] = []
        self.episodes = [
            self._episode(number, problem, task, fps is not None, report) for number, problem in enumerate(problems)
        ]
        if not any(episode.task for episode in self.episodes):
            report.notes.append("no instruction was found (task_instruction.json, labels.json); task= gives one")
        self.notes = _shortened(report.notes)

    def check(self, episode: SourceEpisode) -> None:
        """Nothing is left to check: every video's times and size were read when the source was opened."""

    def frames(self, episode: SourceEpisode) -> Iterator[SourceFrame]:
        """Yield the frames of all cameras together, with their presentation times from the first one on."""
        plan, videos = self._plans[episode.number], self._videos[episode.number]
        if plan is None:
            raise ImportSourceError(episode.problem)
        decoded = {key: colours_shown_at(video.path, video.ticks[plan.picks[key]]) for key, video in videos.items()}
        for row in range(episode.length):
            values: dict[str, np.ndarray | PlanarFrame] = {}
            for key, frames in decoded.items():
                frame = turned(next(frames), videos[key].turns)
                if frame.shape[:2] != videos[key].size:
                    raise ImportSourceError(
                        f"{videos[key].path}, frame {row} is {frame.shape}, the video is declared {videos[key].size}"
                    )
                values[key] = self._fit(frame, key)
            yield SourceFrame(values, float(plan.times[row]))

    def identify(self, episode: SourceEpisode, content: ContentHash) -> None:
        """Give ``content`` the encoded images and when they are shown, whatever is picked of them."""
        for key, video in self._videos[episode.number].items():
            shown = shown_frames(video.path)
            content.add_rows(f"{key}\0times", np.round((shown.seconds - shown.seconds[0]) * 1e4).astype(np.int64))
            content.add_images(key, shown.packets)

    def files(self, episode: SourceEpisode) -> tuple[Path, ...]:
        """The episode's videos; notes and labels beside them are not what it is known by."""
        return tuple(video.path for video in self._videos[episode.number].values())

    def place(self, episode: SourceEpisode) -> str:
        """The whole of its files: the same for all episodes."""
        return f"{self.fps:g}"

    def _choose(self, cameras: Sequence[str] | None) -> dict[str, str]:
        """Feature key to the name of the camera's files."""
        first = next((folder for folder in self._folders if folder.videos), None)
        if first is None:
            raise ImportSourceError(f"{self._folders[0].path} has {KEYFRAMES} and no mp4 file")
        if cameras is None:
            names = [name for name in first.videos if not {name, f"{_PREFIX}{name}"} & self._left_out]
            if not names:
                raise ImportSourceError(f"drop= leaves no camera of {first.path}; it has {sorted(first.videos)}")
            _refuse_episodes_as_cameras(first, names)
            return {f"{_PREFIX}{name}": name for name in names}
        names = [name.removeprefix(_PREFIX) for name in cameras]
        missing = [name for name in names if name not in first.videos]
        if missing or not names:
            raise ImportSourceError(f"{first.path} has no cameras {missing}; it has {sorted(first.videos)}")
        return {f"{_PREFIX}{name}": name for name in first.videos if name in names}

    def known_keys(self) -> Collection[str]:
        """The features, and the cameras that were left out."""
        return {*self.features, *(self._left_out & self._names())}

    def _names(self) -> set[str]:
        names = {name for folder in self._folders for name in folder.videos}
        return names | {f"{_PREFIX}{name}" for name in names}

    def _choose_fit(
        self, fit: str, good: Sequence[Mapping[str, _Video]], size: tuple[int, int] | None, report: FolderReport
    ) -> bool:
        if fit not in FITS:
            raise ImportSourceError(f"fit={fit} is not one of: {', '.join(FITS)}")
        differing = {
            key: sorted({video[key].size for video in good}) for key in good[0] if len({v[key].size for v in good}) > 1
        }
        pad = fit == "pad" or (fit == "auto" and bool(differing))
        for key, sizes in differing.items():
            shown = ", ".join(f"{height}x{width}" for height, width in sizes)
            height, width = self._sizes[key]
            how = "scaled to fit, with black beside them (fit=stretch distorts them)" if pad else "stretched"
            chosen = "" if size else "; size=[height,width] chooses another size"
            report.notes.append(f"{key} comes as {shown}; all were {how} in {height}x{width}{chosen}")
        return pad

    def _fit(self, frame: np.ndarray | PlanarFrame, key: str) -> np.ndarray | PlanarFrame:
        height, width = self._sizes[key]
        if frame.shape[:2] == (height, width):
            return frame
        frame = np.asarray(frame)
        if not self._pad:
            return resize(frame, (height, width))
        scale = min(height / frame.shape[0], width / frame.shape[1])
        inner = max(1, min(height, round(frame.shape[0] * scale))), max(1, min(width, round(frame.shape[1] * scale)))
        top, left = (height - inner[0]) // 2, (width - inner[1]) // 2
        bottom, right = height - inner[0] - top, width - inner[1] - left
        return cv2.copyMakeBorder(resize(frame, inner), top, bottom, left, right, cv2.BORDER_CONSTANT, value=(0, 0, 0))

    def _episode(self, number: int, problem: str, task: str, convert: bool, report: FolderReport) -> SourceEpisode:
        folder = self._folders[number]
        attributes: dict[str, object] = {"folder": folder.name}
        if len(folder.instructions) > 1:
            attributes["instructions"] = list(folder.instructions)
        if folder.grade is not None:
            attributes |= folder.grade.attributes()
        task = task or (folder.instructions[0] if folder.instructions else "")
        success = None if folder.grade is None else folder.grade.success
        plan, segments, length = None, [], 0
        if not problem:
            try:
                clocks = {video.path.name: video.clock for video in self._videos[number].values()}
                names = {video.path.name: key for key, video in self._videos[number].items()}
                found = plan_frames(clocks, self.fps, convert, str(folder.path))
                plan = FramePlan(found.times, {names[name]: picks for name, picks in found.picks.items()}, found.notes)
                report.notes += plan.notes
                segments, length = self._segments(folder, plan), len(plan.times)
            except (ImportSourceError, LabelError) as error:
                problem, plan = str(error), None
        self._plans.append(plan)
        sizes = {key: list(video.size) for key, video in self._videos[number].items() if video.size != self._sizes[key]}
        if sizes:
            attributes["original_size"] = sizes
        if plan is not None and plan.notes:
            attributes["assumed"] = list(plan.notes)
        return SourceEpisode(number, length, task, success, attributes, segments, problem)

    def _segments(self, folder: EpisodeFolder, plan: FramePlan) -> list[Segment]:
        """Marks as frames of the plan; they count the frames of the first camera."""
        file = folder.path / KEYFRAMES
        if not file.exists():
            return []
        picks = next(iter(plan.picks.values()))
        first = next(iter(self._videos[self._folders.index(folder)].values()))
        marks = read_keyframes(file, len(first.ticks))
        moved = [(name, *np.searchsorted(picks, (start, end)).tolist()) for name, start, end in marks]
        return [(name, start, end) for name, start, end in moved if end > start]


def _refuse_episodes_as_cameras(folder: EpisodeFolder, names: Sequence[str]) -> None:
    """A folder of files that are named for episodes is no episode of as many cameras.

    Raises:
        ImportSourceError: all of several files are named so.
    """
    if len(names) > 1 and all(_EPISODE_NAME.fullmatch(name) for name in names):
        raise ImportSourceError(
            f"{folder.path} holds {len(names)} videos that are named for episodes ({names[0]}, {names[1]}), not for "
            "cameras: put each into a folder of its own; cameras=[...] reads them as cameras of one episode"
        )


def _read_videos(folder: EpisodeFolder, keys: Mapping[str, str]) -> tuple[dict[str, _Video], str]:
    """The episode's videos by feature key, and what is wrong with them."""
    videos: dict[str, _Video] = {}
    try:
        if not folder.videos:
            raise ImportSourceError(f"{folder.path} has {KEYFRAMES} and no mp4 file")
        missing = [name for name in keys.values() if name not in folder.videos]
        if missing:
            raise ImportSourceError(
                f"{folder.path} has the cameras {sorted(folder.videos)}, {sorted(keys.values())} are needed: "
                f"cameras=[{','.join(name for name in keys.values() if name in folder.videos)}] takes what it has"
            )
        for key, name in keys.items():
            path = folder.videos[name]
            header = video_header(path)
            shown = shown_frames(path)
            turns = quarter_turns(path)
            size = (header.width, header.height) if turns % 2 else (header.height, header.width)
            videos[key] = _Video(path, size, shown.ticks, clock_of(shown.seconds, str(path)), turns)
    except ImportSourceError as error:
        return {}, str(error)
    return videos, ""


def _common_sizes(
    good: Sequence[Mapping[str, _Video]], keys: Mapping[str, str], size: tuple[int, int] | None
) -> dict[str, tuple[int, int]]:
    """The size of each camera: as given, or that of most of its videos."""
    if size is not None:
        return dict.fromkeys(keys, size)
    return {key: Counter(videos[key].size for videos in good).most_common(1)[0][0] for key in keys}


def _shortened(notes: Sequence[str]) -> list[str]:
    """Notes on single episodes only for the first few of each kind."""
    kinds: dict[str, list[str]] = {}
    for note in notes:
        kinds.setdefault(note.split(":")[0].split(" has ")[-1], []).append(note)
    shown: list[str] = []
    for same in kinds.values():
        shown += same[:_LISTED]
        if len(same) > _LISTED:
            shown.append(f"and {len(same) - _LISTED} more notes like this")
    return shown


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
