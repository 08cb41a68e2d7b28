"""Imports of HDF5 files through the command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from robo_datasets import DemoStore


@pytest.fixture
def bring_in(tmp_path: Path, run_command: Any) -> Any:
    def run(source: Path, *more: str, name: str = "d.zarr") -> tuple[DemoStore | None, str]:
        words = (f"source={source}", f"store={tmp_path / name}", "workers=0", "codec=lossless", *more)
        code, out, err = run_command("import", "robomimic", *words)
        assert code in (0, 2), out + err
        assert code == 0 or not (tmp_path / name).exists()
        return (DemoStore.open(tmp_path / name) if code == 0 else None), out + err

    return run
