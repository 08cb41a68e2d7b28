"""The stage-aware progress model."""
