"""Simulated environments: `make_env` makes one by name, `demonstrate` asks its scripted operator for actions."""

from robo_policies.envs.registry import ENVIRONMENTS, demonstrate, make_env

__all__ = ["ENVIRONMENTS", "demonstrate", "make_env"]
