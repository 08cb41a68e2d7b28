"""Stages that come again: an error where the task repeats, a note where single demonstrations fell back."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from robo_core.errors import ConfigError, LabelError
from robo_rm.labels.repeats import check_repeats, repeat_of

STAGES = ["pick", "place"]


def episode(stage, uuid="e", success=True, task="sort"):
    return SimpleNamespace(stage=np.array(stage), uuid=uuid, success=success, task=task, length=len(stage))


TWICE = [0, 0, 1, 1, 0, 0, 1, 1]
ONCE = [0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize(
    ("stage", "frame"),
    [
        (ONCE, None),
        (TWICE, 4),
        ([0, -1, 0, 1], None),
        ([-1, -1], None),
        ([], None),
        ([1, 1, 0], None),
        ([0, 2, 1], None),
    ],
)
def test_a_stage_comes_again_only_after_a_later_one(stage, frame):
    found = repeat_of(episode(stage))
    assert (found and found.frame) == frame


def test_a_task_that_repeats_names_episode_and_frames():
    with pytest.raises(
        LabelError, match=r"'pick' comes again after 'place' in 3 of 3 .*episode e: left at frame 1, ag"
    ):
        check_repeats([episode(TWICE)] * 3, STAGES)
    assert "progress goes back" in check_repeats([episode(TWICE)] * 3, STAGES, "fall_back")[0]


def test_one_task_of_several_is_enough():
    with pytest.raises(LabelError, match="of 'stack'"):
        check_repeats([episode(ONCE)] * 9 + [episode(TWICE, task="stack")], STAGES)


def test_drops_in_few_demonstrations_are_told_and_failures_do_not_count():
    notes = check_repeats([episode(ONCE)] * 3 + [episode(TWICE, "odd")], STAGES)
    assert len(notes) == 1
    assert "episode odd" in notes[0]
    assert check_repeats([episode(ONCE)] + [episode(TWICE, success=False)] * 5, STAGES) == []
    with pytest.raises(LabelError):
        check_repeats([episode(TWICE, success=False)] * 5, STAGES)


def test_an_unknown_rule_is_refused():
    with pytest.raises(ConfigError, match="repeats=maybe"):
        check_repeats([], STAGES, "maybe")
