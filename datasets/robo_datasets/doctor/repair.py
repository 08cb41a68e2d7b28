"""What ``robo-rm doctor repair=true`` does: nothing that was committed is ever deleted, only set aside."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from robo_core.checksummed import replace_durably, sync_folder
from robo_core.errors import StoreError
from robo_datasets.doctor.findings import Finding, Remedy, Report
from robo_datasets.doctor.integrity import QUARANTINE
from robo_datasets.store.index import load_entries, write_index
from robo_datasets.store.layout import COMMIT_FILE, EPISODES, INDEX_FILE, is_uuid
from robo_datasets.store.verify import episode_problems
from robo_datasets.store.writer import lock_folder
from robo_datasets.store.zarr_meta import group_json


def repair(root: Path, report: Report) -> list[str]:
    """Carry out the remedies of a report; returns one sentence for each thing done.

    Raises:
        StoreError: the store cannot be written to.
    """
    done: dict[Remedy, str] = {}
    try:
        for number, finding in enumerate(report.findings):
            if finding.remedy is None:
                continue
            if finding.remedy not in done:
                done[finding.remedy] = _carry_out(root, finding)
            if done[finding.remedy]:
                report.repaired.add(number)
        (root / INDEX_FILE).unlink(missing_ok=True)
        entries, _ = load_entries(root)
        write_index(root, entries.values())
    except OSError as error:
        raise StoreError(f"{root} cannot be repaired: {error.filename}: {error.strerror}") from error
    return [sentence for sentence in done.values() if sentence]


def _carry_out(root: Path, finding: Finding) -> str:
    remedy = finding.remedy
    if remedy is None:
        return ""
    path = remedy.path
    if remedy.kind == "clear_staging":
        return clear_staging(root, path)
    if remedy.kind == "set_aside":
        return set_aside(root, path)
    if remedy.kind == "remove":
        _delete(path)
        return f"removed {path}"
    if remedy.kind == "rewrite_group":
        path.parent.mkdir(exist_ok=True)
        replace_durably(path, group_json())
        return f"wrote {path} again"
    return "rebuilt index.json"


def clear_staging(root: Path, folder: Path) -> str:
    """Commit a staged episode that is whole, remove any other; leave it where a writer took hold of it."""
    if not folder.is_dir():
        folder.unlink()
        return f"removed {folder}"
    handle = lock_folder(folder)
    if handle is None:
        return ""
    try:
        whole = is_uuid(folder.name) and (folder / COMMIT_FILE).exists() and not list(episode_problems(folder))
        if whole and not (root / EPISODES / folder.name).exists():
            os.rename(folder, root / EPISODES / folder.name)
            sync_folder(root / EPISODES)
            return f"salvaged episode {folder.name}"
        _delete(folder)
        return f"removed {folder}"
    finally:
        os.close(handle)


def set_aside(root: Path, path: Path) -> str:
    """Move a damaged file or folder to ``.quarantine``, where it can still be looked at."""
    target = root / QUARANTINE / path.relative_to(root)
    target.parent.mkdir(parents=True, exist_ok=True)
    while target.exists():
        target = target.with_name(target.name + "+")
    os.rename(path, target)
    return f"moved {path} to {target}"


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
