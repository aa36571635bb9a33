"""Mask R-CNN R50-FPN against torchvision's maskrcnn_resnet50_fpn on one thread: same weights, one photograph.

    OMP_NUM_THREADS=1 python benchmarks/detection.py [--size 800 1067] [--repeats 5] [--photo FILE]

Pairs are interleaved; what is printed is the median of their ratios. torchvision's weights are drawn at random, and so
that detections are not all alike the class scores are spread; both get the same. The two differ by design (rounded
anchors, RoIAlign, pasting: see docs/instance.md), so the same detections are asked of bf16 against our own fp32.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.models.detection import maskrcnn_resnet50_fpn
from torchvision.ops import box_iou, clip_boxes_to_image

from lightning_app.backbones.timm import TimmBackbone
from lightning_app.data.instance.instances import Instances
from lightning_app.tasks.instance.network import InstanceSegmentor

CLASSES = 80
NAMES = (  # torchvision's -> ours
    ("backbone.body.", "backbone.model."),
    ("backbone.fpn.", "fpn."),
    ("roi_heads.mask_head.", "roi_heads.mask_head.convs."),
    ("roi_heads.mask_predictor.", "roi_heads.mask_head.predictor."),
)


def networks() -> tuple[torch.nn.Module, InstanceSegmentor]:
    """Both networks with the same weights."""
    torch.manual_seed(0)
    theirs = maskrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=CLASSES + 1)
    for module in theirs.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
            torch.nn.init.kaiming_normal_(module.weight)
    torch.nn.init.normal_(theirs.roi_heads.box_predictor.cls_score.weight, std=0.1)
    torch.nn.init.normal_(theirs.roi_heads.box_predictor.bbox_pred.weight, std=0.01)
    torch.nn.init.normal_(theirs.rpn.head.cls_logits.weight, std=0.02)
    torch.nn.init.normal_(theirs.rpn.head.bbox_pred.weight, std=0.02)
    for name, module in theirs.named_modules():
        if name.endswith("bn3"):  # so that activations neither grow nor vanish from block to block
            module.weight.fill_(0.3) if not isinstance(module.weight, torch.nn.Parameter) else module.weight.data.fill_(
                0.3
            )
    ours = InstanceSegmentor(TimmBackbone("resnet50"), CLASSES)
    state = {}
    for name, value in theirs.state_dict().items():
        for before, after in NAMES:
            if name.startswith(before):
                name = after + name.removeprefix(before)
                break
        state[name] = value
    missing, unexpected = ours.load_state_dict(state, strict=False)
    assert not unexpected, unexpected
    assert all(name.endswith("num_batches_tracked") for name in missing), missing
    return theirs, ours


def ratios(theirs: Callable[[], object], ours: Callable[[], object], repeats: int) -> tuple[float, float, float]:
    """Median of their time / ours over interleaved pairs, and the median CPU seconds of each."""
    theirs()
    ours()
    pairs = []
    for _ in range(repeats):
        times = []
        for run in (theirs, ours):
            start = time.process_time()  # the load of others counts less than in wall-clock time
            run()
            times.append(time.process_time() - start)
        pairs.append(times)
    return (
        statistics.median(a / b for a, b in pairs),
        statistics.median(a for a, _ in pairs),
        statistics.median(b for _, b in pairs),
    )


def same(found: Instances, others: Instances, least: float = 0.3, overlap: float = 0.95) -> tuple[float, int]:
    """Share of the boxes above a score that the others have too: same class, that IoU; and how many there are."""
    assert found.scores is not None
    strong = found[found.scores > least]
    if not len(strong):
        return 1.0, 0
    matches = (box_iou(strong.boxes.float(), others.boxes.float()) >= overlap) & (
        strong.labels[:, None] == others.labels
    )
    return matches.any(dim=1).float().mean().item(), len(strong)


def targets(height: int, width: int, count: int = 10) -> tuple[Instances, dict[str, Tensor]]:
    """Rectangles to learn from, in our words and in torchvision's."""
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(count, 2, generator=generator) * torch.tensor([width * 0.7, height * 0.7])
    boxes = torch.cat([corners, corners + 20 + torch.rand(count, 2, generator=generator) * width * 0.2], dim=1)
    boxes = clip_boxes_to_image(boxes, (height, width))
    labels = torch.randint(0, CLASSES, (count,), generator=generator)
    masks = torch.zeros(count, height, width, dtype=torch.bool)
    for mask, (left, top, right, bottom) in zip(masks, boxes.int().tolist(), strict=True):
        mask[top:bottom, left:right] = True
    return Instances(boxes, labels, masks=masks), {"boxes": boxes, "labels": labels + 1, "masks": masks.byte()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--size", nargs=2, type=int, default=[800, 1067])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--photo")
    options = parser.parse_args()
    torch.set_num_threads(1)
    height, width = options.size
    image = torch.rand(3, height, width, generator=torch.Generator().manual_seed(1))
    if options.photo:
        photo = Image.open(options.photo).convert("RGB").resize((width, height))
        image = torch.from_numpy(np.array(photo)).permute(2, 0, 1) / 255
    theirs, ours = networks()
    load = ", ".join(f"{each:.2f}" for each in os.getloadavg())
    print(f"{height} x {width}, one thread, {options.repeats} pairs, load {load}, torch {torch.__version__}")

    theirs.eval()
    ours.eval()
    with torch.no_grad():
        ratio, before, after = ratios(lambda: theirs([image]), lambda: ours([image]), options.repeats)
        print(f"inference fp32: {ratio:.2f}x ({before:.2f} s -> {after:.2f} s)")
        exact = ours([image])[0]

        ours.to(memory_format=torch.channels_last)
        ours.channels_last = True

        def low() -> list[Instances]:
            with torch.autocast("cpu", torch.bfloat16):
                return ours([image])

        ratio, before, after = ratios(lambda: theirs([image]), lambda: ours([image]), options.repeats)
        print(f"inference fp32, channels_last: {ratio:.2f}x ({before:.2f} s -> {after:.2f} s)")
        ratio, before, after = ratios(lambda: theirs([image]), low, options.repeats)
        share, count = same(exact, low()[0])
        back, counted = same(low()[0], exact)
        print(f"inference bf16, channels_last: {ratio:.2f}x ({before:.2f} s -> {after:.2f} s)")
        print(f"  of {count} fp32 boxes above 0.3 it has {share:.1%} at IoU 0.95, fp32 of its {counted} {back:.1%}")

    theirs.train()
    ours.train()
    of_ours, of_theirs = targets(height, width)

    def learn(losses: dict[str, Tensor]) -> None:
        torch.stack(list(losses.values())).sum().backward()

    ours.backbone.eval()  # torchvision's norms are frozen
    ratio, before, after = ratios(
        lambda: learn(theirs([image], [of_theirs])), lambda: learn(ours.losses([image], [of_ours])), options.repeats
    )
    print(f"training step fp32, channels_last: {ratio:.2f}x ({before:.2f} s -> {after:.2f} s)")


if __name__ == "__main__":
    main()
