"""Instructions of a store in LeRobot's form: a table of tasks, and the number of one for every frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from robo_datasets import lerobot_layout as v3
from robo_datasets.store.demo_store import DemoStore
from robo_datasets.store.episode import Episode


def task_numbers(store: DemoStore) -> dict[str, int]:
    """Every task's number, in order of first appearance."""
    numbers: dict[str, int] = {}
    for episode in store:
        for _, _, task in instruction_runs(episode):
            numbers.setdefault(task, len(numbers))
    return numbers


def instruction_runs(episode: Episode) -> list[tuple[int, int, str]]:
    """The instruction of every frame, as runs (start, end, instruction) that cover the episode."""
    runs: list[tuple[int, int, str]] = []
    found = episode.attributes.get(v3.TASKS_BY_FRAME)
    for run in found if isinstance(found, list) else []:
        if isinstance(run, list) and len(run) == 3 and isinstance(run[2], str):
            runs.append((int(run[0]), int(run[1]), run[2]))
    ends = [0, *(end for _, end, _ in runs)]
    whole = (
        bool(runs) and ends[-1] == episode.length and all(run[0] == end for run, end in zip(runs, ends, strict=False))
    )
    return runs if whole else [(0, episode.length, episode.task)]


def numbers_by_frame(episode: Episode, tasks: Mapping[str, int]) -> list[list[int]]:
    """As ``instruction_runs``, with the numbers of the instructions."""
    return [[start, end, tasks[task]] for start, end, task in instruction_runs(episode)]


def frame_numbers(runs: Sequence[Sequence[int]], length: int) -> np.ndarray:
    """Runs [start, end, number] as (T,) int64."""
    numbers = np.zeros(length, np.int64)
    for start, end, number in runs:
        numbers[start:end] = number
    return numbers
