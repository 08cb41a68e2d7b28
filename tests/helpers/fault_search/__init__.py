"""Random fault sequences against the safety core, and the promises they must not break."""
