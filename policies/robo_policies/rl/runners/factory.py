"""Make the runner and the learner that a run's settings ask for."""

from __future__ import annotations

from dataclasses import dataclass

from robo_core.console import say
from robo_core.errors import ConfigError, MissingPartError
from robo_policies.rl.algorithms.iql import Iql
from robo_policies.rl.algorithms.multi_critic_sac import MultiCriticSac
from robo_policies.rl.algorithms.occupancy_penalty import ChiSquaredPenalty, PenalizedSac
from robo_policies.rl.algorithms.preference_reward import learn_preferences, relabel_with
from robo_policies.rl.algorithms.sac import Sac
from robo_policies.rl.imitation.self_imitation import SelfImitation
from robo_policies.rl.modules.normalization import RunningMeanStd
from robo_policies.rl.runners.off_policy_runner import OffPolicyRunner
from robo_policies.rl.runners.offline_runner import OfflineRunner
from robo_policies.rl.runners.runner import RunContext, Runner
from robo_policies.rl.settings import IqlSettings, RunSettings, SacSettings
from robo_policies.rl.storage.replay_buffer import ReplayBuffer
from robo_rm.shaping.modes import check_plain, check_settings
from robo_rm.shaping.settings import LEARNER_MODES

POTENTIALS = ("model", "true", "none")
IQL_REWARDS = ("progress", "preferences")


@dataclass(frozen=True)
class LearnerInputs:
    """What a learner is made from besides its settings.

    Attributes:
        observation_size: O, without the potential.
        action_size: A.
        demonstrations: replay buffer of demonstrated transitions, or None.
        statistics: of the observations in them.
        has_prior: whether a behaviour prior acts.
        self_imitation: retrains it, or None.
        device: cpu or cuda.
    """

    observation_size: int
    action_size: int
    demonstrations: ReplayBuffer | None
    statistics: RunningMeanStd
    has_prior: bool
    self_imitation: SelfImitation | None
    device: str


def check_run(settings: RunSettings) -> None:
    """Raise ConfigError for settings that do not fit each other."""
    shaping, learner = settings.shaping, settings.learner
    check_settings(shaping)
    if settings.potential not in POTENTIALS:
        raise ConfigError(f"potential={settings.potential!r} is not known; choose one of: {', '.join(POTENTIALS)}")
    if settings.potential == "model" and not settings.reward_model:
        raise ConfigError("potential=model needs reward_model=FOLDER; train one with robo-rm train-reward")
    if shaping.ensemble and settings.potential != "model":
        raise ConfigError(f"shaping.ensemble={shaping.ensemble} needs reward_model=FOLDER of an ensemble")
    if settings.potential == "none" and shaping.mode != "sparse":
        raise ConfigError(
            f"shaping={shaping.mode} needs a potential: reward_model=FOLDER, or potential=true for the "
            "simulator's own progress"
        )
    if settings.policy and not settings.uses_prior:
        raise ConfigError(f"policy={settings.policy} is a behaviour prior, which learner={learner.name} does not take")
    if not isinstance(learner, SacSettings):
        check_plain(shaping)
    if settings.learning.ignored_states and not settings.uses_demonstrations:
        raise ConfigError(f"learning.ignored_states has no effect on learner={learner.name}; leave it out")
    if shaping.occupancy and not (settings.store and settings.learning.demonstration_fraction > 0):
        raise ConfigError(
            "shaping.occupancy compares with demonstrations; give store=... and learning.demonstration_fraction above 0"
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


def make_runner(settings: RunSettings, context: RunContext, inputs: LearnerInputs) -> Runner:
    """The runner with the learner that the settings ask for.

    Raises:
        ConfigError: a setting of the learner is out of range.
        MissingPartError: Stable-Baselines3 is asked for and not installed.
    """
    if isinstance(settings.learner, SacSettings):
        sac = _make_sac(settings, settings.learner, inputs)
        return OffPolicyRunner(context, sac, inputs.demonstrations, inputs.self_imitation, inputs.statistics)
    if isinstance(settings.learner, IqlSettings):
        return _make_offline_runner(settings, settings.learner, context, inputs)
    try:
        # Stable-Baselines3 is an optional part.
        from robo_policies.rl.runners.sb3 import Sb3Runner
    except ImportError as error:
        raise MissingPartError(
            "Stable-Baselines3 is not installed; learner=sb3_sac and learner=sb3_ppo need it: pip install 'robo-rm[rl]'"
        ) from error
    return Sb3Runner(context, settings.learner, inputs.device)


def _make_sac(settings: RunSettings, learner: SacSettings, inputs: LearnerInputs) -> Sac | PenalizedSac:
    scaling = inputs.statistics.mean_and_scale()
    sizes = (inputs.observation_size + 1, inputs.action_size)
    mode, occupancy, seed = settings.shaping.mode, settings.shaping.occupancy, settings.seed
    if mode in LEARNER_MODES:
        sac: Sac = MultiCriticSac(*sizes, learner, seed, mode, inputs.has_prior, inputs.device, scaling)
    else:
        sac = Sac(*sizes, learner, seed, inputs.has_prior, inputs.device, scaling)
    if not occupancy or inputs.demonstrations is None:
        return sac
    pair_size = inputs.observation_size + inputs.action_size
    penalty = ChiSquaredPenalty(pair_size, occupancy, learner.width, learner.learning_rate, seed, inputs.device)
    return PenalizedSac(sac, penalty, (scaling[0][:-1], scaling[1][:-1]))


def _make_offline_runner(
    settings: RunSettings, learner: IqlSettings, context: RunContext, inputs: LearnerInputs
) -> OfflineRunner:
    demonstrations = inputs.demonstrations
    if demonstrations is None:
        raise ConfigError("learner=iql learns from demonstrations alone; give store=...")
    if learner.reward == "preferences":
        score = learn_preferences(
            demonstrations, learner.preference_steps, learner.preference_margin, learner.width, settings.seed
        )
        relabel_with(demonstrations, score, f"preferences of {demonstrations.version}")
        say(f"the preference score agrees with the reward model on {score.agreement:.1%} of held-out pairs")
    scaling = inputs.statistics.mean_and_scale()
    iql = Iql(inputs.observation_size + 1, inputs.action_size, learner, settings.seed, inputs.device, scaling)
    return OfflineRunner(context, iql, demonstrations)
