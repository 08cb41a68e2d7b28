"""A policy learned by reinforcement, in a folder, as evaluations and robots run it.

The folder holds ``rl_policy.json`` (its description, and a checksum of the weights), ``rl_policy.safetensors`` (actor,
target critics, cloned behaviour prior), and, where the critics read a learned potential, that reward model in
``reward_model/``. A behaviour prior that came from a policy folder is in ``prior/``.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias, cast

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.torch

from robo_core.errors import ModelError
from robo_core.outputs import write_atomically
from robo_policies.rl.algorithms.multi_critic_sac import MultiCriticSac
from robo_policies.rl.algorithms.sac import Sac
from robo_policies.rl.envs.macro_action import ENVIRONMENT_STATE, STATE, ActionMap
from robo_policies.rl.imitation.behavior_prior import ChunkPolicy, ClonedPrior, PolicyPrior
from robo_policies.rl.modules.mlp_actor import ActorShape, MlpActor
from robo_policies.rl.settings import LEARNERS, SacSettings
from robo_policies.rl.types import BehaviorPrior, Floats
from robo_rm import load_reward_model
from robo_rm.reward_models.baselines.ensemble import with_rule
from robo_rm.shaping.potential import NoPotential, Potential, VideoPotential

CARD, WEIGHTS, REWARD_MODEL, PRIOR = "rl_policy.json", "rl_policy.safetensors", "reward_model", "prior"
FORMAT = 2
ARRAYS = ("low", "high", "reach")
MAX_EPISODES = 64
"""Episodes that can be followed at once."""

Learned: TypeAlias = Sac | MlpActor


@dataclass(frozen=True)
class RlPolicyParts:
    """What a policy folder is made of.

    Attributes:
        policy: acts.
        prior: the cloned behaviour prior, if there is one.
        actions: how actions are carried out.
        dims: key -> D of the observation, in the order of the learner's inputs, and of ``action``.
        reward_model: folder of the reward model whose potential the critics read, or None.
        prior_folder: folder of the policy that is the behaviour prior, or None.
    """

    policy: Learned
    prior: ClonedPrior | None
    actions: ActionMap
    dims: Mapping[str, int]
    reward_model: Path | None
    prior_folder: Path | None


def save_rl_policy(folder: Path, parts: RlPolicyParts, facts: Mapping[str, object]) -> None:
    """Write a policy folder, the card last.

    Args:
        folder: to write to.
        parts: of the policy.
        facts: further entries of the card, such as the environment and the store.
    """
    policy, actions = parts.policy, parts.actions
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {**policy.state(), **(parts.prior.state() if parts.prior is not None else {})}
    write_atomically(folder / WEIGHTS, safetensors.torch.save(tensors))
    for source, name in ((parts.reward_model, REWARD_MODEL), (parts.prior_folder, PRIOR)):
        shutil.rmtree(folder / name, ignore_errors=True)
        if source is not None:
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("training", "checkpoint*", "*.png"))
    # JSON has no infinity: the reach of an absolute command is null.
    arrays = {name: [float(v) if np.isfinite(v) else None for v in getattr(actions, name)] for name in ARRAYS}
    card = {
        "format": FORMAT,
        "dims": dict(parts.dims),
        "actions": {"kind": actions.kind, "action_repeat": actions.action_repeat, **arrays},
        "learner": asdict(policy.settings),
        "actor": policy.description() if isinstance(policy, MlpActor) else None,
        "prior": "cloned" if parts.prior is not None else ("folder" if parts.prior_folder is not None else ""),
        "blend": policy.blend if isinstance(policy, MultiCriticSac) else "",
        "potential": parts.reward_model is not None,
        "weights_sha256": hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest(),
        **facts,
    }
    write_atomically(folder / CARD, json.dumps(card, indent=1, default=str) + "\n")


class RlPolicy:
    """Chooses a macro-action every few steps.

    Attributes:
        folder: where it was loaded from.
        card: the content of ``rl_policy.json``.
        dims: key -> D for each observation key and ``action``.
        cameras: key -> (height, width) of the images that its potential reads; empty without one.
        chunk_size: steps in a macro-action; all of them are carried out.
        execution_horizon: the same.
        follows_episodes: whether `act` must know which episodes its rows belong to.
    """

    kind = "rl"
    observation_steps = 1

    def __init__(
        self,
        folder: Path,
        card: Mapping[str, object],
        policy: Learned,
        actions: ActionMap,
        prior: BehaviorPrior | None,
        reward_model: object,
    ) -> None:
        self.folder, self.card = folder, cast("dict[str, Any]", dict(card))
        self.dims = {key: int(size) for key, size in cast("Mapping[str, int]", card["dims"]).items()}
        self.chunk_size = self.execution_horizon = actions.action_repeat
        self.cameras: dict[str, tuple[int, int]] = {}
        if reward_model is not None:
            self.cameras = _camera_sizes(reward_model)
        self.follows_episodes = reward_model is not None
        self._policy, self._actions, self._prior = policy, actions, prior
        self._potential: Potential = NoPotential()
        if reward_model is not None:
            self._potential = VideoPotential(reward_model, MAX_EPISODES, actions.action_repeat)
        self._known: set[int] = set()

    @property
    def device(self) -> str:
        """Where the networks are."""
        return self._policy.device

    def reset(self) -> None:
        """Start new episodes."""
        self._known = set()

    def act(self, observation: Mapping[str, npt.ArrayLike], which: npt.ArrayLike | None = None) -> Floats:
        """Commands of the next macro-action, (H, A), or (B, H, A) for observations (B, ...).

        Args:
            observation: the state, the environment's state where it was learned with one, and the images of the
                potential, uint8 RGB.
            which: (B,) episodes that the rows belong to, since `reset`; rows count from 0 if not given.

        Raises:
            ModelError: something is missing or of another size than it was trained with.
        """
        missing = [key for key in (*self.dims, *self.cameras) if key != "action" and key not in observation]
        if missing:
            raise ModelError(f"the policy in {self.folder} needs {missing[0]!r}; got {', '.join(sorted(observation))}")
        keys = [key for key in (STATE, ENVIRONMENT_STATE) if key in self.dims]
        single = np.ndim(observation[STATE]) == 1
        inputs = {key: np.asarray(observation[key]) for key in (*keys, *self.cameras)}
        if single:
            inputs = {key: value[None] for key, value in inputs.items()}
        for key in keys:
            if inputs[key].shape[1:] != (self.dims[key],):
                raise ModelError(
                    f"the policy in {self.folder} was trained with {self.dims[key]} values of {key!r}; the observation "
                    f"has {inputs[key].shape[1:]}"
                )
        rows = np.arange(len(inputs[STATE])) if which is None else np.asarray(which, dtype=np.int64)
        states = {key: inputs[key].astype(np.float32) for key in keys}
        potential = self._score(inputs, rows)
        vector = np.concatenate([*states.values(), potential[:, None].astype(np.float32)], axis=1)
        prior_actions = None if self._prior is None else np.clip(self._prior(states), -1, 1).astype(np.float32)
        actions, _ = self._policy.act(vector, explore=False, prior_actions=prior_actions)
        chunks = np.stack([self._actions.commands(s, a) for s, a in zip(states[STATE], actions, strict=True)])
        return np.asarray(chunks[0] if single else chunks, dtype=np.float32)

    def _score(
        self, inputs: Mapping[str, npt.NDArray[np.generic]], rows: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.float64]:
        if len(rows) and int(rows.max()) >= MAX_EPISODES:
            raise ModelError(f"at most {MAX_EPISODES} episodes can be followed at once; asked for row {rows.max()}")
        fresh = np.array([row for row in rows.tolist() if row not in self._known], dtype=np.int64)
        if len(fresh):
            self._potential.begin(fresh)
            self._known |= set(fresh.tolist())
        return self._potential.score(inputs, rows)


def load_rl_policy(folder: Path, device: str, load_policy: Callable[[Path, str], ChunkPolicy]) -> RlPolicy:
    """Read what `save_rl_policy` wrote.

    Args:
        folder: of the policy.
        device: cpu or cuda.
        load_policy: loads the policy folder of the behaviour prior.

    Raises:
        ModelError: a file is missing, damaged or of another format.
    """
    try:
        card = json.loads((folder / CARD).read_text())
        if card["format"] != FORMAT:
            advice = "upgrade robo-rm" if card["format"] > FORMAT else "train it again with robo-rm train-rl"
            raise ModelError(f"{folder / CARD} is of format {card['format']}, this version reads {FORMAT}; {advice}")
        described = card["actions"]
        arrays = {
            name: np.array([np.inf if v is None else v for v in described[name]], dtype=np.float32) for name in ARRAYS
        }
        actions = ActionMap(str(described["kind"]), int(described["action_repeat"]), **arrays)
        raw = (folder / WEIGHTS).read_bytes()
        if hashlib.sha256(raw).hexdigest() != card["weights_sha256"]:
            raise ModelError(f"{folder / WEIGHTS} does not match its checksum; the file was changed or damaged")
        tensors = safetensors.torch.load(raw)
        size = sum(int(size) for key, size in card["dims"].items() if key != "action")
        prior_kind = card["prior"]
        policy = _untrained(card, size, device)
    except (OSError, KeyError, TypeError, ValueError, safetensors.SafetensorError) as error:
        raise ModelError(f"{folder} does not hold a readable policy: {str(error).splitlines()[0]}") from error
    policy.load_state(tensors)
    prior: BehaviorPrior | None = None
    if prior_kind == "cloned":
        prior = cloned = ClonedPrior(size, int(card["dims"]["action"]), policy.settings.width, 0)
        cloned.load_state(tensors)
    elif prior_kind == "folder":
        prior = PolicyPrior(load_policy(folder / PRIOR, device), actions)
    model = load_reward_model(folder / REWARD_MODEL, device) if card["potential"] else None
    rule = card.get("ensemble")
    if model is not None and rule:
        model = with_rule(model, str(rule["rule"]), float(rule["pessimism"]))
    return RlPolicy(folder, card, policy, actions, prior, model)


def reads_potential(policy: Learned) -> bool:
    """Whether the policy needs the potential to act."""
    return not isinstance(policy, MlpActor) or policy.shape.reads_potential


def _untrained(card: Mapping[str, dict[str, object]], size: int, device: str) -> Learned:
    """The networks that a card describes, before their weights are loaded."""
    values = dict(card["learner"])
    learner = LEARNERS[str(values.get("name", "sac"))](**values)  # type: ignore[arg-type]
    if isinstance(learner, SacSettings):
        # Acting needs no losses, and where a policy runs there may be no compiler.
        learner = replace(learner, compile=False)
        sizes = (size + 1, int(cast(int, card["dims"]["action"])))
        has_prior, blend = bool(card["prior"]), str(card.get("blend", ""))
        if blend:
            return MultiCriticSac(*sizes, learner, 0, blend, has_prior, device)
        return Sac(*sizes, learner, 0, has_prior, device)
    actor = card["actor"]
    shape = ActorShape(**{**actor, "widths": tuple(cast("list[int]", actor["widths"]))})  # type: ignore[arg-type]
    return MlpActor(shape, learner, device)


def _camera_sizes(model: object) -> dict[str, tuple[int, int]]:
    """(height, width) of the images that a reward model reads, by key; an ensemble's are its members'."""
    while hasattr(model, "members"):
        model = model.members[0]
    inputs = getattr(model, "input_spec", getattr(model, "description", None))
    assert inputs is not None
    return {key: (int(size[0]), int(size[1])) for key, size in inputs.cameras.items()}
