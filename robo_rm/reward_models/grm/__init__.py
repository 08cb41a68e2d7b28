"""The hop model: signed relative progress between two moments, fused from three perspectives (Robo-Dopamine's GRM)."""
