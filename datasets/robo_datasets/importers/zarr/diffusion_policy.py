"""diffusion_policy datasets: a replay buffer in Zarr (v2 or v3), for real robots with a folder of videos beside it."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import numpy as np

from robo_core.errors import ImportSourceError
from robo_datasets.importers.buffer_notes import episode_notes
from robo_datasets.importers.content import ContentHash
from robo_datasets.importers.files import counting_order
from robo_datasets.importers.images import NAMES, ImageRule, ImageSettings, image_rule
from robo_datasets.importers.restored import restored_feature
from robo_datasets.importers.source import Source, SourceEpisode, SourceFrame
from robo_datasets.importers.zarr.replay_buffer import (
    ACTION,
    IMAGES,
    OBSERVATION,
    RECEIVED,
    REPLAY_BUFFER,
    STAGE,
    STATE,
    TIMESTAMP,
    EpisodeNotes,
    ReplayBuffer,
    feature_keys,
    frame_rate,
    open_files,
    stage_segments,
)
from robo_datasets.importers.zarr.zarr_v2 import ZarrV2Array
from robo_datasets.store.features import FeatureSpec
from robo_datasets.store.jpeg import resize
from robo_datasets.store.planar import PlanarFrame
from robo_datasets.video.decoder import video_header
from robo_datasets.video.presentation_times import colours_shown_at, match_times, shown_frames

_NAMES = list(NAMES)
# Where buffers of others keep the instruction, among the attributes of the root.
_TASKS = ("task", "instruction", "language_instruction", "task_description")


class DiffusionPolicySource(Source):
    """A diffusion_policy replay buffer; see ``robo_datasets.importers.source.Source``.

    Args:
        path: the .zarr folder, the .zarr.zip file, or the folder that holds replay_buffer.zarr and videos/.
        cameras: cameras to keep, all by default.
        size: (height, width) to scale frames to.
        fps: frames per second; from the time stamps by default.
        state: arrays that together make up observation.state; the first known one by default.
        task: the instruction of all episodes.
        stage_names: names of stage 0, 1, ...
        allow_missing: whether chunks that are not there are read as zeros.
        images: which way up they are, their colours and scale.
        skip: arrays to leave out, also such as cannot be read.

    Raises:
        ImportSourceError: it is missing, malformed, or holds what is not read.
    """

    format = "diffusion-policy"
    _camera_suffix = ""

    def __init__(
        self,
        path: str | Path,
        cameras: Sequence[str] | None = None,
        size: tuple[int, int] | None = None,
        fps: float | None = None,
        state: Sequence[str] | None = None,
        task: str = "",
        stage_names: Sequence[str] | None = None,
        allow_missing: bool = False,
        images: ImageSettings | None = None,
        skip: Collection[str] = (),
    ) -> None:
        self.path = Path(path)
        self._size, self._image_settings = size, images or ImageSettings()
        self._buffer = ReplayBuffer(open_files(self.path), allow_missing, skip)
        self._notes = self._buffer.notes()
        self.robot = self._notes.get("robot")
        self.contract_hash = self._notes.get("contract_hash")
        contract = self._notes.get("contract")
        self.contract = contract if isinstance(contract, dict) else None
        self.fps = frame_rate(self._buffer, fps or self._notes.get("fps"))
        noted = self._notes.get("keys")
        rules = self._image_rules()
        names, self._state = feature_keys(self._buffer.arrays, rules, self._state_parts(state), self._camera_suffix)
        if isinstance(noted, dict):
            names |= {key: noted[key] for key in names if isinstance(noted.get(key), str)}
        self._videos = self._find_videos()
        self._frames = {feature: key for key, feature in names.items() if key in rules}
        self._choose(cameras)
        self._rules = {feature: rules[key] for feature, key in self._frames.items()}
        self._rows = {feature: key for key, feature in names.items() if key not in rules}
        self.features = self._features()
        segments, self.stage_names = stage_segments(self._buffer, stage_names or self._notes.get("stages"))
        self.outcome_known = isinstance(self._notes.get("episodes"), list)
        own = self._buffer.attributes()
        task = task or next((str(own[key]) for key in _TASKS if isinstance(own.get(key), str) and own[key]), "")
        self.episodes = []
        noted_rows, outcomes, remarks = episode_notes(self._buffer, allow_missing)
        for number, (start, end) in enumerate(zip(self._buffer.starts, self._buffer.ends, strict=True)):
            note = self._note(number)
            attributes = note.get("attributes")
            attributes = {**noted_rows[number], **(attributes if isinstance(attributes, dict) else {})}
            empty = f"{self.path}: episode {number} of meta/episode_ends has no rows (skip_bad=true leaves it out)"
            self.episodes.append(
                SourceEpisode(
                    number,
                    end - start,
                    str(note.get("task") or task),
                    note.get("success") if isinstance(note.get("success"), bool) else outcomes[number],
                    attributes,
                    segments.get(number, ()),
                    problem="" if end > start else empty,
                    exported=str(note.get("uuid") or ""),
                )
            )

        self.notes = [*(line for rule in self._rules.values() for line in rule.notes), *remarks]
        if self._buffer.skipped:
            self.notes.append(f"left out: {', '.join(self._buffer.skipped)}")
        if not any(episode.task for episode in self.episodes):
            self.notes.append("the format holds no instruction; task= gives one")

    def check(self, episode: SourceEpisode) -> None:
        """Check that the episode's videos are there and of one size; arrays were checked when they were opened."""
        for key, folder in self._videos.items():
            path = self._video(folder, episode.number)
            header = video_header(path)
            shape = self._video_shape(key, folder)
            if (header.height, header.width) != shape:
                raise ImportSourceError(f"{path} is {header.height}x{header.width}, episode 0 is {shape[0]}x{shape[1]}")

    def frames(self, episode: SourceEpisode) -> Iterator[SourceFrame]:
        """Yield the episode's frames."""
        buffer, number = self._buffer, episode.number
        start, end = buffer.starts[number], buffer.ends[number]
        times, received = self._clock(TIMESTAMP, number), self._clock(RECEIVED, number)
        if times is None:
            times = np.arange(episode.length) / self.fps
        rows = {feature: buffer.rows(key, number) for feature, key in self._rows.items()}
        if self._state:
            rows[STATE] = self._joined_state(number)
        images = {feature: buffer.arrays[key].blocks(start, end) for feature, key in self._frames.items()}
        videos = {key: self._video_frames(folder, number, times) for key, folder in self._videos.items()}
        for row in range(episode.length):
            values: dict[str, np.ndarray | PlanarFrame] = {
                feature: np.asarray(column[row]).reshape(self.features[feature]["shape"])
                for feature, column in rows.items()
            }
            for feature, blocks in images.items():
                where = f"{buffer.files.root}, {self._frames[feature]}, frame {row} of episode {number}"
                values[feature] = self._rules[feature](next(blocks), where)
            for key, frames in videos.items():
                values[key] = self._fit(next(frames))
            yield SourceFrame(values, float(times[row]), None if received is None else float(received[row]))

    def _state_parts(self, state: Sequence[str] | None) -> Sequence[str] | None:
        return state

    def _features(self) -> dict[str, FeatureSpec]:
        features: dict[str, FeatureSpec] = {}
        for feature, rule in self._rules.items():
            features[feature] = rule.feature
        for key, folder in self._videos.items():
            shape = (*(self._size or self._video_shape(key, folder)), 3)
            features[key] = {"dtype": "uint8", "shape": shape, "names": _NAMES}
        if self._state:
            arrays = [self._buffer.arrays[key] for key in self._state]
            if len({array.dtype for array in arrays}) > 1:
                raise ImportSourceError(f"the arrays {self._state} of the state have different types")
            width = sum(math.prod(array.shape[1:]) for array in arrays)
            features[STATE] = {"dtype": str(arrays[0].dtype.newbyteorder("=")), "shape": (width,), "names": None}
        for feature, key in self._rows.items():
            array = self._buffer.arrays[key]
            dtype = str(array.dtype.newbyteorder("="))
            features[feature] = {"dtype": dtype, "shape": array.shape[1:] or (1,), "names": None}
        noted = self._notes.get("features")
        known = noted if isinstance(noted, dict) and self._size is None else {}
        where = str(self._buffer.files.root)
        return {key: restored_feature(key, made, known.get(key), where) for key, made in features.items()}

    def _clock(self, key: str, number: int) -> np.ndarray | None:
        """Seconds (T,) of a clock; None where it was not recorded in this episode."""
        if key not in self._buffer.arrays:
            return None
        rows = self._buffer.rows(key, number).astype(np.float64)
        if math.prod(rows.shape[1:]) != 1:
            raise ImportSourceError(f"{self._buffer.arrays[key].where} must be one number a row")
        stamps: np.ndarray = rows.ravel()
        return None if np.isnan(stamps).all() else stamps

    def _joined_state(self, number: int) -> np.ndarray:
        parts = [self._buffer.rows(key, number) for key in self._state]
        return np.concatenate([part.reshape(len(part), -1) for part in parts], 1)

    def _fit(self, frame: np.ndarray | PlanarFrame) -> np.ndarray | PlanarFrame:
        if self._size is None:
            return frame
        return resize(np.asarray(frame), self._size).reshape(*self._size, frame.shape[2])

    def _image_rules(self) -> dict[str, ImageRule]:
        """The arrays that hold frames, by key."""
        rules = {}
        for key, array in self._buffer.arrays.items():

            def row(number: int, array: ZarrV2Array = array) -> np.ndarray:
                return array.rows(number, number + 1)[0]

            if key not in (TIMESTAMP, RECEIVED, STAGE, ACTION):
                where = f"{self._buffer.files.root}: {key}"
                found = image_rule(key, array.shape, array.dtype, row, self._image_settings, where, self._size)
                if found is not None:
                    rules[key] = found
        return rules

    def known_keys(self) -> Collection[str]:
        """The features, and the arrays that were left out."""
        skipped = self._buffer.skipped
        names = (f"{prefix}{key}" for key in skipped for prefix in ("", OBSERVATION, IMAGES))
        return {*self.features, *names}

    def numbers(self, episode: SourceEpisode) -> dict[str, np.ndarray]:
        """The arrays that are features by themselves."""
        return {feature: self._buffer.rows(key, episode.number) for feature, key in self._rows.items()}

    def identify(self, episode: SourceEpisode, content: ContentHash) -> None:
        """Give ``content`` the arrays as they stand, and the packets of the videos."""
        buffer, number = self._buffer, episode.number
        for feature, key in self._frames.items():
            content.add_images(feature, buffer.arrays[key].blocks(buffer.starts[number], buffer.ends[number]))
        clocks = [key for key in (TIMESTAMP, RECEIVED) if key in buffer.arrays]
        for key in sorted({*self._rows.values(), *self._state, *clocks}):
            content.add_rows(key, buffer.rows(key, number))
        for key, folder in self._videos.items():
            content.add_images(key, shown_frames(self._video(folder, number)).packets)

    def _note(self, number: int) -> EpisodeNotes:
        episodes = self._notes.get("episodes")
        if isinstance(episodes, list) and number < len(episodes) and isinstance(episodes[number], dict):
            return episodes[number]
        return {}

    # --- videos of real robots: videos/<episode>/<camera>.mp4 beside the replay buffer ---

    def _find_videos(self) -> dict[str, str]:
        root = self._buffer.files.root
        place = root.parent / "videos" / "0"
        if root.name != REPLAY_BUFFER or not place.is_dir():
            return {}
        files = sorted((file.stem for file in place.glob("*.mp4")), key=counting_order)
        return {f"{IMAGES}camera_{name}" if name.isdigit() else IMAGES + name: name for name in files}

    def _video(self, name: str, number: int) -> Path:
        return self._buffer.files.root.parent / "videos" / str(number) / f"{name}.mp4"

    def _video_shape(self, key: str, name: str) -> tuple[int, int]:
        header = video_header(self._video(name, 0))
        return header.height, header.width

    def _video_frames(self, name: str, number: int, times: np.ndarray) -> Iterator[np.ndarray | PlanarFrame]:
        """Frames nearest to the rows' times; the recorder starts the videos at the episode's first row."""
        path = self._video(name, number)
        shown = shown_frames(path)
        if not len(shown.seconds):
            raise ImportSourceError(f"{path} holds no frames")
        steps = np.diff(shown.seconds)
        tolerance = 0.75 * (float(np.median(steps)) if len(steps) else 1 / self.fps)
        wanted = times - times[0]
        matched = match_times(shown.seconds - shown.seconds[0], wanted, tolerance)
        if matched.row is not None:
            raise ImportSourceError(
                f"{path} has no frame at {wanted[matched.row]:.4f} s (row {matched.row} of episode {number}; the next "
                f"is {matched.distance:.4f} s away): it is truncated or its times are wrong"
            )
        return colours_shown_at(path, shown.ticks[matched.picks])

    def _choose(self, cameras: Sequence[str] | None) -> None:
        there = [*self._frames, *self._videos]
        if cameras is None:
            return
        keys = [name if name.startswith(IMAGES) else IMAGES + name for name in cameras]
        missing = [key for key in keys if key not in there]
        if missing:
            raise ImportSourceError(f"{self.path} has no cameras {missing}; it has {there}")
        self._frames = {key: value for key, value in self._frames.items() if key in keys}
        self._videos = {key: value for key, value in self._videos.items() if key in keys}
