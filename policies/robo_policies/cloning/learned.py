"""A trained policy in a folder: saved so that plain LeRobot loads it, loaded with every fault named.

Beside LeRobot's own files stands ``robo_policy.json``: what the policy was trained on, how it is to be executed, and a
checksum of each of LeRobot's files.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from robo_datasets.errors import ConfigError, MissingPartError, ModelError
from robo_datasets.outputs import write_atomically
from robo_policies.cloning.windows import ACTION

if TYPE_CHECKING:
    from lerobot.policies.act.modeling_act import ACTPolicy

CARD = "robo_policy.json"
FORMAT = 1


def pick_device(name: str) -> str:
    """``auto`` becomes cuda where there is one and cpu elsewhere; anything else must exist.

    Raises:
        ConfigError: the device does not exist here.
    """
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name not in ("cpu", "cuda"):
        raise ConfigError(f"device={name!r} is not known; use auto, cpu or cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device=cuda: no CUDA device was found; use device=auto")
    return name


def policy_files(folder: Path) -> list[Path]:
    """The files of LeRobot's that make up the policy in ``folder``."""
    names = ("config.json", "model.safetensors", "policy_preprocessor*", "policy_postprocessor*")
    return sorted(path for name in names for path in folder.glob(name))


def write_card(folder: Path, card: Mapping[str, Any]) -> None:
    """Write ``robo_policy.json``, last of all, with the SHA-256 of each of LeRobot's files."""
    files = {path.name: _sha256(path) for path in policy_files(folder)}
    write_atomically(folder / CARD, json.dumps({"format": FORMAT, **card, "files": files}, indent=1) + "\n")


def read_card(folder: Path) -> dict[str, Any] | None:
    """What ``robo_policy.json`` says, or None where there is none (a folder that LeRobot wrote).

    Raises:
        ModelError: the card is damaged or of a newer format, or a file does not match its checksum.
    """
    path = folder / CARD
    if not path.exists():
        return None
    try:
        card = json.loads(path.read_text())
    except ValueError as error:
        raise ModelError(f"{path} is damaged: {error}") from error
    if not isinstance(card, dict) or card.get("format") != FORMAT:
        raise ModelError(f"{path} is not of format {FORMAT}, which this version reads")
    for name, expected in card.get("files", {}).items():
        if not (folder / name).is_file():
            raise ModelError(f"{folder} lacks {name}; the policy was copied or saved only in part")
        if _sha256(folder / name) != expected:
            raise ModelError(f"{folder / name} does not match its checksum; the file was changed or damaged")
    return card


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class LearnedPolicy:
    """A policy of LeRobot's that turns an observation into a chunk of actions.

    Attributes:
        folder: where it was loaded from.
        card: what ``robo_policy.json`` says; empty for a folder that LeRobot wrote.
        dims: key -> D for each observation key and ``action``.
        chunk_size: H, the actions in a chunk.
        execution_horizon: how many of them to carry out before asking again.
    """

    def __init__(self, folder: Path, policy: ACTPolicy, pre: Any, post: Any, card: Mapping[str, Any]) -> None:
        self.folder = folder
        self.card = dict(card)
        config = policy.config
        self.dims = {key: int(feature.shape[0]) for key, feature in config.input_features.items()}
        self.dims[ACTION] = int(config.output_features[ACTION].shape[0])
        self.chunk_size = int(config.chunk_size)
        self.execution_horizon = int(config.n_action_steps)
        self._policy, self._pre, self._post = policy, pre, post

    @property
    def device(self) -> str:
        """Where the network is."""
        return str(self._policy.config.device)

    def act(self, observation: Mapping[str, Any]) -> np.ndarray:
        """The next actions, in the units of the demonstrations.

        Args:
            observation: key -> (D,) for one environment, or (B, D) for several at once; other keys are ignored.

        Returns:
            (H, A) float32, or (B, H, A).

        Raises:
            ModelError: a key is missing, or its size is not what the policy was trained on.
        """
        import torch

        batch, single = {}, False
        for key, size in self.dims.items():
            if key == ACTION:
                continue
            if key not in observation:
                raise ModelError(
                    f"the policy in {self.folder} needs {key!r}; the observation has {sorted(observation)}"
                )
            values = np.asarray(observation[key], np.float32)
            if values.ndim not in (1, 2) or values.shape[-1] != size:
                raise ModelError(
                    f"the policy in {self.folder} was trained on {size} values of {key!r}; the observation has shape "
                    f"{values.shape}"
                )
            single = values.ndim == 1
            batch[key] = torch.from_numpy(values[None] if single else values)
        with torch.inference_mode():
            chunk = self._post(self._policy.predict_action_chunk(self._pre(batch)))
        actions = chunk.float().numpy()
        return actions[0] if single else actions

    def reset(self) -> None:
        """Start a new episode. ACT keeps nothing between chunks, so this changes nothing; other policies may."""
        self._policy.reset()


def load_policy(folder: str | Path, device: str = "auto") -> LearnedPolicy:
    """Load a policy that `robo-rm train-policy` or LeRobot saved.

    Raises:
        ModelError: the folder is missing, holds no policy, holds one of another kind, or a file is damaged.
        MissingPartError: LeRobot is not installed.
        ConfigError: the device does not exist.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ModelError(f"{folder} is not a folder; give one that `robo-rm train-policy` wrote")
    if not (folder / "config.json").is_file():
        unfinished = (folder / "training").is_dir()
        hint = "its training is unfinished, repeat the same train-policy command" if unfinished else "train one first"
        raise ModelError(f"{folder} holds no policy (no config.json); {hint}")
    card = read_card(folder)
    try:
        kind = json.loads((folder / "config.json").read_text()).get("type")
    except (ValueError, AttributeError) as error:
        raise ModelError(f"{folder / 'config.json'} is damaged: {error}") from error
    if kind != "act":
        raise ModelError(f"{folder} holds a policy of type {kind!r}; this version runs 'act'")
    return _load_act(folder, pick_device(device), card or {})


def _load_act(folder: Path, device: str, card: Mapping[str, Any]) -> LearnedPolicy:
    try:
        from lerobot.configs.policies import PreTrainedConfig
        from lerobot.policies.act.modeling_act import ACTPolicy
        from lerobot.processor import PolicyProcessorPipeline
        from lerobot.processor.converters import policy_action_to_transition, transition_to_policy_action
    except ImportError as error:
        raise MissingPartError(
            f"LeRobot is needed to run {folder} ({error}); pip install 'robo-rm[lerobot]'"
        ) from error
    from draccus.utils import DraccusException
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        config = PreTrainedConfig.from_pretrained(folder)
        config.device = device
        policy = ACTPolicy(config)
        policy.load_state_dict(load_file(folder / "model.safetensors"))
        pre = PolicyProcessorPipeline.from_pretrained(
            folder,
            config_filename="policy_preprocessor.json",
            overrides={"device_processor": {"device": device}},
        )
        post = PolicyProcessorPipeline.from_pretrained(
            folder,
            config_filename="policy_postprocessor.json",
            to_transition=policy_action_to_transition,
            to_output=transition_to_policy_action,
        )
    except (OSError, ValueError, TypeError, KeyError, RuntimeError, SafetensorError, DraccusException) as error:
        raise ModelError(f"{folder} does not hold a readable ACT policy: {str(error).splitlines()[0]}") from error
    return LearnedPolicy(folder, policy.to(device).eval(), pre, post, card)
