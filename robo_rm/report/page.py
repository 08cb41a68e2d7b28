"""A report page in one HTML file: titled sections of prose, tables and pictures, nothing from outside."""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from robo_core.outputs import write_atomically
from robo_rm.report.style import picture_bytes

_STYLE = """
:root { color-scheme: light; }
body { margin: 0; background: #f5f6f8; color: #1f2933;
  font: 16px/1.55 system-ui, "Segoe UI", Roboto, Arial, sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 28px 20px 80px; }
h1 { font-size: 1.75rem; line-height: 1.25; margin: 0 0 6px; }
h2 { font-size: 1.22rem; margin: 0 0 10px; }
p { margin: 8px 0; max-width: 78ch; }
.lead { color: #52606d; margin: 0 0 20px; }
section { background: #fff; border: 1px solid #e4e7eb; border-radius: 10px; padding: 20px 24px; margin: 18px 0; }
.verdicts { list-style: none; margin: 0; padding: 0; }
.verdicts li { padding: 7px 0 7px 34px; position: relative; }
.verdicts li + li { border-top: 1px solid #eef0f2; }
.verdicts li::before { position: absolute; left: 2px; top: 8px; width: 21px; height: 21px; border-radius: 50%;
  color: #fff; font-size: 13px; font-weight: 700; line-height: 21px; text-align: center; }
.yes::before { content: "\\2713"; background: #2e8b57; }
.no::before { content: "\\2715"; background: #c8453b; }
.care::before { content: "!"; background: #d9902f; }
.know::before { content: "i"; background: #7b8794; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; margin: 10px 0; font-size: .92rem; }
th, td { text-align: left; padding: 6px 14px 6px 0; border-bottom: 1px solid #e9ecef; vertical-align: top; }
th { color: #52606d; font-weight: 600; white-space: nowrap; }
td.n, td.w { font-variant-numeric: tabular-nums; white-space: nowrap; }
td.n, th.n { text-align: right; }
figure { margin: 14px 0; }
.pair { display: flex; flex-wrap: wrap; gap: 8px 28px; align-items: flex-start; }
.pair figure { flex: 0 1 auto; }
img { max-width: 100%; height: auto; display: block; }
figcaption { color: #52606d; font-size: .88rem; max-width: 84ch; margin-top: 4px; }
code { background: #eef0f2; border-radius: 4px; padding: 1px 5px; font-size: .92em; }
a { color: #1f6feb; }
footer { color: #7b8794; font-size: .85rem; margin-top: 24px; }
"""

_NUMBERS = re.compile(r"-|[-+]?[\d.]+( ?(%|s|ms|min))?( to -?[\d.]+ ?%?)?( \([^)]{1,24}\))?")

_LINK = re.compile(r"\[([^\]]+)\]\((\w[\w./%,~-]*)\)")
"""A link to a file beside the page, written as in Markdown; nowhere else."""

Picture = Figure | bytes
"""A figure, or the bytes of a PNG or JPEG file."""


class Page:
    """Builds one self-contained HTML page from the top down.

        page = Page("Reward model", "held-out episodes of demos.zarr")
        page.section("What it says")
        page.prose("...")
        page.picture(episode_figure(view), "caption", photo=True)
        page.write("report.html")

    All text is escaped; only words between backquotes become ``code``.
    """

    def __init__(self, title: str, lead: str = "") -> None:
        self._title = title
        self._lead = lead
        self._parts: list[str] = []
        self._open = False

    def section(self, title: str) -> None:
        """Begin a section; what follows belongs to it."""
        self._close()
        self._parts.append(f"<section><h2>{_text(title)}</h2>")
        self._open = True

    def prose(self, *paragraphs: str) -> None:
        """Add paragraphs."""
        self._parts += [f"<p>{_text(paragraph)}</p>" for paragraph in paragraphs]

    def verdicts(self, items: Iterable[tuple[str, str]]) -> None:
        """Add marked advice: (``yes``, ``no``, ``care`` or ``know``; text)."""
        rows = "".join(f'<li class="{_mark(mark)}">{_text(text)}</li>' for mark, text in items)
        self._parts.append(f'<ul class="verdicts">{rows}</ul>')

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        """Add a table; columns of numbers, their units and intervals with them, are set to the right."""
        rows = [list(row) for row in rows]
        right = {place for place in range(len(columns)) if rows and all(_is_number(row[place]) for row in rows)}
        kinds = [' class="n"' if place in right else "" for place in range(len(columns))]
        head = "".join(f"<th{kind}>{_text(column)}</th>" for kind, column in zip(kinds, columns, strict=True))
        cells = ["".join(map(_cell, row, kinds)) for row in rows]
        body = "".join(f"<tr>{row}</tr>" for row in cells)
        self._parts.append(
            f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
        )

    def picture(self, picture: Picture, caption: str = "", photo: bool = False) -> None:
        """Add a picture; ``photo`` keeps figures that show camera frames small."""
        self._parts.append(_figure(picture, caption, photo))

    def pictures(self, pictures: Iterable[tuple[Picture, str]], photo: bool = False) -> None:
        """Add (picture, caption) side by side where the window is wide enough."""
        inner = "".join(_figure(picture, caption, photo) for picture, caption in pictures)
        self._parts.append(f'<div class="pair">{inner}</div>')

    def html(self) -> str:
        """The whole page."""
        self._close()
        lead = f'<p class="lead">{_text(self._lead)}</p>' if self._lead else ""
        return (
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<title>{escape(self._title)}</title><style>{_STYLE}</style></head>\n"
            f"<body><main><h1>{_text(self._title)}</h1>{lead}\n"
            + "\n".join(self._parts)
            + "\n<footer>Made by robo-rm.</footer></main></body></html>\n"
        )

    def write(self, path: str | os.PathLike[str]) -> Path:
        """Write the page whole or not at all; returns its path."""
        target = Path(path)
        write_atomically(target, self.html())
        return target

    def _close(self) -> None:
        if self._open:
            self._parts.append("</section>")
            self._open = False


def _text(text: str) -> str:
    pieces = _LINK.sub(r'<a href="\2">\1</a>', escape(text)).split("`")
    if len(pieces) % 2 == 0:  # a backquote without its partner stays as it is
        return "`".join(pieces)
    return "".join(f"<code>{piece}</code>" if i % 2 else piece for i, piece in enumerate(pieces))


def _mark(mark: str) -> str:
    if mark not in ("yes", "no", "care", "know"):
        raise ValueError(f"a verdict is marked yes, no, care or know, not {mark!r}")
    return mark


def _is_number(value: Any) -> bool:
    if isinstance(value, bool):
        return False
    return isinstance(value, int | float) or _NUMBERS.fullmatch(str(value)) is not None


def _cell(value: Any, kind: str) -> str:
    if isinstance(value, bool):
        text = "yes" if value else "no"
    elif isinstance(value, float):
        text = f"{value:.4g}"
    else:
        text = _text(str(value))
    # A number with its interval reads badly when it breaks over two lines.
    whole = ' class="w"' if _is_number(value) else ""
    return f"<td{kind or whole}>{text}</td>"


def _figure(picture: Picture, caption: str, photo: bool) -> str:
    data = picture_bytes(picture, photo) if isinstance(picture, Figure) else picture
    kind = "jpeg" if data[:2] == b"\xff\xd8" else "png"
    if kind == "png" and data[:8] != b"\x89PNG\r\n\x1a\n":
        raise ValueError("a picture must be a figure or the bytes of a PNG or JPEG file")
    source = f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"
    words = f"<figcaption>{_text(caption)}</figcaption>" if caption else ""
    return f'<figure><img src="{source}" alt="{escape(caption or "picture", quote=True)}">{words}</figure>'
