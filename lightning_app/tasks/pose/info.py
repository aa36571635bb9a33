"""What a network with pretrained weights knows: its keypoints, and whether it looks at crops in a mirror as well."""

from dataclasses import dataclass
from typing import ClassVar

from lightning_app.data.pose.facts import Keypoints
from lightning_app.tasks.info import Info
from lightning_app.tasks.pose.codec import Codec
from lightning_app.tasks.pose.oks import KEYPOINT_THRESHOLD, NMS_THRESHOLD


@dataclass(frozen=True, kw_only=True)
class PoseInfo(Info):
    """``Info``, and what the maps mean.

    Args:
        keypoints: names, bones, mirror pairs and sigmas.
        codec: what the maps mean, and the size of the crops.
        flip_test, nms, keypoint_threshold: of ``PoseTask``, as the weights were measured.
    """

    task: str = "pose"
    keypoints: Keypoints
    codec: Codec
    flip_test: bool = True
    nms: float | None = NMS_THRESHOLD
    keypoint_threshold: float = KEYPOINT_THRESHOLD

    told: ClassVar[str] = "maps"

    @property
    def outputs(self) -> int:
        """Maps, of which a keypoint may have several."""
        return len(self.keypoints.names) * self.codec.maps_per_point
