"""What stands in a proposed box: its class, the box itself, its mask."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.ops import clip_boxes_to_image, roi_align

from lightning_app.data.instance.instances import Instances
from lightning_app.kernels.half import evaluated_in_float32
from lightning_app.kernels.layers import fast_layers
from lightning_app.tasks.instance.boxes import QualityMatcher, TwoSidedCoder, thinned
from lightning_app.tasks.instance.mask_head import MaskHead, Upsample
from lightning_app.tasks.instance.roi_align import AllLevelsAlign, LevelAlign, Regions, with_picture
from lightning_app.tasks.instance.rpn import Sizes

BOX, MASK = 7, 14  # sides of what the heads see of a box


class InstanceHeads(RoIHeads):
    """torchvision's heads of Faster and Mask R-CNN with the pooling, matching and L1 loss of published weights.

    Inside the background is class 0, as in torchvision; what comes in and goes out counts classes from 0 without it.
    Of a picture 512 boxes are learned from, a quarter of them on objects where there are so many.

    Args:
        channels: width of the levels.
        strides: image pixels per pixel of each level that boxes are read from.
        hidden: width of the box head.
        masks: with a mask head.
        regions: how the features of a box are read, see ``RoIAlign``.
        upsample: how the mask head doubles its size.
        overlap: the IoU from which on a box stands for an object.
        precision: by what differences of a box are multiplied.
        agnostic: one box for all classes.
        beta: the differences below which the loss of boxes is quadratic.

    Papers: https://arxiv.org/abs/1506.01497, https://arxiv.org/abs/1703.06870. Reference: mmdetection 3.3.
    """

    def __init__(
        self,
        channels: int,
        strides: Sequence[int],
        num_classes: int,
        *,
        hidden: int = 1024,
        masks: bool = True,
        regions: Regions = "level",
        upsample: Upsample = "deconv",
        score_threshold: float = 0.05,
        max_detections: int = 100,
        overlap: float = 0.5,
        precision: tuple[float, float, float, float] = (10.0, 10.0, 5.0, 5.0),
        agnostic: bool = False,
        beta: float = 0.0,
    ) -> None:
        align = {"level": LevelAlign, "groie": AllLevelsAlign}[regions]
        super().__init__(
            align(strides, BOX, channels),
            TwoMLPHead(channels * BOX**2, hidden),
            FastRCNNPredictor(hidden, num_classes + 1),
            fg_iou_thresh=overlap,
            bg_iou_thresh=overlap,
            batch_size_per_image=512,
            positive_fraction=0.25,
            bbox_reg_weights=None,
            score_thresh=score_threshold,
            nms_thresh=0.5,
            detections_per_img=max_detections,
        )
        self.box_coder = TwoSidedCoder(precision)
        self.proposal_matcher = QualityMatcher(overlap, overlap, least=overlap if masks and not agnostic else None)
        self.beta = beta
        if masks:
            self.mask_roi_pool = align(strides, MASK, channels)
            self.mask_head = MaskHead(channels, num_classes + 1, channels=channels, upsample=upsample)
        if agnostic:
            self.box_predictor.bbox_pred = nn.Linear(hidden, 4)
        for layer, deviation in ((self.box_predictor.cls_score, 0.01), (self.box_predictor.bbox_pred, 0.001)):
            nn.init.normal_(layer.weight, std=deviation)
            nn.init.zeros_(layer.bias)

    @evaluated_in_float32
    def judge(self, levels: Sequence[Tensor], proposals: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Class logits (N, K + 1), the background first, and box differences (N, K + 1, 4) of all proposals."""
        regions = self.box_roi_pool(levels, proposals)
        with fast_layers(regions):
            logits, codes = self.box_predictor(self.box_head(regions))
        return logits, codes.view(codes.shape[0], codes.shape[1] // 4, 4).expand(-1, logits.shape[1], -1)

    def detect(self, levels: Sequence[Tensor], proposals: Sequence[Tensor], sizes: Sizes) -> list[Instances]:
        """What is found in each picture, best first, without masks.

        Args:
            sizes: height and width of each picture without its padding.
        """
        logits, codes = self.judge(levels, proposals)
        return self.pick(logits, codes, proposals, sizes)

    def pick(self, logits: Tensor, codes: Tensor, proposals: Sequence[Tensor], sizes: Sizes) -> list[Instances]:
        """What is found in each picture by what is said of its proposals."""
        scores = logits.to(proposals[0].dtype).softmax(dim=1)[:, 1:]
        counts = [boxes.shape[0] for boxes in proposals]
        pictures = zip(torch.split(scores, counts), torch.split(codes[:, 1:], counts), proposals, sizes, strict=True)
        return [self._pick(*picture) for picture in pictures]

    def refine(self, logits: Tensor, codes: Tensor, proposals: Sequence[Tensor], sizes: Sizes) -> list[Tensor]:
        """Each proposal moved to where its likeliest class says, cut at the edges of the picture."""
        likeliest = logits[:, 1:].argmax(dim=1) + 1
        chosen = codes[torch.arange(codes.shape[0], device=codes.device), likeliest].detach()
        counts = [boxes.shape[0] for boxes in proposals]
        moved = torch.split(self.box_coder.decode_single(chosen, torch.cat(list(proposals))), counts)
        return [clip_boxes_to_image(boxes, size) for boxes, size in zip(moved, sizes, strict=True)]

    def mask_probabilities(self, levels: Sequence[Tensor], found: Sequence[Instances]) -> Tensor:
        """How sure each cell of an object's box is to be the object, (N, 28, 28)."""
        logits = self.mask_logits(levels, found)
        return logits.to(torch.promote_types(logits.dtype, torch.float32)).sigmoid()

    def mask_logits(self, levels: Sequence[Tensor], found: Sequence[Instances]) -> Tensor:
        """The mask of each found object's class, logits (N, 28, 28)."""
        logits = self.mask_head(self.mask_roi_pool(levels, [each.boxes for each in found]))
        labels = torch.cat([each.labels for each in found])
        of_class: Tensor = logits[torch.arange(labels.shape[0], device=labels.device), labels + 1]
        return of_class

    def losses(
        self, levels: Sequence[Tensor], proposals: Sequence[Tensor], sizes: Sizes, targets: Sequence[Instances]
    ) -> dict[str, Tensor]:
        """Losses of the classes, the boxes and the masks."""
        return self.learn(levels, proposals, sizes, targets)[0]

    def learn(
        self, levels: Sequence[Tensor], proposals: Sequence[Tensor], sizes: Sizes, targets: Sequence[Instances]
    ) -> tuple[dict[str, Tensor], list[Tensor]]:
        """The losses, and the proposals that were learned from, refined; the objects' own boxes are not among them."""
        with torch.no_grad():
            boxes, objects, labels, proposed = self._sample(proposals, targets)
            each = zip(targets, objects, boxes, strict=True)
            # where there is no object, any box will do: nothing is learned from its differences
            wanted = [target.boxes[index] if len(target) else box for target, index, box in each]
            goals = torch.cat(self.box_coder.encode(wanted, boxes))
        classes = torch.cat(labels)
        logits, codes = self.judge(levels, boxes)
        positive = classes > 0
        told = codes[positive, classes[positive]]
        count = max(len(classes), 1)
        off = F.smooth_l1_loss(told, goals[positive].to(codes.dtype), beta=self.beta, reduction="sum")
        wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
        terms = {"class": F.cross_entropy(wide, classes, reduction="sum") / count, "box": off / count}
        if self.mask_roi_pool is not None:
            terms["mask"] = self._mask_loss(levels, boxes, objects, labels, targets)
        refined = self.refine(logits, codes, boxes, sizes)
        return terms, [box[keep] for box, keep in zip(refined, proposed, strict=True)]

    def suppress(self, boxes: Tensor, scores: Tensor, labels: Tensor) -> Instances:
        """The best of boxes that overlap within a class, (n, 4) with (n,) scores and labels; the best first."""
        keep = thinned(boxes, scores, labels, self.nms_thresh)[: self.detections_per_img]
        return Instances(boxes[keep], labels[keep], scores[keep])

    def _pick(self, scores: Tensor, codes: Tensor, proposals: Tensor, size: tuple[int, int]) -> Instances:
        """Boxes above the lowest score, which alone are decoded, thinned within each class."""
        proposal, label = torch.where(scores > self.score_thresh)
        boxes = self.box_coder.decode_single(codes[proposal, label], proposals[proposal])
        return self.suppress(clip_boxes_to_image(boxes, size), scores[proposal, label], label)

    def _sample(
        self, proposals: Sequence[Tensor], targets: Sequence[Instances]
    ) -> tuple[list[Tensor], list[Tensor], list[Tensor], list[Tensor]]:
        """Of each picture the boxes to learn from, the object that each stands for, its class (0: none), and whether
        it was proposed.

        The objects' own boxes are among those that are drawn from.
        """
        boxes = [torch.cat([found, target.boxes]) for found, target in zip(proposals, targets, strict=True)]
        objects, labels = [], []
        for found, target in zip(proposals, targets, strict=True):
            index = self.proposal_matcher(self.box_similarity(target.boxes, found))
            index = torch.cat([index, torch.arange(len(target), device=index.device)])
            classes = torch.zeros_like(index)
            classes[index >= 0] = target.labels[index[index >= 0]] + 1
            objects.append(index.clamp(min=0))
            labels.append(classes)
        chosen = self.subsample(labels)

        def take(values: Sequence[Tensor]) -> list[Tensor]:
            return [value[index] for value, index in zip(values, chosen, strict=True)]

        proposed = [index < len(found) for index, found in zip(chosen, proposals, strict=True)]
        return take(boxes), take(objects), take(labels), proposed

    def _mask_loss(
        self,
        levels: Sequence[Tensor],
        boxes: Sequence[Tensor],
        objects: Sequence[Tensor],
        labels: Sequence[Tensor],
        targets: Sequence[Instances],
    ) -> Tensor:
        on_objects = [classes > 0 for classes in labels]
        boxes = [box[on] for box, on in zip(boxes, on_objects, strict=True)]
        logits = self.mask_head(self.mask_roi_pool(levels, boxes))
        classes = torch.cat([label[on] for label, on in zip(labels, on_objects, strict=True)])
        if not len(classes):
            nothing: Tensor = logits.sum() * 0
            return nothing
        with torch.no_grad():
            each = zip(targets, objects, boxes, on_objects, strict=True)
            goals = [mask_goals(target, index[on], box, logits.shape[-1]) for target, index, box, on in each]
        chosen = logits[torch.arange(len(classes), device=classes.device), classes]
        return F.binary_cross_entropy_with_logits(chosen, torch.cat(goals).to(chosen.dtype))


def mask_goals(target: Instances, objects: Tensor, boxes: Tensor, side: int) -> Tensor:
    """What the mask head has to say of each box: 1 where at least half of a cell is the object's, else 0.

    Shape: objects (n,), boxes (n, 4) -> (n, side, side).
    """
    assert target.masks is not None
    if not len(objects):
        return boxes.new_zeros(0, side, side)
    height, width = target.masks.shape[-2:]
    regions = with_picture([clip_boxes_to_image(boxes, (height, width))])
    used, regions[:, 0] = torch.unique(objects, return_inverse=True)
    masks = target.masks[used, None].to(boxes.dtype)
    shares: Tensor = roi_align(masks, regions, side, aligned=True)[:, 0]
    return (shares >= 0.5).to(boxes.dtype)
