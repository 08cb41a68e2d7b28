"""Whatever a command advises to set is a setting that it, or the command named in the same breath, has."""

from __future__ import annotations

import ast
import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
from brightness_model import BrightnessModel, load_it_everywhere, make_bright_store

from robo_core.cli.commands import find_commands, pick_command
from robo_datasets import DemoStore
from robo_rm.reward_models.saving import WEIGHTS
from robo_rm.settings import StageSettings

ROOT = Path(__file__).resolve().parents[3]
SOURCES = (
    *ROOT.glob("robo_rm/evaluation/*.py"),
    *ROOT.glob("robo_rm/weights/*.py"),
    *ROOT.glob("robo_rm/commands/*.py"),
    *(ROOT / name for name in ("robo_rm/scoring.py", "robo_rm/labels/split.py", "robo_rm/labels/training_overlap.py")),
    ROOT / "policies/robo_policies/cloning/sample_weights.py",
)
# A word, or several with dots between them, then = and not a space: as one types it.
SETTING = re.compile(r"(?<![\w./\[-])([a-z_]+(?:\.[a-z_]+)*)=(?=[\w\[.'{])")
# Settings of Python functions that messages name on purpose, and words of mathematics.
OTHERS = {"store.set_success"}


def settings_of(command: str) -> set[str]:
    """Names of a command's settings, groups with their members."""
    found = set()
    found_command, _ = pick_command(command.split(), find_commands())
    for field in dataclasses.fields(found_command.schema):
        found.add(field.name)
        default = field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default
        if dataclasses.is_dataclass(default):
            found |= {f"{field.name}.{inner.name}" for inner in dataclasses.fields(default)}
    return found


def wrong_settings(text: str, command: str) -> list[str]:
    """Settings named in a message of ``command`` that neither it has nor the command named before them."""
    wrong = []
    for part in re.split(r"(?=robo-rm )", text):
        named = re.match(r"robo-rm ([a-z]+(?:-[a-z]+)*)", part)
        owners = {command} | ({named.group(1)} if named else set())
        known = set().union(*(settings_of(owner) for owner in owners))
        wrong += [name for name in SETTING.findall(part) if name not in known]
    return wrong


def messages(path: Path) -> list[str]:
    """The texts in a module that are no docstrings, pieces of f-strings put together."""
    tree = ast.parse(path.read_text())
    documented = {
        id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            pieces = [p.value if isinstance(p, ast.Constant) else "X" for p in node.values]
            found.append("".join(map(str, pieces)))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documented | inside:
            found.append(node.value)
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_message_names_a_setting_that_no_command_has(path: Path) -> None:
    known = OTHERS | set().union(*(settings_of(words.replace(".", " ")) for words in find_commands()))
    known |= {f"reward.{field.name}" for field in dataclasses.fields(StageSettings)}
    wrong = {name for text in messages(path) for name in SETTING.findall(text) if name not in known}
    assert wrong == set()


def test_the_check_sees_a_setting_that_is_not_there() -> None:
    assert wrong_settings("give episodes=all, or fraction=1", "calibrate") == ["episodes"]
    assert wrong_settings("train with robo-rm train-reward holdout=8", "calibrate") == []
    assert wrong_settings("train with holdout=8", "calibrate") == ["holdout"]
    assert wrong_settings("robo-rm score model=MODEL store=S calibration.dead_zone=0.5 dead=1", "train-policy") == [
        "dead"
    ]


class TestWhatCommandsSay:
    @pytest.fixture
    def folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        load_it_everywhere(monkeypatch)
        return tmp_path

    def saved(self, folder: Path, **provenance) -> Path:
        BrightnessModel(provenance={"priors": [1 / 3] * 3, **provenance}).save(folder / "rm")
        (folder / "rm" / WEIGHTS).touch()
        return folder / "rm"

    def refusal(self, run_command, command: str, *words: str) -> str:
        code, printed, error = run_command(command, *words)
        assert (code, error.count("\n")) == (2, 1), printed + error
        assert wrong_settings(error, command) == []
        return error

    def test_a_model_that_knows_everything(self, folder: Path, run_command) -> None:
        store = make_bright_store(folder / "s.zarr", ["clean"] * 3)
        model = self.saved(folder, train_uuids=store.uuids)
        for command, more in (("calibrate", []), ("eval-reward", [f"out={folder / 'o'}"])):
            error = self.refusal(run_command, command, f"model={model}", f"store={store.path}", *more)
            assert "robo-rm train-reward holdout=8" in error
            assert ("episodes=all" in error) == (command == "eval-reward")

    def test_too_few_to_calibrate_with(self, folder: Path, run_command) -> None:
        store = make_bright_store(folder / "s.zarr", ["clean", "clean"])
        error = self.refusal(run_command, "calibrate", f"model={self.saved(folder)}", f"store={store.path}")
        assert "fraction=1" in error

    def test_nothing_to_calibrate_by(self, folder: Path, run_command) -> None:
        store = make_bright_store(folder / "s.zarr", ["clean"] * 4)
        for uuid in store.uuids:
            store.set_stages(uuid, np.full(store.episode(uuid).length, -1))
        words = (f"model={self.saved(folder)}", f"store={store.path}")
        assert "has stage labels" in self.refusal(run_command, "calibrate", *words)

    @pytest.mark.parametrize("kinds", [["clean"] * 4, ["partial"] * 4, ["clean", "partial"] * 3])
    def test_calibration_says_what_it_fitted_and_what_not(self, folder: Path, run_command, kinds: list[str]) -> None:
        store = make_bright_store(folder / "s.zarr", kinds)
        words = (f"model={self.saved(folder)}", f"store={store.path}", "fraction=1")
        code, printed, error = run_command("calibrate", *words)
        assert code == 0, error
        assert "nan" not in printed
        assert "None" not in printed
        assert "fitted noise" in printed
        assert "none is left to say what it changes" in printed
        assert ("success not calibrated" in printed) == (len(set(kinds)) == 1)

    def test_advice_names_settings_of_its_command(self, folder: Path, run_command) -> None:
        store = make_bright_store(folder / "s.zarr", ["clean", "clean", "partial"])
        for probes in (0, 2):
            code, printed, _ = run_command(
                "eval-reward",
                f"model={self.saved(folder)}",
                f"store={store.path}",
                f"out={folder / f'o{probes}'}",
                f"probes={probes}",
                "resamples=20",
            )
            assert code == 0
            assert wrong_settings(" ".join(printed.split()), "eval-reward") == []
            assert ("no clip was asked for (probes=0)" in " ".join(printed.split())) == (probes == 0)


def test_score_warns_with_settings_that_it_has(tmp_path: Path, run_command) -> None:
    store = make_bright_store(tmp_path / "s.zarr", ["partial", "partial"])
    code, printed, _ = run_command("score", f"store={store.path}", "progress_key=simulator.progress")
    assert code == 0
    assert "every weight is 0" in printed
    assert wrong_settings(" ".join(printed.split()), "score") == []
    DemoStore.open(store.path)
