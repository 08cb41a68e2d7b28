"""Wrong instructions for training windows: what is observed is not what was asked for, so there is no progress.

Drawn per window, after SARM's language perturbation (arXiv 2509.25358), which draws it per batch in its public code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from robo_datasets.store.instructions import Phrasings
from robo_rm.labels.plan import Windows

ACTIONS = (
    "open",
    "close",
    "push",
    "pull",
    "lift",
    "turn",
    "fold",
    "wipe",
    "pour",
    "stack",
    "press",
    "hang",
    "cut",
    "hand",
)
THINGS = (
    "door", "towel", "plate", "lid", "button", "rope", "box", "spoon", "book", "shirt", "valve", "chair", "bag", "lamp",
    "sponge", "wheel", "basket", "pen", "bolt", "bread", "curtain", "battery", "tray", "key", "brush", "kettle",
)  # fmt: skip
LETTERS = tuple("abcdefghijklmnopqrstuvwxyz")


def mismatch_instructions(
    rng: np.random.Generator,
    windows: Windows,
    instructions: Sequence[str],
    tasks: Sequence[str],
    fraction: float,
    phrasings: Phrasings | None = None,
) -> tuple[Windows, list[str]]:
    """Give a fraction of windows a wrong instruction, and the labels that go with it: the first stage, nothing done.

    Half of the wrong ones are other tasks of the store, where there are any; the rest are made up, in part of made-up
    words, so that an instruction that was never heard is not taken for the right one.

    Args:
        rng: drawn from per window.
        windows: B of them.
        instructions: their instructions.
        tasks: all instructions of the store, repeated or not.
        fraction: of windows that are changed.
        phrasings: instructions that mean the same; none of them is a wrong one for another.
    """
    phrasings = phrasings or Phrasings()
    known = sorted({task for task in tasks if task})
    spoken = list(instructions)
    wrong = np.zeros(len(spoken), dtype=np.bool_)
    for row, own in enumerate(instructions):
        draw, pick = rng.random(2)
        if not own or draw >= fraction:
            continue
        others = [task for task in known if not phrasings.same(task, own)]
        spoken[row] = others[int(rng.integers(len(others)))] if others and pick < 0.5 else made_up(rng)
        wrong[row] = True
    return nothing_done(windows, wrong), spoken


def rephrased(
    rng: np.random.Generator, instructions: Sequence[str], right: npt.NDArray[np.bool_], phrasings: Phrasings
) -> list[str]:
    """Right instructions (B,) in any phrasing of their group, half of them in the first, which stands for all later."""
    spoken = list(instructions)
    for row, text in enumerate(instructions):
        group = phrasings.of(text)
        pick, place = rng.random(), int(rng.integers(len(group)))
        if right[row] and len(group) > 1:
            spoken[row] = group[0] if pick < 0.5 else group[place]
    return spoken


def nothing_done(windows: Windows, wrong: npt.NDArray[np.bool_]) -> Windows:
    """Windows of which those in the mask (B,) have the labels of a wrong instruction: the first stage, progress 0."""
    if not wrong.any():
        return windows
    here = wrong[:, None]
    return replace(
        windows,
        stage=np.where(here, np.where(windows.supervised, 0, windows.stage), windows.stage),
        within=np.where(here, np.float32(0), windows.within),
        progress=np.where(here, np.float32(0), windows.progress),
        complete=windows.complete | (here & windows.supervised),
    )


def made_up(rng: np.random.Generator) -> str:
    """An instruction of two to five words."""
    words = [ACTIONS[rng.integers(len(ACTIONS))]]
    for _ in range(int(rng.integers(1, 5))):
        letters = "".join(LETTERS[i] for i in rng.integers(len(LETTERS), size=int(rng.integers(3, 8))))
        words.append(letters if rng.random() < 0.5 else THINGS[rng.integers(len(THINGS))])
    return " ".join(words)
