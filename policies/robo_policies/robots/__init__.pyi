from robo_policies.robots.lerobot_arm import LeRobotSettings as LeRobotSettings
from robo_policies.robots.session import run_policy as run_policy
from robo_policies.robots.simulated_arm import SimulatedSettings as SimulatedSettings
