"""Which learner a run has, and what each can do."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from robo_core.console import say
from robo_core.errors import ConfigError
from robo_policies.rl.blending import BlendedSac
from robo_policies.rl.learning import Learning
from robo_policies.rl.occupancy import ChiSquared, PenalisedLearner
from robo_policies.rl.sac import Sac
from robo_policies.rl.settings import ControlPpoSettings, ControlSacSettings, IqlSettings, SacSettings
from robo_rm.shaping.modes import check_plain
from robo_rm.shaping.settings import LEARNER_MODES

if TYPE_CHECKING:
    from robo_policies.rl.training import RlTraining, RunSettings

IQL_REWARDS = ("progress", "preferences")


def proposes(settings: RunSettings) -> bool:
    """Whether a cloned policy proposes actions to the learner."""
    return isinstance(settings.learner, SacSettings)


def learns_from_demonstrations(settings: RunSettings) -> bool:
    """Whether demonstrated decisions are in the learner's batches."""
    return not isinstance(settings.learner, ControlSacSettings | ControlPpoSettings)


def check_learner(settings: RunSettings) -> None:
    """Raise ConfigError for settings that the learner cannot have."""
    learner = settings.learner
    if settings.policy and not proposes(settings):
        raise ConfigError(f"policy={settings.policy} proposes actions, which learner={learner.name} does not take")
    if not isinstance(learner, SacSettings):
        check_plain(settings.shaping)
    if settings.learning.unseen and not learns_from_demonstrations(settings):
        raise ConfigError(f"learning.unseen hides nothing from learner={learner.name}; leave it out")
    if settings.shaping.occupancy and not (settings.store and settings.learning.demonstration_share > 0):
        raise ConfigError(
            "shaping.occupancy compares with demonstrations; give store=... and learning.demonstration_share above 0"
        )
    if isinstance(learner, IqlSettings):
        if not settings.store:
            raise ConfigError("learner=iql learns from demonstrations alone; give store=...")
        if learner.reward not in IQL_REWARDS:
            raise ConfigError(
                f"learner.reward={learner.reward!r} is not known; choose one of: {', '.join(IQL_REWARDS)}"
            )
        if learner.reward == "preferences" and settings.potential == "none":
            raise ConfigError(
                "learner.reward=preferences asks a reward model which frame is further: give reward_model=FOLDER, "
                "or potential=true for the simulator's own progress"
            )


def make_learning(run: RlTraining, size: int, folder: Path) -> Learning:
    """The loop with the learner that the run's settings ask for.

    Args:
        run: set up as far as worlds and demonstrations.
        size: O, without the potential.
        folder: for the checkpoint.

    Raises:
        ConfigError: a setting of the learner makes no sense.
        MissingPartError: Stable-Baselines3 is asked for and not installed.
    """
    settings, actions = run.settings, run.dims["action"]
    learner = settings.learner
    shared: dict[str, Any] = {"folder": folder, "fingerprint": run.fingerprint(), "seed": settings.seed}
    if isinstance(learner, ControlSacSettings | ControlPpoSettings):
        from robo_policies.rl.controls import ControlLearning

        return ControlLearning(
            run.learning_worlds(),
            run.evaluation_worlds,
            learner,
            settings.shaping,
            settings.learning,
            device=run.device,
            **shared,
        )
    if isinstance(learner, IqlSettings):
        return _offline(run, learner, size, shared)
    if not isinstance(learner, SacSettings):
        raise ConfigError(f"learner {learner.name!r} is not known; choose one of: sac, iql, sb3_sac, sb3_ppo")
    scaling = run.seen.scaling()
    made = (size + 1, actions, learner, settings.seed)
    sac: Any
    if settings.shaping.mode in LEARNER_MODES:
        sac = BlendedSac(*made, settings.shaping.mode, run.proposes, run.device, scaling)
    else:
        sac = Sac(*made, run.proposes, run.device, scaling)
    if settings.shaping.occupancy and run.demonstrations is not None:
        mean, scale = scaling
        penalty = ChiSquared(
            size + actions, settings.shaping.occupancy, learner.width, learner.learning_rate, settings.seed, run.device
        )
        sac = PenalisedLearner(sac, penalty, (mean[:-1], scale[:-1]))
    return Learning(
        run.learning_worlds(),
        run.evaluation_worlds,
        sac,
        run.demonstrations,
        settings.shaping,
        settings.learning,
        clone=run.clone_again,
        scaling=run.seen,
        **shared,
    )


def _offline(run: RlTraining, learner: IqlSettings, size: int, shared: dict[str, Any]) -> Learning:
    from robo_policies.rl.iql import Iql
    from robo_policies.rl.offline import OfflineLearning
    from robo_policies.rl.preferences import learn_preferences, relabel_with

    settings, shown = run.settings, run.demonstrations
    if shown is None:
        raise ConfigError("learner=iql learns from demonstrations alone; give store=...")
    if learner.reward == "preferences":
        score = learn_preferences(
            shown, learner.preference_steps, learner.preference_margin, learner.width, settings.seed
        )
        relabel_with(shown, score, f"preferences of {shown.version}")
        say(
            f"the score learnt from preferences agrees with the reward model on {score.agreement:.1%} of held-out pairs"
        )
    iql = Iql(size + 1, run.dims["action"], learner, settings.seed, run.device, run.seen.scaling())
    # The policy does not see the potential, so nothing has to be rendered to evaluate it.
    return OfflineLearning(
        run.learning_worlds(blind=True), lambda seed: run.evaluation_worlds(seed, blind=True), iql, shown,
        settings.shaping, settings.learning, **shared,
    )  # fmt: skip
