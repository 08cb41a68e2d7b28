"""Calibration: a temperature for stages, isotonic maps for progress and success, fitted apart and kept in the folder.

Fitted on episodes that neither trained the model nor will judge it; their names stand in ``calibration.json``, and
judging leaves them out. A map is monotone, so it never changes which of two frames is further (isotonic regression by
scikit-learn: equal scores are pooled, both ends of every block are kept, straight lines between them).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from robo_core.errors import ModelError
from robo_core.outputs import write_atomically
from robo_rm.reward_models.files import CALIBRATION, WEIGHTS
from robo_rm.reward_models.prediction import Estimate, Prediction
from robo_rm.reward_models.protocol import ManyStreams, Observations, RewardModel, RewardStream, Said, StreamsMany

VERSION = 2
# Least distance of two knots of the map of progress: between closer ones a line is so steep that a stream's rounding,
# 1e-7, would be seen in what comes out.
CLOSEST = 0.02
Curve = tuple[list[float], list[float]]
"""Knots of a monotone map: from, to."""


@dataclass(frozen=True)
class Calibration:
    """What is done to a model's outputs."""

    temperature: float
    """Stage probabilities p become p^(1/T), renormalised."""
    progress: Curve | None
    """Map of progress; None leaves it."""
    success: Curve | None
    """From progress (mapped) to the probability that an episode that ends there is a success; None where unknown."""
    uuids: list[str]
    """Episodes it was fitted on."""
    weights_sha256: str = ""
    """Checksum of the model it belongs to."""
    contents: list[dict[str, Any]] = field(default_factory=list)
    """What those episodes hold, see `robo_datasets.store.fingerprint`: copies of them are known under any name."""


def fit_calibration(
    predictions: Sequence[Prediction],
    stages: Sequence[npt.NDArray[np.int64]],
    labels: Sequence[npt.NDArray[np.float32]],
    success: Sequence[bool | None],
    uuids: Sequence[str],
    contents: Sequence[dict[str, Any]] = (),
) -> Calibration:
    """Fit to E episodes.

    Args:
        predictions: uncalibrated.
        stages: true stages (T,), -1 where unlabelled.
        labels: true progress (T,), NaN where it was not measured.
        success: outcomes; those that are not known calibrate stages and progress only.
        uuids: names.
        contents: what the episodes hold, to know copies by.
    """
    chances = np.concatenate([p.stage_probabilities for p in predictions]).astype(np.float64)
    truth = np.concatenate(list(stages))
    temperature = fit_temperature(chances[truth >= 0], truth[truth >= 0])
    progress = np.concatenate([p.progress for p in predictions]).astype(np.float64)
    label = np.concatenate(list(labels)).astype(np.float64)
    known = np.isfinite(label)
    curve = gentle(isotonic(progress[known], label[known])) if known.sum() >= 2 else None
    ends = np.array([float(p.progress[-1]) for p in predictions])
    if curve is not None:
        ends = np.interp(ends, *curve)
    known = np.array([outcome is not None for outcome in success])
    good = np.array([outcome is True for outcome in success])[known]
    # One outcome alone says nothing of where they part.
    chance = isotonic(ends[known], good.astype(np.float64)) if good.any() and not good.all() else None
    return Calibration(temperature, curve, chance, list(uuids), contents=list(contents))


def fit_temperature(chances: npt.NDArray[np.float64], truth: npt.NDArray[np.int64]) -> float:
    """Temperature in [0.1, 10] with the highest likelihood of the true stages (N,) under (N, K) probabilities."""
    from scipy.optimize import minimize_scalar

    if not len(truth) or chances.shape[1] < 2:
        return 1.0
    logs = np.log(np.maximum(chances, 1e-12))

    def cost(log_temperature: float) -> float:
        scaled = logs / np.exp(log_temperature)
        scaled -= scaled.max(axis=1, keepdims=True)
        chosen = scaled[np.arange(len(truth)), truth]
        return float((np.log(np.exp(scaled).sum(axis=1)) - chosen).mean())

    return float(np.exp(minimize_scalar(cost, bounds=(np.log(0.1), np.log(10.0)), method="bounded").x))


def isotonic(given: npt.ArrayLike, wanted: npt.ArrayLike) -> Curve:
    """Least-squares monotone map, as knots at both ends of every block; the order of the pairs does not matter.

    Args:
        given: (N,) in [0, 1]; where several are equal, the map gives the mean of what is wanted there.
        wanted: (N,) in [0, 1].
    """
    from sklearn.isotonic import IsotonicRegression

    x, y = np.asarray(given, dtype=np.float64), np.asarray(wanted, dtype=np.float64)
    # In one order, sums of floats come out the same to the last bit.
    order = np.lexsort((y, x))
    fitted = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip").fit(x[order], y[order])
    # Values that are equal to the last bits but one share a knot.
    return [float(place) for place in fitted.X_thresholds_], [float(value) for value in fitted.y_thresholds_]


def gentle(curve: Curve, closest: float = CLOSEST) -> Curve:
    """A monotone map read off at places at least ``closest`` apart, both its ends among them: no jump is left.

    A map that is defined on less than that has its mean as its one value.
    """
    low, high = curve[0][0], curve[0][-1]
    if high - low < closest:
        return [(low + high) / 2], [float(np.mean(curve[1]))]
    places = np.linspace(low, high, 1 + int((high - low) / closest))
    return places.tolist(), np.interp(places, *curve).tolist()


class CalibratedModel:
    """A reward model with its calibration; everything else is the model's own."""

    def __init__(self, model: RewardModel, calibration: Calibration) -> None:
        self.model, self.calibration = model, calibration
        self.stages, self.cameras, self.state_key = model.stages, model.cameras, model.state_key
        self.provenance: Mapping[str, Any] = {
            **model.provenance,
            "calibration_uuids": calibration.uuids,
            "calibration_contents": dict(zip(calibration.uuids, calibration.contents, strict=False)),
        }

    def __getattr__(self, name: str) -> Any:
        if name == "model":
            raise AttributeError(name)
        return getattr(self.model, name)

    @property
    def frames_encoded(self) -> int:
        """Images put through the encoder."""
        return self.model.frames_encoded

    @frames_encoded.setter
    def frames_encoded(self, count: int) -> None:
        self.model.frames_encoded = count

    def predict(self, episode: Observations, task: str | None = None) -> Prediction:
        """Calibrated estimates for every frame of one episode."""
        return apply(self.calibration, self.model.predict(episode, task))

    def predict_batch(self, episodes: Sequence[Observations], task: str | None = None) -> list[Prediction]:
        """Calibrated estimates for several episodes."""
        return [apply(self.calibration, guess) for guess in self.model.predict_batch(episodes, task)]

    def stream(self, task: str | None = None) -> CalibratedStream:
        """Follow an episode frame by frame."""
        return CalibratedStream(self.model.stream(task), self.calibration)

    def streams(self, count: int, task: str | None = None, every: int = 1) -> CalibratedStreams:
        """Follow ``count`` episodes at once, looking at every so many frames of the store's rate.

        Raises:
            ModelError: the model follows one episode at a time, or not at this pace.
        """
        if not isinstance(self.model, StreamsMany):
            raise ModelError("this reward model follows one episode at a time; use its stream()")
        return CalibratedStreams(self.model.streams(count, task, every), self.calibration)

    def success(self, progress: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Probability that an episode which ends at a calibrated progress (T,) is a success.

        Raises:
            ModelError: the calibration episodes did not hold both successes and failures.
        """
        if self.calibration.success is None:
            raise ModelError("success was not calibrated: the calibration episodes need successes and failures")
        return np.interp(np.asarray(progress, np.float64), *self.calibration.success).astype(np.float32)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the model folder and its calibration."""
        self.model.save(folder)
        write_calibration(folder, self.calibration)


class CalibratedStream:
    """A stream whose estimates are calibrated."""

    def __init__(self, stream: RewardStream, calibration: Calibration) -> None:
        self._stream, self._calibration = stream, calibration

    def step(self, frames: Mapping[str, npt.NDArray[np.uint8]], state: npt.ArrayLike | None = None) -> Estimate:
        """Estimate for the newest frame."""
        step = self._stream.step(frames, state)
        numbers = np.array([[step.progress], [step.uncertainty]], dtype=np.float32)
        chances = np.asarray(step.stage_probabilities, dtype=np.float32)[None]
        said = apply(self._calibration, Prediction(numbers[0], chances, numbers[1]))
        return Estimate(float(said.progress[0]), said.stage_probabilities[0], float(said.uncertainty[0]))

    def reset(self) -> None:
        """Begin a new episode."""
        self._stream.reset()


class CalibratedStreams:
    """Streams of many episodes whose estimates are calibrated."""

    def __init__(self, streams: ManyStreams, calibration: Calibration) -> None:
        self._streams, self._calibration = streams, calibration

    def reset(self, which: npt.ArrayLike | None = None) -> None:
        """Begin new episodes: at the indices or the mask given, or all."""
        self._streams.reset(which)

    def step(
        self,
        frames: Mapping[str, npt.NDArray[np.uint8]],
        state: npt.ArrayLike | None = None,
        which: npt.ArrayLike | None = None,
    ) -> Said:
        """Progress (n,), stage probabilities (n, K) and uncertainty (n,) of the newest frames."""
        said = apply(self._calibration, Prediction(*self._streams.step(frames, state, which)))
        return said.progress, said.stage_probabilities, said.uncertainty


def apply(calibration: Calibration, guess: Prediction) -> Prediction:
    """Calibrated progress and stage probabilities; the uncertainty is stretched with the progress map."""
    progress, spread = guess.progress.astype(np.float64), guess.uncertainty.astype(np.float64)
    if calibration.progress is not None:
        low, high = (np.interp(np.clip(progress + s * spread, 0, 1), *calibration.progress) for s in (-1, 1))
        progress, spread = np.interp(progress, *calibration.progress), (high - low) / 2
    chances = np.maximum(guess.stage_probabilities.astype(np.float64), 1e-12) ** (1 / calibration.temperature)
    chances /= chances.sum(axis=1, keepdims=True)
    return Prediction(progress.astype(np.float32), chances.astype(np.float32), spread.astype(np.float32))


def check_can_keep(folder: Path) -> None:
    """Raise ModelError where a folder holds no weights that a calibration could belong to."""
    if not (folder / WEIGHTS).is_file():
        raise ModelError(f"{folder} holds no {WEIGHTS}, to which a calibration belongs; this kind cannot be calibrated")


def write_calibration(folder: str | os.PathLike[str], calibration: Calibration) -> None:
    """Keep a calibration beside the model it belongs to."""
    root = Path(folder)
    check_can_keep(root)
    checksum = hashlib.sha256((root / WEIGHTS).read_bytes()).hexdigest()
    record = {"version": VERSION, **asdict(calibration), "weights_sha256": checksum}
    write_atomically(root / CALIBRATION, json.dumps(record, indent=1) + "\n")


def read_calibration(folder: Path, weights_sha256: str) -> Calibration | None:
    """The calibration in a model folder, None where there is none.

    Raises:
        ModelError: it is damaged, of a newer version, or of another model.
    """
    path = folder / CALIBRATION
    if not path.exists():
        return None
    try:
        record = json.loads(path.read_text())
        version = int(record.pop("version"))
        found = Calibration(**record) if version == VERSION else None
        if found is not None:
            _check(found)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ModelError(f"{path} is damaged; remove it, or run robo-rm calibrate again ({error})") from error
    if found is None:
        older = "upgrade" if version > VERSION else f"run robo-rm calibrate model={folder} store=STORE again"
        raise ModelError(
            f"{path} was written by {'a newer' if version > VERSION else 'an older'} robo-rm (version {version}, "
            f"known {VERSION}); {older}"
        )
    if found.weights_sha256 != weights_sha256:
        raise ModelError(f"{path} is of another model than the weights beside it; run robo-rm calibrate again")
    return found


def _check(found: Calibration) -> None:
    if not 0 < float(found.temperature) < 1e3:
        raise ValueError(f"temperature {found.temperature}")
    for curve in (found.progress, found.success):
        if curve is None:
            continue
        x, y = (np.asarray(part, dtype=np.float64) for part in curve)
        if x.shape != y.shape or not len(x) or (np.diff(x) <= 0).any() or (np.diff(y) < 0).any():
            raise ValueError("a map that is not monotone")
