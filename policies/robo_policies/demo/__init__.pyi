from robo_policies.demo.estimate import describe_time as describe_time
from robo_policies.demo.pipeline import Pipeline as Pipeline
from robo_policies.demo.report import write_report as write_report
from robo_policies.demo.steps import demo_steps as demo_steps
from robo_policies.demo.timing import step_seconds as step_seconds
