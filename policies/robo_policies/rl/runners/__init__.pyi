from robo_policies.rl.runners.experiment import Experiment as Experiment
