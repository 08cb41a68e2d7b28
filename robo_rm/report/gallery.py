"""Small images side by side: the frame of each failure at which a model claims the most beyond the truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from robo_rm.report.style import BAD, FAINT, GOOD, GRID, INK, PREDICTED, TRUTH, empty, new_figure, place

WIDTH, ACROSS, GAP = 10.0, 5, 0.18


@dataclass(frozen=True)
class Card:
    """One failure of T frames."""

    title: str
    image: npt.NDArray[np.uint8] | None
    """(H, W, 3) at frame ``at``."""
    at: int
    seconds: float
    """Time of that frame."""
    predicted: str
    true: str
    """Names of the stages there."""
    claimed: float
    """Fraction of its frames claimed beyond the truth."""
    progress: npt.NDArray[np.float32]
    """(T,) predicted."""
    truth: npt.NDArray[np.float32] | None = None
    """(T,), NaN where unknown."""


def gallery_figure(cards: Sequence[Card]) -> Figure:
    """A card each: image, what is predicted and what is true there, and the whole curve under it."""
    width = (WIDTH - GAP * (ACROSS - 1)) / ACROSS
    shown = next((card.image for card in cards if card.image is not None), None)
    height = 0.0 if shown is None else width * shown.shape[0] / shown.shape[1]
    head, words, curve = 0.2, 0.46, 0.5
    tall = head + height + words + curve + 0.26
    rows = -(-len(cards) // ACROSS)
    figure = new_figure(WIDTH, rows * tall)
    down = figure.get_size_inches()[1]
    for number, card in enumerate(cards):
        left, top = (number % ACROSS) * (width + GAP), (number // ACROSS) * tall

        def write(text: str, at: float, colour: str, bold: bool = False, left: float = left, top: float = top) -> None:
            weight = "bold" if bold else "normal"
            figure.text(left / WIDTH, 1 - (top + at) / down, text, fontsize=7.5, color=colour, weight=weight, va="top")

        colour = BAD if card.claimed > 0.05 else GOOD
        write(card.title, 0.04, INK, bold=True)
        if card.image is not None:
            empty(place(figure, left, top + head, width, height)).imshow(card.image, aspect="auto")
        below = head + height + 0.05
        write(f"predicted {_short(card.predicted)}", below, PREDICTED)
        write(f"true {_short(card.true)}", below + 0.14, TRUTH)
        write(f"at {card.seconds:.1f} s; {card.claimed:.0%} of all claimed", below + 0.28, colour, bold=True)
        axes = empty(place(figure, left, top + head + height + words + 0.04, width, curve))
        axes.axhline(0, color=GRID, linewidth=0.8)
        axes.axhline(1, color=GRID, linewidth=0.8)
        if card.truth is not None:
            axes.plot(card.truth, color=TRUTH, linewidth=1, linestyle=(0, (3, 2)))
        axes.plot(card.progress, color=PREDICTED, linewidth=1.3)
        axes.axvline(card.at, color=FAINT, linewidth=0.8)
        axes.set(ylim=(-0.08, 1.08), xlim=(0, max(len(card.progress) - 1, 1)))
    return figure


def _short(text: str, letters: int = 26) -> str:
    return text if len(text) <= letters else text[: letters - 1].rstrip() + "…"
