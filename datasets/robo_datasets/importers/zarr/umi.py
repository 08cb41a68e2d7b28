"""UMI datasets: a replay buffer in a .zarr.zip archive, frames as JPEG XL (hand-held grippers, GoPro cameras).

data/camera0_rgb                   (N, H, W, 3) uint8, one JPEG XL image a chunk
data/robot0_eef_pos                (N, 3) m
data/robot0_eef_rot_axis_angle     (N, 3) rad
data/robot0_gripper_width          (N, 1) m
data/robot0_demo_start_pose, robot0_demo_end_pose, and the same for robot1
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from robo_core.errors import ImportSourceError
from robo_datasets.importers.images import ImageSettings
from robo_datasets.importers.source import SourceEpisode, SourceFrame
from robo_datasets.importers.zarr.diffusion_policy import DiffusionPolicySource
from robo_datasets.importers.zarr.replay_buffer import ACTION, STATE
from robo_datasets.store.features import FeatureSpec

# A GoPro's 60 frames per second are 60 000 / 1001; the dataset does not say.
GOPRO_FPS = 60_000 / 1001
_PARTS = ("eef_pos", "eef_rot_axis_angle", "gripper_width")
ACTIONS = ("next", "none")
_ROBOT = re.compile(r"robot[0-9]+(?=_eef_pos$)")


class UmiSource(DiffusionPolicySource):
    """A UMI archive (or the folder it was unpacked to); see ``robo_datasets.importers.source.Source``.

    Args:
        path: the .zarr.zip file or the .zarr folder.
        cameras: cameras to keep, all by default.
        size: (height, width) to scale frames to.
        fps: frames per second.
        state: arrays of observation.state; position, rotation and gripper width of every robot by default.
        task: the instruction of all episodes.
        action: "next" makes the state of the next frame the action (the last frame's is its own state), which is what
            UMI trains on; "none" leaves actions out.
        images: which way up they are, their colours and scale.
        skip: arrays to leave out, also such as cannot be read.

    Raises:
        ImportSourceError: it is missing, malformed, or of another layout.
        MissingPartError: the package for JPEG XL is not installed.
    """

    format = "umi"
    _camera_suffix = "_rgb"

    def __init__(
        self,
        path: str | Path,
        cameras: Sequence[str] | None = None,
        size: tuple[int, int] | None = None,
        fps: float = GOPRO_FPS,
        state: Sequence[str] | None = None,
        task: str = "",
        action: str = "next",
        images: ImageSettings | None = None,
        skip: Collection[str] = (),
    ) -> None:
        self._action = action
        super().__init__(path, cameras, size, fps, state, task, images=images, skip=skip)

    def frames(self, episode: SourceEpisode) -> Iterator[SourceFrame]:
        """Yield the episode's frames."""
        if not self._makes_actions():
            yield from super().frames(episode)
            return
        states = self._joined_state(episode.number)
        for row, frame in enumerate(super().frames(episode)):
            yield frame._replace(values={**frame.values, ACTION: states[min(row + 1, episode.length - 1)]})

    def _makes_actions(self) -> bool:
        return self._action == "next" and ACTION not in self._buffer.arrays

    def _state_parts(self, state: Sequence[str] | None) -> Sequence[str] | None:
        if state is not None:
            return state
        robots = sorted({match[0] for key in self._buffer.arrays if (match := _ROBOT.match(key))})
        parts = [f"{robot}_{part}" for robot in robots for part in _PARTS]
        missing = [key for key in parts if key not in self._buffer.arrays]
        if not robots or missing:
            raise ImportSourceError(
                f"{self._buffer.files.root} is not a UMI dataset: it lacks {missing or ['robot0_eef_pos']}; "
                f"it has {sorted(self._buffer.arrays)}"
            )
        return parts

    def _features(self) -> dict[str, FeatureSpec]:
        features = super()._features()
        if self._makes_actions():
            features[ACTION] = features[STATE].copy()
        return features
