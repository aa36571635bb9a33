"""The whole pose network: crops in, maps of keypoints out."""

from collections.abc import Sequence
from contextlib import nullcontext

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from lightning_app.backbones.base import Backbone
from lightning_app.blocks._layers import resize
from lightning_app.data.pictures import Picture, pixels_of
from lightning_app.data.pose.affine import centre_and_scale, to_image
from lightning_app.data.pose.crops import Cut, cut_out
from lightning_app.heads.base import ContextHead
from lightning_app.kernels.half import ends_in_float32
from lightning_app.tasks.explain import Box, Seen
from lightning_app.tasks.info import evaluating
from lightning_app.tasks.network import Network, require_unit_range
from lightning_app.tasks.pose.codec import STRIDE, Codec
from lightning_app.tasks.pose.info import PoseInfo
from lightning_app.tasks.pose.oks import person_scores
from lightning_app.tasks.pose.poses import Poses
from lightning_app.util.errors import InputError


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

        bf16 keeps 8 bits. The first norms of some backbones, such as EfficientNet's, enlarge its rounding fifty times,
        and maps are read between their pixels: in evaluation under bf16 autocast both ends compute in float32.

        Raises:
            InputError: crops of whole numbers, or of floats in 0..255.
        """
        require_unit_range(crops)
        last = getattr(self.head, "classifier", None)
        with nullcontext() if self.training else ends_in_float32(crops, STRIDE, last):
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

    @property
    def known(self) -> PoseInfo:
        """What the weights know besides their numbers.

        Raises:
            InputError: they are not pretrained.
        """
        info: PoseInfo = super().known
        return info

    def predict(
        self, picture: Picture, boxes: ArrayLike | None = None, *, flip_test: bool | None = None, batch: int = 64
    ) -> Poses:
        """The keypoints of what stands in each box of one photograph, in the order of the boxes, in evaluation mode.

        Args:
            picture: a file, a Pillow image, an array (H, W, 3) of bytes, or a tensor (3, H, W) of floats in 0..1.
            boxes: (N, 4) left, top, right, bottom in its pixels; None looks at the whole picture.
            flip_test: take the mean with the mirrored crops; None is as the weights were measured.
            batch: crops that go through the network together.

        Raises:
            InputError: a picture or boxes that cannot be used, or weights that do not say what they are.
        """
        known, pixels = self.known, pixels_of(picture)
        height, width = pixels.shape[:2]
        corners = _corners([[0, 0, width, height]] if boxes is None else boxes, width, height)
        centres, scales = centre_and_scale(corners, self.codec.input_size)
        mirrored = known.keypoints.flip_indices if (known.flip_test if flip_test is None else flip_test) else None
        photograph, cut = torch.from_numpy(pixels).permute(2, 0, 1), Cut(self.codec.input_size, self.codec.udp)
        count = len(known.keypoints.names)
        points, scores = [torch.zeros(0, count, 2)], [torch.zeros(0, count)]
        with evaluating(self), torch.inference_mode():
            for middle, sides in zip(torch.split(centres, batch), torch.split(scales, batch), strict=True):
                if len(middle):
                    crops = cut_out(photograph, middle, sides, cut).to(self.mean.device, self.mean.dtype) / 255
                    found, sure = (each.float().cpu() for each in self.codec.decode(self.maps(crops, mirrored)))
                    points.append(to_image(found, middle, sides, self.codec.input_size))
                    scores.append(sure)
        sure = torch.cat(scores)
        people = person_scores(torch.ones(len(sure)), sure)
        return Poses(
            torch.cat(points).numpy(), sure.numpy(), people.numpy(), corners.numpy(), known.keypoints, image=pixels
        )

    def seen(self, pixels: Tensor, at: tuple[int, int]) -> Seen:
        """The whole photograph as one crop."""
        height, width = pixels.shape[-2:]
        size = self.codec.input_size
        centre, scale = centre_and_scale(torch.tensor([[0.0, 0, width, height]]), size)
        crop = cut_out(pixels, centre, scale, Cut(size, self.codec.udp)).to(self.mean.device, self.mean.dtype) / 255
        corners = to_image(torch.tensor([[[0.0, 0], [size[1], size[0]]]]), centre, scale, size)
        return Seen(crop, Box(*map(float, corners.flatten())))

    def answer(self, image: Tensor, at: tuple[int, int]) -> tuple[Tensor, str]:
        """The strongest keypoint's map at the cell that covers one pixel, with the keypoint's name."""
        maps = self(image)[0]
        row, column = (
            place * cells // pixels for place, cells, pixels in zip(at, maps.shape[-2:], image.shape[-2:], strict=True)
        )
        names, each = self.known.keypoints.names, self.codec.maps_per_point
        values = maps[::each, row, column]
        strongest = int(values.argmax())
        return values[strongest], f"{names[strongest]}, {values[strongest]:.2f} on its map"

    def _map_size(self, crops: Tensor) -> tuple[int, int]:
        height, width = (
            side * cells // pixels
            for side, cells, pixels in zip(crops.shape[-2:], self.codec.maps, self.codec.input_size, strict=True)
        )
        return height, width


def _corners(boxes: ArrayLike, width: int, height: int) -> Tensor:
    """Boxes (N, 4), each of an extent, and somewhere in the photograph."""
    try:
        corners = torch.as_tensor(boxes, dtype=torch.float32, device="cpu")
    except (TypeError, ValueError, RuntimeError, OverflowError):
        raise InputError("boxes are no table of numbers: give (N, 4) left, top, right, bottom") from None
    corners = corners.reshape(0, 4) if not corners.numel() else corners
    if corners.dim() != 2 or corners.shape[1] != 4:
        raise InputError(f"boxes are of shape {tuple(corners.shape)}: give (N, 4) left, top, right, bottom")
    good = corners.isfinite().all(1) & (corners[:, 2:] > corners[:, :2]).all(1)
    if not good.all():
        place = int((~good).nonzero()[0])
        raise InputError(f"boxes[{place}] is {corners[place].tolist()}: give left < right and top < bottom")
    outside = (corners[:, 2:] <= 0).any(1) | (corners[:, :2] >= corners.new_tensor([width, height])).any(1)
    if outside.any():
        place = int(outside.nonzero()[0])
        raise InputError(
            f"boxes[{place}] is {corners[place].tolist()}, outside the photograph of {width} x {height} pixels: "
            "give pixels of the photograph as it is shown, left, top, right, bottom"
        )
    return corners
