"""Joint states and camera images on their way to the policy."""
