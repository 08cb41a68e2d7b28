"""The demo's page: what was recorded, what the reward model sees, what the weights do, and what it brought."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from robo_core.cli.following import next_command
from robo_core.outputs import OutputFolder
from robo_datasets import DemoStore
from robo_datasets.store.episode import Episode
from robo_policies.demo.pipeline import read_metrics
from robo_rm.report import (
    EpisodeView,
    Page,
    episode_figure,
    episode_view,
    save_image,
    success_figure,
    weights_figure,
)
from robo_rm.reward_models.prediction import Prediction

POLICIES = {"none": "BC, all frames alike", "rabc": "RA-BC, weighted by reward"}
KINDS: dict[str, Callable[[Episode], bool]] = {
    "good": lambda episode: bool(episode.success) and episode.attributes.get("quality") == "clean",
    "slow": lambda episode: bool(episode.success) and episode.attributes.get("quality") == "slow",
    "failed": lambda episode: episode.success is False,
}

REWARD_FIGURES = {
    "auroc": ("success versus failure by the final progress (AUROC)", "1 is perfect, 0.5 is guessing"),
    "hallucination": (
        "frames of failures whose predicted stage is beyond the true one",
        "0 is best; a policy can learn to exploit a high value",
    ),
    "voc": ("order of progress and time on successes (VOC)", "1: progress always grows"),
    "mse": ("squared error of progress on successes (MSE)", "0.004 is an error of about 6 points in 100"),
    "stage_accuracy": ("frames whose stage is right", "1 is best; most misses lie at the boundaries"),
}


def write_report(out: OutputFolder, seconds: Mapping[str, float]) -> dict[str, Any]:
    """Write ``report.html`` and its images from what the demo's steps left in ``out``.

    Args:
        out: the demo's folder.
        seconds: wall time of each part, in seconds.

    Returns:
        The metrics of the page, flat.

    Raises:
        RoboError: a part's results are missing.
    """
    folder = out.folder
    demos, held_out = DemoStore.open(folder / "demos.zarr"), DemoStore.open(folder / "held_out.zarr")
    reward = read_metrics(folder / "reward_report")
    results = {name: read_metrics(folder / f"evaluation_{name}") for name in POLICIES}
    gain = 100 * (float(results["rabc"]["success_rate"] or 0) - float(results["none"]["success_rate"] or 0))
    page = Page(
        "From demonstrations to a better policy",
        f"{len(demos)} demonstrations of uneven quality, a reward model learned from their video, and two policies "
        f"cloned from the same demonstrations with the same number of training steps: weighting by the learned "
        f"reward changed success by {gain:+.0f} points.",
        "quickstart.md",
        next_command("import lerobot", source="YOUR_DATASET", store="demos.zarr"),
    )
    _success(page, folder, results)
    _demonstrations(page, demos)
    _reward(page, folder, held_out, reward)
    _weights(page, folder, demos)
    page.section("Time")
    page.table(["step", "minutes"], [(name.replace("_", " "), f"{s / 60:.1f}") for name, s in seconds.items()])
    page.write(out.path("report.html"))
    return _flat_metrics(reward, results) | {"gain_points": gain}


def _success(page: Page, folder: Path, results: Mapping[str, Mapping[str, Any]]) -> None:
    page.section("Success of the policies")
    bars = [(POLICIES[name], int(result["successes"]), int(result["episodes"])) for name, result in results.items()]
    figure = success_figure(bars, "Success over the same random starts")
    save_image(figure, folder / "success.png")
    page.image(
        figure,
        "Bars: fraction of the episodes that succeeded. Lines: 95 % Wilson intervals. Both had the same starts.",
        alt="Success: " + "; ".join(f"{name}: {good} of {count}" for name, good, count in bars),
    )
    page.prose(
        "Both policies are the same network (LeRobot's ACT on the state), trained for the same number of steps from "
        "the same demonstrations. The only difference is the weight of each frame in the loss.",
        "One training run each is shown here; the documentation has three seeds, and how much the results differ "
        "between them.",
    )


def _demonstrations(page: Page, demos: DemoStore) -> None:
    page.section("The demonstrations")
    episodes = list(demos)
    count = Counter(str(episode.attributes.get("quality")) for episode in episodes)
    rows = []
    for quality, number in sorted(count.items()):
        members = [episode for episode in episodes if episode.attributes.get("quality") == quality]
        length = np.mean([episode.length for episode in members]) / demos.fps
        rows.append((quality.replace("_", " "), number, sum(bool(e.success) for e in members), f"{length:.0f} s"))
    page.table(["quality", "episodes", "successes", "mean length"], rows)
    page.prose(
        "The learner does not know the quality. The reward model is trained on video, joint states and the stage label "
        "of each frame. The weights use its predictions and whether the episode succeeded."
    )


def _reward(page: Page, folder: Path, held_out: DemoStore, reward: Mapping[str, Any]) -> None:
    from robo_rm import load_reward_model

    page.section("What the reward model sees")
    rows = [(text, reward[key], meaning) for key, (text, meaning) in REWARD_FIGURES.items() if key in reward]
    page.prose(
        f"Evaluated on {len(held_out)} demonstrations recorded apart, from other random starts. All metrics, with "
        "intervals: [the reward model's report](reward_report/report.html)."
    )
    page.table(["metric", "value", "how to read it"], rows)
    model = load_reward_model(folder / "reward_model")
    for kind, fits in KINDS.items():
        episode = next((episode for episode in held_out if fits(episode)), None)
        if episode is None:
            page.prose(f"There is no {kind} episode among the ones held out.")
            continue
        figure = episode_figure(_view(held_out, episode, model.predict(episode)))
        save_image(figure, folder / f"episode_{kind}.jpg")
        caption = f"A {kind} demonstration: predicted progress (blue, with its uncertainty) and true progress (dashed)."
        page.image(figure, caption, alt=f"Film strip of a {kind} demonstration with its progress curves", photo=True)


def _weights(page: Page, folder: Path, demos: DemoStore) -> None:
    page.section("What counts in cloning")
    progress, weights = demos.derived("progress"), demos.derived("weights")
    views = []
    for fits in KINDS.values():
        episode = next((episode for episode in demos if fits(episode)), None)
        if episode is not None:
            view = _view(demos, episode, Prediction(**progress.read(episode.uuid)), images=0)
            views.append(view.with_weights(weights.read(episode.uuid)["weight"]))
    figure = weights_figure(views, "Weights over time")
    save_image(figure, folder / "weights.png")
    means = _mean_weights(demos)
    page.image(
        figure,
        "Frames from which the task advances count; pauses, steps back and failures do not.",
        alt="Weights over time, one demonstration a row; mean weights of all by quality: "
        + ", ".join(f"{quality} {mean}" for quality, mean in means),
    )
    page.table(["quality", "mean weight of a frame"], means)


def _mean_weights(demos: DemoStore) -> list[tuple[str, str]]:
    weights = demos.derived("weights")
    rows = []
    for quality in sorted({str(episode.attributes.get("quality")) for episode in demos}):
        members = [episode.uuid for episode in demos if episode.attributes.get("quality") == quality]
        mean = np.concatenate([weights.read(uuid)["weight"] for uuid in members]).mean()
        rows.append((quality.replace("_", " "), f"{mean:.2f}"))
    return rows


def _view(store: DemoStore, episode: Episode, prediction: Prediction, images: int = 10) -> EpisodeView:
    truth = episode["simulator.progress"][:][:, 0]
    camera = "observation.images.front" if images else None
    options: dict[str, Any] = {"images": images} if images else {}
    return episode_view(episode, prediction, store.stages, store.fps, true_progress=truth, camera=camera, **options)


def _flat_metrics(reward: Mapping[str, Any], results: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    metrics: dict[str, Any] = {f"reward_{key}": reward.get(key) for key in REWARD_FIGURES}
    for name, short in (("none", "bc"), ("rabc", "rabc")):
        for key in ("success_rate", "success_low", "success_high"):
            metrics[f"{short}_{key}"] = results[name][key]
    return metrics
