"""One look for every image: colours, type sizes, and how a figure becomes a small file.

Figures are matplotlib objects without pyplot, so that drawing keeps no global state and needs no display.
"""

from __future__ import annotations

import functools
import io
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib import font_manager, rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from robo_core.outputs import write_atomically

DPI = 110
INK = "#1f2933"
FAINT = "#7b8794"
GRID = "#e4e7eb"
PAPER = "#ffffff"
PREDICTED = "#1769aa"
TRUTH = "#52606d"
WEIGHT = "#e07a1f"
GOOD = "#2e8b57"
BAD = "#c8453b"
UNKNOWN = "#8a94a0"
UNLABELLED = "#f0f2f4"

# Fonts with the scripts that the drawing library's own lacks, tried in this order where they are installed.
OTHER_SCRIPTS = (
    *("Noto Sans CJK SC", "Noto Sans CJK JP", "Source Han Sans SC", "WenQuanYi Zen Hei", "Droid Sans Fallback"),
    *("PingFang SC", "Microsoft YaHei", "Arial Unicode MS", "Noto Sans Thai", "Noto Sans Arabic", "Noto Sans"),
)

# Neighbouring stages must differ at a glance, also for the colour-blind and in grey: hue and lightness alternate.
_STAGES = (
    *("#8fc1e3", "#f2b872", "#8ecfa8", "#d99ac5", "#f3df7a", "#a9a4dc", "#e9998f", "#7fcdd1"),
    *("#c3c97b", "#b9a08c", "#9fb3c8", "#f0b7d0"),
)


def stage_colour(stage: int) -> str:
    """Colour of a stage's band; stages beyond the palette take its colours again."""
    return UNLABELLED if stage < 0 else _STAGES[stage % len(_STAGES)]


def outcome_colour(success: bool | None) -> str:
    """Green for success, red for failure, grey where nobody said."""
    return UNKNOWN if success is None else (GOOD if success else BAD)


def outcome_word(success: bool | None) -> str:
    """The outcome as a word."""
    return "outcome unknown" if success is None else ("success" if success else "failure")


def new_figure(width: float, height: float) -> Figure:
    """Empty figure of this size in inches, drawn without a display."""
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor=PAPER)
    FigureCanvasAgg(figure)
    return figure


def place(figure: Figure, left: float, top: float, width: float, height: float, **options: Any) -> Axes:
    """Add axes at a place given in inches from the figure's top left corner."""
    across, down = figure.get_size_inches()
    axes: Axes = figure.add_axes((left / across, 1 - (top + height) / down, width / across, height / down), **options)
    return plain(axes)


def plain(axes: Axes) -> Axes:
    """Take away what draws the eye from the data."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#cbd2d9")
    axes.tick_params(colors=FAINT, labelsize=8, length=3, color="#cbd2d9")
    axes.xaxis.label.set(color=FAINT, fontsize=8.5)
    axes.yaxis.label.set(color=FAINT, fontsize=8.5)
    return axes


def empty(axes: Axes) -> Axes:
    """Axes that only carry an image or a band."""
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_xticks([])
    axes.set_yticks([])
    return axes


def write_title(figure: Figure, text: str, left: float = 0.0, top: float = 0.08, size: float = 11.0) -> None:
    """Title at the top left, ``left`` and ``top`` in inches."""
    across, down = figure.get_size_inches()
    figure.text(left / across, 1 - top / down, text, color=INK, fontsize=size, fontweight="bold", va="top", ha="left")


def shortened_title(text: str, letters: int) -> str:
    """A title of at most so many letters; what stands behind its last comma (which episode it is) stays."""
    if len(text) <= letters:
        return text
    front, comma, back = text.rpartition(",")
    left = max(8, letters - len(comma + back) - 1)
    return f"{front[:left].rstrip()}…{comma}{back}"


def ink_on(colour: npt.NDArray[np.float64]) -> str:
    """Ink or paper, whichever reads better on a colour (r, g, b)."""
    return INK if float(np.dot(colour[:3], (0.299, 0.587, 0.114))) > 0.55 else PAPER


def image_bytes(figure: Figure, photo: bool = False) -> bytes:
    """The figure as PNG of 256 colours, or as JPEG where it shows camera frames."""
    buffer = io.BytesIO()
    _choose_fonts(figure)
    # Hinted glyphs of small bold type grow serifs at this resolution.
    with rc_context({"text.hinting": "none"}), warnings.catch_warnings():
        # Where no font of this machine has a script, its instructions are boxes; the page around holds them as text.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        if photo:
            quality = {"quality": 88, "subsampling": 0, "optimize": True}
            figure.savefig(buffer, format="jpeg", pil_kwargs=quality)
        else:
            figure.savefig(buffer, format="png")
            buffer = _with_palette(buffer)
    return buffer.getvalue()


def _choose_fonts(figure: Figure) -> None:
    """Give texts in other scripts the fonts of this machine that have them."""
    others = [text for text in figure.findobj(Text) if not text.get_text().isascii()]
    if others:
        families = ["DejaVu Sans", *_installed_fonts()]
        for text in others:
            text.set_fontfamily(families)


@functools.cache
def _installed_fonts() -> tuple[str, ...]:
    known = {entry.name for entry in font_manager.fontManager.ttflist}
    return tuple(name for name in OTHER_SCRIPTS if name in known)


def _with_palette(png: io.BytesIO) -> io.BytesIO:
    """The same image with 256 colours, which is all that a chart needs, in a third of the bytes."""
    from PIL import Image

    small = io.BytesIO()
    with Image.open(png) as image:
        flat = image.convert("RGB").quantize(256, dither=Image.Dither.NONE)
        flat.save(small, format="png", optimize=True, dpi=(DPI, DPI))
    return small


def save_image(figure: Figure, path: str | os.PathLike[str]) -> Path:
    """Write the figure to ``path``; its ending, .jpg or .png, says how. Returns the path."""
    target = Path(path)
    write_atomically(target, image_bytes(figure, photo=target.suffix.lower() in (".jpg", ".jpeg")))
    return target
