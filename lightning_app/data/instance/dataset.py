"""Pictures of one split with their objects."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, NotRequired, TypedDict

import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors

from lightning_app.data.bad_file import BadFile
from lightning_app.data.base import ImageDataset
from lightning_app.data.coco import CocoFile
from lightning_app.data.coco_records import CocoAnnotation, CocoImage
from lightning_app.data.images import read_image
from lightning_app.data.instance.instances import Instances
from lightning_app.data.instance.transforms import visible
from lightning_app.data.rle import decode, to_rle
from lightning_app.data.sampler import seeded
from lightning_app.util.errors import InputError

MOST_BYTES: Final = 2**32  # of the masks of one picture


class Sample(TypedDict):
    """What a dataset gives for one index."""

    image: Tensor  # (3, H, W) uint8
    name: str  # the image's path under the folder of images
    size: tuple[int, int]  # (H, W) on disk
    coco: CocoImage
    targets: NotRequired[Instances]  # what to learn; in training
    truth: NotRequired[tuple[CocoAnnotation, ...]]  # all that is annotated; in evaluation


class InstanceDataset(ImageDataset[Sample]):
    """Pictures of one split with their objects: to learn from in training, and in evaluation as they are annotated.

    The augmentation of ``dataset[epoch, index]`` is seeded by (seed, epoch, index).

    Args:
        file: the annotations; none for prediction, where ``images`` are all there is.
        images: of the split.
        folder: where their names begin.
        masks: give the objects' masks beside their boxes.
        transform: augmentation of {"image", "boxes", "masks"}, in training; none gives what evaluation needs.
        cache: keep all decoded pictures in memory (uint8).
    """

    def __init__(
        self,
        file: CocoFile | None,
        images: Sequence[CocoImage],
        folder: Path,
        *,
        masks: bool = True,
        transform: Callable[[Any], Any] | None = None,
        seed: int = 0,
        cache: bool = False,
    ) -> None:
        self.file, self.images, self.folder = file, images, folder
        self.masks, self.transform, self.seed = masks, transform, seed
        self._cache: list[Tensor] | None = None
        if cache:
            with ThreadPoolExecutor() as pool:
                self._cache = list(pool.map(self._decoded, images))

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, key: int | tuple[int, int]) -> Sample | InputError:
        epoch, index = key if isinstance(key, tuple) else (0, key)
        image = self.images[index]
        try:
            pixels = self._decoded(image) if self._cache is None else self._cache[index]
            sample: Sample = {
                "image": pixels,
                "name": image.file_name,
                "size": (pixels.shape[1], pixels.shape[2]),
                "coco": image,
            }
            if self.file is None:
                return sample
            found = self.file.of(image)
            if self.transform is None:
                return {**sample, "truth": found}
            with seeded(self.seed, epoch, index):
                return {**sample, **self._augmented(pixels, image, [a for a in found if not (a.iscrowd or a.empty)])}
        except BadFile as error:
            return error

    def _decoded(self, image: CocoImage) -> Tensor:
        """Shape: (3, H, W) uint8."""
        path = self.folder / image.file_name
        pixels = torch.from_numpy(read_image(path)).permute(2, 0, 1)
        if self.file is not None and pixels.shape[1:] != (image.height, image.width):
            detail = f"{pixels.shape[2]}x{pixels.shape[1]}, and {image.width}x{image.height} in {self.file.path.name}"
            raise BadFile(path, ("Another size than its annotations say",), "Export them for this picture.", detail)
        return pixels

    def _augmented(self, pixels: Tensor, image: CocoImage, objects: Sequence[CocoAnnotation]) -> Any:
        """The augmented picture and what is to be learned of it."""
        assert self.file is not None
        assert self.transform is not None
        size = (image.height, image.width)
        boxes = torch.tensor([each.bbox for each in objects]).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        inputs = {
            "image": tv_tensors.Image(pixels),
            "boxes": tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=size),
        }
        if self.masks:
            inputs["masks"] = tv_tensors.Mask(self._masks(image, objects))
        labels = torch.tensor([self.file.labels[each.category_id] for each in objects], dtype=torch.int64)
        outputs = self.transform(inputs)
        picture = outputs["image"].as_subclass(Tensor)
        masks = outputs["masks"].as_subclass(Tensor) if self.masks else None
        boxes, keep = visible(outputs["boxes"].as_subclass(Tensor), masks, (picture.shape[1], picture.shape[2]))
        return {"image": picture, "targets": Instances(boxes, labels, masks=masks)[keep]}

    def _masks(self, image: CocoImage, objects: Sequence[CocoAnnotation]) -> Tensor:
        """Shape: (N, H, W) bool."""
        assert self.file is not None
        if (size := len(objects) * image.height * image.width) > MOST_BYTES:
            path = self.folder / image.file_name
            raise BadFile(path, ("More masks than fit into memory",), "Cut it into tiles.", f"{size} bytes")
        masks = np.zeros((len(objects), image.height, image.width), dtype=bool)
        for mask, each in zip(masks, objects, strict=True):
            if each.segmentation is None:
                raise no_mask(self.file.path, each)
            mask[:] = decode(to_rle(each.segmentation, image.height, image.width))
        return torch.from_numpy(masks)


def no_mask(path: Path, annotation: CocoAnnotation) -> BadFile:
    """An object that has only a box, where masks are asked for."""
    fix = "Outline it, or give --data.masks false for boxes alone."
    return BadFile(path, ("No mask",), fix, f"annotation {annotation.id}")
