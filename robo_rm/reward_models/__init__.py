"""What every reward model is and does: the protocol, its checker, saving and loading."""
