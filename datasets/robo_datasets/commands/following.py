"""What follows a command about a store: training a reward model on it."""

from __future__ import annotations

from robo_core.cli.following import beside_store, say_next
from robo_datasets import store as stores


def say_training(store: str) -> None:
    """Print the train-reward command for a store: with the type that needs no labels where it names no stages."""
    stages = stores.read_description(stores.store_path(store))["stages"]
    say_next("train-reward", store=store, reward="" if stages else "hop", out=beside_store(store, "rm"))
