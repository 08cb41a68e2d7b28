"""The command: finding commands, composing settings, and one clear line for each mistake."""

from __future__ import annotations

import subprocess
import sys
import time
import types
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

import pytest
from omegaconf import MISSING

from robo_core.cli import main as main_module
from robo_core.cli.app import settings_of
from robo_core.cli.commands import Command, find_commands, pick_command
from robo_core.cli.composed import compose_command
from robo_core.cli.configs import configs_folder
from robo_core.cli.experiments import command_of
from robo_core.cli.help import field_sentences
from robo_core.errors import ConfigError
from robo_hw.errors import HardwareError

COMMANDS = find_commands()
BY_WORDS = {command.words: command for command in COMMANDS.values()}
RECIPES = sorted((configs_folder() / "experiment").glob("*.yaml"))


@dataclass(frozen=True)
class Inner:
    width: int = 3
    """How wide."""


@dataclass(frozen=True)
class Tall(Inner):
    height: int = 1
    """How high."""


@dataclass(frozen=True)
class Config:
    store: str = MISSING
    """Where it stands."""
    count: int = 1
    """How many."""
    limit: float | None = None
    """At most so much."""
    inner: Inner = field(default_factory=Inner)
    """What is inside."""
    policy: str | None = None
    """A folder."""


@pytest.fixture
def toy_command(tmp_path):
    """A third party's command, with configs of its own and a group."""
    folder = tmp_path / "configs"
    (folder / "inner").mkdir(parents=True)
    (folder / "toy.yaml").write_text("defaults: [toy_schema, inner: wide, _self_]\ncount: 4\n")
    (folder / "inner/wide.yaml").write_text("width: 30\n")
    (folder / "inner/thin.yaml").write_text("width: 1\n")
    module = types.ModuleType("toy", "Do a toy thing.\n\nMore about it.")
    module.Config, module.GROUP, module.CONFIG_FOLDER, module.ran = Config, "robot", folder, []
    module.run = module.ran.append
    command = Command("toy", metadata.EntryPoint("toy", "toy", "robo_rm.commands"))
    command.__dict__["module"] = module
    return command


@pytest.fixture
def run_toy(toy_command, monkeypatch, run_command):
    monkeypatch.setattr(main_module, "find_commands", lambda: {"toy": toy_command})
    return lambda *words: run_command("toy", *words)


def composed(command: Command, *words: str) -> object:
    return settings_of(command, compose_command(command, words).config)


def mandatory(command: Command) -> list[str]:
    missing = compose_command(command).settings()
    return [f"{setting.key}=x" for setting in missing if setting.value == "???"]


def test_help_lists_every_command_and_answers_quickly():
    times = []
    for _ in range(3):
        start = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "robo_core.cli.main", "--help"], capture_output=True, text=True, check=True
        )
        times.append(time.perf_counter() - start)
    assert "cannot be loaded" not in done.stdout
    assert all(command.words in done.stdout for command in COMMANDS.values())
    # The promise is .4 s on an idle machine; the rest is room for a busy one.
    assert min(times) < 1.5


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from robo_core.cli.main import main; main(['--help']);"
        "print(sorted({'torch', 'mujoco', 'lerobot', 'cv2', 'zarr', 'hydra', 'omegaconf.base.x'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("[]")


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_every_command_explains_every_setting(name, run_command):
    command = COMMANDS[name]
    code, out, err = run_command(*command.words.split(), "--help")
    assert (code, err) == (0, "")
    assert command.summary in out
    groups = {group: choices for group, choices in compose_command(command).groups.items() if group != "experiment"}
    for words in ([], *([f"{group}={choice}"] for group, choices in groups.items() for choice in choices)):
        settings = compose_command(command, words).settings()
        assert [s.key for s in settings if not field_sentences(s.owner).get(s.key.rpartition(".")[2])] == []


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_composes_with_every_choice(name):
    command = COMMANDS[name]
    needed = mandatory(command)
    assert isinstance(composed(command, *needed), command.schema)
    for group, choices in compose_command(command).groups.items():
        for choice in choices if group != "experiment" else ():
            assert isinstance(composed(command, *needed, f"{group}={choice}"), command.schema)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.stem)
def test_every_recipe_composes_with_the_command_that_it_names(recipe):
    command = BY_WORDS[command_of(recipe)]
    chosen = composed(command, *mandatory(command), f"experiment={recipe.stem}")
    assert chosen != composed(command, *mandatory(command))


def test_recipes_are_there_for_every_training_command():
    assert {command_of(recipe) for recipe in RECIPES} == {"train-policy", "train-reward", "train-rl"}
    rabc = composed(COMMANDS["train-policy"], "store=a", "out=b", "experiment=rabc_open_images")
    assert (rabc.weights.mode, rabc.policy.cameras, rabc.steps) == ("rabc", ["front"], 1000)
    learning = composed(COMMANDS["train-rl"], "out=b", "experiment=rl_door_early").learning
    assert (learning.discount, learning.evaluate_every) == (0.995, 500)


def test_a_recipe_of_another_command_is_refused(run_command):
    code, _, err = run_command("train-policy", "experiment=rl_open", "store=a", "out=b")
    assert (code, err) == (2, "robo-rm train-policy: experiment=rl_open is for robo-rm train-rl\n")
    code, out, _ = run_command("train-policy", "--help")
    assert "|rabc_tidy_drawer|" in out
    assert "rl_open" not in out
    code, _, err = run_command("train-rl", "experiment=rl_opne", "out=b")
    assert "rl_open, steered" not in err
    assert "did you mean 'rl_open'?" in err


@pytest.mark.parametrize(
    ("recipe", "says"),
    [
        ("count: 9\n", "mine.yaml does not say which command it is for; add 'command: toy' at its top"),
        ("command: train-polcy\ncount: 9\n", "train-polcy names no command; did you mean 'train-policy'?"),
        ("command: [toy]\ncount: 9\n", "command: ['toy'] names no command"),
        ("command: train-rl\ncount: 9\n", "experiment=mine is for robo-rm train-rl"),
    ],
)
def test_a_recipe_says_which_command_it_is_for(toy_command, run_toy, recipe, says):
    folder = toy_command.module.CONFIG_FOLDER
    (folder / "toy.yaml").write_text("defaults: [toy_schema, _self_, experiment: null]\n")
    (folder / "experiment").mkdir()
    (folder / "experiment/mine.yaml").write_text(f"# @package _global_\n{recipe}")
    code, _, err = run_toy("store=a", "experiment=mine")
    assert (code, err.count("\n")) == (2, 1)
    assert says in err
    assert toy_command.module.ran == []
    assert "experiment=" not in run_toy("--help")[1]


def test_the_command_of_a_recipe_is_no_setting(toy_command, run_toy):
    folder = toy_command.module.CONFIG_FOLDER
    (folder / "toy.yaml").write_text("defaults: [toy_schema, _self_, experiment: null]\n")
    (folder / "experiment").mkdir()
    (folder / "experiment/mine.yaml").write_text("# @package _global_\ncommand: toy\ncount: 9\n")
    code, out, err = run_toy("store=a", "experiment=mine", "--cfg", "job")
    assert (code, "count: 9" in out, "command" in out) == (0, True, False), err
    assert run_toy("store=a", "experiment=mine")[0] == 0
    assert toy_command.module.ran[0].count == 9
    assert "experiment=mine" in run_toy("--help")[1]


def test_a_choice_of_a_group_may_have_settings_of_its_own(toy_command, run_toy):
    toy_command.module.config_groups = lambda: {"inner": {"tall": Tall, "wide": Inner, "flat": Inner}}
    (toy_command.module.CONFIG_FOLDER / "inner/tall.yaml").write_text("defaults: [tall_schema, _self_]\nheight: 2\n")
    assert composed(toy_command, "store=a", "inner=tall").inner == Tall(3, 2)
    assert composed(toy_command, "store=a", "inner=tall", "inner.height=7").inner.height == 7
    assert composed(toy_command, "store=a", "inner=flat").inner == Inner(3)  # without YAML
    code, _, errors = run_toy("store=a", "inner=tall", "inner.hight=7")
    assert (code, "did you mean 'inner.height'" in errors) == (2, True)
    code, _, errors = run_toy("store=a", "inner=flat", "inner.height=7")
    assert (code, "no setting 'inner.height'" in errors) == (2, True)
    _, shown, _ = run_toy("inner=tall", "--help")
    assert "inner=flat|tall|thin|wide" in shown
    assert "inner.height  (int, default 2)" in shown
    assert "How high." in shown
    assert "inner.width  (int, default 3)" in shown
    assert "How wide." in shown


def test_a_group_of_one_command_is_a_plain_setting_of_another(toy_command):
    assert (configs_folder() / "policy/act.yaml").is_file()
    assert composed(COMMANDS["train-policy"], "store=a", "out=b", "policy=act").policy.name == "act"
    assert composed(COMMANDS["eval-policy"], "policy=act", "out=b").policy == "act"
    assert composed(toy_command, "store=a", "policy=some/folder").policy == "some/folder"


def test_settings_are_typed_and_groups_choose(toy_command):
    assert composed(toy_command, "store=a") == Config("a", 4, None, Inner(30))
    chosen = composed(toy_command, "store=a", "inner=thin", "limit=2", "count=7")
    assert chosen == Config("a", 7, 2.0, Inner(1))
    assert composed(toy_command, "store=a", "inner.width=5").inner.width == 5


def test_a_mapping_takes_keys_that_no_schema_names():
    words = ["store=a", "out=b", "reward=ensemble", "reward.settings.history=4", "reward.settings.use_state=false"]
    assert composed(COMMANDS["train-reward"], *words).reward.settings == {"history": 4, "use_state": False}


def test_a_mapping_may_be_given_whole():
    words = ["source=a", "store=b", "rename={observation.image: observation.images.front}"]
    chosen = composed(COMMANDS["import.robomimic"], *words)
    assert chosen.rename == {"observation.image": "observation.images.front"}


@pytest.mark.parametrize(
    "path", ["../a (1).zarr", "/x y/z.zarr", "it's=odd", "a,b", "[1].zarr", "back\\slash", "2026_11_30", "1e3"]
)
def test_a_text_setting_is_taken_as_it_is(toy_command, run_toy, path):
    assert composed(toy_command, f"store={path}").store == path
    assert run_toy(f"store={path}")[0] == 0
    assert toy_command.module.ran[0].store == path


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["stor=a"], ["'stor'", "'store'", "robo-rm toy --help"]),
        (["store=a", "inner.widht=3"], ["'inner.widht'", "'inner.width'"]),
        (["store=a", "count=many"], ["count=many", "Integer"]),
        (["store=a", "inner=tin"], ["inner=tin", "thin, wide", "'thin'"]),
        ([], ["store is missing", "store=..."]),
        (["store"], ["'store' is not a setting", "key=value"]),
        (["store=a", "limit=high"], ["limit=high", "Float"]),
        (["store=a", "count=1,2"], ["count=1,2", "--multirun"]),
        (["store=a", "+count=2"], ["+count=", "already", "give count="]),
        (["store=${nothing}"], ["nothing"]),
        (["--cgf", "job"], ["--cgf", "--hydra-help"]),
        (["--cfg", "jbo"], ["--cfg", "'jbo'"]),
        (["--cfg", "job", "--info"], ["Only one of"]),
        (["--config-dir", "nowhere", "store=a"], ["nowhere is not a folder"]),
        (["--config-name", "other", "store=a"], ["no config other.yaml"]),
    ],
)
def test_a_mistake_in_the_settings_gives_one_line_and_exit_code_2(run_toy, toy_command, words, parts):
    code, out, err = run_toy(*words)
    assert code == 2, err
    assert out == ""
    assert err.count("\n") == 1
    assert all(part in err for part in parts), err
    assert toy_command.module.ran == []


def test_an_unknown_key_in_a_yaml_file_names_the_file_and_the_nearest_key(toy_command, run_toy):
    (toy_command.module.CONFIG_FOLDER / "toy.yaml").write_text("defaults: [toy_schema, _self_]\ncuont: 4\n")
    code, _, err = run_toy("store=a")
    assert code == 2
    assert "toy.yaml" in err
    assert "cuont" in err


def test_a_config_that_does_not_build_on_the_command_is_refused(toy_command, run_toy):
    (toy_command.module.CONFIG_FOLDER / "alone.yaml").write_text("store: a\n")
    code, _, err = run_toy("--config-name", "alone")
    assert code == 2
    assert "begin its defaults list with toy" in err


def test_an_unknown_command_names_the_nearest(run_command):
    code, _, err = run_command("train-rewrad")
    assert code == 2
    assert "train-reward" in err
    assert err.count("\n") == 1
    code, _, err = run_command("import", "lerobt")
    assert code == 2
    assert "lerobot" in err


def test_commands_of_two_words_are_found():
    command, rest = pick_command(["import", "lerobot", "a=b"], COMMANDS)
    assert (command.words, rest) == ("import lerobot", ["a=b"])


@pytest.mark.parametrize(
    ("raised", "code", "text"),
    [
        (ConfigError("two\n lines"), 2, "robo-rm toy: two lines"),
        (HardwareError("joint 2 has no limit"), 2, "robo-rm toy: joint 2 has no limit"),
        (KeyboardInterrupt(), 130, "run the same command again to resume"),
        (ModuleNotFoundError("no", name="mujoco"), 2, "robo-rm[sim]"),
        (PermissionError(13, "Permission denied", "/x"), 2, "/x: Permission denied"),
        (SystemExit(1), 1, ""),
    ],
)
def test_what_a_command_raises_decides_the_exit_code(toy_command, run_toy, raised, code, text):
    def fail(_config):
        raise raised

    toy_command.module.run = fail
    got, _, err = run_toy("store=a")
    assert got == code
    assert text in err
    assert err.count("\n") <= 1


def test_a_defect_of_ours_keeps_its_traceback(toy_command, run_toy):
    def fail(_config):
        raise ZeroDivisionError("a bug")

    toy_command.module.run = fail
    with pytest.raises(ZeroDivisionError):
        run_toy("store=a")


def test_a_broken_pipe_that_is_not_our_output_is_a_defect(toy_command, run_toy):
    def fail(_config):
        raise BrokenPipeError(32, "a socket's")

    toy_command.module.run = fail
    with pytest.raises(BrokenPipeError):
        run_toy("store=a")


def test_a_command_may_run_another(toy_command, run_toy):
    ran = []

    def nested(config):
        ran.append(config.count)
        if config.count == 4:
            assert main_module.main(["toy", "store=b", "count=5"]) == 0
            ran.append("back")

    toy_command.module.run = nested
    assert run_toy("store=a")[0] == 0
    assert ran == [4, 5, "back"]


def test_the_help_of_a_command_shows_types_defaults_choices_and_meaning(run_toy):
    code, out, _ = run_toy("--help")
    assert code == 0
    for text in (
        "Do a toy thing.",
        "store  (str, mandatory)",
        "count  (int, default 4)",
        "inner=thin|wide",
        "How wide.",
        "--multirun",
    ):
        assert text in out


def test_configs_are_found_in_the_checkout():
    assert configs_folder() == Path(__file__).resolve().parents[3] / "configs"
