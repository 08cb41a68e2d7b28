"""Video frames find their rows by presentation time: B-frames, cuts, other rates, a frame more or less."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from robo_core.errors import ConfigError, ImportSourceError
from robo_datasets import DemoStore
from robo_datasets.importers.lerobot.alignment import LeRobotReading
from robo_datasets.importers.lerobot.v2 import LeRobotV2Source
from robo_datasets.importers.run import import_source
from robo_datasets.video.presentation_times import match_times, shown_frames
from tests.datasets.lerobot_sets import CAMERA, FPS, number_of, numbered, write_v21, write_video

TICKS = 90_000


def bring_in(root: Path, store: Path, **reading) -> DemoStore:
    import_source(LeRobotV2Source(root, LeRobotReading(**reading)), store, workers=0)
    return DemoStore.open(store)


def shown_numbers(store: DemoStore, episode: int = 0) -> list[int]:
    return number_of(store[episode][CAMERA][:]).tolist()


def late(path: Path, frames: np.ndarray, fps: float) -> None:
    write_video(path, frames, fps, pts=3000 + np.arange(len(frames)) * TICKS // FPS, time_base=Fraction(1, TICKS))


def early(path: Path, frames: np.ndarray, fps: float) -> None:
    """Five foreign frames in front, shown at negative times."""
    before = np.concatenate([numbered(5, 50), frames])
    write_video(path, before, fps, pts=(np.arange(len(before)) - 5) * TICKS // FPS, time_base=Fraction(1, TICKS))


def cut(path: Path, frames: np.ndarray, fps: float) -> None:
    """Remuxed from a later key frame on, packets in front kept but hidden by an edit list, as ffmpeg -c copy does."""
    whole = path.with_name("whole.mp4")
    write_video(whole, np.concatenate([numbered(7, 50), frames]), fps, gop=30, b_frames=2)
    with av.open(str(whole)) as source, av.open(str(path), "w") as target:
        stream = source.streams.video[0]
        copy = target.add_stream_from_template(stream)
        start = round(7 / fps / stream.time_base)
        for packet in source.demux(stream):
            if packet.dts is None:
                continue
            packet.pts, packet.dts, packet.stream = packet.pts - start, packet.dts - start, copy
            target.mux(packet)
    whole.unlink()


@pytest.mark.parametrize("make", [late, early, cut], ids=["late", "early", "cut"])
def test_frames_are_taken_by_when_they_are_shown(tmp_path, make):
    write_v21(tmp_path / "set", [20, 21], make_video=make)
    store = bring_in(tmp_path / "set", tmp_path / "d.zarr")
    assert shown_numbers(store, 0) == list(range(20))
    assert shown_numbers(store, 1) == list(range(21))


def test_frames_in_another_order_than_they_are_shown(tmp_path):
    def b_frames(path: Path, frames: np.ndarray, fps: float) -> None:
        write_video(path, frames, fps, gop=20, b_frames=3)

    write_v21(tmp_path / "set", [20], make_video=b_frames)
    assert shown_numbers(bring_in(tmp_path / "set", tmp_path / "d.zarr")) == list(range(20))


def test_variable_rates_follow_the_rows_time_stamps(tmp_path):
    times = np.round(np.cumsum(np.r_[0, 0.02 + 0.2 * np.random.default_rng(1).random(19)]), 3)

    def variable(path: Path, frames: np.ndarray, fps: float) -> None:
        write_video(path, frames, fps, pts=np.round(times * TICKS).astype(int), time_base=Fraction(1, TICKS))

    write_v21(tmp_path / "set", [20], make_video=variable, stamps=lambda length: times[:length])
    store = bring_in(tmp_path / "set", tmp_path / "d.zarr")
    assert shown_numbers(store) == list(range(20))
    assert np.allclose(store[0].timestamp, times)


def half_rate(path: Path, frames: np.ndarray, fps: float) -> None:
    write_video(path, frames[::2], fps / 2)


def test_a_slower_video_is_refused_unless_the_tolerance_says_otherwise(tmp_path):
    write_v21(tmp_path / "set", [20], make_video=half_rate)
    with pytest.raises(ImportSourceError, match=r"no frame at row 1 .* 5 per second, the episode 20 rows, 10 per"):
        bring_in(tmp_path / "set", tmp_path / "d.zarr")
    assert not (tmp_path / "d.zarr").exists()
    source = LeRobotV2Source(tmp_path / "set", LeRobotReading(video_tolerance=0.11))
    result = import_source(source, tmp_path / "d.zarr", workers=0)
    assert shown_numbers(DemoStore.open(tmp_path / "d.zarr")) == [row // 2 * 2 for row in range(20)]
    assert "10 rows of" in result.notes[0]


@pytest.mark.parametrize(("more", "words"), [(1, "goes on for 1 frames"), (-1, "no frame at row 19")])
def test_a_frame_more_or_less_is_refused_and_may_be_allowed(tmp_path, more, words):
    def off(path: Path, frames: np.ndarray, fps: float) -> None:
        write_video(path, np.concatenate([frames, frames[-1:]]) if more > 0 else frames[:-1], fps)

    write_v21(tmp_path / "set", [20], make_video=off)
    with pytest.raises(ImportSourceError, match=words):
        bring_in(tmp_path / "set", tmp_path / "d.zarr")
    expected = [*range(20)] if more > 0 else [*range(19), 18]
    assert shown_numbers(bring_in(tmp_path / "set", tmp_path / "d.zarr", video_tolerance=0.11)) == expected


def test_by_index_the_clocks_do_not_matter(tmp_path):
    write_v21(tmp_path / "set", [20], stamps=lambda length: np.arange(length) * 0.13)
    with pytest.raises(ImportSourceError, match="align=index"):
        bring_in(tmp_path / "set", tmp_path / "d.zarr")
    assert shown_numbers(bring_in(tmp_path / "set", tmp_path / "d.zarr", align="index")) == list(range(20))


def test_by_index_every_row_needs_its_frame(tmp_path):
    write_v21(tmp_path / "set", [20], make_video=half_rate)
    with pytest.raises(ImportSourceError, match="has 10 frames, episode 0 20 rows"):
        bring_in(tmp_path / "set", tmp_path / "d.zarr", align="index")


def test_time_stamps_that_stand_still_are_no_reason_to_repeat_a_frame(tmp_path):
    write_v21(tmp_path / "set", [20], stamps=lambda length: np.zeros(length))
    with pytest.raises(ImportSourceError, match="one frame for two rows"):
        bring_in(tmp_path / "set", tmp_path / "d.zarr")


@pytest.mark.parametrize("settings", [{"align": "order"}, {"video_tolerance": -1.0}, {"video_tolerance": float("nan")}])
def test_other_settings_are_refused(tmp_path, settings):
    write_v21(tmp_path / "set", [5])
    with pytest.raises(ConfigError, match=next(iter(settings))):
        bring_in(tmp_path / "set", tmp_path / "d.zarr", **settings)


def test_half_way_between_two_frames_it_is_the_earlier_one():
    matched = match_times(np.array([0.0, 0.2, 0.4]), np.array([0.0, 0.1, 0.3, 0.31]), 0.1)
    assert (matched.picks.tolist(), matched.row, matched.repeated) == ([0, 0, 1, 2], None, 1)
    assert match_times(np.array([0.0]), np.array([0.0, 0.5]), 0.1).row == 1
    assert match_times(np.array([]), np.array([0.0]), 0.1).row == 0


def test_hidden_packets_are_no_frames(tmp_path):
    cut(tmp_path / "cut.mp4", numbered(20), FPS)
    assert len(shown_frames(tmp_path / "cut.mp4").seconds) >= 20
    assert len(shown_frames(tmp_path / "cut.mp4", start=0.0).seconds) == 20


def test_time_stamps_of_another_rate_than_the_declared_one_are_told(tmp_path):
    source = write_v21(tmp_path / "set", [12])
    info = json.loads((source / "meta/info.json").read_text())
    rate = info["fps"]
    info["fps"] = 3 * rate
    (source / "meta/info.json").write_text(json.dumps(info))
    result = import_source(LeRobotV2Source(source), tmp_path / "d.zarr", workers=0)
    assert [note for note in result.notes if f"({rate:g} per second)" in note and f"says {3 * rate:g} frames" in note]
