"""Folders of videos or images, with or without annotated keyframes."""
