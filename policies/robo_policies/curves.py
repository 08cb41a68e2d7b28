"""A loss curve as a picture, with nothing but OpenCV."""

from __future__ import annotations

from pathlib import Path

import numpy as np

WIDTH, HEIGHT, MARGIN = 720, 360, 56
POINTS = 240
INK, LINE, GRID = (60, 60, 60), (160, 90, 20), (225, 225, 225)  # BGR


def draw_curve(path: Path, values: np.ndarray, label: str, unit: str) -> None:
    """Draw ``values`` (n,) against their index on a logarithmic scale, averaged into a few hundred points.

    Raises:
        ValueError: there are no values.
    """
    import cv2

    if len(values) == 0:
        raise ValueError("a curve needs at least one value")
    parts = np.array_split(np.maximum(values.astype(np.float64), 1e-6), min(POINTS, len(values)))
    heights = np.log10([part.mean() for part in parts])
    low, high = float(heights.min()), float(max(heights.max(), heights.min() + 0.1))
    canvas = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)

    def place(share: float, height: float) -> tuple[int, int]:
        x = MARGIN + share * (WIDTH - 2 * MARGIN)
        y = HEIGHT - MARGIN - (height - low) / (high - low) * (HEIGHT - 2 * MARGIN)
        return round(x), round(y)

    def write(text: str, at: tuple[int, int]) -> None:
        cv2.putText(canvas, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.42, INK, 1, cv2.LINE_AA)

    for height in np.linspace(low, high, 5):
        left, right = place(0, height), place(1, height)
        cv2.line(canvas, left, right, GRID, 1)
        write(f"{10**height:.3g}", (4, left[1] + 4))
    shares = np.linspace(0, 1, len(heights)) if len(heights) > 1 else np.zeros(1)
    points = np.array([place(share, height) for share, height in zip(shares, heights, strict=True)], np.int32)
    cv2.polylines(canvas, [points.reshape(-1, 1, 2)], False, LINE, 2, cv2.LINE_AA)
    write(label, (MARGIN, MARGIN - 20))
    write("0", (MARGIN, HEIGHT - MARGIN + 20))
    text = f"{len(values)} {unit}s"
    write(text, (WIDTH - MARGIN - 8 * len(text), HEIGHT - MARGIN + 20))
    encoded, data = cv2.imencode(".png", canvas)
    if not encoded:
        raise ValueError(f"{path} could not be encoded")
    path.write_bytes(data.tobytes())
