"""Pages can be read and followed: short sentences, the field's words, links and anchors that lead somewhere."""

from __future__ import annotations

import statistics
from pathlib import Path

import pytest
from markdown_pages import ROOT, anchors, links, paragraphs, read, sentences, words, written_pages
from vocabulary import retired_phrases

PAGES = written_pages()
OTHERS = [ROOT / name for name in ("CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")]
MEDIAN_BELOW = 18
LONGEST = 40


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def all_sentences(page: Path) -> list[str]:
    return [one for paragraph in paragraphs(read(page)) for one in sentences(paragraph)]


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_sentences_are_short(page):
    found = all_sentences(page)
    assert [one for one in found if words(one) > LONGEST] == []
    assert not found or statistics.median(map(words, found)) < MEDIAN_BELOW


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_the_prose_uses_the_fields_words(page):
    assert retired_phrases("\n".join(paragraphs(read(page)))) == []


@pytest.mark.parametrize("page", [*PAGES, *OTHERS], ids=name)
def test_every_link_leads_to_a_file_and_every_anchor_to_a_heading(page):
    broken = []
    for link in links(read(page)):
        target, _, anchor = link.partition("#")
        place = (page.parent / target).resolve() if target else page
        # The build of the site checks the pages that it generates.
        if ":" in target or place.is_relative_to(ROOT / "docs/reference"):
            continue
        known = anchors(place.read_text()) if place.suffix == ".md" and place.is_file() else {anchor}
        if not place.exists() or (anchor and anchor not in known):
            broken.append(link)
    assert broken == []


def test_sentences_are_counted_without_code_tables_and_addresses():
    text = (
        "# A heading of words that nobody counts\n\nRun `robo-rm train-reward store=demos.zarr` first, e.g. here. "
        "See [the page](https://example.org/a/b/c).\n\n| a table | of words |\n|---|---|\n| is | left out |\n\n"
        "```bash\nrobo-rm info\n```\n\n- 12.5 % of it. `out` holds\n  the rest.\n"
    )
    found = [one for paragraph in paragraphs(text) for one in sentences(paragraph)]
    assert found == ["Run Code first, e.g. here.", "See the page.", "12.5 % of it.", "Code holds the rest."]
    assert [words(one) for one in found] == [5, 3, 3, 4]


def test_retired_words_are_found_in_prose_and_names_are_left_alone():
    assert retired_phrases("The judged world, 30 frames a\nsecond.") == [
        "'judged': write evaluated",
        "'world': write environment",
        "'frames a second': write per second",
    ]
    assert retired_phrases("Meta-World in the real world; he is told that it looks kept.") == []


def test_anchors_are_those_of_github():
    assert anchors("# What `robo-rm` is: a, b & c\n## Again\n## Again\n### snake_case") == {
        "what-robo-rm-is-a-b--c",
        "again",
        "again-1",
        "snake_case",
    }
