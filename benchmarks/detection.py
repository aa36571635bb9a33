"""Mask R-CNN R50-FPN against torchvision's maskrcnn_resnet50_fpn on one thread: same weights, one photograph.

    OMP_NUM_THREADS=1 python benchmarks/detection.py [--size 800 1067] [--repeats 5] [--photo FILE]
    OMP_NUM_THREADS=1 python benchmarks/detection.py --weights ID --photos FOLDER       # what bf16 finds

Pairs are interleaved; what is printed is the median of their ratios, in CPU time. torchvision's weights are drawn at
random, and so that detections are not all alike the class scores are spread; both get the same. The two differ by
design (rounded anchors, RoIAlign, pasting), and random weights magnify every rounding: whether bf16 finds the same is
asked of trained weights, against fp32.
"""

import argparse
import copy
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.models.detection import maskrcnn_resnet50_fpn
from torchvision.ops import box_iou, clip_boxes_to_image

import contextzoo as cz
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


def in_bf16(model: InstanceSegmentor, image: Tensor) -> Instances:
    """Objects by bf16 autocast."""
    with torch.autocast("cpu", torch.bfloat16):
        return model([image])[0]


def found_again(found: Instances, others: Instances, overlap: float, least: float = 0.3) -> Tensor:
    """Whether the others have each box above a score: same class, that IoU."""
    assert found.scores is not None
    strong = found[found.scores > least]
    matches = (box_iou(strong.boxes.float(), others.boxes.float()) >= overlap) & (
        strong.labels[:, None] == others.labels
    )
    return matches.any(dim=1)


def levels_apart(model: InstanceSegmentor, image: Tensor) -> str:
    """How far the backbone's levels are off in bf16, as shares of their norms."""
    pixels = ((image - model.mean) / model.std)[None]
    exact = model.backbone(pixels)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = model.backbone(pixels)
    shares = [((one.float() - other).norm() / other.norm()).item() for one, other in zip(rounded, exact, strict=True)]
    return f"levels of the backbone in bf16 are off by {', '.join(f'{share:.1%}' for share in shares)}"


def agreement(weights: str, photos: Path) -> None:
    """Print what bf16 and channels last find of what fp32 finds, and the other way round."""
    exact = cz.load(weights).eval()
    fast = copy.deepcopy(exact).to(memory_format=torch.channels_last)
    fast.channels_last = True
    files = sorted(path for path in photos.iterdir() if path.is_file())
    pairs = []
    with torch.no_grad():
        for file in files:
            image = torch.from_numpy(np.array(Image.open(file).convert("RGB"))).permute(2, 0, 1) / 255
            pairs.append((exact([image])[0], in_bf16(fast, image)))
        print(f"{files[-1].name}: {levels_apart(exact, image)}")
    for overlap in (0.95, 0.9):
        there = torch.cat([found_again(one, other, overlap) for one, other in pairs]).float()
        back = torch.cat([found_again(other, one, overlap) for one, other in pairs]).float()
        print(
            f"{weights}, {len(files)} photographs: of {len(there)} fp32 boxes above 0.3 bf16 has {there.mean():.1%} at "
            f"IoU {overlap}, fp32 of its {len(back)} {back.mean():.1%}"
        )


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
    parser.add_argument("--weights")
    parser.add_argument("--photos", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.weights:
        agreement(options.weights, options.photos)
        return
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

        ours.to(memory_format=torch.channels_last)
        ours.channels_last = True

        ratio, before, after = ratios(lambda: theirs([image]), lambda: ours([image]), options.repeats)
        print(f"inference fp32, channels_last: {ratio:.2f}x ({before:.2f} s -> {after:.2f} s)")
        ratio, before, after = ratios(lambda: theirs([image]), lambda: in_bf16(ours, image), options.repeats)
        print(f"inference bf16, channels_last: {ratio:.2f}x ({before:.2f} s -> {after:.2f} s)")
        print(f"random weights: {levels_apart(ours, image)}")

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
