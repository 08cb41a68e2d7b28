"""What a type checker sees of every exported name. Read by mypy (`tests/test_public_types.py`), never run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, assert_type

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.figure import Figure

import robo_core
import robo_rm
from robo_datasets import DemoStore, Derived, Episode, EpisodeWriter, FeatureSpec, StageSegment
from robo_datasets.importers import (
    ContentHash,
    EpisodeDetails,
    ImportPlan,
    ImportResult,
    ImportSourceError,
    Source,
    SourceEpisode,
    SourceFrame,
    check_outcomes,
    check_places,
    frame_size,
    image_settings,
    import_source,
    plan_import,
    run_import,
    start_helper,
)
from robo_datasets.importers import FeatureSpec as ImportedSpec
from robo_datasets.importers.image_config import ImageConfig
from robo_datasets.importers.images import ImageSettings
from robo_hw import (
    ActionChunk,
    ArmRefusedError,
    Command,
    ContractError,
    Event,
    Fault,
    HardwareError,
    ManualClock,
    RobotContract,
    SafetyCore,
    State,
    Status,
    SteadyClock,
    Stop,
    SubmitResult,
    example_contracts,
    frame_digest,
)
from robo_hw.transport import (
    Address,
    ClientState,
    ClientStatus,
    Credentials,
    Observation,
    PolicyClient,
    PolicyInfo,
    PolicyRun,
    PolicyServer,
    ProgressEstimate,
    ProgressRun,
    ServedPolicy,
    ServedProgress,
    ServerInfo,
    Timeouts,
    Update,
)
from robo_policies import Execution, evaluate, load_policy, make_env, train_lerobot_policy, train_policy
from robo_policies.cloning.learned import LearnedPolicy
from robo_policies.cloning.trainer import CloningResult
from robo_policies.cloning.training import TrainedPolicy
from robo_policies.envs import ENVIRONMENTS, demonstrate
from robo_policies.envs import make_env as make_env_too
from robo_policies.envs.base import MujocoEnv
from robo_policies.evaluation.results import Evaluation
from robo_policies.rl.policy import RlPolicy
from robo_rm import (
    Prediction,
    check_reward_model,
    check_shaping,
    load_reward_model,
    progress_labels,
    rabc_weights,
    shaped_reward,
    stage_priors,
    store_weights,
)
from robo_rm.metrics import (
    OUTCOMES,
    Interval,
    auroc,
    auroc_interval,
    bootstrap_interval,
    boundaries,
    boundary_counts,
    boundary_f1,
    classify_rollout,
    epic_distance,
    exact_interval,
    expected_calibration_error,
    fpr_at_recall,
    hallucination,
    holm,
    hull,
    kendall_tau,
    mae,
    mean_interval,
    mse,
    recall_at_threshold,
    reliability_bins,
    rho,
    roc_curve,
    stage_accuracy,
    stage_confusion,
    starc_distance,
    student_interval,
    swap_p_value,
    threshold_at_recall,
    trials_needed,
    voc,
    voc_per_episode,
    wilson_interval,
)
from robo_rm.report import (
    EpisodeView,
    Page,
    confusion_figure,
    episode_figure,
    episode_view,
    image_bytes,
    reliability_figure,
    roc_figure,
    save_image,
    scores_figure,
    success_figure,
    weights_figure,
)
from robo_rm.reward_models.checker import Check
from robo_rm.reward_models.protocol import RewardModel
from robo_rm.shaping.checker import Clause
from robo_rm.training.budget import Budget
from robo_rm.weights.rabc import StoreWeights

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]


def of_versions() -> None:
    assert_type(robo_core.__version__, str)
    assert_type(robo_rm.__version__, str)
    assert_type(robo_rm.metrics, ModuleType)


def of_stores(store: DemoStore, episode: Episode, writer: EpisodeWriter, derived: Derived, spec: FeatureSpec) -> None:
    assert_type(DemoStore.open("demos.zarr"), DemoStore)
    assert_type(store[0], Episode)
    assert_type(store.writer(task="tidy"), EpisodeWriter)
    assert_type(store.features, dict[str, FeatureSpec])
    assert_type(episode["action"][2:5], npt.NDArray[Any])
    assert_type(episode.timestamp, F64)
    assert_type(episode.stage, npt.NDArray[np.int16])
    assert_type(episode.stages, list[StageSegment])
    assert_type(episode.success, bool | None)
    assert_type(writer.add({"action": np.zeros(7)}, timestamp=0.0), None)
    assert_type(derived.read("uuid"), dict[str, npt.NDArray[Any]])
    assert_type(StageSegment(0, 3, 1, "grasp").name, str)
    assert_type(spec["shape"], Sequence[int])
    assert_type(FeatureSpec(dtype="float32", shape=(7,), names=None), FeatureSpec)


def of_importers(source: Source, spec: ImportedSpec, error: ImportSourceError) -> None:
    assert_type(import_source(source, "demos.zarr", ImportPlan(stages=["grasp"]), codec="lossless"), ImportResult)
    assert_type(ImportPlan().labels, Mapping[int, npt.NDArray[Any]] | None)
    assert_type(ImportResult(1, 10, 0).bad, Mapping[int, str])
    assert_type(source.frames(SourceEpisode(0, 10, "tidy")), Iterator[SourceFrame])
    assert_type(SourceFrame({"action": np.zeros(7)}, 0.0).timestamp, float)
    assert_type(EpisodeDetails().task, str | None)
    assert_type(ContentHash().add_times(np.zeros(3)), None)
    assert_type(spec["dtype"], str)
    assert_type(ImportSourceError("unreadable"), ImportSourceError)


def of_import_commands(config: ImageConfig, source: Source) -> None:
    assert_type(start_helper(2, "demos.zarr", "zarr.umi"), None)
    assert_type(check_places(config, "umi"), None)
    assert_type(frame_size([128, 128]), tuple[int, int] | None)
    assert_type(image_settings(config), ImageSettings)
    assert_type(check_outcomes({"good": "true"}), dict[str, bool | None])
    assert_type(run_import(config, source, plan_import(source, "demos.zarr")), ImportResult)


def of_robots(core: SafetyCore, status: Status, stop: Stop, event: Event) -> None:
    assert_type(RobotContract.load("tidy_drawer"), RobotContract)
    assert_type(RobotContract.load("tidy_drawer").array("velocity"), F64)
    assert_type(example_contracts(), tuple[str, ...])
    assert_type(SafetyCore(RobotContract.load("tidy_drawer"), ManualClock()), SafetyCore)
    assert_type(ManualClock(1.0).now(), float)
    assert_type(SteadyClock().now(), float)
    assert_type(core.submit(ActionChunk(np.zeros((20, 7)), ("a",), 1, 1, 0.0)), SubmitResult)
    assert_type(core.state, State)
    assert_type(core.fault, Fault | None)
    assert_type(core.status(), Status)
    assert_type(Fault(0.0, "estop", "pressed").joint, str | None)
    assert_type(SubmitResult(True, "").accepted, bool)
    assert_type(status.state, State)
    assert_type(stop.bound, float)
    assert_type(event.kind, str)
    assert_type(frame_digest(np.zeros((4, 4, 3), np.uint8)), int)
    assert_type(ArmRefusedError("no joints"), ArmRefusedError)
    assert_type(ContractError("no joints"), ContractError)
    assert_type(HardwareError("gone"), HardwareError)


def of_commands(command: Command) -> None:
    assert_type((command.time, command.positions, command.velocities), tuple[float, F64, F64])
    assert_type(Command(0.0, np.zeros(7), np.zeros(7), np.zeros(7), State.RUNNING, 0.0), Command)


def of_transport(client: PolicyClient, policy: ServedPolicy, progress: ServedProgress, contract: RobotContract) -> None:
    assert_type(PolicyClient(contract, "/tmp/policy", credentials=Credentials(), timeouts=Timeouts()), PolicyClient)
    assert_type(PolicyServer(contract, "/tmp/policy", policy, progress), PolicyServer)
    assert_type(Address(host="localhost", port=7000).port, int)
    assert_type(Credentials(secret="s").secret, str | None)
    assert_type(Timeouts().connect, float)
    assert_type(client.status(), ClientStatus)
    assert_type(client.status().state, ClientState)
    assert_type(client.status().server, ServerInfo | None)
    assert_type(Update().chunk, ActionChunk | None)
    assert_type(policy.info, PolicyInfo)
    assert_type(policy.start("tidy"), PolicyRun)
    assert_type(policy.start("tidy").act(Observation(0, 0.0, {"observation.state": np.zeros(7)})), npt.ArrayLike)
    assert_type(progress.start("tidy"), ProgressRun)
    assert_type(progress.start("tidy").step(Observation(0, 0.0, {})), ProgressEstimate)


def of_reward_models(model: RewardModel, episode: Episode, task_reward: F64, tensor: torch.Tensor) -> None:
    assert_type(load_reward_model("rm"), RewardModel)
    assert_type(model.predict(episode), Prediction)
    assert_type(model.predict({"observation.images.front": np.zeros((9, 8, 8, 3), np.uint8)}).progress, F32)
    assert_type(Prediction(np.zeros(1, np.float32), np.ones((1, 1), np.float32), np.zeros(1, np.float32)).stage, I64)
    assert_type(check_reward_model(model, episode), list[Check])
    assert_type(progress_labels([(0, 4), (4, 9)], [0.5, 0.5]), F32)
    assert_type(stage_priors([[(0, 4), (4, 9)]]), F64)
    assert_type(rabc_weights(np.zeros(9), 4), F32)
    assert_type(store_weights({"uuid": np.zeros(9)}, 4), StoreWeights)
    assert_type(shaped_reward(task_reward, task_reward, task_reward, task_reward > 0, 0.99), F64)
    assert_type(shaped_reward(tensor, tensor, tensor, tensor, 0.99), torch.Tensor)
    assert_type(check_shaping(lambda task, here, there, ended, discount, steps: task + there), list[Clause])


def of_metrics(values: F64, stage: I64, statistic: Callable[[I64], float], won: npt.NDArray[np.bool_]) -> None:
    assert_type(OUTCOMES, tuple[str, str, str])
    assert_type(Interval(0.5, 0.4, 0.6).low, float)
    assert_type([auroc(values, won), fpr_at_recall(values, won), recall_at_threshold(values, won)], list[float])
    assert_type([expected_calibration_error(values, won), hallucination(stage, stage)], list[float])
    assert_type([kendall_tau(values, values), mae(values, values), mse(values, values)], list[float])
    assert_type([stage_accuracy(stage, stage), threshold_at_recall(values), voc([values])], list[float])
    assert_type([boundary_f1([stage], [stage], 20.0), rho(["success"], ["failure"])], list[float])
    assert_type([epic_distance(values, values, 0.99), starc_distance(values, values, values, 0.99)], list[float])
    assert_type([auroc_interval(0.9, 10, 10), exact_interval(3, 10), wilson_interval(3, 10)], list[Interval])
    assert_type([mean_interval(values), student_interval(values)], list[Interval])
    assert_type(hull(bootstrap_interval(statistic, 10), Interval(0.5, 0.4, 0.6)), Interval)
    assert_type(swap_p_value(lambda swapped: float(swapped.mean()), 10), float)
    assert_type(boundaries(stage), list[tuple[int, int]])
    assert_type(boundary_counts(stage, stage, 20.0), tuple[int, int, int])
    assert_type(classify_rollout(0.9), str)
    assert_type(holm([0.01, 0.2]), F64)
    assert_type(reliability_bins(values, won), list[tuple[float, float, int]])
    assert_type(roc_curve(values, won), tuple[F64, F64])
    assert_type(stage_confusion(stage, stage, 3), I64)
    assert_type(trials_needed(0.05), int)
    assert_type(voc_per_episode([values]), F64)


def of_reports(episode: Episode, prediction: Prediction, stage: I64, values: F64) -> None:
    view = episode_view(episode, prediction, ["grasp"], 20.0)
    assert_type(view, EpisodeView)
    assert_type(episode_figure(view), Figure)
    assert_type(weights_figure([view]), Figure)
    assert_type(confusion_figure(stage, ["grasp"]), Figure)
    assert_type(reliability_figure(values, values > 0), Figure)
    assert_type(roc_figure([("rm", values)], values > 0), Figure)
    assert_type(scores_figure(values, values, [True, None], ["good", "bad"]), Figure)
    assert_type(success_figure([("act", 9, 10)]), Figure)
    assert_type(image_bytes(episode_figure(view)), bytes)
    assert_type(save_image(episode_figure(view), "episode.png"), Path)
    assert_type(Page("Report"), Page)


def of_policies(store: DemoStore, network: torch.nn.Module, env: MujocoEnv) -> None:
    policy = load_policy("policy")
    assert_type(policy, LearnedPolicy | RlPolicy)
    assert_type(policy.act({"observation.state": np.zeros(7)}), F32)
    assert_type(train_policy(store, Path("policy"), Budget(2000)), TrainedPolicy)
    assert_type(train_lerobot_policy(network, store, Path("policy"), Budget(2000)), CloningResult)
    assert_type(evaluate(policy, "tidy_drawer", execution=Execution(horizon=5)), Evaluation)
    assert_type(evaluate(policy, env).interval, tuple[float, float])
    assert_type(Execution().horizon, int | None)
    assert_type(make_env("tidy_drawer"), MujocoEnv)
    assert_type(make_env_too("tidy_drawer"), MujocoEnv)
    assert_type(ENVIRONMENTS, dict[str, tuple[str, str]])
    assert_type(demonstrate(env, "good", np.random.default_rng(0)), Iterator[F32])
    assert_type(env.render(), npt.NDArray[np.uint8])
