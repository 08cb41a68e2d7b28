"""Reads built HTML: what a page loads, where it links to, and which anchors it has."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

# Attributes that make a browser fetch something without being asked.
LOADS = {
    "script": "src",
    "img": "src",
    "iframe": "src",
    "source": "src",
    "video": "src",
    "embed": "src",
    "object": "data",
    "link": "href",
}
# Relations of <link> that name a page and load nothing.
NAMES_ONLY = {"index", "search", "next", "prev", "author", "canonical", "genindex"}


class BuiltPage(HTMLParser):
    """One page of the site."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.loaded: list[str] = []
        self.links: list[str] = []
        self.ids: set[str] = set()
        self.text = ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {key: value or "" for key, value in attrs}
        if values.get("id"):
            self.ids.add(values["id"])
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        key = LOADS.get(tag)
        if key in values and not (tag == "link" and values.get("rel") in NAMES_ONLY):
            self.loaded.append(values[key])

    def handle_data(self, data: str) -> None:
        self.text += data
