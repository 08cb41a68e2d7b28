"""The hop model as a kind of reward model: its episodes chosen, settings checked, trained, adapted, loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from robo_core.console import say
from robo_core.errors import ConfigError, LabelError, ModelError, StoreError
from robo_datasets.store.instructions import Phrasings, instruction_groups
from robo_rm.labels.progress import training_priors
from robo_rm.labels.repeats import check_repeats
from robo_rm.labels.split import labelled_episodes
from robo_rm.reward_models.grm.adapt import left_fresh
from robo_rm.reward_models.grm.labels import stage_truth, time_truth
from robo_rm.reward_models.grm.model import NAME, HopDescription, HopRewardModel
from robo_rm.reward_models.grm.near_goal import NEAR, start_goal_distance
from robo_rm.reward_models.grm.references import choose_references
from robo_rm.reward_models.grm.settings import HopSettings, check_hop_settings
from robo_rm.reward_models.grm.trainer import HopObjective
from robo_rm.reward_models.registry import FitRequest, FitResult, RewardKind
from robo_rm.reward_models.saving import built, fill_weights, load_reward_model
from robo_rm.settings import ConvSettings
from robo_rm.training.cameras import chosen_cameras, chosen_state
from robo_rm.training.data import TrainingData
from robo_rm.training.device import pick_device
from robo_rm.training.fit import Fit

# What a task without named stages is called.
ONE_STAGE = "the task"


class HopPlan:
    """What the settings make of the training split; see `robo_rm.training.fit.Plan`."""

    def __init__(self, request: FitRequest, train: Sequence[Any], by_time: bool, init: HopRewardModel | None) -> None:
        self.request, self.train, self.init = request, train, init
        self.labelled = not by_time
        self.notes: list[str] = [] if by_time else check_repeats(train, list(request.store.stages), request.repeats)
        store, reward = request.store, request.reward
        cameras = chosen_cameras(request)
        state_key, state_size = chosen_state(request)
        groups = instruction_groups(store)
        known = Phrasings(groups)
        # Phrasings of one task share its references.
        self.tasks = tasks = [known.task(episode.task or "") for episode in train]
        # Which episodes reach the goal does not depend on the shares of the stages.
        even = np.full(len(store.stages or [ONE_STAGE]), 1.0)
        reached = [n for n, episode in enumerate(train) if by_time or stage_truth(episode, even / even.sum()).reached]
        lacking = sorted(set(tasks) - {tasks[place] for place in reached})
        if lacking:
            raise LabelError(
                f"no training episode of {store.path} reaches the goal of the task {lacking[0]!r}, so there is no goal "
                "image; the hop model needs one success of each task (mark it with store.set_success), or holdout=0"
            )
        stages, priors = _stages(request, train, by_time, init)
        self.truths = [time_truth(e.length) if by_time else stage_truth(e, priors) for e in train]
        self.distance = start_goal_distance([train[place] for place in reached], list(cameras), state_key)
        if reward.start_near_goal == "refuse" and self.distance < NEAR:
            raise ConfigError(_near_goal(self.distance))
        self.chosen = choose_references(tasks, reached, reward.references, request.seed)
        self.description = HopDescription(
            stages=stages,
            priors=priors,
            cameras=cameras,
            state_key=state_key,
            state_size=state_size,
            fps=float(store.fps),
            references={task: len(places) for task, places in self.chosen.items()},
            reward=reward,
            encoder=request.encoder,
            stage_head=not by_time and reward.loss.stage > 0,
            instruction_groups=groups,
        )
        self.state_key: str | None = state_key
        self.frames_per_step = 2 * reward.hops
        self.provenance: Mapping[str, Any] = {
            "priors": list(priors),
            "fps": self.description.fps,
            "encoder": request.encoder.name,
            "progress": "time" if by_time else reward.progress.replace("auto", "stages"),
            "references": {task: [train[place].uuid for place in places] for task, places in self.chosen.items()},
            "start_goal_distance": self.distance,
            **({"init": _origin(request.init, init)} if init is not None else {}),
        }

    def objective(self, device: str) -> HopObjective:
        """Read the training split and make the trainer; says what a user should know before it begins."""
        if self.provenance["progress"] == "time":
            say("no stage labels are used: progress is even over each episode, from 0 at its start to 1 at its end")
        if self.request.reward.start_near_goal == "warn" and self.distance < NEAR:
            say(f"warning: {_near_goal(self.distance)}")
        spec = self.description
        cache = self.request.cache_gb * 1e9
        data = TrainingData.load(self.train, spec.priors, spec.cameras, spec.state_key, cache)
        data.tasks = list(self.tasks)
        places = [place for episodes in self.chosen.values() for place in episodes]
        request = self.request
        objective = HopObjective(
            self.description, data, self.truths, places, request.optimiser, request.seed, device, self.init
        )
        if self.init is not None:
            fresh = left_fresh(objective.network, objective.taken)
            say(f"adapting {request.init}" + (f"; trained again: {', '.join(fresh)}" if fresh else ""))
        return objective


def fit(request: FitRequest) -> FitResult:
    """Train a hop model on a store, or adapt one (``request.init``) to it; one episode is enough for that.

    Raises:
        ConfigError: a setting makes no sense of this store. LabelError: no episode shows the goal.
        ModelError: ``init`` holds no hop model, or ``folder`` one of other settings.
    """
    init = _read_init(request)
    if init is not None:
        # The weights that are taken over decide the shape.
        shape = {name: getattr(init.description.reward, name) for name in ("width", "hidden", "bins")}
        request = replace(request, reward=replace(request.reward, **shape), encoder=init.description.encoder)
    _check(request)
    episodes, by_time = training_episodes(request.store, request.reward.progress)
    if len(episodes) <= request.holdout and (init is not None or len(episodes) == 1):
        say(f"nothing is held out: the store has {len(episodes)} episode{'s' * (len(episodes) > 1)} to learn from")
        request = replace(request, holdout=0)
    return Fit(request, lambda asked, train: HopPlan(asked, train, by_time, init), lambda store: episodes).run()


def load(
    folder: Path, described: Mapping[str, Any], provenance: Mapping[str, Any], device: str = "auto"
) -> HopRewardModel:
    """Read a saved hop model.

    Raises:
        ModelError: the folder is damaged.
    """
    description = built(HopDescription, described, folder)
    cameras = {key: (int(size[0]), int(size[1])) for key, size in description.cameras.items()}
    description = replace(description, cameras=cameras)
    network = description.network()
    fill_weights(network, folder)
    return HopRewardModel(network, description, provenance, pick_device(device))


def training_episodes(store: Any, progress: str) -> tuple[list[Any], bool]:
    """The episodes that can be learned from, and whether their progress is that of time.

    Raises:
        LabelError: stages are asked for and there are none, or every episode without labels is a failure.
        StoreError: the store is empty.
    """
    if not len(store):
        raise StoreError(f"{store.path} holds no episode to learn from")
    labelled = bool(store.stages) and any((np.asarray(episode.stage) >= 0).any() for episode in store)
    if progress in ("stages", "keyframes") or (progress == "auto" and labelled):
        return labelled_episodes(store), False
    # Of a failure nobody knows how far it got if not by its stages.
    episodes = [episode for episode in store if episode.success is not False and episode.length > 1]
    if not episodes:
        raise LabelError(
            f"all {len(store)} episodes of {store.path} failed, and without stage labels nobody knows how far they got"
        )
    return episodes, True


def _check(request: FitRequest) -> None:
    reward, encoder = request.reward, request.encoder
    check_hop_settings(reward)
    if reward.name != NAME:
        raise ConfigError(f"reward.name={reward.name}: the settings of the hop model are named {NAME}")
    if not isinstance(encoder, ConvSettings):
        raise ConfigError(f"encoder={encoder.name}: the hop model trains its encoder itself; use encoder=conv")
    if encoder.image_size < 8 or min(encoder.channels, default=0) < 1 or encoder.stem < 2 or encoder.stem % 2:
        raise ConfigError(
            f"encoder.image_size={encoder.image_size} encoder.channels={encoder.channels} encoder.stem={encoder.stem}: "
            "give 8 pixels or more, channels above 0 and an even stem"
        )
    if not 0 <= encoder.dropout <= 1 or not 0 <= request.optimiser.average <= 1:
        raise ConfigError("encoder.dropout and optimiser.average are shares from 0 to 1")
    if not request.optimiser.learning_rate > 0:
        raise ConfigError(f"optimiser.learning_rate={request.optimiser.learning_rate}: give a number above 0")


def _read_init(request: FitRequest) -> HopRewardModel | None:
    if request.init is None:
        return None
    model = load_reward_model(request.init, request.device)
    if not isinstance(model, HopRewardModel):
        raise ModelError(f"init={request.init} is not a hop model; train one with robo-rm train-reward reward=hop")
    return model


def _stages(
    request: FitRequest, train: Sequence[Any], by_time: bool, init: HopRewardModel | None
) -> tuple[list[str], list[float]]:
    """Names of the stages and their shares of progress."""
    stages = list(request.store.stages or [ONE_STAGE])
    if init is not None and init.stages == stages:
        return stages, init.priors.tolist()
    labelled = not by_time or any((np.asarray(episode.stage) >= 0).any() for episode in train)
    if request.reward.progress == "keyframes" or not labelled:
        return stages, [1 / len(stages)] * len(stages)
    return stages, training_priors(train, len(stages)).tolist()


def _near_goal(distance: float) -> str:
    return (
        f"the episodes end about where they began: the last frame is {distance:.2f} as far from the first as the "
        "episodes go, and start and goal images say little of such a task. A model that knows its stages can tell "
        "them apart: reward=stage (or reward.start_near_goal=ignore)"
    )


def _origin(folder: Path | None, init: HopRewardModel) -> dict[str, Any]:
    kept = ("store", "store_hash", "train_uuids", "validation_uuids", "contents", "init", "fingerprint")
    return {"folder": str(folder), **{name: init.provenance[name] for name in kept if name in init.provenance}}


KIND = RewardKind(NAME, HopSettings, fit, load)
