"""The calibration of a monitor: what stands in ``monitor.json`` beside the model it belongs to."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from robo_core.errors import ModelError
from robo_core.outputs import write_atomically
from robo_rm.monitor.conformal import fewest_runs, limits
from robo_rm.monitor.images import ImageModel
from robo_rm.monitor.scores import SCORES, ScoreSettings
from robo_rm.reward_models.calibration import CALIBRATION
from robo_rm.reward_models.saving import CONFIG, WEIGHTS

MONITOR, IMAGES = "monitor.json", "monitor.safetensors"
VERSION = 1


@dataclass(frozen=True)
class MonitorCalibration:
    """Scores of calibration runs, and what the alarm did on runs that took no part.

    A new successful run raises an alarm of rate a with probability a at most, where ``len(runs)`` is at least 1/a - 1
    and the run comes from where the calibration runs came from: same robot, cameras, task and kind of control.
    """

    runs: list[list[float]]
    """(n, 5) scores of successful runs that trained nothing, in the order of ``SCORES``."""
    rates: list[float]
    """Rates of false alarms that are offered, ascending."""
    done_level: float
    """Progress above which the task is called done."""
    done_rate: float | None
    """Bound on the probability that a failed run is called done; None: too few failed runs to bound it."""
    rate_hz: float
    """Estimates per second."""
    settings: ScoreSettings = field(default_factory=ScoreSettings)
    uuids: list[str] = field(default_factory=list)
    """Episodes it was fitted on."""
    measured: Mapping[str, float | None] = field(default_factory=dict)
    """Counts and metrics on the other episodes, flat."""
    images: ImageModel | None = None
    model_sha256: str = ""
    """Checksum of the model folder's weights, settings and calibration."""

    @property
    def scores(self) -> npt.NDArray[np.float64]:
        """(n, 5)."""
        return np.asarray(self.runs, dtype=np.float64).reshape(-1, len(SCORES))

    def promised(self) -> list[float]:
        """The rates that the number of runs allows."""
        return [rate for rate in self.rates if len(self.runs) >= fewest_runs(rate)]

    def alarm_levels(self, rate: float) -> dict[str, float]:
        """Value of each score from which it raises an alarm by itself; infinite where it never does."""
        return dict(zip(SCORES, limits(self.scores, rate).tolist(), strict=True))


def model_checksum(folder: str | os.PathLike[str]) -> str:
    """SHA-256 (hex) of what decides a folder's estimates: weights, settings and calibration."""
    digest = hashlib.sha256()
    for name in (WEIGHTS, CONFIG, CALIBRATION):
        path = Path(folder) / name
        digest.update(name.encode() + (path.read_bytes() if path.exists() else b""))
    return digest.hexdigest()


def write_monitor(folder: str | os.PathLike[str], found: MonitorCalibration) -> None:
    """Keep a calibration beside its model; an earlier one is replaced."""
    import safetensors.numpy

    root = Path(folder)
    content = {"version": VERSION, **asdict(found), "model_sha256": model_checksum(root)}
    image = content.pop("images")
    remove_monitor(root)
    if image is not None:
        content["cameras"] = list(image.pop("cameras"))
        raw = safetensors.numpy.save({name: np.ascontiguousarray(value) for name, value in image.items()})
        content["pictures_sha256"] = hashlib.sha256(raw).hexdigest()
        write_atomically(root / IMAGES, raw)
    write_atomically(root / MONITOR, json.dumps(content, indent=1, allow_nan=False) + "\n")


def remove_monitor(folder: str | os.PathLike[str]) -> None:
    """Take a folder's calibration of the monitor away; no error where there is none."""
    for name in (MONITOR, IMAGES):
        (Path(folder) / name).unlink(missing_ok=True)


def read_monitor(folder: str | os.PathLike[str]) -> MonitorCalibration | None:
    """The monitor's calibration in a model folder, None where there is none.

    Raises:
        ModelError: it is damaged, of another version, or the model has changed since; says what to run.
    """
    import safetensors.numpy

    path = Path(folder) / MONITOR
    if not path.exists():
        return None
    again = f"run robo-rm calibrate-monitor model={folder} again"
    try:
        content = json.loads(path.read_text())
        version, cameras = content.pop("version"), content.pop("cameras", None)
        if version != VERSION:
            raise ModelError(f"{path} has version {version!r}, this robo-rm reads {VERSION}; {again}")
        checksum, images = content.pop("pictures_sha256", ""), None
        if cameras is not None:
            raw = (path.parent / IMAGES).read_bytes()
            if hashlib.sha256(raw).hexdigest() != checksum:
                raise ModelError(f"{path.parent / IMAGES} is damaged: its checksum differs; {again}")
            images = ImageModel(tuple(cameras), **safetensors.numpy.load(raw))
        settings = ScoreSettings(**content.pop("settings"))
        found = MonitorCalibration(**content, settings=settings, images=images)
        _check(found)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ModelError(f"{path} is damaged ({error}); {again}") from error
    if found.model_sha256 != model_checksum(folder):
        raise ModelError(f"{path} was made for another state of the model than the one beside it; {again}")
    return found


def _check(found: MonitorCalibration) -> None:
    scores = found.scores
    if not np.isfinite(scores).all() or (scores < 0).any():
        raise ValueError("a score is negative or not finite")
    if not found.rate_hz > 0 or any(not 0 < rate < 1 for rate in found.rates):
        raise ValueError(f"rate_hz {found.rate_hz}, rates {found.rates}")
