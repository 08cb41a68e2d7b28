from robo_hw.safety.schedule import MODES as MODES
