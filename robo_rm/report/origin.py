"""Where a page comes from and where it leads: date, version, command, other reports beside it, the documentation."""

from __future__ import annotations

import datetime
import html
import os
import re
from dataclasses import dataclass
from importlib import metadata
from itertools import islice
from pathlib import Path

from robo_core.cli.typed import command_line
from robo_rm import __version__

_TITLE = re.compile(r"<title>(.*?)</title>", re.DOTALL)
_HEAD = 4096
"""The title stands in the first bytes of a page."""
_MOST_REPORTS, _MOST_FOLDERS = 12, 200
REPORT = "report.html"


@dataclass(frozen=True)
class Origin:
    """What the foot of a page says."""

    date: str
    version: str
    command: str
    """As typed; empty where a library call made the page."""


def origin() -> Origin:
    """Of a page that is made now."""
    now = datetime.datetime.now(datetime.UTC)
    return Origin(f"{now:%Y-%m-%d %H:%M} UTC", __version__, command_line())


def other_reports(path: Path) -> list[tuple[str, str]]:
    """(title, address) of the reports in the folders beside the page's own and in those inside it.

    A folder around it that holds a report, or the demo's record of one to come, is named first.
    """
    folder = path.resolve().parent
    around = folder.parent
    found: list[tuple[str, str]] = []
    if (around / REPORT).is_file():
        found.append((_title(around / REPORT), f"../{REPORT}"))
    elif (around / "parts.json").is_file():
        found.append(("The whole demo", f"../{REPORT}"))
    for start in (folder, around):
        for other in _folders(start):
            if other == folder or not (other / REPORT).is_file():
                continue
            # Somebody else's report.html is none of ours.
            if (other / "config.yaml").is_file() or (other / ".robo-rm").is_file():
                address = Path(os.path.relpath(other / REPORT, folder)).as_posix()
                found.append((_title(other / REPORT), address))
    return found[:_MOST_REPORTS]


def documentation(page: str) -> str:
    """Address of a page of the documentation, by the project's own metadata; empty where that names no place."""
    try:
        urls = metadata.metadata("robo-rm").get_all("Project-URL") or []
    except metadata.PackageNotFoundError:
        return ""
    places = {name.strip(): url.strip() for name, _, url in (text.partition(",") for text in urls)}
    repository = places.get("Repository", "")
    # The placeholder of a project that has no public place yet.
    return f"{repository}/blob/main/docs/{page}" if repository and "/OWNER/" not in repository else ""


def _folders(start: Path) -> list[Path]:
    try:
        return sorted(islice((entry for entry in start.iterdir() if entry.is_dir()), _MOST_FOLDERS))
    except OSError:
        return []


def _title(page: Path) -> str:
    try:
        with open(page, encoding="utf-8", errors="replace") as file:
            found = _TITLE.search(file.read(_HEAD))
    except OSError:
        found = None
    return html.unescape(found.group(1)) if found else page.parent.name
