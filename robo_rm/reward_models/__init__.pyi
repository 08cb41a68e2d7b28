from robo_rm.reward_models.calibration import CALIBRATION as CALIBRATION
from robo_rm.reward_models.calibration import check_can_keep as check_can_keep
from robo_rm.reward_models.calibration import write_calibration as write_calibration
from robo_rm.reward_models.registry import FitRequest as FitRequest
from robo_rm.reward_models.registry import RewardSettings as RewardSettings
from robo_rm.reward_models.registry import kind_of_settings as kind_of_settings
from robo_rm.reward_models.saving import load_reward_model as load_reward_model
