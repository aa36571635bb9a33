"""What was seen in one picture, and how it is written and drawn."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Final, Self

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from lightning_app.tasks.legend import Colours
from lightning_app.tasks.report import Drawing, save_jpeg
from lightning_app.tasks.semantic.draw import class_shares, overlay
from lightning_app.tasks.semantic.protocol import EvaluationProtocol
from lightning_app.util.errors import InputError
from lightning_app.util.files import replacing

IGNORED: Final = "ignored"  # the label of pixels that do not count


@dataclass(frozen=True, eq=False)
class Segmentation:
    """A class for every pixel of one picture.

    Shape: image (H, W, 3) uint8 RGB, upright; mask (H, W) uint8 class numbers.

    Args:
        classes: names in the order of their numbers.
        palette: RGB of each class.
        protocol: how the picture was looked at.
    """

    image: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    classes: Sequence[str]
    palette: Colours
    protocol: EvaluationProtocol = EvaluationProtocol()

    @cached_property
    def shares(self) -> Mapping[str, float]:
        """Share of the pixels of each class that is there, the largest first."""
        counted = zip(self.classes, class_shares(self.mask, len(self.classes)), strict=True)
        return {name: share for name, share in sorted(counted, key=lambda pair: -pair[1]) if share}

    def overlay(self) -> Image.Image:
        """The picture for people: colours over the photograph, and a legend below it."""
        return overlay(self.image, self.mask, self.classes, self.palette)

    def class_map(self) -> Image.Image:
        """A palette image whose pixels are the class numbers."""
        image = Image.fromarray(self.mask)
        image.putpalette(bytes(chain.from_iterable(self.palette)))
        return image

    def save(self, path: str | Path) -> None:
        """Write the class numbers as a PNG with the palette.

        Raises:
            InputError: ``path`` does not end in .png; other formats change the numbers.
        """
        path = Path(path)
        if path.suffix.lower() != ".png":
            raise InputError(f"{path}: class numbers are kept by PNG alone. Call it {path.stem}.png")
        with replacing(path) as temporary:
            self.class_map().save(temporary, "PNG")

    def save_overlay(self, path: str | Path) -> None:
        """Write ``overlay`` as a JPEG."""
        save_jpeg(self.overlay(), Path(path))


@dataclass(frozen=True)
class SegmentationDrawing(Drawing):
    """A predicted segmentation, with the true one in ``masks`` where it is known."""

    segmentation: Segmentation | None = None

    @classmethod
    def of(
        cls,
        name: str,
        image: Tensor,
        classes: Tensor,
        mask: Tensor | None,
        labels: Mapping[int, str],
        names: Sequence[str],
        palette: Colours,
    ) -> Self:
        """Of one image (3, H, W) in 0..1, which is drawn at the size of its class numbers (h, w)."""
        ids = _bytes(classes)
        photograph = Image.fromarray(_bytes((image * 255).round().permute(1, 2, 0)))
        pixels = np.array(photograph.resize((ids.shape[1], ids.shape[0]), Image.Resampling.BILINEAR))
        masks = {"prediction": ids} | ({} if mask is None else {"ground_truth": _bytes(mask[0])})
        return cls(name, pixels, masks, labels, segmentation=Segmentation(pixels, ids, names, palette))

    @property
    def scores(self) -> Mapping[str, float]:
        """mIoU over the classes that are in the truth or the prediction, and the share of pixels that are right."""
        truth = self.masks.get("ground_truth")
        assert self.segmentation is not None
        classes = len(self.segmentation.classes)
        counted = [number for number in range(classes) if self.labels.get(number) != IGNORED]
        if truth is None or not (labelled := np.isin(truth, counted)).any():
            return {}
        right, said = truth[labelled], self.masks["prediction"][labelled]
        hits, true, predicted = (np.bincount(x, minlength=classes) for x in (right[right == said], right, said))
        union = true + predicted - hits
        return {"mIoU": float((hits[union > 0] / union[union > 0]).mean()), "aAcc": float((right == said).mean())}

    def overlay(self) -> Image.Image:
        assert self.segmentation is not None
        return self.segmentation.overlay()

    def save(self, target: Path) -> None:
        """Write the class numbers as a PNG with the palette, and beside it the overlay."""
        assert self.segmentation is not None
        self.segmentation.save(target)
        super().save(target)


def _bytes(x: Tensor) -> NDArray[np.uint8]:
    array: NDArray[np.uint8] = x.to("cpu", torch.uint8).numpy()
    return array
