"""A report page in one HTML file: titled sections of prose, tables and images, nothing loaded from outside.

The layout stands in ``templates/page.html`` and ``page.css``; this module gathers and checks what goes into it.
"""

from __future__ import annotations

import base64
import functools
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from matplotlib.figure import Figure

from robo_core.outputs import write_atomically
from robo_rm.report.style import image_bytes

_NUMBERS = re.compile(r"-|[-+]?[\d.]+( ?(%|s|ms|min))?( to -?[\d.]+ ?%?)?( \([^)]{1,24}\))?")

_LINK = re.compile(r"\[([^\]]+)\]\((\w[\w./%,~-]*)\)")
"""A link to a file beside the page, written as in Markdown; nowhere else."""

Image = Figure | bytes
"""A figure, or the bytes of a PNG or JPEG file."""


class _Cell(NamedTuple):
    text: str
    attributes: Markup = Markup("")
    """Of its HTML tag."""


_RIGHT, _UNBROKEN = Markup(' class="n"'), Markup(' class="w"')


@dataclass
class _Section:
    title: str | None
    """None of what stands before the first section."""
    blocks: list[dict[str, object]] = field(default_factory=list)


class Page:
    """Builds one self-contained HTML page from the top down.

        page = Page("Reward model", "held-out episodes of demos.zarr")
        page.section("What it predicts")
        page.prose("...")
        page.image(episode_figure(view), "caption", photo=True)
        page.write("report.html")

    All text is escaped; only words between backquotes become ``code``.
    """

    def __init__(self, title: str, lead: str = "") -> None:
        self._title = title
        self._lead = lead
        self._sections = [_Section(None)]

    def section(self, title: str) -> None:
        """Begin a section; what follows belongs to it."""
        self._sections.append(_Section(title))

    def prose(self, *paragraphs: str) -> None:
        """Add paragraphs."""
        for paragraph in paragraphs:
            self._add("prose", text=paragraph)

    def verdicts(self, items: Iterable[tuple[str, str]]) -> None:
        """Add marked advice: (``yes``, ``no``, ``care`` or ``know``; text).

        Raises:
            ValueError: an unknown mark.
        """
        self._add("verdicts", verdicts=[(_mark(mark), text) for mark, text in items])

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """Add a table; columns of numbers, their units and intervals with them, are set to the right."""
        rows = [list(row) for row in rows]
        kinds = [
            _RIGHT if rows and all(_is_number(row[place]) for row in rows) else Markup("")
            for place in range(len(columns))
        ]
        self._add(
            "table", columns=list(map(_Cell, columns, kinds)), rows=[list(map(_cell, row, kinds)) for row in rows]
        )

    def image(self, image: Image, caption: str = "", photo: bool = False) -> None:
        """Add an image; ``photo`` keeps figures that show camera frames small.

        Raises:
            ValueError: bytes of another format than PNG or JPEG.
        """
        self._add("image", image=_image(image, caption, photo))

    def images(self, images: Iterable[tuple[Image, str]], photo: bool = False) -> None:
        """Add (image, caption) side by side where the window is wide enough; errors as `image`."""
        self._add("images", images=[_image(image, caption, photo) for image, caption in images])

    def html(self) -> str:
        """The whole page."""
        template = _environment().get_template("page.html")
        return template.render(title=self._title, lead=self._lead, sections=self._sections)

    def write(self, path: str | os.PathLike[str]) -> Path:
        """Write the page whole or not at all; returns its path."""
        target = Path(path)
        write_atomically(target, self.html())
        return target

    def _add(self, kind: str, **content: object) -> None:
        self._sections[-1].blocks.append({"kind": kind, **content})


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("robo_rm.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["marked"] = _marked
    return environment


def _marked(text: str) -> Markup:
    """Escaped text with links to files beside the page, and words between backquotes as ``code``."""
    pieces = _LINK.sub(r'<a href="\2">\1</a>', str(escape(text))).split("`")
    if len(pieces) % 2 == 0:  # a backquote without its partner stays as it is
        return Markup("`".join(pieces))
    return Markup("".join(f"<code>{piece}</code>" if i % 2 else piece for i, piece in enumerate(pieces)))


def _mark(mark: str) -> str:
    if mark not in ("yes", "no", "care", "know"):
        raise ValueError(f"a verdict is marked yes, no, care or know, not {mark!r}")
    return mark


def _is_number(value: object) -> bool:
    if isinstance(value, bool):
        return False
    return isinstance(value, int | float) or _NUMBERS.fullmatch(str(value)) is not None


def _cell(value: object, kind: Markup) -> _Cell:
    if isinstance(value, bool):
        text = "yes" if value else "no"
    else:
        text = f"{value:.4g}" if isinstance(value, float) else str(value)
    # A number with its interval reads badly when it breaks over two lines.
    return _Cell(text, kind or (_UNBROKEN if _is_number(value) else kind))


def _image(image: Image, caption: str, photo: bool) -> dict[str, str]:
    data = image_bytes(image, photo) if isinstance(image, Figure) else image
    kind = "jpeg" if data[:2] == b"\xff\xd8" else "png"
    if kind == "png" and data[:8] != b"\x89PNG\r\n\x1a\n":
        raise ValueError("an image must be a figure or the bytes of a PNG or JPEG file")
    return {"source": f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}", "caption": caption}
