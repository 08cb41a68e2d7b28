"""Reads Markdown pages as their readers see them: prose without code and tables, links, headings."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).resolve().parents[2]
PARSER = MarkdownIt("commonmark").enable("table")
ABBREVIATIONS = re.compile(r"\b(e\.g|i\.e|etc|vs|cf|al|Fig|Eq|No|approx)\.")
# A sentence ends before a capital letter, a number or a piece of code, which stands here as one capital word.
SENTENCE_END = re.compile(r"""(?<=[.!?])["'’)\]]*\s+(?=["'‘(\[]*[A-Z0-9])""")
WORD = re.compile(r"\w[\w'’./-]*")
CODE = "Code"


def written_pages() -> list[Path]:
    """README, and every page and notebook of docs/ that somebody wrote; what the site generates is left out."""
    pages = sorted([*(ROOT / "docs").rglob("*.md"), *(ROOT / "docs").rglob("*.ipynb")])
    left_out = [ROOT / "docs" / folder for folder in ("_build", "reference")]
    return [ROOT / "README.md", *(page for page in pages if not any(page.is_relative_to(one) for one in left_out))]


def read(page: Path) -> str:
    """A page as Markdown; of a notebook its cells of text."""
    text = page.read_text(encoding="utf-8")
    if page.suffix != ".ipynb":
        return text
    return "\n\n".join("".join(cell["source"]) for cell in json.loads(text)["cells"] if cell["cell_type"] == "markdown")


def paragraphs(text: str) -> list[str]:
    """The prose of a page: paragraphs and items of lists, each as one line; inline code is one word.

    Blocks of code, tables, headings and addresses of links are left out.
    """
    tokens = PARSER.parse(text)
    return [_plain(token) for before, token in pairwise(tokens) if before.type == "paragraph_open"]


def sentences(paragraph: str) -> list[str]:
    """The sentences of a paragraph."""
    marked = ABBREVIATIONS.sub(lambda found: found.group().replace(".", "\0"), paragraph)
    return [one.replace("\0", ".") for one in SENTENCE_END.split(marked) if WORD.search(one)]


def words(sentence: str) -> int:
    """How many words a sentence has; a number is one."""
    return len(WORD.findall(sentence))


def links(text: str) -> list[str]:
    """Targets of all links and pictures of a page, as written."""
    found = []
    for token in _inline(PARSER.parse(text)):
        for child in token.children or ():
            target = child.attrGet("href") or child.attrGet("src")
            if target:
                found.append(str(target))
    return found


def anchors(text: str) -> set[str]:
    """The anchors that GitHub and the site give to the headings of a page."""
    tokens = PARSER.parse(text)
    found: set[str] = set()
    for before, token in pairwise(tokens):
        if before.type == "heading_open":
            name = "".join(child.content for child in token.children or ())
            slug = re.sub(r"[^\w\- ]", "", name.lower()).replace(" ", "-")
            again = 1
            while slug in found:
                slug, again = f"{slug.removesuffix(f'-{again - 1}')}-{again}", again + 1
            found.add(slug)
    return found


def _inline(tokens: list[Token]) -> Iterator[Token]:
    return (token for token in tokens if token.type == "inline")


def _plain(token: Token) -> str:
    parts = []
    for child in token.children or ():
        if child.type == "text":
            parts.append(child.content)
        elif child.type == "code_inline":
            parts.append(CODE)
        elif child.type in ("softbreak", "hardbreak"):
            parts.append(" ")
    return "".join(parts).strip()
