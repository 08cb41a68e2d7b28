"""Replay buffers in Zarr: Diffusion Policy and UMI."""
