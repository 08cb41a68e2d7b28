"""The safety core: from action chunks to commands within limits."""
