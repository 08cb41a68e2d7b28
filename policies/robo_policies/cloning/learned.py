"""A trained policy, loaded from its folder, whoever trained it: ours and LeRobot's own checkpoints alike."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from robo_core.errors import MissingPartError, ModelError
from robo_datasets.store.jpeg import resize
from robo_policies.cloning.checkpoint import read_card
from robo_policies.cloning.lerobot_versions import check_internals, lerobot_version, read_configuration
from robo_policies.cloning.windows import ACTION
from robo_rm.training.device import pick_device

if TYPE_CHECKING:
    import torch

    from robo_policies.cloning.images import Size
    from robo_policies.cloning.steering import Steering
    from robo_policies.rl.policy import RlPolicy

KINDS = ("act", "diffusion")
NOISE_SEED = 0

SavedPolicy: TypeAlias = "LearnedPolicy | RlPolicy"
"""What a policy folder holds."""


class LearnedPolicy:
    """A policy of LeRobot's that turns an observation into a chunk of actions.

    Attributes:
        folder: where it was loaded from.
        card: what ``robo_policy.json`` says; empty for a folder that LeRobot wrote.
        kind: "act" or "diffusion".
        dims: key -> D for each vector of the observation, and ``action``.
        cameras: key -> (height, width) that pictures are brought to.
        observation_steps: observations that are taken, the present one included.
        chunk_size: H, the actions in a chunk.
        execution_horizon: how many of them to carry out before asking again.
    """

    def __init__(self, folder: Path, policy: Any, pre: Any, post: Any, card: Mapping[str, Any]) -> None:
        import torch

        self.folder = folder
        self.card = dict(card)
        self.kind = str(policy.name)
        config = policy.config
        pictures = config.image_features
        self.dims = {key: int(value.shape[0]) for key, value in config.input_features.items() if key not in pictures}
        self.dims[ACTION] = int(config.output_features[ACTION].shape[0])
        self.cameras: dict[str, Size] = {
            key: (int(value.shape[1]), int(value.shape[2])) for key, value in pictures.items()
        }
        self.observation_steps = int(config.n_obs_steps)
        self.chunk_size = int(config.chunk_size if self.kind == "act" else config.horizon - config.n_obs_steps + 1)
        self.execution_horizon = int(config.n_action_steps)
        self._steering: Steering | None = None
        self._policy, self._pre, self._post = policy, pre, post
        self._noise = torch.Generator(config.device)
        self.reset()

    @property
    def device(self) -> str:
        """Where the network is."""
        return str(self._policy.config.device)

    def act(
        self, observation: Mapping[str, npt.ArrayLike], noise: npt.ArrayLike | None = None
    ) -> npt.NDArray[np.float32]:
        """The next actions, in the units of the demonstrations.

        Args:
            observation: key -> (D,) for one environment, (B, D) for several at once, or (B, n, D) for the last n
                observations of each, oldest first; cameras uint8 RGB with (H, W, 3) for D. Other keys are ignored.
                A policy of several observations that gets one takes it for all of them.
            noise: (B, H, A) what a diffusion policy starts from; drawn if not given.

        Returns:
            (H, A) float32, or (B, H, A).

        Raises:
            ModelError: a key is missing, or its size is not what the policy was trained on.
        """
        import torch

        batch, single = {}, False
        for key in (*self.dims, *self.cameras):
            if key == ACTION:
                continue
            if key not in observation:
                kind = "camera" if key in self.cameras else "value"
                raise ModelError(
                    f"the policy in {self.folder} needs the {kind} {key!r}; the observation has {sorted(observation)}"
                )
            values, single = self._stacked(key, np.asarray(observation[key]))
            batch[key] = torch.from_numpy(values if self._takes_time else values[:, -1])
        with torch.no_grad():
            batch = self._pre(batch)
            if self.kind == "diffusion":
                start = None if noise is None else torch.from_numpy(np.asarray(noise, np.float32))
                chunk = self._diffuse(batch, start, observation)
            else:
                from robo_policies.cloning.act import with_a_state

                chunk = self._policy.predict_action_chunk(with_a_state(batch))
            chunk = self._post(chunk)
        actions = chunk.float().numpy()
        return actions[0] if single else actions

    def reset(self) -> None:
        """Start new episodes; the noise of a diffusion policy starts again, so that its episodes can be repeated."""
        self._policy.reset()
        self._noise.manual_seed(NOISE_SEED)

    @property
    def steering(self) -> Steering | None:
        """What steers the chunks to come; None for nothing. ACT has no denoising to steer.

        Raises:
            ModelError: steering is set on a policy that is not a diffusion policy.
        """
        return self._steering

    @steering.setter
    def steering(self, steering: Steering | None) -> None:
        if steering is not None and self.kind != "diffusion":
            raise ModelError(
                f"the policy in {self.folder} is of type {self.kind!r}; only diffusion policies can be steered"
            )
        self._steering = steering

    @property
    def _takes_time(self) -> bool:
        return self.kind == "diffusion"

    def _stacked(self, key: str, values: np.ndarray) -> tuple[np.ndarray, bool]:
        """Values as (B, n, D) float32, or (B, n, 3, H, W) in [0, 1]; and whether they were of one environment."""
        shape: tuple[int, ...] = (self.dims.get(key, 0),)
        if key in self.cameras:
            shape = (*values.shape[-3:-1], 3)
            if values.dtype != np.uint8:
                raise ModelError(
                    f"the policy in {self.folder} takes uint8 RGB pictures (H, W, 3) of {key!r}; got {values.dtype}"
                )
        single = values.ndim == len(shape)
        if values.shape[values.ndim - len(shape) :] != shape or not 0 <= values.ndim - len(shape) <= 2:
            wanted = "pictures (H, W, 3)" if key in self.cameras else f"{shape[0]} values"
            raise ModelError(
                f"the policy in {self.folder} was trained on {wanted} of {key!r}; the observation has shape "
                f"{values.shape}"
            )
        if values.ndim < len(shape) + 2:
            values = values.reshape(-1, 1, *shape).repeat(self.observation_steps, 1)
        elif values.shape[1] != self.observation_steps:
            raise ModelError(
                f"the policy in {self.folder} takes {self.observation_steps} observations; "
                f"{key!r} has {values.shape[1]}"
            )
        if key not in self.cameras:
            return values.astype(np.float32), single
        resized = np.stack([resize(frame, self.cameras[key]) for frame in values.reshape(-1, *shape)])
        pictures = resized.reshape(*values.shape[:2], *self.cameras[key], 3).astype(np.float32) / 255
        return np.moveaxis(pictures, -1, -3), single

    def _diffuse(
        self, batch: dict[str, torch.Tensor], noise: torch.Tensor | None, observation: Mapping[str, npt.ArrayLike]
    ) -> torch.Tensor:
        """All actions from the present one on, (B, H, A), still normalised."""
        import torch

        from robo_policies.cloning.steering import guided_sample

        diffusion, config = self._policy.diffusion, self._policy.config
        if self.cameras:
            batch["observation.images"] = torch.stack([batch[key] for key in config.image_features], -4)
        condition = diffusion._prepare_global_conditioning(batch)
        if noise is not None:
            noise = noise.to(self.device)
        if self.steering is None:
            actions = diffusion.conditional_sample(len(condition), condition, self._noise, noise)
        else:
            seen = {key: np.asarray(value) for key, value in observation.items()}
            past = config.n_obs_steps - 1
            actions = guided_sample(diffusion, condition, self._noise, noise, self.steering, self._post, seen, past)
        chunk: torch.Tensor = actions[:, config.n_obs_steps - 1 :]
        return chunk


def load_policy(folder: str | Path, device: str = "auto") -> SavedPolicy:
    """Load a policy that `robo-rm train-policy`, LeRobot or `robo-rm train-rl` saved.

    Returns:
        For train-rl's folders an `RlPolicy`, for others a `LearnedPolicy`; both are used alike.

    Raises:
        ModelError: the folder is missing, holds no policy, holds one of another kind, or a file is damaged.
        MissingPartError: LeRobot is not installed.
        ConfigError: the device does not exist.
    """
    if (Path(folder) / "rl_policy.json").is_file():
        from robo_policies.rl.policy import load_rl_policy

        return load_rl_policy(Path(folder), pick_device(device), load_learned_policy)
    return load_learned_policy(folder, device)


def load_learned_policy(folder: str | Path, device: str = "auto") -> LearnedPolicy:
    """Load a policy of LeRobot's; errors as in `load_policy`."""
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
    if kind not in KINDS:
        raise ModelError(f"{folder} holds a policy of type {kind!r}; this version runs {' and '.join(KINDS)}")
    written_by = str((card or {}).get("versions", {}).get("lerobot", ""))
    return LearnedPolicy(folder, *_load(folder, kind, pick_device(device), written_by), card or {})


def _load(folder: Path, kind: str, device: str, written_by: str) -> tuple[Any, Any, Any]:
    """LeRobot's policy with its pre- and post-processor."""
    try:
        from lerobot.policies.factory import get_policy_class
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
        config = read_configuration(folder, kind, written_by)
        config.device = device
        # The weights stand in the folder: nothing is to be fetched to start from.
        config.pretrained_backbone_weights = None
        policy = get_policy_class(kind)(config)
        check_internals(policy, kind)
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
        why = str(error).splitlines()[0]
        if written_by not in ("", lerobot_version()):
            why += f" (LeRobot {written_by} wrote it, {lerobot_version()} is installed)"
        raise ModelError(f"{folder} does not hold a readable {kind} policy: {why}") from error
    return policy.to(device).eval(), pre, post
