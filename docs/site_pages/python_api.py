"""A page for each package: the public names that its ``__init__.pyi`` declares, described by their docstrings."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from site_pages.project import ROOT, write

SOURCES = ("datasets", "", "policies", "hw")
# Modules that extensions need and no package exports; each is described whole.
MODULES = {
    "robo_core.errors": "errors",
    "robo_rm.reward_models.protocol": "what a reward model must do",
    "robo_rm.reward_models.capabilities": "what a reward model may do",
    "robo_rm.reward_models.registry": "reward model types",
}
INDEX = """# Python API

Names that a package exports are public. Everything else may change without notice.

"""


@dataclass(frozen=True)
class Export:
    """A public name of a package."""

    package: str
    name: str
    home: str
    """Where it is defined: module and name."""
    directive: str
    """The directive of autodoc that describes it."""

    @property
    def text(self) -> str:
        """The directive in Markdown."""
        members = "   :members:\n" if self.directive in ("autoclass", "automodule") else ""
        return f"```{{eval-rst}}\n.. {self.directive}:: {self.package}.{self.name}\n{members}```\n"


def write_python_api(folder: Path) -> None:
    """Write ``index.md`` and a page for each package and each extra module into ``folder``."""
    rows = ["| page | names |", "|---|---|"]
    pages: list[str] = []
    described: dict[str, str] = {}
    named = {*MODULES, *map(package_of, stubs())}  # what has a page of its own
    for stub in stubs():
        exports = list(exports_of(stub))
        package = package_of(stub)
        text = [f"# {package}\n\n```{{eval-rst}}\n.. automodule:: {package}\n```\n"]
        for one in exports:
            module = one.home.rpartition(".")[0]
            own = next((page for page in (one.home, module) if page in named), None)
            page = own or described.setdefault(one.home, package)
            text.append(one.text if page == package else f"`{one.name}` is described in [`{page}`]({page}.md).\n")
        write(folder / f"{package}.md", "\n".join(text))
        rows.append(f"| [`{package}`]({package}.md) | {', '.join(f'`{one.name}`' for one in exports)} |")
        pages.append(package)
    for module, title in MODULES.items():
        text = f"# {module}\n\n```{{eval-rst}}\n.. automodule:: {module}\n   :members:\n```\n"
        write(folder / f"{module}.md", text)
        rows.append(f"| [`{module}`]({module}.md) | {title} |")
        pages.append(module)
    toctree = "```{toctree}\n:hidden:\n\n" + "\n".join(pages) + "\n```"
    write(folder / "index.md", INDEX + "\n".join([*rows, "", toctree]))


def stubs() -> list[Path]:
    """The ``__init__.pyi`` of every package that has public names."""
    roots = [ROOT / source for source in SOURCES]
    found = [stub for root in roots for package in root.glob("robo_*") for stub in package.rglob("__init__.pyi")]
    return sorted(set(found), key=package_of)


def package_of(stub: Path) -> str:
    """The package that a stub belongs to, by its dotted name."""
    parts = stub.parent.relative_to(ROOT).parts
    return ".".join(parts[next(index for index, part in enumerate(parts) if part.startswith("robo_")) :])


def exports_of(stub: Path) -> Iterator[Export]:
    """The public names of a package but its version, in the order of the stub."""
    package = package_of(stub)
    for node in ast.parse(stub.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if not alias.name.startswith("__"):
                    home, directive = _definition(str(node.module), alias.name)
                    yield Export(package, alias.asname or alias.name, home, directive)


def _definition(module: str, name: str) -> tuple[str, str]:
    """Where ``name`` is defined, and the directive of autodoc for it; read, as importing takes seconds."""
    path = _file(module)
    if path is None or _file(f"{module}.{name}") is not None:
        return f"{module}.{name}", "automodule"
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            return f"{module}.{name}", "autoclass"
        if isinstance(node, ast.FunctionDef) and node.name == name:
            return f"{module}.{name}", "autofunction"
        if isinstance(node, ast.ImportFrom) and name in [alias.asname or alias.name for alias in node.names]:
            return _definition(str(node.module), name)
    return f"{module}.{name}", "autodata"


def _file(module: str) -> Path | None:
    base = Path(*module.split("."))
    for source in (*SOURCES, "core"):
        for path in (ROOT / source / base.with_suffix(".py"), ROOT / source / base / "__init__.py"):
            if path.is_file():
                return path
    return None
