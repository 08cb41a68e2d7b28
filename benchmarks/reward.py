"""The stage-aware model against LeRobot's SARM: same episodes, same split, same kept features.

    python benchmarks/reward.py --store bottle.zarr --out reward_benchmark [--encoder FOLDER] [--parts speed ...]
        [--seeds 0] [--sarm-minutes 6] [--every 1] [--slice MINUTES] [--threads 2]

SARM's processor wants CLIP weights from a hub, so both models are fed features directly: those of ``--encoder`` (a
folder with a CLIP), or, where none is given, the first 512 principal components of the training split's images, which
need no weights. Speed does not depend on what the features say. Streaming is timed with a CLIP ViT-B/32 in any case
(random weights where none are given).

Parts: speed (training and offline scoring), streaming, cameras (three of them with the conv encoder, ours alone),
quality. Contenders take turns, figures are medians of rounds. Quality is evaluated on every ``--every``-th frame, the
same ones for all; SARM stands there as released and at our depth, width and learning rate, each trained for as long as
ours and for ``--sarm-minutes``.
Written to OUT/reward.json as it comes; run the same command again to resume, and with ``--slice`` it
interrupts itself after so many minutes.
`benchmarks/reward_baselines.py` compares the model with the conv encoder and the baselines.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from contenders.sarm import BATCH, RELEASED, Sarm, Shape

from robo_core.console import print_table, say
from robo_core.outputs import write_atomically
from robo_datasets import DemoStore
from robo_rm import metrics
from robo_rm.encoders.frozen import FrozenEncoder
from robo_rm.encoders.stored import StoredFeatures
from robo_rm.labels.progress import episode_segments, label_frames
from robo_rm.labels.split import labelled_episodes, split_episodes
from robo_rm.reward_models.frames import input_size, resize
from robo_rm.reward_models.prediction import Prediction
from robo_rm.reward_models.registry import FitRequest
from robo_rm.reward_models.stage.model import StageRewardModel
from robo_rm.reward_models.stage.model_type import describe
from robo_rm.reward_models.stage.trainer import StageObjective
from robo_rm.settings import ConvSettings, FrozenSettings, OptimiserSettings, StageSettings
from robo_rm.training.budget import Budget
from robo_rm.training.data import TrainingData
from robo_rm.training.engine import Engine, Recipe

ROUNDS = 3
PARTS = ("speed", "streaming", "cameras", "quality")
CONTENDERS = 5
OUR_SIZE = Shape(width=128, layers=2, heads=4, rate=1e-3)
LARGE = StageSettings(width=768, layers=8, heads=12)


class PrincipalComponents:
    """A frozen encoder without weights to download: images of 48 x 64 on their first 512 principal components."""

    size = (48, 64)

    def __init__(self, episodes: list[Any], key: str, count: int = 512) -> None:
        torch.manual_seed(0)
        shown = [episode.frames(key, range(0, episode.length, 6), size=self.size) for episode in episodes]
        rows = torch.from_numpy(np.concatenate(shown)).flatten(1).float() / 255
        self.features = min(count, len(rows))
        self.mean = rows.mean(dim=0)
        _, spread, self.basis = torch.pca_lowrank(rows - self.mean, q=self.features, center=False, niter=2)
        self.scale = float(spread[0]) / math.sqrt(len(rows))
        uuids = sorted(episode.uuid for episode in episodes)
        self.identity = {"family": "principal components", "features": self.features, "of": uuids, "camera": key}

    def encode(self, frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.float16]:
        """Features (n, F) of frames (n, H, W, 3)."""
        rows = torch.from_numpy(resize(frames, self.size)).flatten(1).float() / 255
        return np.asarray((((rows - self.mean) @ self.basis) / self.scale).to(torch.float16).numpy())


class Bench:
    """Both contenders on one split of a store."""

    def __init__(self, options: argparse.Namespace, seed: int, until: float) -> None:
        self.options, self.seed, self.until = options, seed, until
        self.store = DemoStore.open(options.store)
        self.key = self.store.cameras[0]
        self.episodes = labelled_episodes(self.store)
        self.train, self.held_out = split_episodes(self.episodes, options.holdout, seed)
        self.encoder: Any
        if options.encoder is not None:
            self.encoder = FrozenEncoder(FrozenSettings(source=str(options.encoder)))
        else:
            self.encoder = PrincipalComponents(self.train, self.key)
        self.kept = StoredFeatures(self.store, self.encoder.identity, [self.key])
        self.kept.make(lambda: self.encoder, self.episodes)

    def ours(self, reward: StageSettings) -> StageObjective:
        """Our model, fresh; every setting at its default but those of the shape."""
        request = FitRequest(
            store=self.store,
            reward=reward,
            folder=Path("unused"),
            encoder=FrozenSettings(),
            cameras=[self.key],
            seed=self.seed,
        )
        description = describe(request, self.train, self.encoder)
        data = TrainingData.load(
            self.train,
            description.priors,
            description.cameras,
            description.state_key,
            2e9,
            features=self.kept,
        )
        return StageObjective(description, data, OptimiserSettings(), self.seed)

    def sarm(self, bfloat16: bool, warmup: int = 500, shape: Shape = RELEASED) -> Sarm:
        """The released model, fresh."""
        stages = len(self.store.stages)
        priors = np.asarray(describe_priors(self.train, stages))
        states = {e.uuid: np.asarray(e["observation.state"][:], np.float32) for e in self.episodes}
        rows = np.concatenate([states[e.uuid] for e in self.train])
        mean, spread = rows.mean(axis=0), rows.std(axis=0) + 1e-6
        return Sarm(
            {e.uuid: self.kept.read(e.uuid, self.key).astype(np.float32) for e in self.episodes},
            {uuid: (state - mean) / spread for uuid, state in states.items()},
            {e.uuid: [(s.stage, s.start, s.end) for s in episode_segments(e, stages)] for e in self.episodes},
            list(self.store.stages),
            priors,
            [e.uuid for e in self.train],
            bfloat16,
            warmup,
            self.seed,
            shape,
        )

    def figures(self, predict: Callable[[Any], Prediction]) -> dict[str, float]:
        """mse, voc and stage accuracy on every so many frames of the held-out episodes, which ``predict`` gives."""
        every = self.options.every
        stages = len(self.store.stages)
        priors = describe_priors(self.train, stages)
        guesses = [predict(episode) for episode in self.held_out]
        truth = [label_frames(episode_segments(e, stages), priors, e.length) for e in self.held_out]
        known = [np.where(t.complete, t.progress, np.nan)[::every] for t in truth]
        return {
            "mse": metrics.mse(np.concatenate([g.progress for g in guesses]), np.concatenate(known)),
            "voc": metrics.voc([g.progress for g in guesses]),
            "stage_accuracy": metrics.stage_accuracy(
                np.concatenate([g.stage for g in guesses]), np.concatenate([t.stage[::every] for t in truth])
            ),
        }


def describe_priors(episodes: list[Any], stages: int) -> npt.NDArray[np.float64]:
    """Stage priors of a training split."""
    from robo_rm.labels.progress import training_priors

    return training_priors(episodes, stages)


def engine_of(objective: StageObjective, steps: int) -> Engine:
    """The engine that trains it, for so many steps."""
    return Engine(objective, Recipe(Budget(steps), objective.settings.average), "cpu")


def our_steps(engine: Engine, count: int) -> float:
    """Supervised frames a second over some steps, the making of batches included."""
    objective = engine.objective
    frames = objective.settings.batch * (objective.description.reward.history + 1)
    start = time.perf_counter()
    for _ in range(count):
        engine.step(objective.batch(engine.steps))
    return count * frames / (time.perf_counter() - start)


def sarm_steps(model: Sarm, count: int) -> float:
    """The same of SARM."""
    start = time.perf_counter()
    frames = sum(model.step() for _ in range(count))
    return frames / (time.perf_counter() - start)


def timed(frames: int, work: Callable[[], Any]) -> float:
    """Frames a second."""
    start = time.perf_counter()
    work()
    return frames / (time.perf_counter() - start)


def speed(bench: Bench) -> dict[str, Any]:
    """Training and offline scoring."""
    ours, large = bench.ours(StageSettings()), bench.ours(LARGE)
    our_engine, large_engine = engine_of(ours, 1000), engine_of(large, 1000)
    theirs = {"fp32": bench.sarm(False), "bf16": bench.sarm(True)}
    training: dict[str, Callable[[], float]] = {
        "ours": lambda: our_steps(our_engine, 60),
        "ours, 768 wide, 8 layers": lambda: our_steps(large_engine, 3),
        "SARM": lambda: sarm_steps(theirs["fp32"], 1),
        "SARM, bf16": lambda: sarm_steps(theirs["bf16"], 2),
    }
    our_steps(our_engine, 5)
    our_steps(large_engine, 1)
    sarm_steps(theirs["bf16"], 1)
    models = {"ours": ours.model({}), "ours, 768 wide, 8 layers": large.model({})}
    episode = bench.held_out[0]
    windows = [theirs["fp32"].window(episode.uuid, t, 0) for t in range(BATCH)]
    block = theirs["fp32"].features[episode.uuid][windows], theirs["fp32"].states[episode.uuid][windows]
    scoring: dict[str, Callable[[], float]] = {
        name: lambda model=model: timed(episode.length, lambda: model.predict(episode))  # type: ignore[misc]
        for name, model in models.items()
    }
    scoring["SARM"] = lambda: timed(BATCH, lambda: theirs["fp32"].reward(*block))
    scoring["SARM, bf16"] = lambda: timed(BATCH, lambda: theirs["bf16"].reward(*block))
    return {
        "training_frames_per_second": rounds(training),
        "scoring_frames_per_second": rounds(scoring),
        "parameters": {
            "ours": count_parameters(ours.network),
            "ours, 768 wide, 8 layers": count_parameters(large.network),
            "SARM": theirs["fp32"].parameters,
        },
    }


def rounds(work: dict[str, Callable[[], float]]) -> dict[str, float]:
    """Medians over rounds in which all take turns."""
    found: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(ROUNDS):
        for name, run in work.items():
            found[name].append(run())
    return {name: round(statistics.median(values), 2) for name, values in found.items()}


def count_parameters(network: torch.nn.Module) -> int:
    """Numbers that are trained."""
    return sum(parameter.numel() for parameter in network.parameters())


def streaming(bench: Bench) -> dict[str, Any]:
    """Milliseconds a frame, images encoded a frame; every contender with a CLIP ViT-B/32."""
    clip = clip_folder(bench.options)
    encoder = FrozenEncoder(FrozenSettings(source=str(clip)))
    request = FitRequest(store=bench.store, reward=StageSettings(), folder=Path("unused"), encoder=FrozenSettings())
    description = replace(describe(request, bench.train, encoder), encoder=FrozenSettings(source=str(clip)))
    model = StageRewardModel(description.network(), description, {})
    episode = bench.held_out[0]
    frames = episode[bench.key][:40]
    states = np.asarray(episode["observation.state"][:40], np.float32)
    stream = model.stream(episode.task)
    for t in range(10):
        stream.step({bench.key: frames[t]}, states[t])
    before = model.frames_encoded
    ours = []
    for t in range(10, 40):
        start = time.perf_counter()
        stream.step({bench.key: frames[t]}, states[t])
        ours.append(1000 * (time.perf_counter() - start))
    encodes = (model.frames_encoded - before) / len(ours)

    sarm = bench.sarm(False)
    half = bench.sarm(True)
    padded = np.zeros((1, 9, 32), np.float32)
    padded[0, :, : states.shape[1]] = states[:9]
    shipped = as_shipped(clip)
    theirs: dict[str, list[float]] = {"SARM": [], "SARM, our encoder and bf16": []}
    for turn in range(6):
        start = time.perf_counter()
        sarm.reward(shipped(frames[turn : turn + 9])[None], padded)
        theirs["SARM"].append(1000 * (time.perf_counter() - start))
        start = time.perf_counter()
        half.reward(encoder.encode(frames[turn : turn + 9]).astype(np.float32)[None], padded)
        theirs["SARM, our encoder and bf16"].append(1000 * (time.perf_counter() - start))
    return {
        "ms_per_frame": {
            "ours": round(statistics.median(ours), 2),
            **{name: round(statistics.median(values[1:]), 2) for name, values in theirs.items()},
        },
        "encodes_per_frame": {"ours": encodes, "SARM": 9.0, "SARM, our encoder and bf16": 9.0},
        "encoder": "given" if bench.options.encoder else "CLIP ViT-B/32 with random weights",
    }


def cameras(bench: Bench) -> dict[str, Any]:
    """Streaming with the conv encoder and three cameras of 320 x 240, as it runs beside a robot."""
    keys = [f"observation.images.{name}" for name in ("left", "right", "front")]
    size = input_size(240, 320, ConvSettings().image_size)
    base = describe(
        FitRequest(store=bench.store, reward=StageSettings(), folder=Path("unused"), cameras=[bench.key]), bench.train
    )
    description = replace(base, cameras=dict.fromkeys(keys, size))
    model = StageRewardModel(description.network(), description, {})
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (20, 240, 320, 3), dtype=np.uint8)
    stream, times = model.stream("task"), []
    for t in range(220):
        seen = {key: images[(t + place) % len(images)] for place, key in enumerate(keys)}
        state = rng.standard_normal(description.state_size).astype(np.float32)
        start = time.perf_counter()
        stream.step(seen, state)
        times.append(1000 * (time.perf_counter() - start))
    return {
        "ms_per_frame": {
            "median": round(statistics.median(times[20:]), 2),
            "99 %": round(float(np.quantile(times[20:], 0.99)), 2),
        },
        "encodes_per_frame": model.frames_encoded / len(times),
    }


def as_shipped(clip: Path) -> Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]]:
    """Images to features as SARM's processor does it: the library's image processor and the model in fp32."""
    from PIL import Image
    from transformers import CLIPImageProcessorFast, CLIPVisionModelWithProjection

    processor = CLIPImageProcessorFast()
    model = CLIPVisionModelWithProjection.from_pretrained(clip).eval()

    def encode(frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        inputs = processor(images=[Image.fromarray(frame) for frame in frames], return_tensors="pt")
        with torch.no_grad():
            return np.asarray(model(**inputs).image_embeds.numpy())

    return encode


def clip_folder(options: argparse.Namespace) -> Path:
    """The CLIP that was given, or one of random weights, made once."""
    if options.encoder is not None:
        return Path(options.encoder)
    folder: Path = options.out / "random_clip"
    if not (folder / "model.safetensors").exists():
        from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

        torch.manual_seed(0)
        CLIPVisionModelWithProjection(CLIPVisionConfig(patch_size=32)).save_pretrained(folder)
    return folder


def our_quality(bench: Bench) -> dict[str, Any]:
    """Held-out figures of ours at its default budget."""
    torch.manual_seed(bench.seed)
    ours = bench.ours(StageSettings())
    frames = sum(episode.length for episode in bench.train)
    steps = Budget(None, None, 7.0).over(frames, ours.settings.batch * 9).steps or 0
    start = time.monotonic()
    engine = engine_of(ours, steps)
    for step in range(steps):
        engine.step(ours.batch(step))
    seconds = time.monotonic() - start
    engine.finish()
    model, every = ours.model({}), bench.options.every

    def predict(episode: Any) -> Prediction:
        whole = model.predict(episode)
        return Prediction(whole.progress[::every], whole.stage_probabilities[::every], whole.uncertainty[::every])

    return {**bench.figures(predict), "seconds": seconds, "steps": steps}


def sarm_quality(bench: Bench, shape: Shape, seconds: float, name: str) -> dict[str, Any] | None:
    """Held-out figures of SARM after so many seconds of training; None where the slice ended before."""
    # A tenth of the training is warm-up: 3 s a step at the released size, a third of one at ours.
    warmup = max(1, round(0.1 * seconds / (3 if shape == RELEASED else 0.3)))
    sarm = bench.sarm(bfloat16=True, warmup=warmup, shape=shape)
    kept = bench.options.out / f"{name}.safetensors"
    if not sarm.fit(seconds, bench.until, kept) or time.monotonic() > bench.until:
        return None
    predict = {e.uuid: sarm.predict(e.uuid, bench.options.every) for e in bench.held_out}
    kept.unlink(missing_ok=True)
    return {**bench.figures(lambda e: predict[e.uuid]), "seconds": sarm.seconds, "steps": sarm.steps}


def quality(bench: Bench, found: dict[str, Any], keep: Callable[[], None]) -> bool:
    """Fill ``found`` with what is missing, contender by contender; False where the slice ended before."""
    if "ours" not in found:
        found["ours"] = our_quality(bench)
        keep()
    long = 60 * bench.options.sarm_minutes
    contenders = {
        "SARM of our size, as long as ours": (OUR_SIZE, found["ours"]["seconds"]),
        "SARM as released, as long as ours": (RELEASED, found["ours"]["seconds"]),
        "SARM of our size": (OUR_SIZE, long),
        "SARM as released": (RELEASED, long),
    }
    for place, (name, (shape, seconds)) in enumerate(contenders.items()):
        if name in found:
            continue
        figures = sarm_quality(bench, shape, seconds, f"sarm_{bench.seed}_{place}")
        if figures is None:
            return False
        found[name] = figures
        keep()
    return True


def show(report: dict[str, Any]) -> None:
    """Print the tables."""
    if "speed" in report:
        part = report["speed"]
        rows = [
            (name, f"{part['parameters'].get(name.removesuffix(', bf16'), 0) / 1e6:.1f}", rate, scoring)
            for (name, rate), scoring in zip(
                part["training_frames_per_second"].items(), part["scoring_frames_per_second"].values(), strict=True
            )
        ]
        print_table("speed", ["model", "parameters, M", "training frames/s", "scoring frames/s"], rows)
    if "streaming" in report:
        part = report["streaming"]
        paced = [(name, ms, part["encodes_per_frame"][name]) for name, ms in part["ms_per_frame"].items()]
        print_table("streaming", ["model", "ms a frame", "images encoded a frame"], paced)
    if "cameras" in report:
        part = report["cameras"]
        held = [(name, ms, round(1000 / ms, 1)) for name, ms in part["ms_per_frame"].items()]
        print_table("three cameras of 320 x 240, conv encoder", ["of frames", "ms", "frames/s"], held)
    for name, part in report.items():
        if name.startswith("quality"):
            judged = [
                (who, *(f"{f[k]:.4f}" for k in ("mse", "voc", "stage_accuracy")), round(f["seconds"]), f["steps"])
                for who, f in part.items()
            ]
            print_table(name, ["model", "mse", "voc", "stage accuracy", "seconds", "steps"], judged)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", required=True, type=Path)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--encoder", type=Path)
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--holdout", type=int, default=8)
    parser.add_argument("--sarm-minutes", type=float, default=6.0)
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--slice", type=float, default=math.inf)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    until = time.monotonic() + 60 * options.slice
    torch.set_num_threads(options.threads)
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "reward.json"
    settings = {
        "store": DemoStore.open(options.store).content_hash(),
        "encoder": str(options.encoder),
        "holdout": options.holdout,
        "sarm_minutes": options.sarm_minutes,
        "every": options.every,
        "threads": options.threads,
    }
    report: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"settings": settings}
    if report["settings"] != settings:
        raise SystemExit(f"{path} belongs to other settings or another store; give another --out")

    def keep() -> None:
        write_atomically(path, json.dumps(report, indent=1))

    for seed in options.seeds:
        bench: Bench | None = None
        first = {"speed": speed, "streaming": streaming, "cameras": cameras} if seed == options.seeds[0] else {}
        for name, run in first.items():
            if name in options.parts and name not in report:
                bench = bench or Bench(options, seed, until)
                say(f"{name} ...")
                report[name] = run(bench)
                keep()
        found = report.setdefault(f"quality_{seed}", {}) if "quality" in options.parts else None
        if found is not None and len(found) < CONTENDERS:
            say(f"quality, seed {seed} ...")
            if not quality(bench or Bench(options, seed, until), found, keep):
                say("the slice is over; run the same command again to resume")
                break
    show({name: part for name, part in report.items() if name != "settings"})
    say(f"wrote {path}")


if __name__ == "__main__":
    main()
