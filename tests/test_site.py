"""The site builds without a warning, works offline, and its reference leaves nothing out."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import pytest
from built_site import BuiltPage

from robo_core.cli.commands import find_commands
from robo_core.cli.composed import compose_command

ROOT = Path(__file__).resolve().parents[1]
SPHINX = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-n", "-q"]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built site, with the options of ``make docs``."""
    target = tmp_path_factory.mktemp("site") / "html"
    done = subprocess.run([*SPHINX, "docs", str(target)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return target


@pytest.fixture(scope="module")
def pages(site):
    """Every page of the site by its path."""
    return {path: BuiltPage(path) for path in sorted(site.rglob("*.html"))}


def test_make_docs_builds_with_these_options():
    recipe = re.search(r"^docs: .*\n\t\$\(BIN\)/python -m sphinx (.+) docs docs/_build/html$", makefile(), re.MULTILINE)
    assert recipe
    assert recipe.group(1).split() == SPHINX[3:]


def makefile() -> str:
    return (ROOT / "Makefile").read_text()


def test_nothing_is_loaded_from_another_place(site, pages):
    assert len(pages) > 50
    loaded = {target for page in pages.values() for target in page.loaded}
    assert "_static/searchtools.js" in loaded
    assert [target for target in loaded if re.match(r"([a-z]+:)?//", target)] == []
    for sheet in site.rglob("*.css"):
        assert re.findall(r"(?:@import|url\()\s*[\"']?(?:https?:)?//\S*", sheet.read_text()) == [], sheet.name


def test_every_link_leads_to_a_page_and_every_anchor_to_a_place_on_it(pages):
    broken = set()
    for path, page in pages.items():
        for link in [*page.links, *page.loaded]:
            if re.match(r"[a-z]+:", link):
                continue
            target, _, anchor = unquote(link).partition("#")
            place = (path.parent / target.partition("?")[0]).resolve() if target else path
            there = pages[place].ids if place in pages else set()
            if not place.exists() or (anchor and place in pages and anchor not in there):
                broken.add(f"{path.name}: {link}")
    assert broken == set()


def test_search_and_dark_mode_work_without_a_server(site):
    index = (site / "searchindex.js").read_text()
    assert index.startswith("Search.setIndex(")
    assert "reference/commands/train_reward" in index
    assert "prefers-color-scheme:dark" in "".join(sheet.read_text() for sheet in site.rglob("*.css")).replace(" ", "")


@pytest.mark.parametrize("command", find_commands().values(), ids=lambda command: command.name)
def test_every_setting_and_choice_of_a_command_is_on_its_page(command, site, pages):
    shown = pages[site / f"reference/commands/{command.config_name}.html"].text
    composed = compose_command(command)
    choices = [choice for found in composed.groups.values() for choice in found]
    wanted = [*(setting.key for setting in composed.settings()), *choices]
    assert [word for word in wanted if word not in shown] == []
    assert command.summary.partition("`")[0].strip() in " ".join(shown.split())


def test_every_metric_of_a_reward_model_is_on_a_page(site, pages):
    from robo_rm.evaluation.advice import METRICS

    shown = pages[site / "reference/metrics.html"].text
    assert [name for name in METRICS if name not in shown] == []


def test_every_public_name_is_described(pages):
    ids = {name for page in pages.values() for name in page.ids}
    missing = [f"{package}.{name}" for package, name in public_names() if not described(package, name, ids)]
    assert missing == []


def public_names() -> list[tuple[str, str]]:
    """Every name that a package exports, by its stub's package."""
    found = []
    for stub in ROOT.glob("**/robo_*/**/__init__.pyi"):
        if not stub.is_relative_to(ROOT / ".venv"):
            parts = stub.parent.relative_to(ROOT).parts
            package = ".".join(parts[next(at for at, part in enumerate(parts) if part.startswith("robo_")) :])
            lines = stub.read_text().splitlines()
            found += [(package, line.split()[-1]) for line in lines if "import" in line and "__version__" not in line]
    assert len(found) > 60
    return found


def described(package: str, name: str, ids: set[str]) -> bool:
    """Whether the name, or the one that another package exports, has a description to link to."""
    return any(one in ids for one in (f"{package}.{name}", f"module-{package}.{name}")) or any(
        one.rpartition(".")[2] == name and one.startswith("robo_") for one in ids
    )


def test_a_page_that_no_table_of_contents_names_is_an_error_that_names_it(tmp_path):
    (tmp_path / "index.md").write_text("# Start\n\n```{toctree}\ngone\n```\n")
    (tmp_path / "forgotten.md").write_text("# Forgotten\n\nSee [this](#nowhere).\n")
    options = ["-C", "-D", "extensions=myst_nb", "-D", "myst_heading_anchors=4"]
    build = [*SPHINX, *options, str(tmp_path), str(tmp_path / "html")]
    done = subprocess.run(build, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert re.search(r"forgotten.md.*isn't included in any toctree", done.stderr)
    assert re.search(r"nonexisting document 'gone'", done.stderr)
    assert re.search(r"forgotten.md.*'nowhere'", done.stderr)
