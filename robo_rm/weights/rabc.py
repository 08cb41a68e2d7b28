"""Reward-aligned cloning weights: how much each frame of a demonstration is worth imitating.

A frame is worth what the action chunk after it achieved, r = F(t + D) - F(t), with F the learned progress.
`paper` mode is SARM (arXiv 2509.25358) equations 5-9 and nothing else. `calibrated` mode corrects what goes wrong with
them on ordinary data; see `robo_rm.weights.options.Calibration`.

Everything works on one flat array of all frames with the first and last frame of each frame's episode beside it, so
that a million frames take a fraction of a second.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from robo_core.arrays import Array
from robo_core.errors import ConfigError, ModelError
from robo_rm.weights.options import MODES, RABC_MODES, Advantage, Calibration, TopFraction
from robo_rm.weights.selection import advantage_labels, success_only, top_fraction

EPSILON = 1e-6
ROUNDING = 1e-8


@dataclass(frozen=True)
class Statistics:
    """What the weights of a whole data set were measured against."""

    kappa: float
    """Deltas above it get weight 1 (progress per horizon)."""
    mean: float
    """Mean delta, at least 0 (paper, equation 6)."""
    std: float
    """Standard deviation of the deltas (paper, equation 7)."""
    mean_length: float
    """Mean length in frames of the episodes that did not fail."""


@dataclass(frozen=True)
class StoreWeights:
    """The weights of every episode of a store."""

    weights: dict[str, npt.NDArray[np.float32]]
    """By episode uuid, (T,) f32 in [0, 1]."""
    statistics: Statistics
    horizon: int
    mode: str
    success: dict[str, bool | None] = field(default_factory=dict)
    """By episode uuid, as it was marked."""
    finished: frozenset[str] = frozenset()
    """Episodes of unknown outcome that were counted like successes."""
    failures_left_out: bool = False
    """Whether episodes marked as failures have weight 0 because they were asked to."""


class _Frames:
    """All frames of all episodes in one row: progress (N,), and for each frame its episode and that one's ends."""

    def __init__(self, arrays: Sequence[np.ndarray], names: Sequence[str]) -> None:
        self.lengths = np.array([len(array) for array in arrays], dtype=np.int64)
        for name, array in zip(names, arrays, strict=True):
            _check_progress(array, name)
        self.progress = np.concatenate(arrays).astype(np.float64) if len(arrays) else np.zeros(0)
        self.ends = np.cumsum(self.lengths)
        self.episode = np.repeat(np.arange(len(arrays)), self.lengths)
        self.first = np.repeat(self.ends - self.lengths, self.lengths)
        self.last = np.repeat(self.ends - 1, self.lengths)
        self.index = np.arange(len(self.progress))

    def split(self, flat: np.ndarray) -> list[np.ndarray]:
        return np.split(flat, self.ends[:-1]) if len(self.ends) else []


def rabc_weights(
    progress: Array,
    horizon: int,
    mode: str = "paper",
    kappa: float = 0.01,
    mean: float | None = None,
    std: float | None = None,
    *,
    success: bool | None = None,
    mean_length: float | None = None,
    calibration: Calibration | None = None,
) -> npt.NDArray[np.float32]:
    """Weights of one episode's frames from its progress.

    ``paper`` (SARM, equations 5-9), with F the progress, D the horizon, T the number of frames, e = 1e-6::

        r_t = F(min(t + D, T - 1)) - F(t)            mu = max(mean, 0)
        w~  = clip((r - (mu - 2 sigma)) / (4 sigma + e), 0, 1)
        w   = 1 if r > kappa,  w~ if 0 <= r <= kappa,  0 if r < 0

    ``calibrated``: w rises in a straight line from 0 at ``dead_zone * kappa`` to 1 at kappa, with kappa a quantile of
    the positive deltas and the deltas corrected as `Calibration` says.

    Args:
        progress: (T,) learned progress in [0, 1].
        horizon: frames in an action chunk, D.
        mode: ``paper`` or ``calibrated``.
        kappa: progress per horizon that earns full weight. In ``calibrated`` mode only where ``quantile`` is None.
        mean: mean delta of the data set (``paper``); None: of this array.
        std: population standard deviation of the data set's deltas (``paper``); None: of this array.
        success: whether the episode ended in success; None: not known (``calibrated``).
        mean_length: mean episode length of the data set in frames (``calibrated``); None: this episode's own.
        calibration: the corrections (``calibrated``); None: the defaults.

    Returns:
        (T,) f32 in [0, 1].

    Raises:
        ModelError: the progress holds NaN or infinity; says at which frame.
        ConfigError: a setting is out of range, or the mode is unknown.
    """
    calibration = calibration or Calibration()
    check_settings(horizon, mode, kappa, calibration)
    if mode not in RABC_MODES:
        raise ConfigError(f"mode={mode} compares episodes; weight the whole data set with store_weights")
    frames = _Frames([np.asarray(progress)], ["of this episode"])
    statistics = _statistics(frames, horizon, mode, kappa, calibration, [success], mean_length, mean, std)
    return _weights(frames, horizon, mode, calibration, [success], statistics).astype(np.float32)


def store_weights(
    progress: Mapping[str, Array],
    horizon: int,
    mode: str = "calibrated",
    kappa: float = 0.01,
    *,
    success: Mapping[str, bool | None] | None = None,
    finished: Collection[str] = (),
    calibration: Calibration | None = None,
    top: TopFraction | None = None,
    advantage: Advantage | None = None,
) -> StoreWeights:
    """Weights of every frame of a data set, measured against the statistics of the whole data set.

    Args:
        progress: by episode uuid, (T,) learned progress.
        horizon: frames in an action chunk, D.
        mode: ``paper`` or ``calibrated``, see `rabc_weights`; or, to compare with, ``success_only``, ``top_fraction``
            or ``advantage``, see `robo_rm.weights.selection`.
        kappa: as in `rabc_weights`.
        success: by episode uuid; an episode that is missing counts as unknown.
        finished: those of unknown outcome that went through their task by their stage annotation; they count like
            successes, but in ``success_only`` mode.
        calibration: the corrections of ``calibrated`` and ``advantage`` mode; None: the defaults.
        top: which episodes ``top_fraction`` keeps; None: the defaults.
        advantage: the classes of ``advantage``; None: the defaults.

    Raises:
        ModelError: a progress array holds NaN or infinity; names episode and frame.
        ConfigError: a setting is out of range, there is no episode, or ``success_only`` finds no success.
    """
    calibration, top, advantage = calibration or Calibration(), top or TopFraction(), advantage or Advantage()
    check_settings(horizon, mode, kappa, calibration)
    top.check()
    advantage.check()
    if not progress:
        raise ConfigError("no episode to weight: the progress is empty")
    names = list(progress)
    finished = () if mode == "success_only" else finished
    marked = [None if success is None else success.get(name) for name in names]
    outcome = [True if known is None and name in finished else known for name, known in zip(names, marked, strict=True)]
    frames = _Frames([np.asarray(progress[name]) for name in names], [f"of episode {name}" for name in names])
    statistics = _statistics(frames, horizon, mode, kappa, calibration, outcome, None, None, None)
    if mode == "success_only":
        flat = success_only(marked)[frames.episode]
    elif mode == "top_fraction":
        flat = top_fraction([np.asarray(progress[name]) for name in names], top)[frames.episode]
    elif mode == "advantage":
        deltas = _calibrated_deltas(frames, horizon, calibration, outcome, statistics.mean_length)
        flat = np.array([0.0, advantage.neutral, 1.0])[advantage_labels(deltas, frames.progress, advantage) + 1]
    else:
        flat = _weights(frames, horizon, mode, calibration, outcome, statistics)
    flat = flat.astype(np.float32)
    return StoreWeights(
        weights=dict(zip(names, frames.split(flat), strict=True)),
        statistics=statistics,
        horizon=horizon,
        mode=mode,
        success=dict(zip(names, marked, strict=True)),
        finished=frozenset(
            name for name, known in zip(names, marked, strict=True) if known is None and name in finished
        ),
        failures_left_out=mode == "calibrated" and calibration.failure_discount == 0,
    )


def _statistics(
    frames: _Frames,
    horizon: int,
    mode: str,
    kappa: float,
    calibration: Calibration,
    success: Sequence[bool | None],
    mean_length: float | None,
    mean: float | None,
    std: float | None,
) -> Statistics:
    not_failed = np.array([outcome is not False for outcome in success])
    if mean_length is None:
        # With nothing but failures there is no pace to scale to; their own mean leaves the scale at 1.
        mean_length = float(frames.lengths[not_failed].mean() if not_failed.any() else frames.lengths.mean())
    deltas = (
        _paper_deltas(frames, horizon)
        if mode != "calibrated" and mode != "advantage"
        else _calibrated_deltas(frames, horizon, calibration, success, mean_length)
    )
    if mode == "calibrated" and calibration.quantile is not None:
        # The pace of what is imitated: failures have weight 0, and their many slow frames would lower kappa until
        # pauses pass for progress.
        counts = not_failed if not_failed.any() else np.full(len(not_failed), calibration.failure_discount > 0)
        positive = deltas[(deltas > 0) & counts[frames.episode]]
        kappa = float(np.quantile(positive, calibration.quantile)) if len(positive) else 0.0
    return Statistics(
        kappa=kappa,
        mean=max(float(deltas.mean()) if mean is None else float(mean), 0.0),
        std=float(deltas.std()) if std is None else float(std),
        mean_length=mean_length,
    )


def _weights(
    frames: _Frames,
    horizon: int,
    mode: str,
    calibration: Calibration,
    success: Sequence[bool | None],
    statistics: Statistics,
) -> np.ndarray:
    if mode == "paper":
        return _paper_weights(_paper_deltas(frames, horizon), statistics)
    deltas = _calibrated_deltas(frames, horizon, calibration, success, statistics.mean_length)
    floor = calibration.dead_zone * statistics.kappa
    if statistics.kappa > 0:
        weights = np.clip((deltas - floor) / (statistics.kappa - floor), 0.0, 1.0)
    else:
        # kappa = 0: no frame of the data set made progress, or the user asked for every gain to count in full.
        weights = (deltas > 0).astype(np.float64)
    failed = np.array([outcome is False for outcome in success])[frames.episode]
    weights = np.where(failed, weights * calibration.failure_discount, weights)
    if calibration.protect_success:
        succeeded = np.array([outcome is True for outcome in success])[frames.episode]
        weights = np.where(succeeded & (frames.last - frames.index < horizon), 1.0, weights)
    return weights


def _paper_deltas(frames: _Frames, horizon: int) -> np.ndarray:
    ahead = np.minimum(frames.index + horizon, frames.last)
    return frames.progress[ahead] - frames.progress


def _paper_weights(deltas: np.ndarray, statistics: Statistics) -> np.ndarray:
    mean, std = statistics.mean, statistics.std
    soft = np.clip((deltas - (mean - 2 * std)) / (4 * std + EPSILON), 0.0, 1.0)
    return np.where(deltas > statistics.kappa, 1.0, np.where(deltas >= 0, soft, 0.0))


def _calibrated_deltas(
    frames: _Frames,
    horizon: int,
    calibration: Calibration,
    success: Sequence[bool | None],
    mean_length: float,
) -> np.ndarray:
    progress = _smooth(frames, calibration.smoothing)
    ahead = np.minimum(frames.index + horizon, frames.last)
    start = frames.index
    if calibration.normalise_horizon:
        # A rescaled one-frame delta is mostly noise: near the end, look back to measure half a horizon at least.
        start = np.maximum(np.minimum(start, ahead - (horizon + 1) // 2), frames.first)
    deltas = progress[ahead] - progress[start]
    if calibration.average:
        total = np.concatenate([[0.0], np.cumsum(progress)])
        steps = np.maximum(ahead - start, 1)
        mean = (total[ahead + 1] - total[start + 1]) / steps
        # At a steady pace the mean gain is (h + 1) / 2h of the gain at the end; scaled up, both are the same.
        deltas = np.where(ahead > start, (mean - progress[start]) * (2 * steps / (steps + 1)), 0.0)
    if calibration.normalise_horizon:
        deltas = deltas * (horizon / np.maximum(ahead - start, 1))
    if calibration.length_scaling:
        failed = np.array([outcome is False for outcome in success])
        scale = np.where(failed, 1.0, frames.lengths / mean_length)
        deltas = deltas * scale[frames.episode]
    # What running sums leave behind where nothing moved would otherwise pass for gains, and set kappa.
    return np.where(np.abs(deltas) < ROUNDING, 0.0, deltas)


def _smooth(frames: _Frames, half_width: int) -> np.ndarray:
    """Centred moving average that narrows at an episode's ends instead of leaning inwards."""
    if half_width == 0:
        return frames.progress
    reach = np.minimum(half_width, np.minimum(frames.index - frames.first, frames.last - frames.index))
    total = np.concatenate([[0.0], np.cumsum(frames.progress)])
    return (total[frames.index + reach + 1] - total[frames.index - reach]) / (2 * reach + 1)


def _check_progress(progress: np.ndarray, name: str) -> None:
    if progress.ndim != 1 or len(progress) == 0:
        raise ModelError(
            f"progress {name} has shape {progress.shape}; one number per frame is needed, at least one frame"
        )
    good = np.isfinite(progress)
    if not good.all():
        frame = int(np.argmin(good))
        raise ModelError(
            f"progress {name} is {progress[frame]} at frame {frame}; a weight cannot be made of it. "
            "Score the store again with a sound model"
        )


def check_settings(horizon: int, mode: str, kappa: float, calibration: Calibration) -> None:
    """Raise ConfigError for a setting that is out of range or a mode that does not exist."""
    if mode not in MODES:
        raise ConfigError(f"mode={mode} is unknown; choose one of {', '.join(MODES)}")
    if horizon < 1:
        raise ConfigError(f"horizon={horizon} must be at least 1 frame")
    if not np.isfinite(kappa) or kappa < 0:
        raise ConfigError(f"kappa={kappa} must be 0 or more (progress per horizon)")
    calibration.check()
