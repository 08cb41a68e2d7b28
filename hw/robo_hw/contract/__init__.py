"""The robot contract: joints, limits, cameras, rates, topics."""
