"""A dataset given in a store's place, or to the wrong importer: the answer is the command that reads it."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from robo_datasets import DemoStore
from robo_datasets.recognise import hub_id, recognise


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with one dataset of each kind, as far as it takes to be known."""
    (tmp_path / "lerobot/meta").mkdir(parents=True)
    (tmp_path / "lerobot/meta/info.json").write_text("{}")
    (tmp_path / "demo.hdf5").write_bytes(b"\x89HDF\r\n\x1a\n")
    (tmp_path / "take.mcap").write_bytes(b"\x89MCAP0\r\n")
    (tmp_path / "old.bag").write_bytes(b"#ROSBAG V2.0\n")
    (tmp_path / "bags/one").mkdir(parents=True)
    (tmp_path / "bags/one/one_0.db3").touch()
    (tmp_path / "clips/episode_0").mkdir(parents=True)
    (tmp_path / "clips/episode_0/front.mp4").touch()
    (tmp_path / "film.mp4").touch()
    (tmp_path / "real/replay_buffer.zarr").mkdir(parents=True)
    (tmp_path / "files").mkdir()
    (tmp_path / "files/a.hdf5").touch()
    (tmp_path / "odd").mkdir()
    with zipfile.ZipFile(tmp_path / "umi.zarr.zip", "w") as archive:
        archive.writestr("data/camera0_rgb/.zarray", "{}")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("given", "answer"),
    [
        ("lerobot", "is a LeRobot dataset, not a demo store; make one of it: robo-rm import lerobot source=lerobot "),
        ("demo.hdf5", "robo-rm import robomimic source=demo.hdf5 store=demo.zarr"),
        ("take.mcap", "robo-rm import rosbag source=take.mcap store=take.zarr robot=CONTRACT"),
        ("old.bag", "rosbags-convert --src old.bag"),
        ("bags", "robo-rm import rosbag source=bags "),
        ("clips", "robo-rm import keyframes source=clips "),
        ("film.mp4", "robo-rm import keyframes source=. "),
        ("real", "robo-rm import diffusion-policy source=real "),
        ("files", "robo-rm import robomimic source=files/a.hdf5 "),
        ("umi.zarr.zip", "robo-rm import umi source=umi.zarr.zip store=umi.zarr"),
        (
            "lerobot/aloha",
            "hf download lerobot/aloha --repo-type dataset --local-dir aloha, then robo-rm import ",
        ),
        ("odd", "is not a demo store: it has no zarr.json"),
        ("nowhere", "there is no demo store at nowhere"),
    ],
)
def test_a_dataset_given_as_a_store_is_answered_with_the_import_command(given, answer, here, run_command):
    if given == "lerobot/aloha":  # a folder of the organisation's name would make it a path
        (here / "lerobot").rename(here / "other")
    code, out, err = run_command("info", f"store={given}")
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert answer in err


@pytest.mark.parametrize(
    ("importer", "given", "answer"),
    [
        ("lerobot", "demo.hdf5", "is an HDF5 file; type: robo-rm import robomimic source=demo.hdf5 store=x.zarr"),
        ("lerobot", "take.mcap", "is a ROS 2 bag; type: robo-rm import rosbag source=take.mcap store=x.zarr robot="),
        ("lerobot", "film.mp4", "is a video file; type: robo-rm import keyframes source=. store=x.zarr"),
        ("robomimic", "lerobot", "is a LeRobot dataset; type: robo-rm import lerobot source=lerobot store=x.zarr"),
        ("keyframes", "lerobot", "type: robo-rm import lerobot source=lerobot store=x.zarr"),
        ("umi", "clips", "type: robo-rm import keyframes source=clips store=x.zarr"),
        ("diffusion-policy", "demo.hdf5", "type: robo-rm import robomimic source=demo.hdf5 store=x.zarr"),
        ("lerobot", "org/some_data", "hf download org/some_data --repo-type dataset --local-dir some_data"),
        ("lerobot", "https://huggingface.co/datasets/org/data", "hf download org/data --repo-type dataset"),
        ("lerobot", "nowhere", "there is no folder nowhere"),
        ("lerobot", "odd/nowhere", "there is no folder odd/nowhere"),
    ],
)
def test_a_source_of_another_format_is_answered_with_its_importer(importer, given, answer, here, run_command):
    code, out, err = run_command("import", importer, f"source={given}", "store=x.zarr", "workers=1")
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert answer in err
    assert not (here / "x.zarr").exists()


def test_doctor_and_training_give_the_same_answer(here, run_command):
    asked = (("doctor", "store=lerobot"), ("export", "lerobot", "store=lerobot", "target=x"))
    answers = {run_command(*words)[2].partition(": ")[2] for words in asked}
    assert answers == {
        "lerobot is a LeRobot dataset, not a demo store; make one of it: "
        "robo-rm import lerobot source=lerobot store=lerobot.zarr\n"
    }


def test_a_store_is_known_as_one(tmp_path):
    features = {"action": {"dtype": "float32", "shape": [2]}}
    DemoStore.create(tmp_path / "a.zarr", features, 10.0)
    assert [found.importer for found in recognise(tmp_path / "a.zarr")] == ["store"]
    (tmp_path / "b.zarr").mkdir()
    (tmp_path / "b.zarr/zarr.json").write_text(json.dumps([]))
    assert recognise(tmp_path / "b.zarr") == recognise(tmp_path / "nowhere") == []


def test_a_path_is_not_taken_for_a_name_on_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    assert hub_id("lerobot/pusht") == "lerobot/pusht"
    assert [hub_id(text) for text in ("data/pusht", "pusht", "a/b/c", "/a/b", "../b", "org/demos.zarr")] == [""] * 6
