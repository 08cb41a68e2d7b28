"""Training any of LeRobot's policies from a demo store with weights, in one call.

    train_lerobot_policy(policy, store, folder, Budget(20_000), WeightSettings("rabc"), constant=tokens)

What goes in, and how it is normalised, comes from the policy's own configuration.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from robo_core.console import say
from robo_core.errors import ConfigError, StoreError
from robo_core.outputs import POLICY, OutputFolder, check_output
from robo_policies.cloning.adapter import PolicyLearner
from robo_policies.cloning.images import Pictures
from robo_policies.cloning.learner import Learner, as_tensors
from robo_policies.cloning.sample_weights import sample_weights, weight_warnings
from robo_policies.cloning.settings import CloningSettings, WeightSettings
from robo_policies.cloning.summary import READS_CONSTANT, READS_NONE, summarise_cloning
from robo_policies.cloning.trainer import CloningResult, clone
from robo_policies.cloning.training import cloning_fingerprint
from robo_policies.cloning.windows import (
    ACTION,
    ENVIRONMENT_STATE,
    STATE,
    Demonstrations,
    Windows,
    constant_dimensions,
    for_inference,
    load_demonstrations,
    normalisation,
)
from robo_rm.training.budget import Budget
from robo_rm.training.constant import constant
from robo_rm.training.device import process_count, process_index, wait_for_all

if TYPE_CHECKING:
    import torch

    from robo_datasets import DemoStore
    from robo_policies.cloning.images import Size

QUANTILES = (("q01", 0.01), ("q10", 0.1), ("q90", 0.9), ("q99", 0.99))
BOUNDS = {"MIN_MAX": ("min", "max"), "QUANTILES": ("q01", "q99"), "QUANTILE10": ("q10", "q90")}
"""LeRobot's ways to normalise that bring two statistics to -1 and 1."""


def train_lerobot_policy(
    policy: torch.nn.Module,
    store: DemoStore,
    out: Path,
    budget: Budget,
    weights: WeightSettings | None = None,
    training: CloningSettings | None = None,
    constant: Mapping[str, torch.Tensor] | None = None,
    seed: int = 0,
    processors: bool = True,
) -> CloningResult:
    """Clone the demonstrations of ``store`` into any policy of LeRobot's, with weights, and save it as LeRobot does.

    Vectors and pictures are normalised as the policy's own configuration says, with statistics of the frames that are
    trained on. The same call after an interruption resumes.

    Args:
        policy: any ``lerobot.policies.pretrained.PreTrainedPolicy``, on its device; it is trained in place.
        store: demonstrations with the state, actions and cameras of the policy's configuration.
        out: folder for the policy.
        budget: steps or passes, and a cap in minutes.
        weights: where sample weights come from.
        training: optimiser settings.
        constant: entries of a batch that are the same for every sample, such as the tokens of the instruction.
        seed: names order and noise.
        processors: save LeRobot's pre- and post-processor with the policy; some of them fetch a tokenizer.

    Raises:
        StoreError: the store lacks a feature of the policy's, has it in another size, or lacks weights.
        ConfigError: the policy normalises, or takes frames, in a way that is not supported; ``out`` holds another run,
            or files that are not ours.
        ModelError: the policy does not give a loss per sample, or the loss is not finite.
    """
    weights, training = weights or WeightSettings(), training or CloningSettings()
    for settings in (weights, training):
        settings.validate()
    check_output(out, POLICY)
    config: Any = policy.config
    device = str(config.device)
    learner = PolicyLearner(policy, constant)
    demonstrations = load_demonstrations(store)
    sizes = check_features(config, store)
    sampled = sample_weights(store, demonstrations, weights)
    still = constant_dimensions(demonstrations, sampled.values)
    held_out = np.zeros(demonstrations.frames, dtype=bool)
    reads = READS_CONSTANT if constant else READS_NONE
    summarise_cloning(store, demonstrations, sampled.values, held_out, weights, still, reads)
    for warning in weight_warnings(store, demonstrations, sampled):
        say(f"warning: {warning}")
    pictures = None
    if sizes:
        pictures = Pictures(store, demonstrations.uuids, demonstrations.starts, sizes, training.cache_gb)
    plain = normalisation(demonstrations, sampled.values, pictures)
    statistics, span = with_quantiles(plain, demonstrations, sampled.values), learner.span
    windows = Windows(demonstrations, sampled.values, span, as_configured(config, statistics), device, pictures)
    budget = budget.over(len(windows), training.batch_size * process_count())
    fingerprint = {
        **cloning_fingerprint(demonstrations, sampled, budget, training, seed),
        "policy": hashlib.sha256(repr(config).encode()).hexdigest(),
    }
    OutputFolder(out, holds=POLICY)
    result = clone(learner, windows, budget, training, seed, out / "training", fingerprint, device)
    kept = for_inference(statistics, still)
    if processors:
        learner.keep_processors(Learner.processors(learner, as_tensors(kept)))
    if process_index() == 0:
        learner.save(out, kept)
    wait_for_all()
    return result


def check_features(config: Any, store: DemoStore) -> dict[str, Size]:
    """The cameras of a policy's configuration with the (height, width) of their pictures.

    Raises:
        StoreError: the store lacks one of its features, or has a vector of another size.
    """
    sizes = {}
    cameras = config.image_features
    for key, feature in {**config.input_features, **config.output_features}.items():
        if key not in store.features:
            kind = "camera" if key in cameras else "feature"
            held = ", ".join(sorted(store.features))
            raise StoreError(f"{store.path} has no {kind} {key!r}, which the policy takes; it has {held}")
        if key in cameras:
            sizes[key] = (int(feature.shape[1]), int(feature.shape[2]))
        elif tuple(store.features[key]["shape"]) != tuple(feature.shape):
            raise StoreError(
                f"{store.path}: {key!r} has shape {tuple(store.features[key]['shape'])}, and the policy takes "
                f"{tuple(feature.shape)}"
            )
    return sizes


def with_quantiles(
    statistics: Mapping[str, Mapping[str, np.ndarray]], demonstrations: Demonstrations, weights: np.ndarray
) -> dict[str, dict[str, np.ndarray]]:
    """The statistics with quantiles of the vectors over the frames that are trained on, as LeRobot names them."""
    result = {key: dict(values) for key, values in statistics.items()}
    for key, values in demonstrations.arrays.items():
        found = np.quantile(values[weights > 0], [share for _, share in QUANTILES], axis=0).astype(np.float32)
        result[key] |= {name: one for (name, _), one in zip(QUANTILES, found, strict=True)}
        for low, high in (("q01", "q99"), ("q10", "q90")):
            # What moves in few frames only has quantiles that coincide; its bounds (of a constant one: beside its
            # value) take their place.
            alike = constant(result[key][low], result[key][high])
            result[key][low] = np.where(alike, result[key]["min"], result[key][low])
            result[key][high] = np.where(alike, result[key]["max"], result[key][high])
    return result


def as_configured(config: Any, statistics: Mapping[str, Mapping[str, np.ndarray]]) -> dict[str, dict[str, np.ndarray]]:
    """What to subtract ("mean") and to divide by ("std") so that values come out as the configuration normalises them.

    Raises:
        ConfigError: it normalises in a way that is not known, or pictures by quantiles.
    """
    kinds = {STATE: "STATE", ENVIRONMENT_STATE: "ENV", ACTION: "ACTION"}
    result = {}
    for key, values in statistics.items():
        kind = kinds.get(key, "VISUAL")
        mode = str(getattr(config.normalization_mapping.get(kind), "value", "IDENTITY"))
        bounds = BOUNDS.get(mode, ())
        if mode == "IDENTITY":
            offset, scale = np.zeros_like(values["mean"]), np.ones_like(values["std"])
        elif mode == "MEAN_STD":
            offset, scale = values["mean"], values["std"]
        elif bounds and all(name in values for name in bounds):
            low, high = (values[name].astype(np.float64) for name in bounds)
            offset, scale = (low + high) / 2, (high - low) / 2
        else:
            raise ConfigError(f"{type(config).__name__} normalises {kind} by {mode}, which is not supported")
        result[key] = {"mean": offset, "std": scale}
    return result
