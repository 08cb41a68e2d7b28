"""`robo-rm calibrate-monitor`: what it fits, measures, writes, refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from moving_square import CAMERA, ENCODER, HEIGHT, REWARD, STAGES, STATE, WIDTH, arrays

from robo_core.errors import ModelError
from robo_datasets import DemoStore
from robo_rm.evaluation.evaluate import choose_episodes
from robo_rm.monitor.promise import IMAGES, MONITOR, read_monitor
from robo_rm.reward_models.registry import FitRequest, reward_kind
from robo_rm.reward_models.saving import load_reward_model
from robo_rm.settings import OptimiserSettings
from robo_rm.training.budget import Budget

# Which episodes are held out is drawn by their random names: enough of them succeed (19 promise 5 %) in every draw.
TRAINED, SUCCESSES, FAILURES = 6, 34, 8


def add(store, number: int, success: bool) -> None:
    data = arrays(30, number, until=1.0)
    length = len(data[STATE])
    # A failure gets a third of the way and stands there.
    order = list(range(length)) if success else [min(t, length // 3) for t in range(3 * length)]
    with store.writer(task="move the square", success=success) as writer:
        for moment, t in enumerate(order):
            frame = {CAMERA: data[CAMERA][t], STATE: data[STATE][t]}
            writer.add(frame, timestamp=moment / 10, stage=int(data["stage"][t]))


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    features = {CAMERA: {"shape": (HEIGHT, WIDTH, 3), "dtype": "uint8"}, STATE: {"shape": (2,), "dtype": "float32"}}
    path = tmp_path_factory.mktemp("stores") / "square.zarr"
    store = DemoStore.create(path, features=features, fps=10, stages=STAGES)
    for number in range(TRAINED + SUCCESSES):
        add(store, number, True)
    for number in range(FAILURES):
        add(store, 100 + number, False)
    return DemoStore.open(path)


@pytest.fixture(scope="module")
def trained(store, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "rm"
    optimiser = OptimiserSettings(batch=8, warmup=5, learning_rate=3e-3)
    request = FitRequest(
        store,
        REWARD,
        folder,
        encoder=ENCODER,
        optimiser=optimiser,
        budget=Budget(150, None),
        holdout=SUCCESSES + FAILURES,
        device="cpu",
    )
    reward_kind("stage").fit(request)
    return folder


@pytest.fixture
def folder(trained, tmp_path) -> Path:
    import shutil

    return Path(shutil.copytree(trained, tmp_path / "rm"))


def test_the_promise_and_the_measurement_stand_in_the_model_folder(run_command, store, folder):
    words = (f"model={folder}", f"store={store.path}", "fraction=0.8", "rates=[0.05,0.1]")
    code, out, err = run_command("calibrate-monitor", *words)
    assert code == 0, err
    found = read_monitor(folder)
    assert found is not None
    assert found.promised() == [0.05, 0.1]
    measured = found.measured
    unseen = choose_episodes(load_reward_model(folder, "cpu"), store)[0]
    assert SUCCESSES <= len(unseen) + 4 <= SUCCESSES + FAILURES + 4  # some were watched in training
    assert 19 <= len(found.runs) <= 0.8 * (TRAINED + SUCCESSES) + 1
    told = measured["successes"] + len(found.runs) + measured["failures"] + measured["failures_fitted"]
    assert told == len(unseen)
    assert measured["false_alarms_at_0.05_low"] <= measured["false_alarms_at_0.05"] <= 1
    assert measured["detected_at_0.1"] > 0  # they stand still for six seconds, no success for more than one
    assert measured["delay_median_s_at_0.1"] > 0
    card = (folder / "card.md").read_text()
    assert card.count("## Progress monitor") == 1
    assert "at most 5.0% of successful runs" in card
    assert "at most 5.0%" in out
    assert f"next: robo-rm serve-policy reward_model={folder}" in out
    again = run_command("calibrate-monitor", *words)
    assert again[0] == 0
    assert (folder / "card.md").read_text() == card


def test_the_same_seed_gives_the_same_monitor_and_reading_gives_back_what_was_written(run_command, store, folder):
    words = (f"model={folder}", f"store={store.path}", "fraction=1", "rates=[0.05]")
    run_command("calibrate-monitor", *words)
    first = (folder / MONITOR).read_bytes()
    run_command("calibrate-monitor", *words)
    assert (folder / MONITOR).read_bytes() == first
    told = json.loads(first)
    assert told["measured"]["false_alarms_at_0.05"] is None
    assert "no successes were left over" in (folder / "card.md").read_text()
    found = read_monitor(folder)
    assert found is not None
    assert np.array_equal(found.scores, np.array(told["runs"]))


def test_too_few_successful_runs_are_refused_with_what_they_allow(run_command, store, folder):
    code, _, err = run_command("calibrate-monitor", f"model={folder}", f"store={store.path}", "rates=[0.01]")
    assert code == 2
    assert "a rate of 0.01 needs 99 successful runs" in err
    assert "rates=[0.0" in err
    assert not (folder / MONITOR).exists()


@pytest.mark.parametrize("words", [("rates=[0]",), ("rates=[]",), ("rates=[1.5]",), ("fraction=0",), ("fraction=2",)])
def test_settings_out_of_range_are_refused(run_command, store, folder, words):
    code, _, err = run_command("calibrate-monitor", f"model={folder}", f"store={store.path}", *words)
    assert code == 2
    assert words[0].partition("=")[0] in err


def test_a_monitor_of_another_state_of_the_model_is_refused(run_command, store, folder):
    words = (f"model={folder}", f"store={store.path}", "rates=[0.05]", "fraction=1")
    assert run_command("calibrate-monitor", *words)[0] == 0
    (folder / "config.yaml").write_text((folder / "config.yaml").read_text() + "\n# edited\n")
    with pytest.raises(ModelError, match="another state of the model"):
        read_monitor(folder)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"version": 9}', '{"version": 1}'])
def test_a_damaged_or_foreign_file_is_refused_in_one_line(folder, text):
    (folder / MONITOR).write_text(text)
    with pytest.raises(ModelError, match="calibrate-monitor") as caught:
        read_monitor(folder)
    assert "\n" not in str(caught.value)


def test_remove_takes_the_monitor_and_its_section_away(run_command, store, folder):
    before = (folder / "card.md").read_text()
    run_command("calibrate-monitor", f"model={folder}", f"store={store.path}", "rates=[0.05]", "fraction=1")
    assert run_command("calibrate-monitor", f"model={folder}", f"store={store.path}", "remove=true")[0] == 0
    assert not (folder / MONITOR).exists()
    assert not (folder / IMAGES).exists()
    assert (folder / "card.md").read_text().strip() == before.strip()
    load_reward_model(folder, "cpu")
