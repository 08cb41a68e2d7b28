"""Instructions through a sentence encoder of a local folder, in any language that it knows.

A folder as `save_pretrained` of ``transformers`` writes it: config.json, model.safetensors and a tokenizer, such as the
multilingual MiniLM or E5 families. The vector of an instruction is the mean of the last layer over its tokens, of
length 1, times the root of its size, like the word vectors that it takes the place of.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from robo_core.errors import MissingPartError, ModelError
from robo_rm.encoders.frozen import weights_hash

WORDS = "words"
"""The setting for hashed words and characters instead of an encoder."""


class SentenceEncoder:
    """Vectors of instructions.

    Args:
        folder: with config.json, model.safetensors and a tokenizer.
        device: cpu or cuda.

    Attributes:
        size: E, numbers of a vector.
        identity: hash of the weights, so that others are not taken for them.

    Raises:
        MissingPartError: ``transformers`` is not installed.
        ModelError: the folder holds no model or tokenizer that can be read, or only pickles.
    """

    def __init__(self, folder: str, device: str = "cpu") -> None:
        try:
            import safetensors
            import transformers
        except ImportError as error:
            raise MissingPartError(
                "reward.text=FOLDER needs the package transformers: pip install 'robo-rm[encoders]', or use "
                "reward.text=words"
            ) from error
        root = Path(folder).expanduser()
        if not (root / "config.json").is_file():
            raise ModelError(
                f"reward.text={folder}: there is no config.json in such a folder; give a folder with a sentence "
                "encoder of transformers (config.json, model.safetensors, tokenizer.json), or reward.text=words"
            )
        if not list(root.glob("*.safetensors")):
            raise ModelError(
                f"reward.text={folder} has no model.safetensors; weights in other formats (pickles) are not read"
            )
        verbosity = transformers.logging.get_verbosity()
        transformers.logging.set_verbosity_error()
        try:
            self._tokenizer = transformers.AutoTokenizer.from_pretrained(root, local_files_only=True)
            model = transformers.AutoModel.from_pretrained(root, local_files_only=True, use_safetensors=True)
        # The ways in which the library says that a file is missing or damaged.
        except (
            *(OSError, ValueError, TypeError, KeyError, AttributeError, RuntimeError, ImportError),
            safetensors.SafetensorError,
        ) as error:
            line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise ModelError(f"reward.text={folder} cannot be read: {line.rstrip('.')}") from error
        finally:
            transformers.logging.set_verbosity(verbosity)
        # Of a model with two towers (CLIP, T5) the half that reads.
        reader = getattr(model, "text_model", None) or (
            model.get_encoder() if getattr(model.config, "is_encoder_decoder", False) else model
        )
        self._model: torch.nn.Module = reader.to(device).float().eval().requires_grad_(False)
        self._folder, self._device = folder, device
        self.identity = weights_hash(root)
        self.size = int(self.encode(["a"]).shape[1])

    @torch.no_grad()
    def encode(self, texts: Sequence[str]) -> torch.Tensor:
        """(B, E) float32; zero for a text without words, as where nothing is said."""
        rows = []
        # One by one: the padding of a batch would change the last bits of a sum.
        for text in texts:
            tokens = self._tokenizer(text or " ", truncation=True, return_tensors="pt").to(self._device)
            wanted = {name: tokens[name] for name in ("input_ids", "attention_mask") if name in tokens}
            hidden = self._model(**wanted).last_hidden_state[0].float()
            mean = hidden.mean(dim=0) if len(hidden) else hidden.new_zeros(hidden.shape[-1])
            unit = torch.nn.functional.normalize(mean, dim=0) * mean.shape[0] ** 0.5
            rows.append(unit if text.strip() else torch.zeros_like(unit))
        return torch.stack(rows)
