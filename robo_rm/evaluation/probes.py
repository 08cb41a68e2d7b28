"""What a model claims on probe clips: videos in which nothing is being achieved, made from a stored episode.

| probe | the clip | what is true of it |
|---|---|---|
| pause | stands still from about the middle on, where the stage is clear | the stage of the image |
| rewind | turns at 60 % and runs back | the stage of the image |
| hover | goes to and fro for the rest of the time half a second before a stage is finished | the stage of the image |
| shuffled | frames in random order | the stage of the image |
| frozen camera | images stand still from the middle on, the joints go on | the stage the robot is really in |
| wrong instruction | the episode under the instruction of another task | the first stage: nothing of that is done |

A video that stands still repeats one image, and within 0.5 s of a stage's end (the tolerance of `boundary_f1`) nobody
can tell from a image which stage it is; so pauses and hovering keep that distance where the episode allows it.

Frames are counted from where the clip departs from the episode. *Claimed* are those whose predicted stage is beyond the
true one. The shuffled video is shown apart and not counted with the others: nothing happens in it that could have a
stage, and a model that remembers what it has observed is right to be confused by it.

A wrong instruction can be made only where the store has several tasks and the model answers differently to them.

Probes that need other images (an empty scene, the wrong object, a robot that only hovers) are recorded episodes of a
store of their own: every frame of them counts, against their own stage labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from robo_datasets.store.instructions import Phrasings
from robo_rm.evaluation.clips import Clip, backwards, hovering, paused, rewound, shuffled
from robo_rm.reward_models.protocol import RewardModel

if TYPE_CHECKING:
    from robo_datasets import DemoStore, Episode

HOVER_SECONDS = 1.0
# Distance of still images from a change of stage, where the stage is clear.
CLEAR_SECONDS = 0.5
# Shown, and not counted with the others.
APART = ("shuffled",)
WRONG_INSTRUCTION = "wrong instruction"


@dataclass(frozen=True)
class Count:
    """Frames of a probe whose stage is known, and how many were claimed beyond it."""

    claimed: int
    frames: int


@dataclass(frozen=True)
class ProbeClips:
    """What the model says of clips made from one episode; empty where none were made."""

    reversed_progress: npt.NDArray[np.float32] | None = None
    """(T,) of the video played backwards."""
    counts: dict[str, Count] = field(default_factory=dict)
    """By name of the probe."""

    @property
    def claimed(self) -> int:
        """Frames claimed beyond the truth, over the probes that count."""
        return sum(count.claimed for name, count in self.counts.items() if name not in APART)

    @property
    def frames(self) -> int:
        """Labelled frames of the probes that count."""
        return sum(count.frames for name, count in self.counts.items() if name not in APART)


def probe_episode(model: RewardModel, episode: Episode, fps: float, tasks: Sequence[str] = ()) -> ProbeClips:
    """Show a model every clip that can be made from a stored episode that did not fail; ``tasks`` are the store's."""
    keys = [*model.cameras, *([model.state_key] if model.state_key else [])]
    length = episode.length
    stage = np.asarray(episode.stage, dtype=np.int64)
    clear = round(CLEAR_SECONDS * fps)
    stop = _clear_of_changes(stage, length // 2, clear)
    still = paused(length, (stop + 1) / length)
    orders = {"pause": still, "rewind": rewound(length), "shuffled": shuffled(length)}
    at = _before_a_boundary(stage)
    if at is not None:
        orders["hover"] = hovering(length, max(at - clear, 1), max(2, round(HOVER_SECONDS * fps)))
    counts = {}
    for name, order in orders.items():
        predicted = model.predict(Clip(episode, order, keys), episode.task).stage
        begin = int(np.argmax(np.append(np.diff(order), 0) != 1)) + 1
        counts[name] = _count(predicted[begin:], stage[order][begin:])
    frozen = Clip(episode, np.arange(length), keys, images=still)
    begin = int(np.argmax(np.append(np.diff(still), 0) != 1)) + 1
    counts["frozen camera"] = _count(model.predict(frozen, episode.task).stage[begin:], stage[begin:])
    other = another_task(episode.task, tasks, model.provenance.get("instruction_groups") or ())
    if other is not None:
        wrong = model.predict(episode, other)
        # A model that reads no instruction says the same, and is not asked.
        if not np.array_equal(wrong.progress, model.predict(episode).progress):
            counts[WRONG_INSTRUCTION] = _count(wrong.stage, np.where(stage >= 0, 0, stage))
    turned = model.predict(Clip(episode, backwards(length), keys), episode.task)
    return ProbeClips(turned.progress, counts)


def another_task(task: str | None, tasks: Sequence[str], groups: Sequence[Sequence[str]] = ()) -> str | None:
    """The task after this one among those of the store, in the order of the alphabet; None where there is no other.

    Of ``groups`` of phrasings that mean the same, none is another task for another.
    """
    same = Phrasings(groups)
    known = sorted({name for name in tasks if name and (name == task or not same.same(name, task or ""))})
    if not task or len(known) < 2:
        return None
    return known[(known.index(task) + 1) % len(known)] if task in known else known[0]


def why_left_out(tasks: Sequence[str], made: Sequence[str]) -> dict[str, str]:
    """Probes of this module that were not made, and why; ``made`` are the names of those that were."""
    if not made or WRONG_INSTRUCTION in made:
        return {}
    several = len({name for name in tasks if name}) > 1
    reason = "the model answers the same to every instruction" if several else "the store knows one task only"
    return {WRONG_INSTRUCTION: reason}


def probe_recorded(model: RewardModel, store: DemoStore) -> list[tuple[str, Count]]:
    """(probe, what was claimed) of each episode of a store that was recorded to probe with.

    Its name is the attribute ``probe``, else ``quality``, else the task.
    """
    found = []
    for episode in store:
        predicted = model.predict(episode).stage
        attributes = episode.attributes or {}
        name = str(attributes.get("probe") or attributes.get("quality") or episode.task or "recorded")
        found.append((name.replace("_", " "), _count(predicted, np.asarray(episode.stage, dtype=np.int64))))
    return found


def _count(predicted: npt.NDArray[np.int64], truth: npt.NDArray[np.int64]) -> Count:
    known = truth >= 0
    return Count(int((predicted[known] > truth[known]).sum()), int(known.sum()))


def _clear_of_changes(stage: npt.NDArray[np.int64], wanted: int, clear: int) -> int:
    """The frame nearest to ``wanted`` that is ``clear`` frames from any change of stage, or as far as possible."""
    changes = np.flatnonzero(np.diff(stage) != 0) + 0.5
    if not changes.size:
        return wanted
    frames = np.arange(len(stage))
    distance = np.minimum(np.abs(frames[:, None] - changes[None, :]).min(axis=1), clear)
    best = frames[distance == distance.max()]
    return int(best[np.argmin(np.abs(best - wanted))])


def _before_a_boundary(stage: npt.NDArray[np.int64]) -> int | None:
    """The frame before the episode first enters the stage that begins nearest to its middle; None without one."""
    rises = np.flatnonzero((np.diff(stage) > 0) & (stage[:-1] >= 0))
    if not rises.size:
        return None
    return int(rises[np.argmin(np.abs(rises - len(stage) / 2))])
