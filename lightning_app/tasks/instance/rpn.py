"""Region proposals: where objects may be."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead, concat_box_prediction_layers
from torchvision.ops import clip_boxes_to_image, nms

from lightning_app.kernels.half import evaluated_in_float32
from lightning_app.tasks.instance.anchors import RATIOS, SCALE, Anchors
from lightning_app.tasks.instance.boxes import QualityMatcher, TwoSidedCoder

Sizes = Sequence[tuple[int, int]]


class ProposalNetwork(RegionProposalNetwork):
    """torchvision's RPN with the anchors, boxes, matching and L1 loss of published weights.

    Of each level the ``before`` boxes with the highest scores are decoded, cut at the picture's edges and thinned by
    NMS (IoU 0.7) within the level; the best ``after`` over all levels remain. Of a picture 256 anchors are learned
    from, half of them on objects where there are so many.

    Args:
        channels: width of the levels.
        strides: image pixels per pixel of each level.
        anchor_scale: sides of an anchor, in strides of its level.

    Paper: https://arxiv.org/abs/1506.01497. Reference: mmdetection 3.3 RPNHead.
    """

    def __init__(self, channels: int, strides: Sequence[int], anchor_scale: float = SCALE) -> None:
        super().__init__(
            Anchors(strides, anchor_scale),
            RPNHead(channels, len(RATIOS)),
            fg_iou_thresh=0.7,
            bg_iou_thresh=0.3,
            batch_size_per_image=256,
            positive_fraction=0.5,
            pre_nms_top_n={"training": 2000, "testing": 1000},
            post_nms_top_n={"training": 1000, "testing": 1000},
            nms_thresh=0.7,
        )
        self.box_coder = TwoSidedCoder((1.0, 1.0, 1.0, 1.0))
        self.proposal_matcher = QualityMatcher(0.7, 0.3, least=0.3)

    def propose(self, levels: Sequence[Tensor], sizes: Sizes) -> list[Tensor]:
        """The proposals of each picture, best first, (n, 4).

        Args:
            sizes: height and width of each picture without its padding.
        """
        objectness, deltas = self.judge(levels)
        return self.select(objectness, deltas, self.anchor_generator.on(levels), sizes)

    @evaluated_in_float32
    def judge(self, levels: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Of each level the logits that anchors hold an object, (B, 3, h, w), and their differences, (B, 12, h, w)."""
        said: tuple[list[Tensor], list[Tensor]] = self.head(levels)
        return said

    def losses(
        self, levels: Sequence[Tensor], sizes: Sizes, boxes: Sequence[Tensor]
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        """The proposals, and the losses of objectness and boxes.

        Args:
            boxes: of the objects in each picture, (n, 4).
        """
        objectness, deltas = self.judge(levels)
        anchors = self.anchor_generator.on(levels)
        with torch.no_grad():
            proposals = self.select(objectness, deltas, anchors, sizes)
            each = [torch.cat(anchors)] * len(sizes)
            labels, matched = self.assign_targets_to_anchors(each, [{"boxes": found} for found in boxes])
            targets = torch.cat(self.box_coder.encode(matched, each))
            positive, negative = (torch.cat(chosen).bool() for chosen in self.fg_bg_sampler(labels))
        logits, codes = concat_box_prediction_layers(objectness, deltas)
        chosen = positive | negative
        count = max(int(chosen.sum()), 1)
        binary = F.binary_cross_entropy_with_logits(
            logits.flatten()[chosen].float(), torch.cat(labels)[chosen], reduction="sum"
        )
        return proposals, {
            "rpn_objectness": binary / count,
            "rpn_box": F.l1_loss(codes[positive], targets[positive].to(codes.dtype), reduction="sum") / count,
        }

    def select(
        self, objectness: Sequence[Tensor], deltas: Sequence[Tensor], anchors: Sequence[Tensor], sizes: Sizes
    ) -> list[Tensor]:
        """The best boxes, from what the head says of each level: (B, 3, h, w) and (B, 12, h, w)."""
        levels = []
        for score, delta, anchor in zip(objectness, deltas, anchors, strict=True):
            flat = score.detach().permute(0, 2, 3, 1).flatten(1)  # (B, h w 3), in the anchors' order
            best, index = flat.topk(torch.sym_min(self.pre_nms_top_n(), flat.shape[1]), dim=1)
            codes = delta.detach().permute(0, 2, 3, 1).reshape(flat.shape[0], -1, 4)
            codes = codes.gather(1, index[..., None].expand(-1, -1, 4)).flatten(0, 1)
            boxes = self.box_coder.decode_single(codes, anchor[index].flatten(0, 1)).view(*index.shape, 4)
            levels.append([*zip(boxes, best.to(boxes.dtype).sigmoid(), strict=True)])
        pictures = []
        for of_picture, size in zip(zip(*levels, strict=True), sizes, strict=True):
            thinned = [self._thin(boxes, scores, size) for boxes, scores in of_picture]
            boxes, scores = (torch.cat(each) for each in zip(*thinned, strict=True))
            pictures.append(boxes[scores.topk(torch.sym_min(self.post_nms_top_n(), scores.shape[0])).indices])
        return pictures

    def _thin(self, boxes: Tensor, scores: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Cut at the edges of the picture, without boxes of no size, and without those that better ones cover."""
        boxes = clip_boxes_to_image(boxes, size)
        sized = (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
        boxes, scores = boxes[sized], scores[sized]
        keep = nms(boxes, scores, self.nms_thresh)
        return boxes[keep], scores[keep]
