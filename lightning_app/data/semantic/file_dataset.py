"""Images and masks of one split: read, resized and augmented."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from lightning_app.data.bad_file import BadFile
from lightning_app.data.images import read_image, require_same_size
from lightning_app.data.masks import MaskReader
from lightning_app.data.sampler import seeded
from lightning_app.data.semantic.base import Sample, SegmentationDataset
from lightning_app.util.errors import InputError


class Pair(NamedTuple):
    """One image and, but for prediction, its mask."""

    image: Path
    mask: Path | None = None


class Decoded(NamedTuple):
    image: Tensor  # (3, H, W) uint8
    mask: Tensor | None  # (H, W) uint8
    size: tuple[int, int]  # (H, W) of the upright image on disk


class FileDataset(SegmentationDataset):
    """Images and masks of one split.

    The augmentation of ``dataset[version, index]`` is seeded by (seed, version, index).

    Args:
        pairs: the files.
        root: what names are relative to.
        read_mask: file -> train ids.
        image_size: (H, W) that images are resized to.
        resize_masks: masks too; evaluation keeps them as they are on disk.
        transform: augmentation of (tv_tensors.Image, tv_tensors.Mask).
        cache: decode everything now and keep it in memory (uint8); worker processes share it.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        root: Path,
        read_mask: MaskReader,
        *,
        image_size: tuple[int, int] | None = None,
        resize_masks: bool = False,
        transform: Callable[[Any, Any], tuple[Tensor, Tensor]] | None = None,
        seed: int = 0,
        cache: bool = False,
    ) -> None:
        self.pairs, self.root, self.read_mask = pairs, root, read_mask
        self.image_size, self.resize_masks = image_size, resize_masks
        self.transform, self.seed = transform, seed
        self._cache: list[Decoded] | None = None
        if cache:
            with ThreadPoolExecutor() as pool:
                self._cache = list(pool.map(self._decode, pairs))

    def __len__(self) -> int:
        return len(self.pairs)

    def name(self, index: int) -> str:
        """The image's path under the root."""
        path = self.pairs[index].image
        return path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else path.as_posix()

    def _decode(self, pair: Pair) -> Decoded:
        image = torch.from_numpy(read_image(pair.image)).permute(2, 0, 1)  # strides (H, W, C): resized twice as fast
        height, width = image.shape[1:]
        mask = None
        if pair.mask is not None:
            mask = torch.from_numpy(self.read_mask(pair.mask))
            require_same_size(tuple(image.shape[1:]), tuple(mask.shape), pair.mask)
        if self.image_size:
            size = list(self.image_size)
            image = F.resize(image, size)
            if mask is not None and self.resize_masks:
                mask = F.resize(mask[None], size, v2.InterpolationMode.NEAREST_EXACT)[0]
        return Decoded(image, mask, (height, width))

    def __getitem__(self, key: int | tuple[int, int]) -> Sample | InputError:
        version, index = key if isinstance(key, tuple) else (0, key)
        pair = self.pairs[index]
        try:
            image, mask, size = self._cache[index] if self._cache is not None else self._decode(pair)
        except BadFile as error:
            return error
        if mask is None:
            return {"image": image, "name": self.name(index), "size": size}
        if self.transform is not None:
            with seeded(self.seed, version, index):
                image, mask = self.transform(tv_tensors.Image(image), tv_tensors.Mask(mask))
            image, mask = image.as_subclass(Tensor), mask.as_subclass(Tensor)
        height, width = mask.shape
        return {"image": image, "mask": mask, "name": self.name(index), "size": (height, width)}
