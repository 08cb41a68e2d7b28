"""Meta-World's tasks and a scripted operator for them."""
