"""The architecture: layers, names, sizes, start-up."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = {
    "robo_core": ROOT / "core/robo_core",
    "robo_datasets": ROOT / "datasets/robo_datasets",
    "robo_hw": ROOT / "hw/robo_hw",
    "robo_rm": ROOT / "robo_rm",
    "robo_policies": ROOT / "policies/robo_policies",
}
SIMULATION = {"mujoco", "gymnasium", "lerobot", "mink", "metaworld", "stable_baselines3"}
FORBIDDEN = {
    "robo_core": {"torch", "zarr", "rclpy", "robo_datasets", "robo_hw", "robo_rm", "robo_policies"} | SIMULATION,
    "robo_datasets": {"torch", "rclpy", "robo_hw", "robo_rm", "robo_policies"} | SIMULATION,
    "robo_rm": {"rclpy", "robo_policies"} | SIMULATION,
    "robo_policies": {"rclpy"},
}
# robo_hw runs on a robot's own computer, so it is told what it may import, not what it may not.
HW_ALLOWED = {"numpy", "msgpack", "yaml", "robo_core", "robo_hw"} | set(sys.stdlib_module_names)


def imported_packages(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("package", PACKAGES)
def test_no_module_imports_a_higher_layer(package):
    wrong = {}
    for path in PACKAGES[package].rglob("*.py"):
        found = imported_packages(path)
        bad = found - HW_ALLOWED if package == "robo_hw" else found & FORBIDDEN[package]
        if bad:
            wrong[str(path.relative_to(ROOT))] = sorted(bad)
    assert wrong == {}


def test_the_layer_check_sees_imports_inside_functions(tmp_path):
    file = tmp_path / "sneaky.py"
    file.write_text("def f():\n    from torch.nn import Linear\n    import rclpy.node\n")
    assert imported_packages(file) == {"torch", "rclpy"}


def test_importing_a_package_brings_no_heavy_library():
    code = (
        "import sys, robo_datasets, robo_rm, robo_policies, robo_hw;"
        "print(sorted({'torch', 'mujoco', 'lerobot', 'cv2', 'zarr', 'hydra', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_python_started_in_the_checkout_finds_the_hugging_face_datasets_and_lerobot():
    code = "import datasets, lerobot; print(hasattr(datasets, 'load_dataset'), lerobot.__name__)"
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, env=environment
    )
    assert done.stdout.split() == ["True", "lerobot"]


def test_every_source_file_is_under_500_lines():
    files = [
        path
        for folder in (*PACKAGES.values(), ROOT / "tests", ROOT / "benchmarks", ROOT / "hw")
        for path in folder.rglob("*.py")
    ]
    assert len(files) > 20
    assert {str(path): n for path in files if (n := len(path.read_text().splitlines())) >= 500} == {}


def test_every_export_of_a_package_can_be_imported():
    stubs = [(name, stub) for name, root in PACKAGES.items() for stub in root.rglob("__init__.pyi")]
    names = [".".join((name, *stub.parent.relative_to(PACKAGES[name]).parts)) for name, stub in stubs]
    code = (
        "import ast, importlib, pathlib\n"
        f"for name in {names}:\n"
        "    package = importlib.import_module(name)\n"
        "    stub = ast.parse(pathlib.Path(package.__file__).with_suffix('.pyi').read_text())\n"
        "    for alias in [alias for node in stub.body for alias in node.names]:\n"
        "        found = getattr(package, alias.asname or alias.name)\n"
        "        same = getattr(found, '__name__', '') == f'{name}.{alias.name}'\n"
        "        assert type(found).__name__ != 'module' or same, (name, alias.name)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_command_named_in_the_distribution_exists():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for target in project["entry-points"]["robo_rm.commands"].values():
        package, _, rest = target.partition(".")
        assert (PACKAGES[package] / (rest.replace(".", "/") + ".py")).is_file(), target


@pytest.mark.parametrize("path", sorted((ROOT / "constraints").glob("*.txt")), ids=lambda path: path.stem)
def test_constraints_hold_names_and_versions_only(path):
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    if lines == ["-c py312.txt"]:
        return
    assert len(lines) > 50
    assert [line for line in lines if "/" in line or "==" not in line] == []


def test_every_place_on_the_map_of_contributors_exists():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    table = text.partition("## Where things are")[2].partition("## A command")[0]
    places = [name for row in table.splitlines() if row.startswith("|") for name in re.findall("`([^`]+/[^`]*)`", row)]
    assert len(places) > 25
    assert [name for name in places if not (ROOT / name).exists()] == []
