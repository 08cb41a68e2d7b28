"""Phrasings of one task: kept in the store, never a wrong instruction, read alike by the trained model."""

from __future__ import annotations

import numpy as np
import pytest
from moving_square import CAMERA, ENCODER, REWARD, STATE, arrays, make_store

from robo_core.errors import StoreError
from robo_datasets import DemoStore
from robo_datasets.store.instructions import Phrasings, check_groups, instruction_groups, set_instruction_groups
from robo_rm.encoders.conv import hash_words, word_vectors
from robo_rm.evaluation.probes import another_task
from robo_rm.labels.mismatch import mismatch_instructions, rephrased
from robo_rm.labels.plan import WindowShape, draw_windows
from robo_rm.labels.progress import label_frames
from robo_rm.labels.tasks import priors_of, task_priors
from robo_rm.reward_models.registry import FitRequest
from robo_rm.reward_models.saving import load_reward_model
from robo_rm.reward_models.stage.model_type import fit
from robo_rm.settings import OptimiserSettings, PlanSettings
from robo_rm.training.budget import Budget

GROUPS = [["move the square", "shift the block", "\u79fb\u52a8\u65b9\u5757"], ["move it back", "return the block"]]


def test_a_store_keeps_groups_and_another_reader_sees_them(tmp_path, run_command):
    store = make_store(tmp_path / "s.zarr", episodes=3, frames=4)
    before = store.content_hash()
    file = tmp_path / "groups.yaml"
    file.write_text(
        "- [move the square, shift the block, \u79fb\u52a8\u65b9\u5757]\n- [move it back, return the block]\n"
    )
    code, text, errors = run_command("instructions", f"store={store.path}", f"groups={file}")
    assert code == 0, errors
    assert "shift the block" in text
    again = DemoStore.open(store.path)
    assert instruction_groups(again) == GROUPS
    assert again.content_hash() != before
    assert len(again) == 3
    assert run_command("doctor", f"store={store.path}")[0] in (0, 1)
    assert run_command("instructions", f"store={store.path}", "remove=true")[0] == 0
    assert instruction_groups(again) == []


@pytest.mark.parametrize(
    ("groups", "says"),
    [
        ("ab", "list of lists"),
        (["ab"], "instruction group 1 is 'ab'"),
        ([["a", ""]], "holds ''"),
        ([["a", 3]], "holds 3"),
        ([["Open it.", "open  it"]], "two different phrasings"),
        ([["a", "b"], ["c", "A!"]], "'A!' stands in the groups 1 and 2"),
    ],
)
def test_groups_that_are_none_are_refused(groups, says):
    with pytest.raises(StoreError, match=says):
        check_groups(groups)


@pytest.mark.parametrize(("text", "says"), [("a: [", "is not YAML"), (None, "cannot be read")])
def test_a_file_of_groups_that_cannot_be_read_is_named(tmp_path, run_command, text, says):
    store = make_store(tmp_path / "s.zarr", episodes=1, frames=4)
    file = tmp_path / "g.yaml"
    if text is not None:
        file.write_text(text)
    code, _, errors = run_command("instructions", f"store={store.path}", f"groups={file}")
    assert code == 2
    assert says in errors
    assert len(errors.strip().splitlines()) == 1


def test_no_phrasing_of_a_task_is_drawn_as_a_wrong_instruction():
    tasks = [text for group in GROUPS for text in group] + ["Move the square!"]
    labels = [label_frames([(0, 0, 10, True)], [1.0], 12) for _ in tasks]
    windows = draw_windows(np.random.default_rng(0), labels, range(len(tasks)), WindowShape(2, 2), PlanSettings())
    known = Phrasings(GROUPS)
    told_wrong = set()
    for seed in range(60):
        _, told = mismatch_instructions(np.random.default_rng(seed), windows, tasks, tasks, 1.0, known)
        for own, text in zip(tasks, told, strict=True):
            assert not known.same(own, text)
            told_wrong.add(text)
    assert told_wrong & set(tasks), "other tasks are drawn"
    right = np.arange(len(tasks)) != 0
    spoken = [rephrased(np.random.default_rng(seed), tasks, right, known) for seed in range(40)]
    assert {row[0] for row in spoken} == {tasks[0]}, "a wrong instruction stays as it is"
    assert {row[1] for row in spoken} == set(GROUPS[0])
    assert all(known.same(own, text) for row in spoken for own, text in zip(tasks, row, strict=True))


def test_probes_do_not_take_a_phrasing_for_another_task():
    assert another_task("move the square", GROUPS[0], GROUPS) is None
    assert another_task("shift the block", [*GROUPS[0], "move it back"], GROUPS) == "move it back"


def test_phrasings_share_priors():
    from types import SimpleNamespace

    episodes = [
        SimpleNamespace(task=task, stage=np.array(stage), success=True, uuid=task, length=4)
        for task, stage in (
            ("move the square", [0, 0, 0, 1]), ("shift the block", [0, 1, 1, 1]), ("move it back", [2, 2, 3, 3])
        )
    ]  # fmt: skip
    found = task_priors(episodes, 4, GROUPS)
    assert found["move the square"] == found["shift the block"] == found[GROUPS[0][2]] == [0.5, 0.5, 0, 0]
    provenance = {"priors": [0.25] * 4, "task_priors": found, "instruction_groups": GROUPS}
    assert priors_of(provenance, "Shift the  BLOCK.").tolist() == [0.5, 0.5, 0, 0]


def test_a_sentence_without_spaces_is_read_by_its_characters():
    one, like, other = (
        "\u628a\u7ea2\u8272\u65b9\u5757\u653e\u8fdb\u76d2\u5b50",
        "\u5c06\u7ea2\u8272\u65b9\u5757\u653e\u5165\u76d2\u5b50",
        "\u6253\u5f00\u62bd\u5c49",
    )
    assert len(hash_words(one)) == 2 * len(one) - 1
    vectors = word_vectors([one, like, other]).numpy() / 8
    assert vectors[0] @ vectors[1] > 0.5
    assert abs(vectors[0] @ vectors[2]) < 0.5
    assert len(hash_words("pick \u7ea2\u8272 cube")) == 7
    assert hash_words("put the cube away") == hash_words("Put the cube, away!")
    assert len(hash_words("\u0e2b\u0e22\u0e34\u0e1a\u0e01\u0e25\u0e48\u0e2d\u0e07")) > 3  # Thai
    assert len(hash_words("\u30c9\u30a2\u3092\u958b\u3051\u308b")) > 3  # Japanese


def two_tasks(path):
    """Episodes that go right and episodes that go back, told in two ways each."""
    plain = make_store(path.with_name("plain.zarr"), episodes=1)
    store = DemoStore.create(path, plain.features, 10, stages=["a", "b", "c", "d"])
    for number in range(12):
        data, task = arrays(24, number), number % 2
        with store.writer(task=GROUPS[task][number // 2 % 2], success=True) as writer:
            for t in range(24):
                at = 23 - t if task else t
                frame = {CAMERA: data[CAMERA][at], STATE: data[STATE][at]}
                writer.add(frame, timestamp=t / 10, stage=2 * task + (t >= 12))
    return store


def test_a_phrasing_that_no_episode_has_is_no_wrong_instruction(tmp_path):
    store = two_tasks(tmp_path / "two.zarr")
    set_instruction_groups(store, GROUPS)
    optimiser = OptimiserSettings(batch=8, warmup=5, learning_rate=4e-3, average=0.9)
    fit(FitRequest(store, REWARD, tmp_path / "rm", ENCODER, optimiser, Budget(120), holdout=2, device="cpu"))
    model = load_reward_model(tmp_path / "rm")
    assert model.provenance["instruction_groups"] == GROUPS
    episode = next(one for one in store if one.task == GROUPS[0][0])
    said = {text: model.predict(episode, text).progress for text in [*GROUPS[0], GROUPS[1][1], "Move the square."]}
    for text in (*GROUPS[0], "Move the square."):
        assert np.array_equal(said[text], said[GROUPS[0][0]]), text
    assert said[GROUPS[0][2]][-1] > 0.6
    assert said[GROUPS[1][1]][-1] < said[GROUPS[0][0]][-1] - 0.3


def test_a_hop_model_has_the_references_of_a_task_for_all_its_phrasings(tmp_path):
    from robo_rm.reward_models.grm.model_type import KIND
    from robo_rm.reward_models.grm.settings import HopSettings

    store = two_tasks(tmp_path / "two.zarr")
    set_instruction_groups(store, GROUPS)
    reward = HopSettings(hops=4, width=16, hidden=16, references=1, progress="time")
    KIND.fit(FitRequest(store, reward, tmp_path / "rm", ENCODER, budget=Budget(2), holdout=2, device="cpu"))
    model = load_reward_model(tmp_path / "rm")
    assert set(model.description.references) == {GROUPS[0][0], GROUPS[1][0]}
    one, other = (model.predict(store[0], text).progress for text in (GROUPS[0][0], GROUPS[0][2]))
    assert np.array_equal(one, other)
