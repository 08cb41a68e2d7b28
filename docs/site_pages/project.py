"""What pyproject.toml says of the project, and links that work outside of the checkout."""

from __future__ import annotations

import posixpath
import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
METADATA = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
REPOSITORY: str = METADATA["urls"]["Repository"]
LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#)([^)\s]+)(?=\))")


def repository_link(path: str) -> str:
    """The address of a file or folder in the repository.

    Args:
        path: from the root of the checkout, such as ``benchmarks/rl.py``.
    """
    kind = "tree" if (ROOT / path.partition("#")[0]).is_dir() else "blob"
    return f"{REPOSITORY}/{kind}/main/{path}"


def link_out(text: str, folder: str, at: str) -> str:
    """Markdown whose links into ``docs/`` fit its place on the site, and whose other links go to the repository.

    Args:
        text: as it stands in the checkout.
        folder: where it stands, from the root of the checkout; ``""`` for the root itself.
        at: folder of the page on the site, from the root of the checkout, such as ``docs/reference``.
    """

    def moved(found: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(folder, found.group(1)))
        return posixpath.relpath(path, at) if path.startswith("docs/") else repository_link(path)

    return LINK.sub(moved, text)


def write(path: Path, text: str) -> None:
    """Write a page where it changed, so that a second build reads only what is new."""
    text = text.rstrip() + "\n"
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
