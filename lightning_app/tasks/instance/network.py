"""The whole network: photographs in, the objects on them out."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from lightning_app.backbones.base import Backbone
from lightning_app.data.instance.instances import Instances
from lightning_app.data.pictures import Picture, pixels_of
from lightning_app.kernels.half import evaluated_in_float32
from lightning_app.tasks.explain import Box, Seen
from lightning_app.tasks.info import Informed, evaluating
from lightning_app.tasks.instance import photographs
from lightning_app.tasks.instance.anchors import SCALE
from lightning_app.tasks.instance.cascade import CascadeHeads
from lightning_app.tasks.instance.found import Found
from lightning_app.tasks.instance.info import InstanceInfo
from lightning_app.tasks.instance.mask_head import Upsample
from lightning_app.tasks.instance.objects import Objects
from lightning_app.tasks.instance.paste import paste
from lightning_app.tasks.instance.pyramid import BalancedPyramid, CARAFEPyramid, Pyramid
from lightning_app.tasks.instance.roi_align import Regions
from lightning_app.tasks.instance.roi_heads import InstanceHeads
from lightning_app.tasks.instance.rpn import ProposalNetwork, Sizes
from lightning_app.util.errors import InputError

Images = Tensor | Sequence[Tensor]
PYRAMIDS: dict[str, type[Pyramid]] = {"fpn": Pyramid, "carafe": CARAFEPyramid, "libra": BalancedPyramid}
MOST_SCALE = 1024.0  # strides
MOST = 1.5  # of a pixel: 1, and what a sharp resize may overshoot


class InstanceSegmentor(Informed, nn.Module):
    """Mask R-CNN, or Faster R-CNN without masks: resize, normalise, backbone, pyramid, proposals, heads.

    ``segmentor(images)`` finds objects; ``segmentor.losses(images, targets)`` is what training minimises. A photograph
    is resized to ``size`` before objects are looked for, and what is found is told in the photograph's own pixels. In
    training images are taken at the size that they come in, so that the data can vary it.

    Shape: RGB images (3, H, W) each or (B, 3, H, W), in 0..1 -> ``Instances`` of each.

    Args:
        masks: find each object's mask, and not its box alone.
        channels: width of the pyramid, the proposal network and the mask head.
        hidden: width of the box head.
        pyramid: how levels get the news of others: fpn (each from the coarser one, by the nearest pixel), carafe, or
            libra (an fpn, and all from their mean).
        regions: what is read of a box: level (the level that suits its size) or groie (all of them).
        cascade: three rounds of heads, each with the boxes that the one before it moved.
        mask_upsample: how the mask head doubles its size: deconv or carafe.
        size: the longest short and long side that a photograph is looked at in; null looks at it as it is.
        anchor_scale: sides of the boxes that proposals start from, in strides of their level; small things need less.
        score_threshold: objects below are not told.
        max_detections: at most so many objects in a picture.
        mean: of images in 0..1, to normalise with; null is the backbone's.
        std: likewise.
        freeze_norms: the backbone's batch norms keep their statistics in training, as small batches need it.
        channels_last: keep weights and features in the channels-last memory format.

    Raises:
        InputError: levels of the backbone that do not halve from one to the next, or a number that cannot be.

    Papers: https://arxiv.org/abs/1703.06870, https://arxiv.org/abs/1612.03144. Reference: mmdetection 3.3.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        *,
        masks: bool = True,
        channels: int = 256,
        hidden: int = 1024,
        pyramid: Literal["fpn", "carafe", "libra"] = "fpn",
        regions: Regions = "level",
        cascade: bool = False,
        mask_upsample: Upsample = "deconv",
        size: tuple[int, int] | None = (800, 1333),
        anchor_scale: float = SCALE,
        score_threshold: float = 0.05,
        max_detections: int = 100,
        mean: list[float] | None = None,
        std: list[float] | None = None,
        freeze_norms: bool = False,
        channels_last: bool = False,
    ) -> None:
        super().__init__()
        strides = backbone.reductions
        if any(coarse != 2 * fine for fine, coarse in pairwise(strides)):
            raise InputError(
                f"The backbone's levels have strides {strides}: a pyramid needs each twice the one before; choose them "
                "with backbone.out_indices, or take a network of several resolutions, such as resnet50"
            )
        if not 0 <= score_threshold <= 1:
            raise InputError(f"score_threshold {score_threshold}: give a score from 0 to 1")
        if not 0 < anchor_scale <= MOST_SCALE:
            raise InputError(f"anchor_scale {anchor_scale}: give a number above 0, such as {SCALE}")
        for name, count in (("channels", channels), ("hidden", hidden), ("max_detections", max_detections)):
            if count < 1:
                raise InputError(f"{name} {count}: give a number above 0")
        if size and not 0 < size[0] <= size[1]:
            raise InputError(f"image_size {size[0]}, {size[1]}: give the longest short and long side")
        self.backbone = backbone
        self.fpn = PYRAMIDS[pyramid](backbone.channels, channels)
        self.rpn = ProposalNetwork(channels, [*strides, 2 * strides[-1]], anchor_scale)
        self.roi_heads = (CascadeHeads if cascade else InstanceHeads)(
            channels,
            strides,
            num_classes,
            hidden=hidden,
            masks=masks,
            regions=regions,
            upsample=mask_upsample,
            score_threshold=score_threshold,
            max_detections=max_detections,
        )
        self.size, self.masks = size, masks
        self.multiple = max(backbone.size_multiple, self.fpn.coarsest * strides[-1])
        self.freeze_norms, self.channels_last = freeze_norms, channels_last
        self.constants = {"mean": tuple(mean or backbone.mean), "std": tuple(std or backbone.std)}
        for name, values in self.constants.items():
            self.register_buffer(name, torch.tensor(values).view(-1, 1, 1), persistent=False)
        if channels_last:
            self.to(memory_format=torch.channels_last)

    def train(self, mode: bool = True) -> Self:
        """Training mode, but for frozen norms."""
        super().train(mode)
        if self.freeze_norms:
            for module in self.backbone.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self

    def _apply(self, *args: Any, **kwargs: Any) -> Self:
        """After a change of dtype or device the constants are written anew: a cast float32 keeps its rounding."""
        super()._apply(*args, **kwargs)  # type: ignore[no-untyped-call]
        for name, values in self.constants.items():
            like = getattr(self, name)
            setattr(self, name, torch.tensor(values, dtype=like.dtype, device=like.device).view(-1, 1, 1))
        return self

    def forward(self, images: Images) -> list[Instances]:
        """The objects on each image, best first, in its own pixels.

        Raises:
            InputError: no images, images of another shape, of whole numbers, or of floats in 0..255.
        """
        found, masks = self.boxed(images)
        if masks is None:
            return found
        sizes = [(image.shape[-2], image.shape[-1]) for image in images]
        each = zip(found, torch.split(masks, [len(one) for one in found]), sizes, strict=True)
        return [replace(one, masks=paste(mask, one.boxes, size)) for one, mask, size in each]

    def boxed(self, images: Images) -> tuple[list[Instances], Tensor | None]:
        """The objects on each image without their masks, and what the masks are pasted from: (N, 28, 28) in 0..1.

        Shape: as ``forward``; N objects on all images.
        """
        _check(images)
        seen = [self._seen(image) for image in images]
        levels, sizes = self.levels(seen)
        found = self.roi_heads.detect(levels, self.rpn.propose(levels, sizes), sizes)
        masks = self.roi_heads.mask_probabilities(levels, found) if self.masks else None
        return [_in_photograph(*each) for each in zip(found, images, sizes, strict=True)], masks

    def tell_from(self, score: float) -> None:
        """Tell objects of this score too, where fewer are told."""
        for module in self.modules():
            if isinstance(module, InstanceHeads):
                module.score_thresh = min(module.score_thresh, score)

    @property
    def known(self) -> InstanceInfo:
        """What the weights know besides their numbers.

        Raises:
            InputError: they are not pretrained.
        """
        info: InstanceInfo = super().known
        return info

    def predict(self, picture: Picture) -> Objects:
        """The objects of one photograph, best first, in evaluation mode.

        Args:
            picture: a file, a Pillow image, an array (H, W, 3) of bytes, or a tensor (3, H, W) of floats in 0..1.

        Raises:
            InputError: a picture that cannot be used, or weights that do not say what they are.
        """
        classes, pixels = self.known.classes, pixels_of(picture)
        image = torch.from_numpy(pixels).to(self.mean.device).permute(2, 0, 1).to(self.mean.dtype) / 255
        with evaluating(self), torch.inference_mode():
            (seen,) = self([image])
        return Objects(pixels, Found.of(seen, (pixels.shape[0], pixels.shape[1])), classes)

    def seen(self, pixels: Tensor, at: tuple[int, int]) -> Seen:
        """The photograph at the size that it is looked at in."""
        height, width = pixels.shape[-2:]
        image = pixels.to(self.mean.device, self.mean.dtype) / 255
        return Seen(self._seen(image)[None], Box(0, 0, width, height))

    def answer(self, image: Tensor, at: tuple[int, int]) -> tuple[Tensor, str]:
        """The score of the best object whose box holds one pixel, with its class.

        Raises:
            InputError: there is none.
        """
        levels, sizes = self.levels([image[0]])
        (found,) = self.roi_heads.detect(levels, self.rpn.propose(levels, sizes), sizes)
        assert found.scores is not None
        left, top, right, bottom = found.boxes.unbind(1)
        row, column = (place + 0.5 for place in at)
        holding = torch.where((left <= column) & (column <= right) & (top <= row) & (row <= bottom))[0]
        if not len(holding):
            raise InputError("No object is found at this point, so there is no answer to explain: give a point on one")
        best = holding[0]  # the best are in front
        return found.scores[best], f"{self.known.classes[int(found.labels[best])]}, score {found.scores[best]:.2f}"

    def losses(self, images: Images, targets: Sequence[Instances]) -> dict[str, Tensor]:
        """What training minimises: rpn_objectness, rpn_box, class, box, and mask.

        Crowds, and boxes without an extent, are no targets; an image without objects is one all the same.

        Raises:
            InputError: images that cannot be used, or targets without the masks that are to be learned.
        """
        _check(images)
        targets = [_learnable(target, self.masks) for target in targets]
        levels, sizes = self.levels(list(images))
        proposals, terms = self.rpn.losses(levels, sizes, [target.boxes for target in targets])
        return terms | self.roi_heads.losses(levels, proposals, sizes, targets)

    def levels(self, images: Sequence[Tensor]) -> tuple[list[Tensor], Sizes]:
        """The pyramid of images at the size that they are looked at in, and their sizes without padding."""
        sizes = [(image.shape[-2], image.shape[-1]) for image in images]
        batch = photographs.pad([(image - self.mean) / self.std for image in images], self.multiple)
        if self.channels_last:
            batch = batch.contiguous(memory_format=torch.channels_last)
        return self.fpn(self._features(batch)), sizes

    @evaluated_in_float32
    def _features(self, batch: Tensor) -> list[Tensor]:
        levels: list[Tensor] = self.backbone(batch)
        return levels

    def _seen(self, image: Tensor) -> Tensor:
        """A photograph at the size that it is looked at in."""
        if self.size is None:
            return image
        return photographs.resize(image, photographs.seen_size(image.shape[-2], image.shape[-1], *self.size))


def _in_photograph(found: Instances, image: Tensor, size: tuple[int, int]) -> Instances:
    """What was found at one size, in the pixels of the photograph."""
    sides = zip((size[1], size[0]), (image.shape[-1], image.shape[-2]), strict=True)
    scale = torch.stack([torch.scalar_tensor(seen, dtype=torch.float64) / side for seen, side in sides]).repeat(2)
    return replace(found, boxes=found.boxes / scale.to(found.boxes))


def _learnable(target: Instances, masks: bool) -> Instances:
    """The objects that are targets."""
    if masks and target.masks is None:
        raise InputError("The targets have no masks: set masks to false to learn boxes alone")
    target = Instances(target.boxes.float(), target.labels, masks=target.masks, iscrowd=target.iscrowd)
    keep = (target.boxes[:, 2:] > target.boxes[:, :2]).all(dim=1)
    return target[keep if target.iscrowd is None else keep & ~target.iscrowd.bool()]


def _check(images: Images) -> None:
    """Refuse what would be looked at wrongly without a word; while a graph is recorded no values are looked at."""
    if not len(images):
        raise InputError("There are no images")
    for image in images:
        if image.dim() != 3 or image.shape[0] != 3 or 0 in image.shape:
            raise InputError(f"An image is of shape {list(image.shape)}: give (3, H, W), none of them 0")
        if not image.is_floating_point():
            raise InputError(f"Images of {image.dtype}: give floats in 0..1 (divide by 255), or call predict(image)")
        if not torch.compiler.is_compiling() and not image.is_meta and (most := image.amax().item()) > MOST:
            raise InputError(f"Images up to {most:.4g}: give floats in 0..1 (divide by 255), or call predict(image)")
