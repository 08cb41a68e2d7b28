from robo_rm.weights.lerobot_form import KAPPA as KAPPA
from robo_rm.weights.lerobot_form import check_chunk as check_chunk
from robo_rm.weights.rabc import check_settings as check_settings
