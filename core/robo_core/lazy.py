"""Public names of a package that are imported on first use, so that a command starts at once.

A package declares its names in ``__init__.pyi`` (``from home import Name as Name``), which type checkers and editors
read in place of ``__init__.py``; from the same file ``attach_stub`` learns where each name is defined.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path


def attach_stub(package: str, file: str) -> tuple[Callable[[str], object], Callable[[], list[str]], list[str]]:
    """``__getattr__``, ``__dir__`` and ``__all__`` of the package whose ``__init__.py`` calls this.

    Args:
        package: its ``__name__``.
        file: its ``__file__``, beside which ``__init__.pyi`` stands.
    """
    stub = ast.parse(Path(file).with_suffix(".pyi").read_text(encoding="utf-8"))
    homes = {
        alias.asname or alias.name: (str(node.module), alias.name)
        for node in stub.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }

    def load(name: str) -> object:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        home, own = homes[name]
        # A submodule is exported as `from package import name`.
        found = import_module(f"{package}.{own}") if home == package else getattr(import_module(home), own)
        setattr(sys.modules[package], name, found)
        return found

    public = [name for name, (home, _) in homes.items() if home != package]
    return load, lambda: sorted({*vars(sys.modules[package]), *homes}), public
