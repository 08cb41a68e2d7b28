from robo_hw.contract.draft import draft_contract as draft_contract
from robo_hw.contract.joint_limits_file import read_joint_limits as read_joint_limits
from robo_hw.contract.lerobot_units import load_calibration as load_calibration
from robo_hw.contract.urdf import read_urdf as read_urdf
