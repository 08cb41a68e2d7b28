from robo_policies.rl.logging.report import write_report as write_report
from robo_policies.rl.logging.run_logger import RunLogger as RunLogger
