from robo_policies.cloning.learned import load_policy as load_policy
from robo_policies.cloning.lerobot_training import train_lerobot_policy as train_lerobot_policy
from robo_policies.cloning.settings import Execution as Execution
from robo_policies.cloning.training import train_policy as train_policy
from robo_policies.envs import make_env as make_env
from robo_policies.evaluation.evaluate import evaluate as evaluate
