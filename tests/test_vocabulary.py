"""The field's words in names, no import circle of any kind, and types that say something."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from pathlib import Path

from vocabulary import RETIRED

ROOT = Path(__file__).resolve().parents[1]
ROOTS = {"core": "robo_core", "datasets": "robo_datasets", "hw": "robo_hw", ".": "robo_rm", "policies": "robo_policies"}
BRIDGE = ROOT / "hw" / "ros2" / "robo_rm_bridge"

ANY_PER_THOUSAND_LINES = 5.0
# Where it keeps start-up fast; `robo_core.lazy` does that for what a package exports.
LAZY_PER_THOUSAND_LINES = 3.0


def modules() -> dict[str, Path]:
    """Every module of the packages and of the ROS bridge, by dotted name."""
    found = {}
    places = [(ROOT / root, package) for root, package in ROOTS.items()] + [(BRIDGE, "robo_rm_bridge")]
    for base, package in places:
        for path in sorted((base / package).rglob("*.py")):
            parts = path.relative_to(base).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def exports(path: Path) -> dict[str, str]:
    """Where the names are defined that a package exports lazily; ``path`` is its ``__init__.py``."""
    stub = path.with_suffix(".pyi")
    if path.name != "__init__.py" or not stub.is_file():
        return {}
    nodes = [node for node in ast.parse(stub.read_text()).body if isinstance(node, ast.ImportFrom)]
    return {alias.asname or alias.name: str(node.module) for node in nodes for alias in node.names}


def imported_modules(path: Path, known: dict[str, Path]) -> set[str]:
    """Modules that a file imports anywhere: at its top, in functions, for type checking only, and lazily.

    What a package exports lazily is imported where the file uses it, as in ``training.Budget``.
    """
    found: set[str] = set()
    packages: dict[str, str] = {}
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
            packages |= {alias.asname or alias.name: alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.add(inner if inner in known else node.module)
                packages[alias.asname or alias.name] = inner
    lazy = {name: exports(known[package]) for name, package in packages.items() if package in known}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            home = lazy.get(node.value.id, {}).get(node.attr)
            if home:
                inner = f"{home}.{node.attr}"
                found.add(inner if inner in known else home)
    return found & known.keys()


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Modules that import each other: what is left after removing what imports, or is imported by, none of the rest."""
    left = {name: set(targets) - {name} for name, targets in graph.items()}
    while True:
        wanted = {target for targets in left.values() for target in targets}
        done = [name for name, targets in left.items() if not targets & left.keys() or name not in wanted]
        if not done:
            break
        for name in done:
            del left[name]
        left = {name: targets & left.keys() for name, targets in left.items()}
    return [sorted(left)] if left else []


def retired_in(name: str) -> list[str]:
    """Retired words in an identifier or a dotted module name."""
    words = re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", name.replace("MetaWorld", "Metaworld")).lower()
    return [word for word in re.split(r"[_.]+", words) if word in RETIRED]


def test_no_module_takes_part_in_an_import_circle():
    known = modules()
    graph = {name: imported_modules(path, known) for name, path in known.items() if path.name != "__init__.py"}
    assert circles({name: targets & graph.keys() for name, targets in graph.items()}) == []


def test_the_circle_check_finds_one():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}, "e": set()}) == [["a", "b", "c"]]
    assert circles({"a": {"b"}, "b": {"c"}, "c": set()}) == []


def test_the_circle_check_sees_what_is_exported_lazily(tmp_path):
    known = modules()
    file = tmp_path / "command.py"
    file.write_text("from robo_rm import training as t\ndef run():\n    return t.Budget(3)\n")
    assert "robo_rm.training.budget" in imported_modules(file, known)


def test_names_of_modules_classes_and_functions_use_the_fields_words():
    bad = defaultdict(list)
    for module, path in modules().items():
        names = [module]
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                names.append(node.name)
        for name in names:
            for word in retired_in(name):
                bad[f"{name} in {path.relative_to(ROOT)}"].append(f"{word}: write {RETIRED[word]}")
    assert dict(bad) == {}


def test_the_word_check_reads_camel_case_and_leaves_other_words_alone():
    assert retired_in("WorldProcesses") == ["world"]
    assert retired_in("robo_rm.verbs.score") == ["verbs"]
    assert retired_in("metaworld_operator") == retired_in("judgement") == []


def test_few_values_are_any():
    lines = count = 0
    for path in modules().values():
        text = path.read_text()
        lines += text.count("\n")
        count += sum(isinstance(node, ast.Name) and node.id == "Any" for node in ast.walk(ast.parse(text)))
    assert 1000 * count / lines < ANY_PER_THOUSAND_LINES, f"Any stands {count} times in {lines} lines"


def test_few_imports_stand_inside_functions():
    lines = count = 0
    for path in modules().values():
        text = path.read_text()
        lines += text.count("\n")
        functions = (n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef))
        count += len({i for f in functions for i in ast.walk(f) if isinstance(i, ast.Import | ast.ImportFrom)})
    assert 1000 * count / lines < LAZY_PER_THOUSAND_LINES, f"{count} imports stand in functions of {lines} lines"


def test_every_package_is_typed():
    for base, package in ROOTS.items():
        assert (ROOT / base / package / "py.typed").is_file(), package
