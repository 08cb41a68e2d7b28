"""What LeRobot datasets of all versions have in common once it is known where an episode's rows and videos stand."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa

from robo_core.errors import ImportSourceError
from robo_datasets.importers.columns import column_array, column_with_holes, float_bits, parquet_schema, time_stamps
from robo_datasets.importers.content import ContentHash
from robo_datasets.importers.lerobot.alignment import LeRobotReading, RowFrames, VideoPart, frames_of_rows
from robo_datasets.importers.lerobot.cameras import (
    CameraReading,
    decode_image,
    image_bytes,
    image_reading,
    video_reading,
)
from robo_datasets.importers.lerobot.features import choose_cameras, declared_features, undeclared_cameras
from robo_datasets.importers.lerobot.text import task_rows, text_details
from robo_datasets.importers.restored import restored_feature
from robo_datasets.importers.source import EpisodeDetails, Source, SourceEpisode, SourceFrame
from robo_datasets.lerobot_layout import TASK_INDEX
from robo_datasets.store.depth import MILLIMETRES, SCALES, depth_record, is_depth_map
from robo_datasets.store.features import FeatureSpec
from robo_datasets.store.jpeg import resize
from robo_datasets.store.planar import PlanarFrame
from robo_datasets.video.decoder import video_header
from robo_datasets.video.presentation_times import colours_shown_at, frames_shown_at


@dataclass
class _Last:
    """What was read last, so that one episode's rows and times are read once for all that is done with them."""

    number: int = -1
    table: pa.Table = None
    frames: dict[str, RowFrames] = field(default_factory=dict)
    """By camera."""


class LeRobotSource(Source):
    """A LeRobot dataset; subclasses say where an episode's rows and videos stand.

    Args:
        path: the folder.
        info: meta/info.json.
        reading: how it is read.
    """

    def __init__(self, path: Path, info: Mapping[str, object], reading: LeRobotReading) -> None:
        reading.check()
        self.path, self._info, self._reading = path, info, reading
        robot = info.get("robot_type")
        self.robot = robot if isinstance(robot, str) and robot != "unknown" else None
        self._declared = declared_features(info, path, reading.drop)
        self._dropped = set(reading.drop)
        self._cameras = choose_cameras(self._declared.cameras, reading.cameras, path)
        self._readings: dict[str, CameraReading] = {}
        self._tasks_change = False
        self._listed: dict[int, list[str]] = {}
        self._last = _Last()

    # --- what a version knows ---

    @abstractmethod
    def _table(self, episode: SourceEpisode, columns: list[str]) -> pa.Table:
        """The episode's rows."""

    @abstractmethod
    def _data_file(self, episode: SourceEpisode) -> Path:
        """The file of the episode's rows."""

    @abstractmethod
    def _video(self, episode: SourceEpisode, key: str) -> VideoPart:
        """Where the episode's frames of a camera stand."""

    @abstractmethod
    def _task_runs(self, episode: SourceEpisode, table: pa.Table) -> tuple[list[tuple[int, int, str]], str]:
        """The instruction by frame, and what is odd about it."""

    def _own_times(self, table: pa.Table, where: str) -> tuple[np.ndarray | None, np.ndarray | None]:
        """Source's and receiver's clock, (T,) f64 each, where robo-rm noted them."""
        return None, None

    # --- features ---

    def _set_up(self, record: Mapping[str, object] | None = None) -> None:
        """Decide what becomes of every feature; call it when episodes and ``_declared`` are known.

        Raises:
            ImportSourceError: a camera cannot be kept, or a column has a form that no store has.
        """
        noted = record or {}
        for key in self._cameras:
            self._readings[key] = self._read_camera(key, noted.get(key))
        self.features = {
            key: self._feature(key, noted.get(key))
            for key in self._declared.listed
            if key in self._declared.keys and (key in self._readings or key in self._declared.rows)
        }
        if (
            (self._tasks_change or TASK_INDEX in noted)
            and TASK_INDEX not in self.features
            and TASK_INDEX not in self._dropped
        ):
            self.features[TASK_INDEX] = {"dtype": "int64", "shape": (1,), "names": None}
        self.optional = [TASK_INDEX]
        self.notes = [*self._first_notes(), *(reading.note for reading in self._readings.values() if reading.note)]

    def _first_notes(self) -> Iterator[str]:
        for key, reason in self._declared.left_out.items():
            yield f"{key} was left out: it {reason}"
        for key in (*self._declared.text, *self._declared.language):
            yield f"{key} is text: it is kept in the attributes of every episode"
        readable = next((episode for episode in self.episodes if not episode.problem), None)
        try:
            kinds = parquet_schema(self._data_file(readable)) if readable is not None else ()
        except ImportSourceError:
            kinds = ()
        for column in kinds:
            declared = self._declared.rows[column.name]["dtype"] if column.name in self._declared.rows else ""
            if declared.startswith("float") and float_bits(column.type) > 8 * np.dtype(declared).itemsize:
                yield f"{column.name} holds {column.type}, {declared} is declared: it is rounded to that"
        undeclared = [column.name for column in kinds if column.name not in self._declared.listed]
        if undeclared:
            yield f"the columns {undeclared} of the data files are not declared in meta/info.json and were left out"
        if cameras := undeclared_cameras(self.path, self._declared.listed):
            yield f"the videos of {cameras} are not declared in meta/info.json and were left out"
        if self._tasks_change:
            yield (
                "the instruction changes within episodes: an episode's task is that of its first frame, and those of "
                f"all frames are kept in {TASK_INDEX} and in the attributes"
            )
        silent = [episode.number for episode in self.episodes if not episode.task]
        words = {"language_instruction", "instruction", "task", "task_description"}
        if silent and not any(key.rsplit(".", 1)[-1] in words for key in self._declared.text):
            which = "no episode has" if len(silent) == len(self.episodes) else f"{len(silent)} episodes do not have"
            yield f"{which} an instruction in the dataset (the first: episode {silent[0]})"

    def _read_camera(self, key: str, noted: object) -> CameraReading:
        entry = self._declared.cameras[key]
        image = key in self._reading.depth_pictures or (isinstance(noted, dict) and noted.get("dtype") == "uint8")
        if entry["dtype"] == "video":
            bits, pixels, where = 8, "", str(self.path)
            for episode in self.episodes:
                try:
                    header = video_header(self._video(episode, key).path)
                except ImportSourceError:
                    continue
                bits, pixels = header.bits, header.pixel_format
                where = str(self._video(episode, key).path)
                break
            return video_reading(key, entry, bits, pixels, image, where)
        first, where = None, str(self.path)
        for episode in self.episodes:
            try:
                cell = self._first_cell(episode, key)
                where = self._where(episode)
                first = decode_image(cell, self.path, where)
            except ImportSourceError:
                continue
            break
        return image_reading(key, entry, first, image, where)

    def _first_cell(self, episode: SourceEpisode, key: str) -> object:
        table = self._table(episode, [key])
        return table[key][0].as_py() if table.num_rows else None

    def _feature(self, key: str, noted: object) -> FeatureSpec:
        where = str(self.path / "meta/info.json")
        if key in self._readings:
            found = restored_feature(key, self._readings[key].feature(None), noted, where)
            if self._reading.size is not None:
                found["shape"] = (*self._reading.size, found["shape"][2])
            return found
        entry = self._declared.rows[key]
        made: FeatureSpec = {"dtype": entry["dtype"], "shape": entry["shape"], "names": entry.get("names")}
        if is_depth_map(entry) and made["dtype"] == "uint16" and len(made["shape"]) == 3 and made["shape"][2] == 1:
            unit = entry["info"].get("depth_unit") if isinstance(entry["info"], dict) else None
            made["depth"] = depth_record(unit if unit in SCALES else MILLIMETRES)
        return restored_feature(key, made, noted, where)

    def known_keys(self) -> Collection[str]:
        """Everything that the dataset declares."""
        return {*self._declared.listed, *self.features, TASK_INDEX}

    def drop(self, keys: Collection[str]) -> None:
        """Neither check nor read these features any more."""
        self._dropped |= set(keys)
        for kind in (self._declared.rows, self._declared.cameras, self._readings, self._declared.left_out):
            for key in keys:
                kind.pop(key, None)
        for names in (self._declared.text, self._declared.language, self._cameras):
            names[:] = [key for key in names if key not in keys]
        super().drop(keys)

    # --- episodes ---

    def check(self, episode: SourceEpisode) -> None:
        """Check that the episode's columns are there and that its videos have a frame for every row."""
        path = self._data_file(episode)
        names = parquet_schema(path).names
        missing = [name for name in self._columns() if name not in names]
        if missing:
            hint = "" if "timestamp" in missing else f"; drop=[{','.join(missing)}] leaves them out"
            raise ImportSourceError(
                f"{path} (episode {episode.number}) lacks the columns {missing}{hint}; it has {names}"
            )
        for key in self._videos():
            part = self._video(episode, key)
            header = video_header(part.path)
            height, width = self._readings[key].shape[:2]
            if (header.height, header.width) != (height, width):
                raise ImportSourceError(
                    f"{part.path} (episode {episode.number}) is {header.height}x{header.width}, {key} is declared "
                    f"{height}x{width}; drop=[{key}] leaves the camera out"
                )
            rows = round(part.start * self._row_rate()) + episode.length
            sound = header.frames == rows if part.alone else header.frames >= rows
            if not sound or (part.alone and abs(header.seconds - rows / self._row_rate()) > 0.5 / self._row_rate()):
                self._match(episode, key)  # the header does not settle it

    def frames(self, episode: SourceEpisode) -> Iterator[SourceFrame]:
        """Yield the episode's frames, images resized where a size was asked for."""
        where, table = self._where(episode), self._rows(episode)
        columns = {key: self._column(table, key, where) for key in self._declared.rows if key in self.features}
        if TASK_INDEX in self.features and TASK_INDEX not in columns:
            columns[TASK_INDEX] = task_rows(self._task_runs(episode, table)[0], episode.length)[0]
        stamps = time_stamps(table, where)
        times, received = self._own_times(table, where)
        cameras = [(key, self._frames_of(episode, key), reading.shape) for key, reading in self._readings.items()]
        fits = {key: shape == tuple(self.features[key]["shape"]) for key, _, shape in cameras}
        for row in range(episode.length):
            values: dict[str, np.ndarray | PlanarFrame] = {key: column[row] for key, column in columns.items()}
            for key, decoded, shape in cameras:
                image = next(decoded, None)
                if image is None or image.shape != shape or not fits[key]:
                    image = self._fitted(image, key, row, where)
                values[key] = image
            yield SourceFrame(
                values,
                float(stamps[row] if times is None else times[row]),
                None if received is None else float(received[row]),
            )

    def details(self, episode: SourceEpisode) -> EpisodeDetails:
        """Instructions and text of the episode's rows, and what was odd about them."""
        table = self._rows(episode)
        runs, odd = self._task_runs(episode, table)
        task = episode.task or ("" if not runs else runs[0][2])
        found = text_details(
            table,
            self._declared.text,
            self._declared.language,
            runs,
            task,
            episode.attributes,
            self._listed.get(episode.number, ()),
        )
        notes = [odd] if odd else []
        for key, frames in self._last.frames.items():
            if frames.repeated:
                notes.append(
                    f"episode {episode.number}: {frames.repeated} rows of {key} have the same frame as the row before "
                    "(video_tolerance)"
                )
            if frames.drift:
                notes.append(
                    f"episode {episode.number}: meta/episodes notes the start of {key} wrong by {frames.drift:.3f} s; "
                    "it was found by counting the frames in front"
                )
        notes += [
            f"episode {episode.number}: {count} missing values of {key} became NaN"
            for key in self._declared.rows
            if key in self.features and (count := column_with_holes(table, key))
        ]
        return EpisodeDetails(found.task or None, found.attributes, found.runs, notes)

    def instruction(self, episode: SourceEpisode) -> str:
        """That of the first frame, where frames have one: the list of episodes may say another."""
        runs = self._task_runs(episode, self._rows(episode))[0]
        return (runs[0][2] if runs else "") or episode.task

    def numbers(self, episode: SourceEpisode) -> dict[str, np.ndarray]:
        """The episode's columns."""
        where, table = self._where(episode), self._rows(episode)
        return {key: self._column(table, key, where) for key in self._declared.rows if key in self.features}

    def identify(self, episode: SourceEpisode, content: ContentHash) -> None:
        """Numbers, and the packets or images that the images are decoded from.

        An episode of a v2.1 dataset and of the v3.0 one that was made of it are the same where the packets of the
        videos were copied, as LeRobot's converter does.
        """
        where, table = self._where(episode), self._rows(episode)
        for key in self._declared.rows:
            if key in self.features:
                content.add_rows(key, self._column(table, key, where))
        content.add_times(time_stamps(table, where))
        for key in self._videos():
            content.add_images(key, self._match(episode, key).packets)
        for key in self._embedded():
            content.add_images(
                key,
                (
                    image_bytes(cell.as_py(), self.path, f"{where}: column {key}, frame {row}")
                    for row, cell in enumerate(table[key])
                ),
            )

    def _where(self, episode: SourceEpisode) -> str:
        return f"{self._data_file(episode)} (episode {episode.number})"

    def _rows(self, episode: SourceEpisode) -> pa.Table:
        """All rows of the episode that are needed."""
        if self._last.number != episode.number or self._last.table is None:
            names = parquet_schema(self._data_file(episode)).names
            more = [name for name in ("task_index", "episode_index") if name in names]
            table = self._table(episode, [*dict.fromkeys([*self._columns(), *more])])
            if table.num_rows != episode.length:
                raise ImportSourceError(
                    f"{self._data_file(episode)} has {table.num_rows} frames, episode {episode.number} is "
                    f"declared with {episode.length}"
                )
            self._last = _Last(episode.number, table)
        return self._last.table

    def _column(self, table: pa.Table, key: str, where: str) -> np.ndarray:
        try:
            rows = column_array(table, key, self._declared.rows[key], where, rounded=True)
        except ImportSourceError as error:
            raise ImportSourceError(f"{error}; drop=[{key}] leaves the column out") from error
        return rows.reshape(len(rows), *self.features[key]["shape"])

    def _frames_of(self, episode: SourceEpisode, key: str) -> Iterator[np.ndarray | PlanarFrame]:
        reading, where = self._readings[key], self._where(episode)
        if key in self._videos():
            path, ticks = self._video(episode, key).path, self._match(episode, key).ticks
            if reading.as_decoded:
                yield from colours_shown_at(path, ticks)
                return
            for row, frame in enumerate(frames_shown_at(path, ticks, reading.decode)):
                yield reading.finish(frame, f"{path} (episode {episode.number}, frame {row})")
            return
        for row, cell in enumerate(self._rows(episode)[key]):
            here = f"{where}: column {key}, frame {row}"
            yield reading.finish(decode_image(cell.as_py(), self.path, here), here)

    def _fitted(self, image: np.ndarray | PlanarFrame | None, key: str, row: int, where: str) -> np.ndarray:
        shape = self._readings[key].shape
        if image is None or image.shape[:2] != shape[:2]:
            found = None if image is None else image.shape
            raise ImportSourceError(f"{where}, frame {row}: the image is {found}, {key} is declared {shape}")
        image = np.asarray(image)
        channels = self.features[key]["shape"][2]
        if channels == 1 and image.shape[2] == 3:  # a grey camera of a store, written as colour by robo-rm
            image = image[..., :1]
        if self._reading.size is not None:
            image = resize(image, self._reading.size).reshape(*self._reading.size, channels)
        return image

    # --- video ---

    def _row_rate(self) -> float:
        """Rows a second, as the time stamps count them."""
        value = self._info.get("fps")
        return float(value) if isinstance(value, int | float) and value > 0 else self.fps

    def _match(self, episode: SourceEpisode, key: str) -> RowFrames:
        """The frame of every row of the episode, found once.

        Raises:
            ImportSourceError: a row has no frame within the tolerance, or the video goes on behind the last row.
        """
        table = self._rows(episode)
        if key not in self._last.frames:
            stamps = time_stamps(table, self._where(episode))
            part = self._video(episode, key)
            self._last.frames[key] = frames_of_rows(part, stamps, self._reading, self._row_rate(), episode.number)
        return self._last.frames[key]

    def _columns(self) -> list[str]:
        return [
            *(key for key in self._declared.rows if key in self.features),
            *self._embedded(),
            *self._declared.text,
            *self._declared.language,
            "timestamp",
        ]

    def _videos(self) -> list[str]:
        return [key for key in self._readings if self._declared.cameras[key]["dtype"] == "video"]

    def _embedded(self) -> list[str]:
        return [key for key in self._readings if self._declared.cameras[key]["dtype"] == "image"]

    def files(self, episode: SourceEpisode) -> tuple[Path, ...]:
        """The episode's data file and videos."""
        return (
            self._data_file(episode),
            *(self._video(episode, key).path for key in self._videos()),
        )

    def __getstate__(self) -> dict[str, object]:
        """Everything but what was read last."""
        return {**vars(self), "_last": _Last()}
