"""What learns: SAC, multi-critic SAC, IQL, and the terms that are learned beside them."""
