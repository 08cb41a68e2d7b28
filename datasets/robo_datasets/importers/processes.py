"""The helper of an import command: it loads what worker processes need while the command is still starting.

A new Python process spends about a third of a second on loading numpy, PyAV, OpenCV and Arrow. A command therefore
starts a helper at once, which loads them while the command itself is still reading its settings and the source; every
worker is then a copy of it. Programs that call ``import_source`` get plain new processes, and no helper that stays.
"""

from __future__ import annotations

from pathlib import Path

from robo_core import processes
from robo_core.threads import available_cores
from robo_datasets.store.layout import GROUP_FILE

# What every importer loads.
_COMMON = ("robo_datasets.importers.workers", "pyarrow.parquet")


def start_helper(workers: int | None, store: str, *modules: str) -> None:
    """Start loading what workers need, where a command will want any; returns at once.

    Args:
        workers: the command's setting.
        store: where it imports to. Where that exists, often nothing is left to import: no helper is started.
        modules: those of the importer in ``robo_datasets.importers``, beside what all of them load.
    """
    if (available_cores() if workers is None else workers) < 2 or (Path(store) / GROUP_FILE).exists():
        return
    processes.start_helper(*_COMMON, *(f"robo_datasets.importers.{name}" for name in modules))
