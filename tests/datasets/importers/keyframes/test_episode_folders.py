"""Folders of videos as people have them: outcomes, grades, rates and sizes that differ, edit lists."""

from __future__ import annotations

import json
import shutil
import struct
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from small_demos import smooth_frames

from robo_datasets import DemoStore
from robo_datasets.importers.frame_plan import clock_of, plan_frames

CAM = "observation.images.cam"


def grey_levels(count: int, first: int = 20, step: int = 10) -> np.ndarray:
    """Frames whose level tells their number."""
    return np.stack([np.full((48, 64, 3), first + step * number, np.uint8) for number in range(count)])


def write_video(path: Path, frames: np.ndarray, times: Any, unit: Fraction = Fraction(1, 12000), bf: int = 0) -> Path:
    """Write frames that are shown at ``times`` (seconds)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "yuv420p"
        stream.options = {"crf": "5", "g": "5", "bf": str(bf)}
        stream.codec_context.time_base = stream.time_base = unit
        for image, time in zip(frames, times, strict=True):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = round(time / unit), unit
            for packet in stream.encode(frame):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path


def copy_from(source: Path, target: Path, seconds: float) -> Path:
    """What ``ffmpeg -ss SECONDS -c copy`` does: packets from the key frame on, an edit list that hides the first."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(source)) as there, av.open(str(target), "w") as here:
        stream = there.streams.video[0]
        copy = here.add_stream_from_template(stream)
        shift = round(seconds / stream.time_base)
        there.seek(shift, stream=stream)
        for packet in there.demux(stream):
            if packet.dts is not None:
                packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
                packet.stream = copy
                here.mux(packet)
    return target


@pytest.fixture
def bring_in(tmp_path: Path, run_command: Any) -> Any:
    def run(source: Path, *more: str, name: str = "d.zarr") -> tuple[DemoStore | None, str]:
        store = tmp_path / name
        code, out, err = run_command("import", "keyframes", f"source={source}", f"store={store}", "workers=0", *more)
        assert code == 0 or (code == 2 and not store.exists()), out + err
        return (DemoStore.open(store) if code == 0 else None), out + err

    return run


def levels(store: DemoStore, number: int = 0) -> list[int]:
    return [round((float(frame.mean()) - 20) / 10) for frame in store[number][CAM][:]]


@pytest.mark.parametrize("step", [1 / 3, 0.25, 1001 / 30000, 0.04])
def test_the_rate_follows_from_presentation_times_however_long_an_episode_is(tmp_path, bring_in, step):
    for number, count in enumerate((5, 6, 9)):
        write_video(tmp_path / f"s/episode_{number}/cam.mp4", grey_levels(count), np.arange(count) * step)
    store, _ = bring_in(tmp_path / "s")
    assert store.fps == pytest.approx(1 / step, rel=1e-6)
    assert [episode.length for episode in store] == [5, 6, 9]
    np.testing.assert_allclose(store[2].timestamp, np.arange(9) * step, atol=1e-4)


def test_real_rollouts_a_third_of_a_second_apart_go_in(shared_data, bring_in):
    store, _ = bring_in(shared_data / "sentinel_push_chair")
    assert (len(store), store.fps) == (14, 3)
    assert sorted((episode.length, episode.success) for episode in store) == sorted(
        [(9, False)] * 10 + [(6, True)] * 2 + [(5, True)] * 2
    )
    assert {episode.task for episode in store} == {"push the chair under the table"}


def test_real_graded_episodes_go_in_with_outcome_grade_and_instruction(shared_data, bring_in):
    store, said = bring_in(shared_data / "robometer_quality")
    labels = {entry["path"]: entry for entry in json.loads((shared_data / "robometer_quality/labels.json").read_text())}
    assert len(store) == len(labels) == 23
    assert (store.fps, store[0][CAM].shape) == (4, (16, 238, 320, 3))
    for episode in store:
        label = labels[episode.attributes["folder"]]
        assert episode.task == label["task"]
        assert episode.attributes["grade"] == label["label"]
        assert episode.attributes["grade_value"] == {"success": 1, "suboptimal": 0.5, "failure": 0}[label["label"]]
        assert episode.success is (label["label"] == "success")
        wanted = label["size"] if label["size"] != [238, 320] else None
        assert episode.attributes.get("original_size", {}).get(CAM) == wanted
    assert "comes as 238x320, 320x178, 320x240" in said
    tall = next(episode for episode in store if episode.attributes.get("original_size", {}).get(CAM) == [320, 178])
    assert tall[CAM][3][:, :80].max() < 12  # black beside it
    assert tall[CAM][3][:, 120:200].std() > 10


def test_grades_may_be_given_another_meaning(tmp_path, bring_in):
    for number in range(3):
        write_video(tmp_path / f"s/e{number}/cam.mp4", smooth_frames(6, 48, 64, number), np.arange(6) / 10)
    (tmp_path / "s/labels.json").write_text(json.dumps({"e0": "meh", "e1": {"label": "suboptimal", "task": "tidy"}}))
    store, said = bring_in(tmp_path / "s")
    assert [episode.success for episode in store] == [None, False, None]
    assert [episode.attributes.get("grade") for episode in store] == ["meh", "suboptimal", None]
    assert "the labels meh are kept as grades, but say nothing of success" in said
    assert "does not say how 1 episodes went, for example e2" in said
    assert "whether 2 of 3 episodes succeeded" in said
    assert [episode.task for episode in store] == ["", "tidy", ""]
    store, said = bring_in(tmp_path / "s", "outcomes={meh: true, suboptimal: unknown}", name="e.zarr")
    assert [episode.success for episode in store] == [True, None, None]
    _, said = bring_in(tmp_path / "s", "outcomes={meh: perhaps}", name="f.zarr")
    assert "not one of: true, false, unknown" in said


def test_a_folder_name_says_the_outcome_only_where_all_do(tmp_path, bring_in):
    for number, place in enumerate(("success/a", "success/b", "Failed/a")):
        write_video(tmp_path / f"s/{place}/cam.mp4", smooth_frames(6, 48, 64, number), np.arange(6) / 10)
    store, said = bring_in(tmp_path / "s")
    assert {e.attributes["folder"]: e.success for e in store} == {
        "success/a": True,
        "success/b": True,
        "Failed/a": False,
    }
    assert "from the name of its folder: Failed, success" in said
    write_video(tmp_path / "s/kitchen/a/cam.mp4", smooth_frames(6, 48, 64, 5), np.arange(6) / 10)
    store, _ = bring_in(tmp_path / "s", name="e.zarr")
    assert {episode.success for episode in store} == {None}


def test_the_nearest_instruction_counts_and_none_is_said(tmp_path, bring_in):
    for number, place in enumerate(("x/a", "y/a", "y/b")):
        write_video(tmp_path / f"s/{place}/cam.mp4", smooth_frames(6, 48, 64, number), np.arange(6) / 10)
    _, said = bring_in(tmp_path / "s")
    assert "no instruction was found" in said
    (tmp_path / "s/task_instruction.json").write_text('["tidy up"]')
    (tmp_path / "s/y/b/task_instruction.json").write_text('["fold the towel", "fold it"]')
    store, _ = bring_in(tmp_path / "s", name="e.zarr")
    assert [episode.task for episode in store] == ["tidy up", "tidy up", "fold the towel"]
    assert store[2].attributes["instructions"] == ["fold the towel", "fold it"]


def test_a_video_of_variable_rate_is_picked_by_time(tmp_path, bring_in):
    """A screen recorder leaves out frames in which nothing changed."""
    shown = np.delete(np.arange(20), [4, 5, 6, 12])
    write_video(tmp_path / "s/a/cam.mp4", grey_levels(20)[shown], shown / 20)
    store, said = bring_in(tmp_path / "s")
    assert (store.fps, store[0].length) == (20, 20)
    assert levels(store) == [0, 1, 2, 3, 3, 3, 3, 7, 8, 9, 10, 11, 11, 13, 14, 15, 16, 17, 18, 19]
    assert "a variable rate" in said
    assert "a variable rate" in store[0].attributes["assumed"][0]


def test_cameras_of_different_rates_are_aligned_by_time(tmp_path, bring_in):
    write_video(tmp_path / "s/a/front.mp4", grey_levels(20), np.arange(20) / 20)
    write_video(tmp_path / "s/a/cam.mp4", grey_levels(10), np.arange(10) / 10)
    store, said = bring_in(tmp_path / "s")
    assert store.fps == 20
    assert levels(store) == [number // 2 for number in range(20)]
    assert "cam.mp4 has 10 frames/s, front.mp4 has 20; aligned by time" in said


def test_episodes_of_several_rates_come_to_one_where_that_is_asked_for(tmp_path, bring_in):
    write_video(tmp_path / "s/a/cam.mp4", grey_levels(20), np.arange(20) / 20)
    write_video(tmp_path / "s/b/cam.mp4", grey_levels(20), np.arange(20) / 10)
    _, said = bring_in(tmp_path / "s")
    assert "b: cam.mp4 has 10 frames/s, most episodes have 20; fps=20" in said
    store, _ = bring_in(tmp_path / "s", "fps=10")
    assert levels(store, 0) == [2 * number for number in range(10)]
    assert levels(store, 1) == list(range(20))
    store, said = bring_in(tmp_path / "s", "skip_bad=true", name="e.zarr")
    assert len(store) == 1
    assert "episode 1 was left out" in said


def test_what_an_edit_list_hides_counts_for_nothing(tmp_path, bring_in):
    whole = write_video(tmp_path / "whole.mp4", grey_levels(20), np.arange(20) / 10, bf=2)
    copy_from(whole, tmp_path / "s/a/cam.mp4", 0.7)
    store, _ = bring_in(tmp_path / "s")
    assert levels(store) == list(range(7, 19))  # the list of this muxer ends before the last, as FFmpeg decodes it


def test_a_camera_that_ends_a_frame_early_ends_the_episode(tmp_path, bring_in):
    write_video(tmp_path / "s/a/front.mp4", grey_levels(12), np.arange(12) / 10)
    write_video(tmp_path / "s/a/cam.mp4", grey_levels(11), np.arange(11) / 10)
    marks = [
        {"anotation": "reach", "start_frame_id": 1, "end_frame_id": 5},
        {"anotation": "lift", "start_frame_id": 5, "end_frame_id": 11},
    ]
    (tmp_path / "s/a/annotated_keyframes.json").write_text(json.dumps(marks))
    store, said = bring_in(tmp_path / "s")
    assert levels(store) == list(range(11))
    assert [segment[:2] for segment in store[0].stages] == [(1, 5), (5, 11)]
    assert "cam.mp4 ends first, the last frame of front.mp4 was left out" in said


def test_one_bad_episode_need_not_stop_the_others(tmp_path, bring_in):
    for number in range(3):
        write_video(tmp_path / f"s/e{number}/cam.mp4", smooth_frames(6, 48, 64, number), np.arange(6) / 10)
    (tmp_path / "s/e1/cam.mp4").write_bytes(b"nothing")
    _, said = bring_in(tmp_path / "s")
    assert "e1/cam.mp4 is truncated or no video" in said
    store, said = bring_in(tmp_path / "s", "skip_bad=true")
    assert [episode.attributes["folder"] for episode in store] == ["e0", "e2"]


def test_marks_and_folders_that_are_added_bring_nothing_in_twice(tmp_path, bring_in):
    for number in (1, 2):
        write_video(tmp_path / f"s/e{number}/cam.mp4", smooth_frames(6, 48, 64, number), np.arange(6) / 10)
    first, _ = bring_in(tmp_path / "s")
    write_video(tmp_path / "s/e0/cam.mp4", smooth_frames(6, 48, 64, 7), np.arange(6) / 10)
    marks = [{"name": "reach", "start_frame_id": 0, "end_frame_id": 6}]
    (tmp_path / "s/e1/annotated_keyframes.json").write_text(json.dumps(marks))
    (tmp_path / "s/labels.json").write_text(
        json.dumps([{"path": "e1", "label": "success"}, {"path": "e2", "label": "failure"}])
    )
    again, said = bring_in(tmp_path / "s", "relabel=true")
    assert len(again) == 3, said
    by_name = {episode.attributes["folder"]: episode for episode in again}
    assert {name: episode.success for name, episode in by_name.items()} == {"e0": None, "e1": True, "e2": False}
    assert [segment.name for segment in by_name["e1"].stages] == ["reach"]
    assert {episode.uuid for episode in first} <= {episode.uuid for episode in again}


def test_grades_and_instructions_that_change_are_told_and_relabelled(tmp_path, bring_in):
    for number in (1, 2):
        write_video(tmp_path / f"s/e{number}/cam.mp4", smooth_frames(6, 48, 64, number), np.arange(6) / 10)
    labels = tmp_path / "s/labels.json"
    labels.write_text(json.dumps({"e1": {"label": "success", "task": "push"}, "e2": "failure"}))
    bring_in(tmp_path / "s")
    labels.write_text(json.dumps({"e1": {"label": "half success", "task": "push the chair"}, "e2": "failure"}))
    store, said = bring_in(tmp_path / "s")
    assert "the store says otherwise than this command (success of 1, instruction of 1, attributes of 1)" in said
    assert [episode.attributes["grade"] for episode in store] == ["success", "failure"]
    store, said = bring_in(tmp_path / "s", "relabel=true")
    assert "1 of these were relabelled" in said
    first = store[0]
    assert (first.success, first.task) == (False, "push the chair")
    assert (first.attributes["grade"], first.attributes["grade_value"]) == ("half success", 0.5)
    assert first.attributes["folder"] == "e1"
    assert store.tasks == ["", "push the chair"][1:]
    _, said = bring_in(tmp_path / "s", "relabel=true")
    assert "were relabelled" not in said
    assert "says otherwise" not in said


def test_files_with_states_and_actions_beside_the_videos_are_named(tmp_path, bring_in):
    write_video(tmp_path / "s/e1/cam.mp4", smooth_frames(6, 48, 64, 1), np.arange(6) / 10)
    (tmp_path / "s/e1/trajectory.h5").write_bytes(b"x")
    (tmp_path / "s/e1/notes.txt").write_text("x")
    (tmp_path / "s/labels.csv").write_text("e1,success")
    _, said = bring_in(tmp_path / "s")
    assert f"2 files beside the videos were not read, for example {tmp_path / 's/labels.csv'}" in said


def test_a_lerobot_data_set_is_not_taken_for_folders_of_videos(tmp_path, bring_in):
    write_video(tmp_path / "s/videos/chunk-000/front/episode_0.mp4", smooth_frames(6, 48, 64, 1), np.arange(6) / 10)
    (tmp_path / "s/meta").mkdir()
    (tmp_path / "s/meta/info.json").write_text("{}")
    _, said = bring_in(tmp_path / "s")
    assert f"s is a LeRobot dataset; type: robo-rm import lerobot source={tmp_path / 's'}" in said


@pytest.mark.parametrize("place", ["", "episode_1", "episode_1/front"])
def test_a_folder_of_single_images_is_refused_with_the_way_to_make_a_video(tmp_path, run_command, place):
    folder = tmp_path / "s" / place
    folder.mkdir(parents=True)
    cv2.imwrite(str(folder / "000000.jpg"), np.zeros((16, 16, 3), np.uint8))
    code, _, err = run_command("import", "keyframes", f"source={tmp_path / 's'}", f"store={tmp_path / 'd.zarr'}")
    assert code == 2
    assert "holds no folder with mp4 files" in err
    assert f"{folder} holds single images: make a video of each camera" in err
    assert f"-i '{folder}/*.jpg'" in err


@pytest.mark.parametrize(("matrix", "turns"), [((0, 1, -1, 0), -1), ((-1, 0, 0, -1), 2), ((0, -1, 1, 0), 1)])
def test_videos_of_a_turned_phone_stand_as_players_show_them(tmp_path, bring_in, matrix, turns):
    frames = smooth_frames(6, 48, 64, 1)
    write_video(tmp_path / "s/e1/cam.mp4", frames, np.arange(6) / 10)
    plain, _ = bring_in(tmp_path / "s")
    before = plain[0].frames("observation.images.cam", [3])[0]
    shutil.rmtree(plain.path)
    data = bytearray((tmp_path / "s/e1/cam.mp4").read_bytes())
    at = data.find(b"tkhd") + 44
    a, b, c, d = (value << 16 for value in matrix)
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    (tmp_path / "s/e1/cam.mp4").write_bytes(data)
    store, said = bring_in(tmp_path / "s")
    shown = store[0].frames("observation.images.cam", [3])[0]
    assert np.abs(shown.astype(int) - np.rot90(before, turns)).mean() < 2
    assert "its images were turned as players show them" in said


def test_an_outcome_noted_in_the_store_is_not_taken_away_by_a_source_that_says_none(tmp_path, bring_in):
    write_video(tmp_path / "s/e1/cam.mp4", smooth_frames(6, 48, 64, 1), np.arange(6) / 10)
    store, _ = bring_in(tmp_path / "s")
    store.set_success(store[0].uuid, True)
    store, said = bring_in(tmp_path / "s", "relabel=true")
    assert store[0].success is True
    assert "relabelled" not in said
    store, _ = bring_in(tmp_path / "s", "relabel=true", "success=unknown")
    assert store[0].success is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("3", "must hold a list of"),
        ('[{"label": "success"}]', "entry 0 has no path"),
        ('[{"path": "a", "label": {"x": 1}}]', "not a word"),
        ('[{"path": "a", "label": "success"}, {"path": "a/", "label": "failure"}]', "a/ is labelled twice"),
        ("[{", "not JSON"),
    ],
)
def test_a_malformed_label_file_is_one_line(tmp_path, bring_in, text, words):
    write_video(tmp_path / "s/a/cam.mp4", smooth_frames(6, 48, 64), np.arange(6) / 10)
    (tmp_path / "s/labels.json").write_text(text)
    _, said = bring_in(tmp_path / "s")
    assert words in said


def test_times_in_whole_milliseconds_are_one_steady_rate():
    clock = clock_of(np.round(np.arange(300) / 30, 3), "x")
    assert (clock.steady, clock.fps) == (True, 30)
    plan = plan_frames({"a": clock, "b": clock_of(np.arange(300) / 30, "y")}, 30, False, "e")
    assert (plan.picks["b"] == np.arange(300)).all()
    assert not plan.notes


def test_files_named_for_episodes_are_not_taken_for_cameras(tmp_path, bring_in):
    for number in range(3):
        write_video(tmp_path / f"s/episode_{number}.mp4", smooth_frames(6, 48, 64, number), np.arange(6) / 10)
    _, said = bring_in(tmp_path / "s")
    assert "3 videos that are named for episodes (episode_0, episode_1)" in said
    store, _ = bring_in(tmp_path / "s", "cameras=[episode_0]")
    assert list(store.features) == ["observation.images.episode_0"]


def test_cameras_with_names_that_no_store_has_get_others(tmp_path, bring_in):
    write_video(tmp_path / "s/e0/cam high (1).mp4", grey_levels(6), np.arange(6) / 10)
    store, said = bring_in(tmp_path / "s")
    assert list(store.features) == ["observation.images.cam_high__1_"]
    assert "observation.images.cam high (1) is stored as" in said


def test_a_camera_that_some_episodes_lack_can_be_dropped(tmp_path, bring_in):
    for number, names in enumerate((("front", "wrist"), ("front",))):
        for name in names:
            write_video(tmp_path / f"s/e{number}/{name}.mp4", smooth_frames(6, 48, 64, number), np.arange(6) / 10)
    _, said = bring_in(tmp_path / "s")
    assert "cameras=[front] takes what it has" in said
    store, _ = bring_in(tmp_path / "s", "drop=[observation.images.wrist]")
    assert list(store.features) == ["observation.images.front"]
    assert len(store) == 2
    assert "drop= leaves no camera" in bring_in(tmp_path / "s", "drop=[front,wrist]", name="e.zarr")[1]
