"""Zero-shot progress from a picture and two sentences, after VLM-RM (arXiv 2310.12921): nothing is trained.

With the unit embeddings of an image g, of the goal sentence t and of a baseline sentence b, g is projected on the line
through b and t with the strength alpha, and

    r(g) = 1 - |alpha proj(g) + (1 - alpha) g - t|^2 / 2        progress = (r(g) - r(b)) / (1 - r(b)), held to [0, 1]

so the baseline is 0 and the goal 1. Encoder: a CLIP of `transformers`, from a local folder or, by its name, from the
hub. The saved folder names the encoder and holds a checksum of it, not its weights.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch

from robo_core.errors import ConfigError, MissingPartError, ModelError
from robo_rm.labels.split import store_split
from robo_rm.reward_models.base import InputSpec
from robo_rm.reward_models.baselines.episodes import every_episode
from robo_rm.reward_models.card import plain_card
from robo_rm.reward_models.per_frame import PerFrameModel
from robo_rm.reward_models.placing import stages_and_priors
from robo_rm.reward_models.registry import FitRequest, FitResult, RewardKind
from robo_rm.reward_models.saving import built, read_tensors
from robo_rm.training.cameras import chosen_cameras
from robo_rm.training.device import pick_device
from robo_rm.training.held_out import held_out_figures

NAME = "image_text"
# What CLIP was trained with; a folder's preprocessor_config.json may say otherwise, and nearly none does.
MEAN = (0.48145466, 0.4578275, 0.40821073)
SPREAD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class ImageTextSettings:
    """Zero-shot image-text similarity."""

    name: str = NAME
    """Which reward model this is."""
    clip: str = "openai/clip-vit-base-patch32"
    """A CLIP of transformers: a local folder, or a name on the hub."""
    goal: str = ""
    """Sentence that describes the finished task; the store's most frequent instruction if empty."""
    baseline: str = "a robot arm at a table"
    """Sentence that describes the scene without the task done."""
    alpha: float = 0.5
    """Strength of the projection, 0 to 1."""


@dataclass(frozen=True)
class ImageTextDescription:
    """What, besides the two embeddings, makes the model."""

    stages: list[str]
    priors: list[float]
    cameras: dict[str, tuple[int, int]]
    fps: float
    clip_sha256: str
    reward: ImageTextSettings


class ImageTextModel(PerFrameModel):
    """Similarity of the picture to a sentence; the mean over cameras. It knows no uncertainty (0)."""

    type_name = NAME

    def __init__(
        self,
        clip: Any,
        texts: torch.Tensor,
        description: ImageTextDescription,
        provenance: Mapping[str, Any],
        device: str,
    ) -> None:
        input_spec = InputSpec(
            description.stages, description.priors, dict(description.cameras), None, 0, description.fps
        )
        super().__init__(input_spec, provenance, device)
        self.description = description
        self.clip = clip.to(device).eval().requires_grad_(False)
        self.texts = texts.to(device)

    def features(
        self, images: Mapping[str, npt.NDArray[np.uint8]], state: npt.NDArray[np.float32] | None
    ) -> torch.Tensor:
        """Unit embeddings (n, C, D)."""
        side = int(self.clip.config.vision_config.image_size)
        return torch.stack(
            [_image_embedding(self.clip, prepare(images[key], side), self.device) for key in self.cameras], dim=1
        )

    def read(self, features: torch.Tensor, first: torch.Tensor, task: str | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Progress (n,) and no uncertainty."""
        goal, baseline = self.texts
        alpha = self.description.reward.alpha
        whole = similarity(baseline, goal, baseline, alpha)
        progress = (similarity(features, goal, baseline, alpha) - whole) / (1 - whole).clamp(min=1e-6)
        progress = progress.clamp(0, 1).mean(dim=-1)
        return progress, torch.zeros_like(progress)

    def tensors(self) -> Mapping[str, torch.Tensor]:
        """The embeddings of the two sentences; CLIP's weights stay where they are."""
        return {"texts": self.texts}

    def card(self) -> str:
        """The model card, in Markdown."""
        reward = self.description.reward
        what = f"likeness of the picture to '{reward.goal}', beyond '{reward.baseline}', by {reward.clip}; not trained"
        return plain_card(self, "zero-shot image and text", what)


def similarity(image: torch.Tensor, goal: torch.Tensor, baseline: torch.Tensor, alpha: float) -> torch.Tensor:
    """r of unit vectors (..., D), see the module."""
    line = goal - baseline
    along = ((image - baseline) * line).sum(-1, keepdim=True) / line.square().sum().clamp(min=1e-12)
    moved = alpha * (baseline + along * line) + (1 - alpha) * image
    return 1 - (moved - goal).square().sum(-1) / 2


def prepare(images: npt.NDArray[np.uint8], side: int) -> torch.Tensor:
    """Images (n, H, W, 3) to what CLIP reads (n, 3, side, side): shorter side resized, middle cut out, standardised."""
    height, width = images.shape[1:3]
    scale = side / min(height, width)
    size = (max(side, round(width * scale)), max(side, round(height * scale)))
    top, left = (size[1] - side) // 2, (size[0] - side) // 2
    flag = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    cut = [cv2.resize(image, size, interpolation=flag)[top : top + side, left : left + side] for image in images]
    pixels = torch.from_numpy(np.stack(cut)).permute(0, 3, 1, 2).float() / 255
    return (pixels - torch.tensor(MEAN)[:, None, None]) / torch.tensor(SPREAD)[:, None, None]


def load_clip(source: str) -> tuple[Any, Any, str]:
    """CLIP, its tokenizer, and the SHA-256 over its parameters.

    Raises:
        MissingPartError: transformers is not installed. ModelError: the weights cannot be had.
    """
    try:
        from transformers import AutoTokenizer, CLIPModel
    except ImportError as error:
        raise MissingPartError(
            "reward=image_text needs transformers, which is not installed: pip install transformers"
        ) from error
    local = Path(source).is_dir()
    try:
        clip = CLIPModel.from_pretrained(source, local_files_only=local, use_safetensors=True)
        tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=local)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(
            f"the CLIP weights of {source} cannot be had ({str(error).splitlines()[0]}); give reward.clip=FOLDER "
            "with a CLIP that transformers can read, or a name on the hub while there is a network"
        ) from error
    total = hashlib.sha256()
    for name, tensor in sorted(clip.state_dict().items()):
        total.update(name.encode() + tensor.contiguous().cpu().numpy().tobytes())
    return clip, tokenizer, total.hexdigest()


def embed_texts(clip: Any, tokenizer: Any, sentences: Sequence[str]) -> torch.Tensor:
    """Unit embeddings (n, D) of sentences."""
    words = tokenizer(list(sentences), padding=True, truncation=True, return_tensors="pt")
    with torch.inference_mode():
        hidden = clip.text_model(input_ids=words["input_ids"], attention_mask=words["attention_mask"]).pooler_output
        vectors = clip.text_projection(hidden)
    return torch.nn.functional.normalize(vectors.float(), dim=-1)


def _image_embedding(clip: Any, pixels: torch.Tensor, device: str) -> torch.Tensor:
    hidden = clip.vision_model(pixel_values=pixels.to(device)).pooler_output
    return torch.nn.functional.normalize(clip.visual_projection(hidden).float(), dim=-1)


def fit(request: FitRequest) -> FitResult:
    """Embed the two sentences and write the folder; nothing of the store is learned but its priors and instruction.

    Raises:
        ConfigError: alpha is out of range, or there is no sentence for the goal.
    """
    from robo_rm import __version__

    reward, store = request.reward, request.store
    if not 0 <= reward.alpha <= 1:
        raise ConfigError(f"reward.alpha={reward.alpha}: give a number from 0 to 1")
    train, held_out = store_split(store, every_episode(store), request.holdout, request.seed)
    tasks = [episode.task for episode in train if episode.task]
    goal = reward.goal or max(sorted(set(tasks)), key=tasks.count, default="")
    if not goal or goal == reward.baseline:
        raise ConfigError("give reward.goal='...', a sentence that says what the finished task looks like")
    stages, priors = stages_and_priors(store, train)
    cameras = chosen_cameras(request)
    device = pick_device(request.device)
    if (request.folder / "config.yaml").exists() and not request.overwrite:
        raise ModelError(f"{request.folder} holds a model already; give another out=, or overwrite=true")
    clip, tokenizer, checksum = load_clip(reward.clip)
    provenance: dict[str, Any] = {
        # Nothing is trained: none of these episodes has been learned from.
        "train_uuids": [],
        "holdout_uuids": [episode.uuid for episode in held_out],
        "store": str(store.path),
        "store_hash": store.content_hash(),
        "priors": priors,
        "fps": float(store.fps),
        "encoder": reward.clip,
        "code_version": __version__,
    }
    source = str(Path(reward.clip).resolve()) if Path(reward.clip).is_dir() else reward.clip
    settings = ImageTextSettings(**{**asdict(reward), "goal": goal, "clip": source})
    described = ImageTextDescription(stages, priors, cameras, float(store.fps), checksum, settings)
    texts = embed_texts(clip, tokenizer, [goal, reward.baseline])
    model = ImageTextModel(clip, texts, described, provenance, device)
    figures = held_out_figures(model, held_out) if held_out else {}
    metrics = {**figures, "train_episodes": 0, "holdout_episodes": len(held_out)}
    model.provenance = {**provenance, "figures": {k: v if np.isfinite(v) else None for k, v in metrics.items()}}
    model.save(request.folder, request.config)
    return FitResult(model, metrics)


def load(folder: Path, described: Mapping[str, Any], provenance: Mapping[str, Any], device: str) -> ImageTextModel:
    """Read a saved model and the encoder it names.

    Raises:
        ModelError: the folder is damaged, or the encoder is not the one it was made with.
    """
    description = built(ImageTextDescription, described, folder)
    texts = read_tensors(folder).get("texts")
    if texts is None or texts.ndim != 2 or len(texts) != 2:
        raise ModelError(f"{folder} is damaged: it lacks the embeddings of the two sentences")
    clip, _, checksum = load_clip(description.reward.clip)
    if checksum != description.clip_sha256:
        raise ModelError(f"{description.reward.clip} is not the encoder that {folder} was made with: other weights")
    return ImageTextModel(clip, texts, description, provenance, pick_device(device))


KIND = RewardKind(NAME, ImageTextSettings, fit, load)
