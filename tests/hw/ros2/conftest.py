"""Makes the bridge's modules importable from the checkout."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "hw" / "ros2" / "robo_rm_bridge"))
