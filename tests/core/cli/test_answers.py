"""Command lines written as in other programs, and what people type when they look for help: each gets its answer."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from robo_core.cli.commands import HEADINGS, find_commands
from robo_core.cli.completion import SCRIPTS


@pytest.mark.parametrize(
    ("typed", "answer"),
    [
        ("train-reward --store demos.zarr", "write key=value, here store=demos.zarr"),
        ("train-reward --store=demos.zarr --out rm", "here store=demos.zarr out=rm"),
        ("train-reward -out=rm store=a", "here out=rm"),
        ("train-reward demos.zarr", "here store=demos.zarr"),
        ("train-reward demos.zarr rm", "here store=demos.zarr out=rm"),
        ("train-reward store=demos.zarr rm", "here out=rm"),
        ("train-reward store = demos.zarr", "here store=demos.zarr"),
        ("train-reward store= demos.zarr", "here store=demos.zarr"),
        ("train-reward store", "here store=..."),
        ("train-reward reward.history 4", "here reward.history=... store=4"),
        ("train-reward --reward.history 4", "here reward.history=4"),
        ("train-reward --stroe x", "did you mean 'store=...'?"),
        ("train-reward --config-dir . more", "here store=more"),
        ("train-reward store=a out=b more", "'more' is not a setting; write key=value"),
        ("import lerobot my_lerobot_data", "here source=my_lerobot_data"),
        ("train-reward store=a out=b cameras=front", "cameras is a list; write 'cameras=[front]'"),
        ("train-reward store=a out=b cameras=front,wrist", "cameras is a list; write 'cameras=[front,wrist]'"),
        ("train-policy store=a out=b policy.cameras=front", "policy.cameras is a list; write 'policy.cameras=[front]'"),
        ("train reward", "there is no command 'train reward'; did you mean 'train-reward'?"),
        ("train_reward store=a", "did you mean 'train-reward'?"),
        ("lerobot source=a", "did you mean 'import lerobot'?"),
        ("import source=a", "'import' needs one of: lerobot, "),
        ("import lerobt", "did you mean 'lerobot'?"),
        ("completion bsh", "did you mean 'bash'?"),
        ("completion", "none was given"),
    ],
)
def test_the_answer_is_one_line_with_what_to_write(typed, answer, run_command):
    code, out, err = run_command(*typed.split())
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert answer in err


@pytest.mark.parametrize("typed", ["help train-reward", "train-reward help", "train-reward -h", "--help train-reward"])
def test_every_form_of_asking_for_help_is_help(typed, run_command):
    code, out, err = run_command(*typed.split())
    assert (code, err) == (0, "")
    assert out.startswith("usage: robo-rm train-reward")


@pytest.mark.parametrize("typed", ["import -h", "help import", "import --help", "import help"])
def test_a_family_of_commands_has_a_help_of_its_own(typed, run_command):
    code, out, err = run_command(*typed.split())
    assert (code, err) == (0, "")
    assert out.startswith("usage: robo-rm import FORMAT")
    assert "  import lerobot  " in out
    assert "doctor" not in out


@pytest.mark.parametrize("typed", ["version", "--version", "-V"])
def test_every_form_of_asking_for_the_version_is_answered(typed, run_command):
    code, out, err = run_command(typed)
    assert (code, err) == (0, "")
    assert out.startswith("robo-rm 0.")


def test_help_lists_the_commands_in_the_order_of_the_work(run_command):
    lines = run_command("help")[1].splitlines()
    shown = [line for line in lines if line.startswith("  ") and not line.startswith("   ")]
    places = [next(i for i, line in enumerate(shown) if line.startswith(f"  {words} ")) for words in WORKFLOW]
    assert places == sorted(places)
    assert [line for line in lines if line in HEADINGS] == list(HEADINGS)
    # Nobody looks for an export between imports.
    imports = [i for i, line in enumerate(shown) if line.startswith("  import ")]
    assert imports == list(range(imports[0], imports[0] + len(imports)))


WORKFLOW = (
    *("import lerobot", "doctor", "cache", "train-reward", "eval-reward", "score", "train-policy", "eval-policy"),
    *("make-contract", "deploy-check", "serve-policy", "run-policy"),
)


def test_every_command_has_its_place_in_the_help():
    from robo_core.cli.commands import ORDER

    assert sorted(ORDER) == sorted(find_commands())


@pytest.mark.parametrize("typed", ["help", "help train-reward", "help import", "help export lerobot"])
def test_help_fits_a_terminal_of_80_columns(typed, run_command, become_terminal):
    wide = run_command(*typed.split())[1]
    become_terminal()
    narrow = run_command(*typed.split())[1]
    assert [line for line in narrow.splitlines() if len(line) > 80] == []
    assert "".join(narrow.split()) == "".join(wide.split())
    assert "\x1b" not in wide + narrow


SAYS_WHAT_FOLLOWS = re.compile(r"\b(say_next|say_then|say_training|run_import|finish)\(")


@pytest.mark.parametrize("command", find_commands().values(), ids=lambda command: command.words)
def test_every_command_says_what_to_type_next(command):
    spec = importlib.util.find_spec(command.entry_point.value)
    assert spec is not None
    assert SAYS_WHAT_FOLLOWS.search(Path(spec.origin).read_text())


def test_an_answer_imports_nothing_heavy():
    code = (
        "import sys; from robo_core.cli.main import main\n"
        "for words in (['tain-reward'], ['import', '-h'], ['train', 'reward'], ['version']): main(words)\n"
        "print(sorted({'torch', 'mujoco', 'cv2', 'zarr', 'hydra', 'rich'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("[]")


class TestCompletion:
    @pytest.fixture(autouse=True)
    def home(self, tmp_path, monkeypatch):
        monkeypatch.setenv("HOME", str(tmp_path))
        for name in ("XDG_DATA_HOME", "XDG_CONFIG_HOME", "BASH_COMPLETION_USER_DIR", "ZDOTDIR"):
            monkeypatch.delenv(name, raising=False)
        return tmp_path

    @pytest.mark.parametrize(
        ("shell", "place"),
        [
            ("bash", ".local/share/bash-completion/completions/robo-rm"),
            ("zsh", ".local/share/robo-rm/completion.zsh"),
            ("fish", ".config/fish/completions/robo-rm.fish"),
        ],
    )
    def test_one_command_installs_it(self, shell, place, home, run_command):
        for _ in range(2):
            code, out, err = run_command("completion", shell)
            assert (code, err) == (0, "")
            assert f"wrote {home / place}" in out
            assert (home / place).read_text() == SCRIPTS[shell]
        if shell == "zsh":
            assert (home / ".zshrc").read_text().count("\n") == 1
            assert str(home / place) in (home / ".zshrc").read_text()

    def test_the_script_can_be_printed_instead(self, home, run_command):
        assert run_command("completion", "zsh", "--print") == (0, SCRIPTS["zsh"], "")
        assert list(home.iterdir()) == []

    def test_bash_completes_with_it(self, home):
        script = home / "robo-rm.bash"
        script.write_text(SCRIPTS["bash"])
        (home / "robo-rm").write_text(f'#!/bin/sh\nexec {sys.executable} -m robo_core.cli.main "$@"\n')
        (home / "robo-rm").chmod(0o755)
        asked = {
            "robo-rm train-rew": "train-reward",
            "robo-rm completion ba": "bash",
            "robo-rm train-policy policy=d": "diffusion",
        }
        lines = [f"source {script}"]
        for line in asked:
            lines += [f"COMP_LINE='{line}' COMP_POINT={len(line)}", '_robo_rm; echo "${COMPREPLY[*]}"']
        environment = {**os.environ, "PATH": f"{home}:{os.environ['PATH']}"}
        done = subprocess.run(
            ["bash", "-c", "\n".join(lines)], capture_output=True, text=True, check=True, env=environment
        )
        assert done.stdout.splitlines() == list(asked.values())
        assert done.stderr == ""
