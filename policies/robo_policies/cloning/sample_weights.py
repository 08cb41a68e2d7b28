"""Which demonstrations count, and how much: the weight of every training sample.

``none`` is plain behaviour cloning. ``rabc`` reads the weights that `robo-rm score` derived from a reward model's
progress (reward-aligned behaviour cloning, SARM, arXiv 2509.25358, equations 5-9). ``success_only`` keeps the episodes
that were marked a success and drops the rest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from robo_core.console import say
from robo_core.errors import StoreError
from robo_policies.cloning.settings import WeightSettings
from robo_policies.cloning.windows import Demonstrations
from robo_rm.labels.outcomes import HOW_TO_MARK
from robo_rm.scoring import score_again
from robo_rm.weights.freshness import score_command, what_changed

if TYPE_CHECKING:
    from robo_datasets import DemoStore


@dataclass(frozen=True)
class SampleWeights:
    """The weight of each frame and what is known of where it came from.

    Attributes:
        values: (N,) float32, at least one above zero.
        provenance: plain values for the checkpoint: mode, and for ``rabc`` the provenance of the derived weights.
    """

    values: np.ndarray
    provenance: dict[str, Any]

    @property
    def effective_samples(self) -> float:
        """Kish's effective sample size, (sum w)^2 / sum w^2."""
        return effective_samples(self.values)


def effective_samples(weights: np.ndarray) -> float:
    """Kish's effective sample size of weights that are not all zero, (sum w)^2 / sum w^2."""
    values = weights.astype(np.float64)
    return float(values.sum() ** 2 / (values**2).sum())


def sample_weights(store: DemoStore, demonstrations: Demonstrations, settings: WeightSettings) -> SampleWeights:
    """The weight of every frame of ``demonstrations``, which came from ``store``.

    Raises:
        ConfigError: the mode does not exist.
        StoreError: weights are asked for that the store does not hold, that were made before outcomes, stages, episodes
            or the model changed, that belong to other episodes, that are negative
            or NaN, or that are all zero; or success is asked for and no episode is marked one.
    """
    settings.validate()
    if settings.mode == "none":
        values: np.ndarray = np.ones(demonstrations.frames, np.float32)
        provenance: dict[str, Any] = {"mode": "none"}
    elif settings.mode == "success_only":
        good = np.array([success is True for success in demonstrations.success])
        if not good.any():
            unknown = sum(success is None for success in demonstrations.success)
            of = f" ({unknown} have no outcome: {HOW_TO_MARK})" if unknown else ""
            raise StoreError(f"{store.path}: no episode is marked a success, so weights=success_only keeps nothing{of}")
        values = np.repeat(good, np.diff(demonstrations.starts)).astype(np.float32)
        provenance = {"mode": "success_only", "episodes": int(good.sum())}
    else:
        try:
            derived = store.derived(settings.name)
        except StoreError as error:
            # robo-rm score writes sets of any name, which the store cannot know.
            named = "" if settings.name == "weights" else f" name={settings.name}"
            raise StoreError(
                f"{store.path} holds no weights named {settings.name!r}; make them with: "
                f"robo-rm score model=MODEL store={store.path}{named}"
            ) from error
        changed = what_changed(store, derived.provenance)
        if changed and settings.rescore:
            say(f"scoring again, because {changed}")
            derived = score_again(store, settings.name, derived.provenance).derived
        elif changed:
            raise StoreError(
                f"{store.path}: since its {settings.name!r} were made, {changed}; make them again with: "
                f"{score_command(store, settings.name, derived.provenance)} (or give weights.rescore=true)"
            )
        values = _read(store, derived, demonstrations, settings.name)
        provenance = {"mode": "rabc", "name": settings.name, "derived": _plain(derived.provenance)}
    return SampleWeights(values, provenance)


def weight_warnings(store: DemoStore, demonstrations: Demonstrations, sampled: SampleWeights) -> tuple[str, ...]:
    """What `robo-rm score` would say against the weights of ``sampled``; nothing for weights of another mode.

    They may have been made long ago, or by somebody else.
    """
    if sampled.provenance["mode"] != "rabc":
        return ()
    from robo_rm.scoring import stored_weight_report

    parts = np.split(sampled.values, demonstrations.starts[1:-1])
    weights = dict(zip(demonstrations.uuids, parts, strict=True))
    return stored_weight_report(store, weights, sampled.provenance["derived"]).warnings


def _read(store: DemoStore, derived: Any, demonstrations: Demonstrations, name: str) -> np.ndarray:
    missing = [uuid for uuid in demonstrations.uuids if uuid not in derived]
    named = "" if name == "weights" else f" name={name}"
    again = f"run `robo-rm score model=MODEL store={store.path}{named}` again"
    if len(missing) == len(demonstrations.uuids):
        raise StoreError(f"{store.path}: its {name!r} belong to another store, no episode is the same; {again}")
    if missing:
        raise StoreError(
            f"{store.path}: {len(missing)} of {len(demonstrations.uuids)} episodes have no {name!r}, the first is "
            f"{missing[0]}; {again}"
        )
    parts = []
    for uuid, length in zip(demonstrations.uuids, np.diff(demonstrations.starts), strict=True):
        arrays = derived.read(uuid)
        if "weight" not in arrays:
            raise StoreError(f"{store.path}: {name!r} hold no array 'weight' for episode {uuid}; {again}")
        values = np.asarray(arrays["weight"], np.float32)
        if values.shape != (length,):
            raise StoreError(
                f"{store.path}: episode {uuid} has {length} frames and {name!r} of shape {values.shape}; {again}"
            )
        bad = np.flatnonzero(~np.isfinite(values) | (values < 0))
        if len(bad):
            raise StoreError(
                f"{store.path}: episode {uuid}, frame {bad[0]}: weight {values[bad[0]]} is not a number from 0; {again}"
            )
        parts.append(values)
    values = np.concatenate(parts)
    if not (values > 0).any():
        failed = sum(success is False for success in demonstrations.success)
        why = f" ({failed} of {len(demonstrations.success)} episodes are marked as failures)" if failed else ""
        raise StoreError(
            f"{store.path}: all {name!r} are zero, so there is nothing to train on{why}; `robo-rm score` says why, and "
            "what to change"
        )
    return values


def _plain(value: Any) -> Any:
    """Provenance as plain JSON values, whatever mapping type the store hands out."""
    if hasattr(value, "items"):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
