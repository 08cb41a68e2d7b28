"""Every command and every Python block in the README and in docs/ runs, in the order of its page.

The README runs first, in a folder that holds what a user would bring: a small LeRobot data set called
``my_lerobot_data`` with its ``subtasks.json``, the same one under the name that the quickstart has, and a small
recording in every other format. Each other page runs in a copy of what the README left. Settings that only cost time
are cut down by adding words to the command; everything else runs as printed. Blocks marked ``sh`` name files that
only the reader has: their settings are composed, and the tests of each command run it.
"""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest
import small_recordings
from markdown_pages import written_pages

from robo_core.cli.app import settings_of
from robo_core.cli.commands import find_commands, pick_command
from robo_core.cli.composed import compose_command
from robo_core.cli.main import main

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = find_commands()
PAGES = [page for page in written_pages() if page.suffix == ".md" and page.is_relative_to(ROOT / "docs")]

# Added behind a command so that it ends in seconds; sizes only.
SMALLER = {
    "record": "episodes=6 image_size=32",
    "train-reward": "steps=3 holdout=2",
    "eval-reward": "",
    "score": "",
    "leaderboard": "resamples=50 probes=2",
    "train-policy": "steps=5 training.batch_size=8",
    "eval-policy": "episodes=2",
    "train-rl": (
        "steps=60 max_steps=40 learning.learning_starts=4 learning.prior_steps=20 learning.evaluation_episodes=1"
    ),
}
# Six small episodes cannot spare what a real data set holds out.
FEWER_HELD_OUT = "holdout=2"
# Not run here: set-up and the whole line, which run as they are in a fresh checkout; and the slow comparisons.
ELSEWHERE = ("make ", "pip install", "git clone", "cd ", "python benchmarks/", "source ")


def blocks(page: Path) -> list[tuple[str, str]]:
    """The fenced blocks of a page: (language, text)."""
    return re.findall(r"^```(\w+)\n(.*?)^```", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def commands(text: str) -> list[str]:
    """The commands of a shell block: comments and prompts gone, continued lines joined."""
    joined = text.replace("\\\n", " ")
    lines = [re.sub(r"(^|\s)#.*$", "", line).strip() for line in joined.splitlines()]
    return [line for line in lines if line]


def smaller(words: list[str]) -> list[str]:
    """The words to add behind a command, after the ``robo-rm``."""
    added = SMALLER.get(words[0], "").split()
    if any(word.startswith("holdout=") and word != "holdout=0" for word in words):
        added.append(FEWER_HELD_OUT)
    return added


def run_page(page: Path) -> int:
    """Run a page's blocks in the current folder and return how many commands and programs ran."""
    count = 0
    for language, text in blocks(page):
        if language == "python":
            code = compile(text, f"{page.name} (python block)", "exec", dont_inherit=True)
            exec(code, {"__name__": "__docs__"})  # our own pages
            count += 1
        elif language == "bash":
            for command in commands(text):
                if command.startswith(ELSEWHERE):
                    continue
                words = shlex.split(command)
                assert words[0] == "robo-rm", f"{page.name}: cannot tell how to run: {command}"
                verb = words[1]
                if verb == "demo":
                    continue  # test_demo.py runs it
                code = main([*words[1:], *smaller(words[1:])] if "=" in command else words[1:])
                assert code == 0, f"{page.name}: exit code {code} from: {command}"
                count += 1
        elif language == "sh":
            for command in commands(text):
                chosen, rest = pick_command(shlex.split(command)[1:], COMMANDS)
                assert isinstance(settings_of(chosen, compose_command(chosen, rest).config), chosen.schema)
                count += 1
        else:
            assert language in ("text", "yaml", "json"), f"{page.name}: unknown block language {language}"
    return count


@pytest.fixture(scope="session")
def readme_folder(tmp_path_factory, lerobot_data_set):
    """A folder in which the README has been followed."""
    folder = tmp_path_factory.mktemp("readme")
    for name in ("my_lerobot_data", "g1_pick_bottle"):
        shutil.copytree(lerobot_data_set, folder / name)
    small_recordings.write_all(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert run_page(ROOT / "README.md") >= 6
    return folder


def test_the_readme_can_be_followed(readme_folder):
    assert (readme_folder / "my_lerobot_data").is_dir()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT / "docs")))
def test_the_page_can_be_followed(page, readme_folder, tmp_path, monkeypatch):
    shutil.copytree(readme_folder, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    run_page(page)


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) < 150


def test_every_picture_and_page_that_is_linked_exists():
    missing = []
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *PAGES]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            if not (page.parent / target).exists():
                missing.append(f"{page.name}: {target}")
    assert missing == []


def test_every_benchmark_that_is_named_exists():
    named = {
        (page.name, name)
        for page in [ROOT / "README.md", ROOT / "Makefile", *PAGES]
        for name in re.findall(r"benchmarks/[\w/]+\.py", page.read_text())
    }
    assert len(named) > 10
    assert [(page, name) for page, name in sorted(named) if not (ROOT / name).is_file()] == []
