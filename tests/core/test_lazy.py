"""Public names that are imported on first use."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module

import pytest

PACKAGES = ("robo_datasets", "robo_datasets.importers")


@pytest.mark.parametrize("name", PACKAGES)
def test_every_declared_name_is_there(name):
    package = import_module(name)
    assert package.__all__
    for public in package.__all__:
        assert getattr(package, public).__name__ == public
        assert public in dir(package)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'robo_datasets' has no attribute 'DemoShop'"):
        import_module("robo_datasets").DemoShop  # noqa: B018


def test_a_submodule_is_exported_as_itself(tmp_path, monkeypatch):
    folder = tmp_path / "lazy_example"
    folder.mkdir()
    lines = "from robo_core.lazy import attach_stub\n__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)\n"
    (folder / "__init__.py").write_text(lines)
    (folder / "__init__.pyi").write_text("from lazy_example import figures as figures\n")
    (folder / "figures.py").write_text("COUNT = 3\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert import_module("lazy_example").figures.COUNT == 3


def test_importing_a_package_loads_none_of_its_modules():
    script = "import sys, robo_datasets.importers; print([m for m in sys.modules if '.store' in m])"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout == "[]\n"
