"""Types of the public names: each has an `assert_type`, and no `Any` stands in a signature or an attribute."""

from __future__ import annotations

import ast
import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOOR = ROOT / "tests/typing/public_door.py"
SOURCES = [ROOT / folder for folder in ("core", "datasets", "hw", "policies", ".")]
# Special methods that make up the way a class is used.
USED = {"__getitem__", "__iter__", "__contains__", "__call__", "__enter__"}


def public_packages() -> list[str]:
    """Packages that export names: their ``__init__`` has ``__all__``."""
    packages = []
    for source in SOURCES:
        for package in source.glob("robo_*"):
            for init in package.rglob("__init__.py"):
                if "__all__" in init.read_text():
                    packages.append(".".join(init.parent.relative_to(source).parts))
    return sorted(packages)


def found(package: str, name: str) -> object:
    return getattr(importlib.import_module(package), name)


def exported() -> list[tuple[str, str]]:
    """Package and name of everything that is exported."""
    return [(package, name) for package in public_packages() for name in importlib.import_module(package).__all__]


def mypy(*files: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *map(str, files)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    return done.stdout


def uses_of(name: str, place: str) -> list[str]:
    """Lines that use a name and, of a class, each of its public attributes as a value."""
    lines = [f"from {place} import {name}", f"print({name})"]
    kind = found(place, name)
    if not inspect.isclass(kind):
        return lines
    ours = [base for base in kind.__mro__ if base.__module__.startswith("robo_")]
    names = {member for base in ours for member in (*vars(base), *vars(base).get("__annotations__", ()))}
    used = sorted(member for member in names if not member.startswith("_") or member in USED)
    keyed = hasattr(kind, "__total__")  # a TypedDict
    return [*lines, "def use(x: " + name + ") -> None:", "    print(x)"] + [
        f"    print(x.get({member!r}))" if keyed else f"    print(x.{member})" for member in used
    ]


def strict_file(folder: Path, names: list[tuple[str, str]]) -> Path:
    """A file in which every use of the names is an error where its type holds an ``Any``."""
    lines = ["# mypy: disallow-any-expr", '"""Generated."""']
    for number, (place, name) in enumerate(names):
        body = [line.replace("def use(", f"def use_{number}(") for line in uses_of(name, place)]
        lines += [f"# {place}.{name}", *body]
    path = folder / "strict.py"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_every_exported_name_has_a_type_that_is_asserted():
    tree = ast.parse(DOOR.read_text())
    imported = {
        (node.module, alias.name): alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    # A class is asserted where its members are: as the type of an argument.
    asserted = {ast.unparse(n) for f in functions for n in ast.walk(f) if isinstance(n, ast.Name | ast.Attribute)}
    names = [pair for pair in exported() if pair != ("robo_rm", "__version__")]
    assert len(names) > 100
    assert [f"{place}.{name}" for place, name in names if imported.get((place, name)) not in asserted] == []
    assert {"robo_rm.metrics", "robo_rm.__version__", "robo_core.__version__"} <= asserted


@pytest.mark.timeout(600)
def test_the_types_are_those_asserted_and_hold_no_any(tmp_path):
    strict = strict_file(tmp_path, exported())
    assert mypy(DOOR, strict).startswith("Success")


def test_the_check_finds_an_any_in_a_signature_and_in_an_attribute(tmp_path):
    loose = tmp_path / "loose.py"
    loose.write_text(
        "# mypy: disallow-any-expr\nfrom typing import Any\n"
        "class A:\n    value: Any = 1\n    def give(self) -> dict[str, Any]: ...\n"
        "def f(x: Any) -> int: ...\n"
        "def use(a: A) -> None:\n    print(a.value)\n    print(a.give)\n    print(f)\n"
    )
    said = mypy(loose)
    assert [f"loose.py:{line}:" in said for line in (8, 9, 10)] == [True] * 3
