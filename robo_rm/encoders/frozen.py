"""Pretrained encoders that stay as they are: CLIP, SigLIP and DINOv2 through ``transformers``.

Images are brought whole to the square that the weights were trained at, never cropped: what happens at the edge of the
image counts. Features are float16 numbers of one frame each, in the same bits whether frames come one by one or many
at once, so that cached features, scoring and a stream agree.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from robo_core.errors import MissingPartError, ModelError
from robo_rm.reward_models.frames import resize
from robo_rm.settings import FrozenSettings
from robo_rm.training.device import autocast, computes_bf16

# Counts up where the same weights would give other features, so that cached ones are made again.
PREPROCESSING = 1
BLOCK = 16
FILES = ("*.json", "*.safetensors", "*.txt", "*.model")

Colours = tuple[float, float, float]


class Family(NamedTuple):
    """The parts of ``transformers`` that hold a family, and the colours that it was trained with."""

    vision: str
    text: str | None
    output: str
    mean: Colours
    std: Colours


FAMILIES = {
    "clip": Family(
        "CLIPVisionModelWithProjection",
        "CLIPTextModelWithProjection",
        "embeds",
        (0.48145466, 0.4578275, 0.40821073),
        (0.26862954, 0.26130258, 0.27577711),
    ),
    "siglip": Family("SiglipVisionModel", "SiglipTextModel", "pooler_output", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "dinov2": Family("Dinov2Model", None, "pooler_output", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}


class FrozenEncoder:
    """An image encoder, and where it has one a text encoder, with the weights of a folder or the hub.

    Args:
        settings: family and source.
        device: cpu or cuda.

    Attributes:
        size: (height, width) of the square it reads.
        features: F, numbers a frame.
        identity: what the features depend on: family, hash of the weights, size, preprocessing.

    Raises:
        MissingPartError: ``transformers`` is not installed.
        ModelError: the weights are not available, are of another family, or exist only as a pickle.
    """

    def __init__(self, settings: FrozenSettings, device: str = "cpu") -> None:
        try:
            import transformers
        except ImportError as error:
            raise MissingPartError(
                f"encoder={settings.name} needs the package transformers: pip install 'robo-rm[encoders]', "
                "or use encoder=conv"
            ) from error
        self.settings, self.device = settings, device
        self._family = FAMILIES[settings.name]
        self._folder = find_weights(settings)
        self._config = _read_json(self._folder / "config.json")
        self._check_family()
        vision = _quietly(lambda: getattr(transformers, self._family.vision), self._folder, settings)
        self._vision = vision.to(device).eval().requires_grad_(False)
        side = int(vision.config.image_size)
        self.size = (side, side)
        colours = self._colours()
        self._mean, self._std = (torch.tensor(values, device=device).view(3, 1, 1) for values in colours)
        self._text: Any = None
        self._tokenizer: Any = None
        self.features = int(self._run(torch.zeros(1, 3, side, side, device=device)).shape[1])
        self.identity: Mapping[str, Any] = {
            "family": settings.name,
            "weights_sha256": weights_hash(self._folder),
            "image_size": side,
            "colours": [list(values) for values in colours],
            "features": self.features,
            "preprocessing": PREPROCESSING,
        }

    def encode(self, frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.float16]:
        """Features (n, F) of frames (n, H, W, 3)."""
        # Without bfloat16 the sums of a batch round otherwise than those of a single frame.
        block = BLOCK if computes_bf16(self.device) else 1
        parts = []
        for start in range(0, len(frames), block):
            part = torch.from_numpy(resize(frames[start : start + block], self.size)).to(self.device)
            pixels = (part.permute(0, 3, 1, 2).float() / 255 - self._mean) / self._std
            parts.append(self._run(pixels).to(torch.float16).cpu().numpy())
        return np.concatenate(parts) if parts else np.zeros((0, self.features), dtype=np.float16)

    def encode_text(self, texts: Sequence[str]) -> npt.NDArray[np.float16]:
        """Features (n, F) of instructions.

        Raises:
            ModelError: the family has no text tower, or the folder no tokenizer.
        """
        if self._text is None:
            self._load_text()
        # SigLIP was trained on texts filled up to the full length.
        fill = "max_length" if self.settings.name == "siglip" else True
        tokens = self._tokenizer(list(texts), padding=fill, truncation=True, return_tensors="pt").to(self.device)
        # SigLIP's tower was trained to read the filling too.
        wanted = ("input_ids",) if self.settings.name == "siglip" else ("input_ids", "attention_mask")
        with torch.inference_mode():
            output = self._text(**{name: tokens[name] for name in wanted})
        name = "text_embeds" if self._family.output == "embeds" else self._family.output
        return np.asarray(output[name].to(torch.float16).cpu().numpy())

    def _run(self, pixels: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode(), autocast(self.device, computes_bf16(self.device)):
            output = self._vision(pixel_values=pixels)
        name = "image_embeds" if self._family.output == "embeds" else self._family.output
        features: torch.Tensor = output[name]
        return features

    def _check_family(self) -> None:
        kind = str(self._config.get("model_type", "")).replace("_vision_model", "")
        if kind != self.settings.name:
            raise ModelError(
                f"encoder.source={self.settings.source} holds a model of the type {kind or 'unknown'!r}, "
                f"not {self.settings.name}; give encoder={kind if kind in FAMILIES else '|'.join(FAMILIES)}"
            )

    def _colours(self) -> tuple[Colours, Colours]:
        path = self._folder / "preprocessor_config.json"
        preprocessor = _read_json(path) if path.exists() else {}
        mean, std = preprocessor.get("image_mean", self._family.mean), preprocessor.get("image_std", self._family.std)
        if len(mean) != 3 or len(std) != 3:
            raise ModelError(f"{path}: image_mean and image_std must be three numbers each")
        return (mean[0], mean[1], mean[2]), (std[0], std[1], std[2])

    def _load_text(self) -> None:
        import transformers

        if self._family.text is None:
            raise ModelError(f"encoder={self.settings.name} has no text tower; use encoder.text=false")
        try:
            self._tokenizer = transformers.AutoTokenizer.from_pretrained(self._folder, local_files_only=True)
        except (OSError, ValueError, TypeError, AttributeError) as error:  # the library's ways to miss a file
            raise ModelError(
                f"{self._folder} holds no tokenizer that can be read ({_first_line(error)}); add its files "
                "(tokenizer.json, tokenizer_config.json), or use encoder.text=false"
            ) from error
        text = self._family.text
        model = _quietly(lambda: getattr(transformers, text), self._folder, self.settings)
        self._text = model.to(self.device).eval().requires_grad_(False)


def find_weights(settings: FrozenSettings) -> Path:
    """The folder with the weights; those of a name on the hub are downloaded once.

    Raises:
        ModelError: they are not available, or exist only as a pickle, which is never read.
    """
    source = settings.source
    folder = Path(source).expanduser()
    looks_like_folder = folder.is_dir() or source.startswith((".", "/", "~")) or source.count("/") != 1
    folder = folder if looks_like_folder else _from_hub(source)
    if not (folder / "config.json").exists():
        raise ModelError(
            f"encoder.source={source}: {'there is no such folder' if not folder.is_dir() else 'no config.json in it'}; "
            "give a folder with config.json and model.safetensors, or a name on the Hugging Face hub"
        )
    if not list(folder.glob("*.safetensors")):
        raise ModelError(
            f"encoder.source={source}: {folder} has no model.safetensors; weights in other formats (pickles) are not "
            "read. Save the model again with save_pretrained(folder)"
        )
    return folder


def weights_hash(folder: Path) -> str:
    """SHA-256 over the weights of a folder."""
    total = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            total.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()


def _from_hub(source: str) -> Path:
    import huggingface_hub
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(huggingface_hub.snapshot_download(source, allow_patterns=list(FILES)))
    except (OSError, ValueError, HFValidationError) as error:
        why = "it cannot be reached" if isinstance(error, LocalEntryNotFoundError) else _first_line(error)
        raise ModelError(
            f"encoder.source={source}: the weights are neither on this machine nor available from the Hugging Face hub "
            f"({why}). Where there is a network, run `hf download {source} --local-dir encoder`, copy "
            "the folder here and give encoder.source=FOLDER; or use encoder=conv, which needs no weights"
        ) from error


def _quietly(kind: Any, folder: Path, settings: FrozenSettings) -> Any:
    """A model with the weights of a folder, without the library's remarks on the half that is left out."""
    import safetensors
    import transformers

    verbosity = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    try:
        model, loading = kind().from_pretrained(
            folder, local_files_only=True, use_safetensors=True, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError, KeyError, safetensors.SafetensorError) as error:
        raise ModelError(f"encoder.source={settings.source} cannot be read: {_first_line(error)}") from error
    finally:
        transformers.logging.set_verbosity(verbosity)
    if loading["missing_keys"] or loading["mismatched_keys"]:
        raise ModelError(
            f"encoder.source={settings.source}: its weights lack {len(loading['missing_keys'])} tensors of "
            f"{type(model).__name__}, such as {sorted(map(str, loading['missing_keys']))[:1]}; "
            "the file is damaged or of another model"
        )
    return model


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read: {_first_line(error)}") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path} is damaged: it is not a JSON object")
    return content


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else type(error).__name__
