"""Launch files against a stand-in: ROS's launch is not available as a wheel. The stand-in runs them as launch does."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from robo_hw import HardwareError
from robo_rm_bridge.launching import given, remappings

PACKAGE = Path(__file__).resolve().parents[3] / "hw" / "ros2" / "robo_rm_bridge"
FILES = sorted((PACKAGE / "launch").glob("*.launch.py"))


class Argument:
    """A declared argument."""

    def __init__(self, name: str, default_value: Any = None, description: str = "") -> None:
        self.name, self.default = name, default_value
        assert default_value is not None, f"{name} has no default"


class Configuration:
    """The value of an argument."""

    def __init__(self, name: str) -> None:
        self.name = name

    def perform(self, context: dict[str, Any]) -> str:
        return str(context[self.name])


class Opaque:
    """A function that is called with the arguments known."""

    def __init__(self, function: Any) -> None:
        self.function = function


def join(parts: list[Any]) -> str:
    return "/".join(str(part) for part in parts)


def launched(file: Path, monkeypatch: pytest.MonkeyPatch, **arguments: str) -> list[dict[str, Any]]:
    """The nodes that a launch file starts with these arguments."""
    asked: list[dict[str, Any]] = []

    def node(**words: object) -> SimpleNamespace:
        asked.append(words)
        return SimpleNamespace(**words)

    names: dict[str, dict[str, Any]] = {
        "launch": {"LaunchDescription": list},
        "launch.actions": {"DeclareLaunchArgument": Argument, "OpaqueFunction": Opaque},
        "launch.substitutions": {"LaunchConfiguration": Configuration, "PathJoinSubstitution": join},
        "launch_ros": {},
        "launch_ros.actions": {"Node": node, "LifecycleNode": node},
        "launch_ros.substitutions": {"FindPackageShare": lambda name: PACKAGE},
    }
    for name, members in names.items():
        module = ModuleType(name)
        for member, value in members.items():
            setattr(module, member, value)
        monkeypatch.setitem(sys.modules, name, module)
    code: dict[str, Any] = {}
    exec(compile(file.read_text(), str(file), "exec"), code)  # our own file
    context: dict[str, Any] = {}
    for entity in code["generate_launch_description"]():
        if isinstance(entity, Argument):
            context[entity.name] = arguments.pop(entity.name, entity.default)
        else:
            entity.function(context)
    assert not arguments, f"no such arguments: {arguments}"
    return asked


def effective(node: dict[str, Any]) -> dict[str, Any]:
    """Parameters as the node gets them: later entries win, files are read."""
    import yaml

    merged: dict[str, Any] = {}
    for entry in node["parameters"]:
        if isinstance(entry, dict):
            merged |= entry
        else:
            merged |= yaml.safe_load(Path(entry).read_text())["/**"][node["name"]]["ros__parameters"]
    return merged


@pytest.mark.parametrize("file", FILES, ids=lambda path: path.stem)
def test_launch_files_start_what_is_installed(file, monkeypatch):
    asked = launched(file, monkeypatch)
    setup = (PACKAGE / "setup.py").read_text()
    assert asked
    for words in asked:
        assert words["package"] == "robo_rm_bridge"
        assert f'"{words["executable"]}"' in setup
        assert effective(words)["contract"] == "tidy_drawer"


@pytest.mark.parametrize("name", ["policy", "recorder"])
def test_the_file_of_parameters_wins_unless_an_argument_is_given(name, monkeypatch, tmp_path):
    file, node = PACKAGE / "launch" / f"{name}.launch.py", f"robo_rm_{name}"
    mine = tmp_path / "mine.yaml"
    mine.write_text(
        f"/**: {{{node}: {{ros__parameters: {{contract: mine.yaml, policy_address: 'unix:/mine', task: a}}}}}}"
    )
    (asked,) = launched(file, monkeypatch, params=str(mine))
    assert effective(asked) == {"contract": "mine.yaml", "policy_address": "unix:/mine", "task": "a"}
    (asked,) = launched(file, monkeypatch, params=str(mine), contract="other.yaml", task="b")
    assert effective(asked) == {"contract": "other.yaml", "policy_address": "unix:/mine", "task": "b"}


def test_namespace_remapping_autostart_and_address_are_arguments(monkeypatch):
    (asked,) = launched(
        PACKAGE / "launch" / "policy.launch.py",
        monkeypatch,
        namespace="left",
        remap="/joint_states:=/left/states, /estop:=/cell/estop",
        autostart="true",
        policy_address="tcp://127.0.0.1:5555",
    )
    assert asked["namespace"] == "left"
    assert asked["remappings"] == [("/joint_states", "/left/states"), ("/estop", "/cell/estop")]
    parameters = effective(asked)
    assert parameters["autostart"] is True
    assert parameters["policy_address"] == "tcp://127.0.0.1:5555"


def test_the_simulation_takes_its_address_from_the_file_of_parameters_and_starts_by_itself(monkeypatch):
    file = PACKAGE / "launch" / "simulation.launch.py"
    arm, policy = launched(file, monkeypatch, namespace="sim")
    assert arm["namespace"] == policy["namespace"] == "sim"
    assert effective(policy)["autostart"] is True
    given_file = (PACKAGE / "config" / "policy.yaml").read_text()
    assert f"policy_address: {effective(policy)['policy_address']}" in given_file
    assert len(launched(file, monkeypatch, monitor="true")) == 3
    assert effective(launched(file, monkeypatch, autostart="false")[1])["autostart"] is False


def test_a_remapping_of_another_form_is_refused():
    with pytest.raises(HardwareError, match="remap"):
        remappings("/a=/b")
    assert remappings("") == []
    assert given({"a": "", "b": "False", "c": "x"}) == {"b": False, "c": "x"}
