"""Scoring a store: a model's progress of every episode, and the weights that follow from it, into ``derived/``.

The progress of an episode depends on the model and the episode alone, so its set is keyed by the model: adding
episodes, or interrupting the work, costs only what is missing. The weights depend on the statistics of the whole store
and are made again each time, which takes a moment.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from robo_core.console import progress_bar
from robo_core.errors import ModelError, StoreError
from robo_datasets.store.instructions import instruction_groups
from robo_rm.labels.grouping import as_trained
from robo_rm.labels.outcomes import finished_unknown
from robo_rm.reward_models.capabilities import StoresFeatures, capability
from robo_rm.reward_models.prediction import Prediction
from robo_rm.reward_models.protocol import RewardModel
from robo_rm.weights.freshness import MADE_FROM, made_from, model_hash
from robo_rm.weights.options import Advantage, Calibration, TopFraction
from robo_rm.weights.rabc import Statistics, StoreWeights, store_weights
from robo_rm.weights.report import WeightReport, weight_report

if TYPE_CHECKING:
    from robo_datasets import DemoStore, Derived, Episode

PROGRESS, WEIGHTS = "progress", "weights"


@dataclass(frozen=True)
class Scores:
    """What `score_store` made."""

    result: StoreWeights
    report: WeightReport
    derived: Derived
    """The derived set of weights."""


def check_model_fits(model: RewardModel, store: DemoStore) -> None:
    """Raise ModelError unless the store has the stages, cameras and state that the model was trained on."""
    if store.stages and list(store.stages) != list(model.stages):
        raise ModelError(
            f"the model's stages {list(model.stages)} are not those of {store.path}, {list(store.stages)}; "
            "use a model trained on this task"
        )
    wanted = [*model.cameras, *([model.state_key] if model.state_key else [])]
    for key in wanted:
        if key not in store.features:
            raise ModelError(
                f"the model reads {key}, which {store.path} does not have; it has {', '.join(sorted(store.features))}"
            )
    trained_at = model.provenance.get("fps")
    if trained_at is not None and abs(float(trained_at) - store.fps) > 0.01 * store.fps:
        raise ModelError(
            f"the model was trained at {float(trained_at):g} frames/s and {store.path} has {store.fps:g}: its view of "
            "the past would have another length. Record or import at the model's rate, or train on this store"
        )


def score_progress(model: RewardModel, model_id: str, store: DemoStore) -> Derived:
    """Predict the progress of every episode that is not predicted yet; returns the derived set ``progress``.

    Arrays: progress (T,), stage_probabilities (T, K), uncertainty (T,), all f32.

    Raises:
        ModelError: the model does not fit the store, or predicts something that is not a number.
    """
    store = as_trained(store, model.provenance)
    check_model_fits(model, store)
    provenance = {"source": "model", "model_sha256": model_id, "stages": list(model.stages)}
    derived = store.derive(PROGRESS, provenance)
    waiting = [uuid for uuid in store.uuids if uuid not in derived]
    if (frozen := capability(model, StoresFeatures)) is not None:
        frozen.store_features(store, [store.episode(uuid) for uuid in waiting])
    lengths = store.lengths
    total = sum(lengths.values())
    done = total - sum(lengths[uuid] for uuid in waiting)
    with progress_bar("score", total=total, unit="frames", done=done) as bar:
        for uuid in waiting:
            prediction = model.predict(store.episode(uuid))
            check_prediction(prediction, uuid)
            derived.write(
                uuid,
                {
                    "progress": prediction.progress.astype(np.float32),
                    "stage_probabilities": prediction.stage_probabilities.astype(np.float32),
                    "uncertainty": prediction.uncertainty.astype(np.float32),
                },
            )
            bar.advance(lengths[uuid])
    derived.renew()
    return derived


def read_prediction(derived: Derived, uuid: str) -> Prediction:
    """The prediction of an episode from the derived set ``progress``."""
    arrays = derived.read(uuid)
    return Prediction(arrays["progress"], arrays["stage_probabilities"], arrays["uncertainty"])


def progress_from_feature(store: DemoStore, key: str) -> dict[str, npt.NDArray[np.float32]]:
    """Progress that the store itself carries, such as the simulator's, by uuid: an oracle to compare with.

    Raises:
        StoreError: there is no such feature, or it is not one number a frame.
    """
    if key not in store.features:
        raise StoreError(f"{store.path} has no feature {key}; it has {', '.join(sorted(store.features))}")
    if int(np.prod(store.features[key]["shape"])) != 1:
        raise StoreError(
            f"{key} in {store.path} has shape {store.features[key]['shape']}, one number a frame is needed"
        )
    return {uuid: np.asarray(store.episode(uuid)[key][:], np.float32).reshape(-1) for uuid in store.uuids}


def score_weights(
    store: DemoStore,
    progress: Mapping[str, npt.NDArray[np.float32]],
    source: Mapping[str, object],
    *,
    mode: str,
    horizon: int,
    kappa: float,
    calibration: Calibration,
    top: TopFraction | None = None,
    advantage: Advantage | None = None,
    name: str = WEIGHTS,
    model: Mapping[str, object] | None = None,
) -> Scores:
    """Weight every frame of the store and write the derived set ``name``: weight (T,) f32.

    Args:
        store: the demo store.
        progress: of every episode, by uuid.
        source: provenance of the progress, stored with the weights.
        mode: see `robo_rm.weights.rabc.store_weights`.
        horizon: frames in an action chunk.
        kappa: see `robo_rm.weights.rabc.rabc_weights`.
        calibration: the corrections of ``calibrated`` mode.
        top: which episodes ``top_fraction`` keeps.
        advantage: the classes of ``advantage``.
        name: of the derived set; sets of several names stand side by side.
        model: ``folder``, ``head`` and ``sha256`` of the reward model, where one made the progress.

    Raises:
        ModelError: progress that is not a number. ConfigError: a setting out of range.
    """
    episodes = {uuid: store.episode(uuid) for uuid in progress}
    success = {uuid: episode.success for uuid, episode in episodes.items()}
    finished = _finished(store, episodes)
    top, advantage = top or TopFraction(), advantage or Advantage()
    result = store_weights(
        progress,
        horizon,
        mode,
        kappa,
        success=success,
        finished=finished,
        calibration=calibration,
        top=top,
        advantage=advantage,
    )
    provenance: dict[str, object] = {
        "mode": mode,
        "horizon": horizon,
        "kappa": result.statistics.kappa,
        "progress": dict(source),
        "statistics": asdict(result.statistics),
        "store_hash": store.content_hash(),
        # What is compared before anybody trains with them.
        MADE_FROM: made_from(store, progress),
        "counted_like_successes": sorted(result.finished),
        **({} if model is None else {"model": dict(model)}),
    }
    if mode in ("calibrated", "advantage"):
        provenance["calibration"] = asdict(calibration)
    if mode == "advantage":
        provenance["advantage"] = asdict(advantage)
    if mode == "top_fraction":
        provenance["top"] = asdict(top)
    derived = store.derive(name, provenance)
    with progress_bar("weights", total=len(progress), unit="episodes") as bar:
        for uuid, weight in result.weights.items():
            if uuid not in derived:
                derived.write(uuid, {"weight": weight})
            bar.advance()
    derived.renew()
    labels = {uuid: np.asarray(episode.stage, dtype=np.int64) for uuid, episode in episodes.items()}
    return Scores(result, weight_report(result, labels, store.stages, progress), derived)


def score_with(folder: str, head: str | None, device: str, store: DemoStore) -> tuple[Derived, dict[str, object]]:
    """Predict every episode with the model in a folder: the derived set ``progress``, and what weights keep of it.

    Raises:
        ModelError: there is no such model, or it does not fit the store.
    """
    from robo_rm.reward_models.saving import load_reward_model
    from robo_rm.reward_models.stage.sparse import model_with_head

    model = model_with_head(load_reward_model(folder, device), head)
    checksum = model_hash(folder)
    derived = score_progress(model, checksum, store)
    return derived, {"folder": str(Path(folder).resolve()), "head": head, "sha256": checksum}


def score_again(store: DemoStore, name: str, provenance: Mapping[str, Any], device: str = "auto") -> Scores:
    """Make weights again, from the store and the model as they are now, with the settings of an earlier set.

    Raises:
        StoreError: the earlier set does not say how it was made. ModelError: the model is gone or does not fit.
    """
    source, model = provenance.get("progress"), provenance.get("model")
    if not isinstance(source, Mapping) or not provenance.get("horizon"):
        raise StoreError(f"{store.path}: {name!r} do not say how they were made; make them with robo-rm score")
    if source.get("source") == "feature":
        progress = progress_from_feature(store, str(source["key"]))
    else:
        if not isinstance(model, Mapping):
            raise StoreError(f"{store.path}: {name!r} do not say which model made them; run robo-rm score model=MODEL")
        derived, model = score_with(str(model["folder"]), model.get("head"), device, store)
        progress = {uuid: read_prediction(derived, uuid).progress for uuid in store.uuids}
        source = derived.provenance
    mode = str(provenance["mode"])
    return score_weights(
        store,
        progress,
        source,
        mode=mode,
        horizon=int(provenance["horizon"]),
        # In the calibrated mode kappa is what came out of the quantile, where there is one.
        kappa=float(provenance["kappa"]),
        calibration=Calibration(**provenance.get("calibration", {})),
        top=TopFraction(**provenance.get("top", {})),
        advantage=Advantage(**provenance.get("advantage", {})),
        name=name,
        model=model,
    )


def stored_weight_report(
    store: DemoStore, weights: Mapping[str, np.ndarray], provenance: Mapping[str, Any]
) -> WeightReport:
    """What is odd about weights that were made earlier, for those who train with them.

    Args:
        store: the demo store.
        weights: by uuid, (T,) f32, not negative.
        provenance: of the derived set that they come from. Where it says from which progress they were made, and the
            store still holds that, the progress is looked at as well.
    """
    statistics = Statistics(**{name: float("nan") for name in Statistics.__dataclass_fields__})
    episodes = {uuid: store.episode(uuid) for uuid in weights}
    success = {uuid: episode.success for uuid, episode in episodes.items()}
    labels = {uuid: np.asarray(episode.stage, dtype=np.int64) for uuid, episode in episodes.items()}
    mode = str(provenance.get("mode", ""))
    result = StoreWeights(
        dict(weights), statistics, int(provenance.get("horizon", 0)), mode, success, _finished(store, episodes)
    )
    return weight_report(result, labels, store.stages, _progress_behind(store, provenance.get("progress")))


def _finished(store: DemoStore, episodes: Mapping[str, Episode]) -> frozenset[str]:
    """Episodes of unknown outcome that went through their task by their annotation."""
    return finished_unknown(episodes, len(store.stages), instruction_groups(store))


def _progress_behind(store: DemoStore, source: object) -> dict[str, npt.NDArray[np.float32]]:
    """The progress that ``source`` names, of the episodes that have it; nothing where it is not there any more."""
    if not isinstance(source, Mapping):
        return {}
    if source.get("source") == "feature":
        return progress_from_feature(store, source["key"]) if source.get("key") in store.features else {}
    derived = store.derive(PROGRESS, dict(source))
    return {uuid: read_prediction(derived, uuid).progress for uuid in store.uuids if uuid in derived}


def episode_kind(episode: Episode) -> str:
    """What sort of demonstration it is: its quality class where the recorder noted one, else its task."""
    kind = str((episode.attributes or {}).get("quality") or episode.task or "episode")
    return kind.replace("_", " ").strip(" .")


def example_episodes(result: StoreWeights, kinds: Mapping[str, str], count: int = 6) -> list[str]:
    """Episodes to show: of each kind in turn the one nearest to the kind's mean weight, until ``count``."""
    mean = {uuid: float(weight.mean()) for uuid, weight in result.weights.items()}
    groups: dict[str, list[str]] = {}
    for uuid, kind in kinds.items():
        groups.setdefault(kind, []).append(uuid)
    for members in groups.values():
        middle = float(np.mean([mean[uuid] for uuid in members]))
        members.sort(key=lambda uuid: abs(mean[uuid] - middle))
    ordered = [groups[kind] for kind in sorted(groups, key=lambda kind: -np.mean([mean[u] for u in groups[kind]]))]
    return list(_in_turn(ordered))[:count]


def _in_turn(groups: Sequence[Sequence[str]]) -> Iterator[str]:
    for place in range(max(map(len, groups), default=0)):
        yield from (members[place] for members in groups if place < len(members))


def check_prediction(prediction: Prediction, uuid: str) -> None:
    """Raise ModelError, naming episode and frame, where a prediction is not a number."""
    for name in ("progress", "stage_probabilities", "uncertainty"):
        array = np.asarray(getattr(prediction, name))
        bad = ~np.isfinite(array.reshape(len(array), -1)).all(axis=1)
        if bad.any():
            raise ModelError(
                f"the model's {name} is not a number at frame {int(np.argmax(bad))} of episode {uuid}; "
                "the model is damaged or was not trained to the end. Train it again"
            )
