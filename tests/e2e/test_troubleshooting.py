"""Messages that docs/troubleshooting.md quotes are the code's own, word for word."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "troubleshooting.md"
SOURCES = ("core", "datasets", "robo_rm", "policies", "hw")
ANYTHING = "..."  # in a quotation, and where a message has a value filled in


def messages() -> list[str]:
    """Every text in the code, with ``...`` where a value is filled in."""
    found = []
    for folder in SOURCES:
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.append(node.value)
                elif isinstance(node, ast.JoinedStr):
                    parts = (part.value if isinstance(part, ast.Constant) else ANYTHING for part in node.values)
                    found.append("".join(str(part) for part in parts))
    return found


def quoted() -> list[str]:
    """First cells of the page's tables of messages, without the backticks."""
    tables = re.findall(r"^\| message \|.*\n\|[-|]+\n((?:\|.*\n)+)", PAGE.read_text(), flags=re.MULTILINE)
    return [row.split("|")[1].strip().strip("`") for table in tables for row in table.splitlines()]


def test_every_message_that_the_page_quotes_is_in_the_code():
    texts = messages()
    quotes = quoted()
    assert len(quotes) > 30
    missing = [quote for quote in quotes if not any(quote in text for text in texts)]
    assert missing == []
