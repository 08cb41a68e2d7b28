"""A report page in one HTML file: titled sections of prose, tables and images, nothing loaded from outside.

The layout stands in ``templates/`` (page.html, page.css, page.js); this module gathers and checks what goes into it. A
content security policy in the page allows its own style and script, by their digests, and images inside it: no more.
"""

from __future__ import annotations

import base64
import functools
import hashlib
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
from robo_rm.report.origin import REPORT, documentation, origin, other_reports
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


_RIGHT, _UNBROKEN, _TEXT = Markup(' class="n"'), Markup(' class="w"'), Markup(' class="t"')
_LONG = 30
"""A column with a longer cell is running text: in a narrow window it stands below the row's name."""
_NARROW = 3
"""So many columns fit a narrow window, where none is running text."""


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
        page.image(episode_figure(view), "caption", alt="progress rises from 0 to 1 over the film strip", photo=True)
        page.write("report.html")

    All text is escaped; only words between backquotes become ``code``.

    Args:
        title: of the page.
        lead: a paragraph below it.
        guide: page of the documentation that says how to read it, such as ``evaluating.md``.
        following: the command to type next.
    """

    def __init__(self, title: str, lead: str = "", guide: str = "", following: str = "") -> None:
        self._title = title
        self._lead = lead
        self._guide = guide
        self._following = following
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
        kinds = [_kind([row[place] for row in rows]) for place in range(len(columns))]
        self._add(
            "table",
            columns=list(map(_Cell, columns, kinds)),
            rows=[list(map(_cell, row, kinds)) for row in rows],
            stacked=len(columns) > _NARROW or _TEXT in kinds,
        )

    def image(self, image: Image, caption: str = "", *, alt: str, photo: bool = False) -> None:
        """Add an image.

        Args:
            image: what to show.
            caption: the text below it.
            alt: what it shows, in words, for those who do not see it.
            photo: keeps figures that show camera frames small.

        Raises:
            ValueError: bytes of another format than PNG or JPEG, or no ``alt``.
        """
        self._add("image", image=_image(image, caption, alt, photo))

    def images(self, images: Iterable[tuple[Image, str, str]], photo: bool = False) -> None:
        """Add (image, caption, alt) side by side where the window is wide enough; errors as `image`."""
        self._add("images", images=[_image(*image, photo) for image in images])

    def html(self, path: str | os.PathLike[str] = REPORT) -> str:
        """The whole page as it is to stand at ``path``, which decides what other reports it leads to."""
        return (
            _environment()
            .get_template("page.html")
            .render(
                title=self._title,
                lead=self._lead,
                sections=self._sections,
                following=self._following,
                reports=other_reports(Path(path)),
                guide=self._guide,
                guide_address=documentation(self._guide) if self._guide else "",
                origin=origin(),
                style=_part("page.css"),
                script=_part("page.js"),
            )
        )

    def write(self, path: str | os.PathLike[str]) -> Path:
        """Write the page whole or not at all; returns its path."""
        target = Path(path)
        write_atomically(target, self.html(target))
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
    environment.filters["digest"] = _digest
    return environment


def _part(name: str) -> Markup:
    """A file of the templates that goes into the page unescaped."""
    environment = _environment()
    assert environment.loader is not None
    return Markup(environment.loader.get_source(environment, name)[0])


def _digest(text: str) -> Markup:
    """The source expression by which a content security policy allows an inline style or script."""
    return Markup(f"sha256-{base64.b64encode(hashlib.sha256(str(text).encode()).digest()).decode('ascii')}")


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


def _kind(values: Sequence[object]) -> Markup:
    """The attributes of a column's cells: numbers to the right, running text marked."""
    if values and all(_is_number(value) for value in values):
        return _RIGHT
    return _TEXT if any(len(str(value)) > _LONG for value in values) else Markup("")


def _cell(value: object, kind: Markup) -> _Cell:
    if isinstance(value, bool):
        text = "yes" if value else "no"
    else:
        text = f"{value:.4g}" if isinstance(value, float) else str(value)
    # A number with its interval reads badly when it breaks over two lines.
    if kind == _TEXT:
        return _Cell(text, kind)
    return _Cell(text, kind or (_UNBROKEN if _is_number(value) else kind))


def _image(image: Image, caption: str, alt: str, photo: bool) -> dict[str, str]:
    if not alt:
        raise ValueError("say in alt what the image shows")
    data = image_bytes(image, photo) if isinstance(image, Figure) else image
    kind = "jpeg" if data[:2] == b"\xff\xd8" else "png"
    if kind == "png" and data[:8] != b"\x89PNG\r\n\x1a\n":
        raise ValueError("an image must be a figure or the bytes of a PNG or JPEG file")
    source = f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"
    return {"source": source, "caption": caption, "alt": alt}
