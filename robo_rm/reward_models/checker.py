"""The contract checker: tests any reward model against the protocol, including models from outside this package.

    from robo_rm import check_reward_model, load_reward_model
    check_reward_model(load_reward_model("rm"), store[0])

It looks at what a reward model is trusted for and what goes wrong silently: a model that sees the future scores
demonstrations well and is worthless on a robot, and a stream that differs from `predict` is not the model that was
judged.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from robo_core.arrays import Array
from robo_core.errors import ModelError
from robo_rm.reward_models.capabilities import device_of
from robo_rm.reward_models.prediction import Estimate, Prediction
from robo_rm.reward_models.protocol import Observations, RewardModel, RewardStream

STREAM_TOLERANCE = 1e-5
PICKLES = (".pt", ".pth", ".ckpt", ".bin", ".pkl", ".pickle", ".joblib", ".npy")

Arrays = dict[str, Array]


class Check(NamedTuple):
    """One clause of the contract and whether the model keeps it."""

    name: str
    passed: bool
    detail: str
    """What was found; for a clause that is kept, what was tried."""


class _Broken(Exception):
    """A clause is not kept; the message says how."""


def check_reward_model(
    model: RewardModel,
    episode: Observations,
    *,
    load: Callable[[Path], RewardModel] | None = None,
    frames: int = 80,
    raise_on_failure: bool = True,
    seed: int = 0,
) -> list[Check]:
    """Test a reward model against the contract of `robo_rm.reward_models.base.RewardModel`.

    The clauses: shapes and ranges; a second call gives the same bits; nothing is written into the arrays given;
    outputs at a frame keep their bits when later frames change; a stream equals `predict` to 1e-5, encodes each image
    once, and starts afresh after `reset`; an episode alone equals the same one in a batch; a saved and loaded model
    gives the same bits, and its folder holds no pickle.

    Args:
        model: the model, ready to predict.
        episode: a stored episode, or a mapping of its arrays; two frames at least.
        load: reads what ``model.save`` wrote; None: `robo_rm.load_reward_model`.
        frames: how much of the episode is used. A model with a longer memory needs more for a full test.
        raise_on_failure: raise instead of returning when a clause is broken.
        seed: of the changes made to later frames.

    Returns:
        One `Check` for each clause.

    Raises:
        ModelError: clauses are broken (all are named), or the episode is too short or lacks what the model reads.
    """
    arrays, task = _arrays(model, episode, frames)
    rng = np.random.default_rng(seed)
    clauses: list[tuple[str, Callable[[Arrays], str]]] = [
        ("shapes and ranges", lambda given: _ranges(model, given, task)),
        ("determinism", lambda given: _determinism(model, given, task)),
        ("inputs untouched", lambda given: _untouched(model, given, task)),
        ("causality", lambda given: _causality(model, given, task, rng)),
        ("stream equals predict", lambda given: _stream(model, given, task)),
        ("one encode a step", lambda given: _encodes(model, given, task)),
        ("batch of one", lambda given: _batch(model, given, task)),
        ("save and load", lambda given: _save(model, given, task, load)),
    ]
    checks = []
    for name, clause in clauses:
        try:
            # A copy for each: what one clause finds must not depend on what the model did to another's arrays.
            checks.append(Check(name, True, clause({key: array.copy() for key, array in arrays.items()})))
        except _Broken as broken:
            checks.append(Check(name, False, str(broken)))
        # A model under test may fail in any way; that is a finding about it, not a fault of the checker.
        except Exception as error:  # noqa: BLE001
            checks.append(Check(name, False, f"raised {type(error).__name__}: {error}"))
    broken_clauses = [check for check in checks if not check.passed]
    if broken_clauses and raise_on_failure:
        listing = "; ".join(f"{check.name}: {check.detail}" for check in broken_clauses)
        raise ModelError(f"the reward model breaks {len(broken_clauses)} of {len(checks)} clauses: {listing}")
    return checks


def _arrays(model: RewardModel, episode: Observations, frames: int) -> tuple[Arrays, str | None]:
    keys = [*model.cameras, *([model.state_key] if model.state_key else [])]
    missing = [key for key in keys if key not in episode]
    if missing:
        raise ModelError(f"the model reads {missing[0]}, which the episode lacks; it has {sorted(episode)}")
    arrays = {key: np.array(episode[key][0:frames]) for key in keys}
    lengths = {len(array) for array in arrays.values()}
    if len(lengths) != 1 or min(lengths) < 2:
        raise ModelError(f"the episode must have at least two frames and as many of each key, not {sorted(lengths)}")
    return arrays, getattr(episode, "task", None)


def _ranges(model: RewardModel, arrays: Arrays, task: str | None) -> str:
    length, stages = _length(arrays), len(model.stages)
    prediction = model.predict(arrays, task)
    for name, array, shape in (
        ("progress", prediction.progress, (length,)),
        ("stage_probabilities", prediction.stage_probabilities, (length, stages)),
        ("uncertainty", prediction.uncertainty, (length,)),
    ):
        if np.shape(array) != shape:
            raise _Broken(f"{name} has shape {np.shape(array)}, expected {shape}")
        if not np.isfinite(array).all():
            raise _Broken(f"{name} is not finite at frame {int(np.argwhere(~np.isfinite(array))[0][0])}")
    progress, chances = prediction.progress, prediction.stage_probabilities
    if progress.min() < 0 or progress.max() > 1:
        raise _Broken(f"progress runs from {progress.min():.4g} to {progress.max():.4g}, outside [0, 1]")
    if chances.min() < 0 or np.abs(chances.sum(axis=1) - 1).max() > 1e-4:
        raise _Broken("stage probabilities are negative or do not sum to 1")
    if prediction.uncertainty.min() < 0:
        raise _Broken("uncertainty is negative")
    return f"{length} frames, {stages} stages"


def _determinism(model: RewardModel, arrays: Arrays, task: str | None) -> str:
    first = model.predict(arrays, task)
    _same_bits(first, model.predict(arrays, task), "a second call gives another")
    return "two calls, the same bits"


def _untouched(model: RewardModel, arrays: Arrays, task: str | None) -> str:
    before = {key: array.copy() for key, array in arrays.items()}
    model.predict(arrays, task)
    for key, array in arrays.items():
        if not np.array_equal(array, before[key]):
            raise _Broken(f"predict wrote into {key}")
    return "arrays unchanged"


def _causality(model: RewardModel, arrays: Arrays, task: str | None, rng: np.random.Generator) -> str:
    length = _length(arrays)
    whole = model.predict(arrays, task)
    cuts = sorted({1, length // 3, 2 * length // 3, length - 1} - {0, length})
    for cut in cuts:
        for name, changed in _futures(arrays, cut, rng):
            _same_bits(whole, model.predict(changed, task), f"with {name} from frame {cut} on there is another", cut)
    return f"later frames changed from {', '.join(map(str, cuts))} on, the same bits before"


def _futures(arrays: Arrays, cut: int, rng: np.random.Generator) -> Iterator[tuple[str, Arrays]]:
    """The same episode with other futures: noise, the first frame again, and time running backwards."""
    noise, frozen, backwards = {}, {}, {}
    for key, array in arrays.items():
        if array.dtype == np.uint8:
            other = rng.integers(0, 256, array[cut:].shape, dtype=np.uint8)
        else:
            other = array[cut:] + rng.normal(0, 1 + array.std(), array[cut:].shape).astype(array.dtype)
        noise[key] = np.concatenate([array[:cut], other])
        frozen[key] = np.concatenate([array[:cut], np.repeat(array[:1], len(array) - cut, axis=0)])
        backwards[key] = np.concatenate([array[:cut], array[cut:][::-1]])
    yield "noise", noise
    yield "the first frame", frozen
    yield "time running backwards", backwards


def _stream(model: RewardModel, arrays: Arrays, task: str | None) -> str:
    whole = model.predict(arrays, task)
    stream = model.stream(task)
    first = _follow(stream, model, arrays)
    _close(whole, first, "the stream's")
    stream.reset()
    _close(whole, _follow(stream, model, arrays), "after reset the stream's")
    return f"within {STREAM_TOLERANCE:g} over {_length(arrays)} steps, twice with a reset between"


def _encodes(model: RewardModel, arrays: Arrays, task: str | None) -> str:
    stream = model.stream(task)
    for t in range(min(_length(arrays), 8)):
        before = model.frames_encoded
        _step(stream, model, arrays, t)
        encoded = model.frames_encoded - before
        if encoded != len(model.cameras):
            raise _Broken(f"step {t} encoded {encoded} images for {len(model.cameras)} cameras")
    return f"{len(model.cameras)} images a step"


def _batch(model: RewardModel, arrays: Arrays, task: str | None) -> str:
    short = {key: array[: max(2, _length(arrays) // 2)][::-1].copy() for key, array in arrays.items()}
    alone = model.predict(arrays, task)
    one = model.predict_batch([arrays], task)
    if len(one) != 1:
        raise _Broken(f"a batch of one episode gives {len(one)} predictions")
    _close(alone, one[0], "in a batch of one the")
    for batch, row in (([arrays, short], 0), ([short, arrays], 1)):
        together = model.predict_batch(batch, task)
        if len(together) != 2:
            raise _Broken(f"a batch of two episodes gives {len(together)} predictions")
        _close(alone, together[row], f"as row {row} of a batch with a shorter episode the")
    return "alone, first and second of a batch"


def _save(model: RewardModel, arrays: Arrays, task: str | None, load: Callable[[Path], RewardModel] | None) -> str:
    if load is None:
        from robo_rm.reward_models.saving import load_reward_model

        load = load_reward_model
    before = model.predict(arrays, task)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "model"
        model.save(root)
        pickles = sorted(path.name for path in root.rglob("*") if path.suffix in PICKLES)
        if pickles:
            raise _Broken(f"the folder holds {pickles[0]}; save weights as safetensors, settings as YAML or JSON")
        loaded = load(root)
        if list(loaded.stages) != list(model.stages):
            raise _Broken(f"stages {list(model.stages)} came back as {list(loaded.stages)}")
        with _same_device(model, loaded):
            _same_bits(before, loaded.predict(arrays, task), "after loading there is another")
    return "the same bits after loading"


@contextmanager
def _same_device(model: RewardModel, loaded: RewardModel) -> Iterator[None]:
    """Bits are compared on one kind of arithmetic only."""
    here, there = device_of(model), device_of(loaded)
    if here is not None and there is not None and str(here) != str(there):
        raise _Broken(f"the model is on {here} and was loaded on {there}; give load= that loads it on {here}")
    yield


def _follow(stream: RewardStream, model: RewardModel, arrays: Arrays) -> Prediction:
    steps = [_step(stream, model, arrays, t) for t in range(_length(arrays))]
    return Prediction(
        np.array([step.progress for step in steps], dtype=np.float32),
        np.stack([step.stage_probabilities for step in steps]),
        np.array([step.uncertainty for step in steps], dtype=np.float32),
    )


def _step(stream: RewardStream, model: RewardModel, arrays: Arrays, t: int) -> Estimate:
    frames = {key: arrays[key][t] for key in model.cameras}
    return stream.step(frames, state=arrays[model.state_key][t] if model.state_key else None)


def _outputs(prediction: Prediction) -> Mapping[str, npt.NDArray[np.float32]]:
    return {
        "progress": prediction.progress,
        "stage_probabilities": prediction.stage_probabilities,
        "uncertainty": prediction.uncertainty,
    }


def _same_bits(first: Prediction, second: Prediction, what: str, until: int | None = None) -> None:
    other = _outputs(second)
    for name, array in _outputs(first).items():
        a, b = np.asarray(array)[:until], np.asarray(other[name])[:until]
        if a.shape != b.shape:
            raise _Broken(f"{what} {name}: its shape is {b.shape} instead of {a.shape}")
        if a.tobytes() != b.tobytes():
            rows = np.abs(a.astype(np.float64) - b).reshape(len(a), -1).max(axis=1)
            raise _Broken(f"{what} {name}: at frame {int(np.argmax(rows > 0))}, by up to {rows.max():.3g}")


def _close(first: Prediction, second: Prediction, what: str) -> None:
    other = _outputs(second)
    for name, array in _outputs(first).items():
        a, b = np.asarray(array, dtype=np.float64), np.asarray(other[name], dtype=np.float64)
        if a.shape != b.shape:
            raise _Broken(f"{what} {name} has shape {b.shape} instead of {a.shape}")
        rows = np.abs(a - b).reshape(len(a), -1).max(axis=1)
        if not rows.max() <= STREAM_TOLERANCE:
            raise _Broken(f"{what} {name} differs from predict by {rows.max():.3g}, most at frame {int(rows.argmax())}")


def _length(arrays: Arrays) -> int:
    return len(next(iter(arrays.values())))
