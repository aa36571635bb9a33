"""Features of a box, from the level that suits its size, or from all of them."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lightning_app.blocks.generalized_attention import GeneralizedAttentionBlock
from lightning_app.kernels.roi_align import roi_align

Regions = Literal["level", "groie"]  # what LevelAlign and AllLevelsAlign are called on the command line
GROIE = {
    "heads": 6,
    "kv_stride": 2,
    "terms": ["query_position"],
    "transposed": True,
}  # the published weights' attention
FINEST = 14  # strides of the finest level that the side of a box has from which on the next level is read


class LevelAlign(nn.Module):
    """RoIAlign from the level floor(log2(sqrt(w h) / (14 s_0))), with as many samples as the box has pixels there.

    Against torchvision's MultiScaleRoIAlign boxes are aligned to pixel centres, the samples follow the box's size, and
    the scales are the levels' own, not guessed from the picture's size.

    Shape: levels (B, C, h_i, w_i), boxes of each picture (n_b, 4) -> (sum of n_b, C, size, size).

    Args:
        strides: image pixels per pixel of each level that is read; further levels are not.
        size: side of what is given for a box.
        channels: width of the levels, which changes nothing here.

    Reference: mmdetection 3.3 SingleRoIExtractor.
    """

    def __init__(self, strides: Sequence[int], size: int, channels: int) -> None:
        super().__init__()
        self.strides, self.size = tuple(strides), size

    def forward(self, levels: Sequence[Tensor], boxes: Sequence[Tensor]) -> Tensor:
        regions = with_picture(boxes)
        level_of = self.levels(regions[:, 1:])
        places = [torch.where(level_of == number)[0] for number in range(len(self.strides))]
        found = torch.cat(
            [
                roi_align(level, regions[here], self.size, 1 / stride)
                for level, stride, here in zip(levels, self.strides, places, strict=False)
            ]
        )
        return torch.zeros_like(found).index_copy(0, torch.cat(places), found)

    def levels(self, boxes: Tensor) -> Tensor:
        """Which level each box is read from."""
        sides = boxes[:, 2:] - boxes[:, :2]
        level = torch.log2(sides.prod(dim=1).sqrt() / (FINEST * self.strides[0]) + 1e-6).floor()
        return level.clamp(0, len(self.strides) - 1).long()


class AllLevelsAlign(nn.Module):
    """GRoIE: RoIAlign from every level, each through a convolution with ReLU, summed, and then attention of position.

    y = attention(sum_l ReLU(conv(align_l(box)))), with one convolution for all levels, two samples a cell and side.

    Shape: as ``LevelAlign``.

    Args:
        kernel: side of the convolution.
        attention: arguments of ``GeneralizedAttentionBlock``; the paper's: six heads, the term "query_position".

    Paper: Rossi et al., A novel Region of Interest Extraction Layer for Instance Segmentation,
    https://arxiv.org/abs/2004.13665. Reference: mmdetection 3.3 GenericRoIExtractor.
    """

    def __init__(
        self,
        strides: Sequence[int],
        size: int,
        channels: int,
        *,
        kernel: int = 5,
        attention: Mapping[str, Any] = GROIE,
    ) -> None:
        super().__init__()
        self.strides, self.size = tuple(strides), size
        self.pre = nn.Sequential(nn.Conv2d(channels, channels, kernel, padding=kernel // 2), nn.ReLU(inplace=True))
        self.post = GeneralizedAttentionBlock(channels, **attention)

    def forward(self, levels: Sequence[Tensor], boxes: Sequence[Tensor]) -> Tensor:
        regions = with_picture(boxes)
        total = levels[0].new_zeros(regions.shape[0], levels[0].shape[1], self.size, self.size)
        for level, stride in zip(levels, self.strides, strict=False):
            found = roi_align(level, regions, self.size, 1 / stride, samples=2)
            total = total + self.pre(found)
        features: Tensor = self.post(total)
        return features


def with_picture(boxes: Sequence[Tensor]) -> Tensor:
    """Boxes of all pictures with the number of theirs in front: (n_b, 4) each -> (sum of n_b, 5)."""
    numbered = [
        torch.cat([each.new_full((each.shape[0], 1), number), each], dim=1) for number, each in enumerate(boxes)
    ]
    return torch.cat(numbered)
