"""The whole pose network: crops in, maps of keypoints out."""

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_app.backbones.base import Backbone
from lightning_app.blocks._layers import resize
from lightning_app.heads.base import ContextHead
from lightning_app.tasks.network import Network, require_unit_range
from lightning_app.tasks.pose.codec import Codec


class PoseEstimator(Network):
    """Normalise, backbone, head -> maps of keypoints, whose meaning the codec knows.

    Any map head is one: K classes or K points (times ``codec.maps_per_point``) are the same to it.

    Shape: RGB crops (B, 3, h, w) in 0..1 -> maps (B, M, h', w') of the codec's size for crops of its size, and of the
    same share of others.

    Args:
        channels_last: keep weights and features in the channels-last memory format.
    """

    def __init__(self, backbone: Backbone, head: ContextHead, codec: Codec, *, channels_last: bool = False) -> None:
        super().__init__(backbone, channels_last=channels_last)
        self.head = head
        self.codec = codec
        if channels_last:
            self.to(memory_format=torch.channels_last)

    def forward(self, crops: Tensor) -> Tensor:
        """Maps of the crops.

        Raises:
            InputError: crops of whole numbers, or of floats in 0..255.
        """
        require_unit_range(crops)
        maps: Tensor = self.head(self.features(crops))
        return resize(maps, self._map_size(crops), self.head.align_corners)

    def maps(self, crops: Tensor, flip_indices: Sequence[int] | None = None) -> Tensor:
        """Maps of the crops; with ``flip_indices`` the mean with those of the mirrored crops, mirrored back.

        Args:
            flip_indices: for each point the one that it becomes in a mirror.
        """
        maps: Tensor = self(crops)
        if flip_indices is None:
            return maps
        return (maps + self.codec.flip(self(crops.flip(-1)), flip_indices)) / 2

    def _map_size(self, crops: Tensor) -> tuple[int, int]:
        height, width = (
            side * cells // pixels
            for side, cells, pixels in zip(crops.shape[-2:], self.codec.maps, self.codec.input_size, strict=True)
        )
        return height, width
