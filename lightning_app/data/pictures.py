"""Pictures as people have them in Python: a file, a Pillow image, an array or a tensor."""

import os
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from lightning_app.data.images import read_image, rgb_pixels
from lightning_app.util.errors import InputError

Picture: TypeAlias = str | Path | Image.Image | NDArray[Any] | Tensor


def pixels_of(picture: Picture) -> NDArray[np.uint8]:
    """RGB pixels of a file, of a Pillow image, of an array of bytes or of a tensor. Shape: (H, W, 3).

    Raises:
        InputError: a file that cannot be used, numbers of another kind or range, or another shape.
    """
    if isinstance(picture, str | Path):
        if not os.path.lexists(picture):
            raise InputError(f"{picture}: no such file")
        return read_image(Path(picture))
    if isinstance(picture, Image.Image):
        return rgb_pixels(picture)
    if isinstance(picture, Tensor):
        return _pixels_of_tensor(picture)
    if not isinstance(picture, np.ndarray):  # nobody checks types before this runs
        raise InputError(f"A {type(picture).__name__} is no picture: give a path, an array, a Pillow image or a tensor")
    if picture.dtype != np.uint8:
        raise InputError(f"An array of {picture.dtype} is no picture: give uint8 from 0 to 255, or a tensor in 0..1")
    if picture.ndim == 3 and picture.shape[2] == 3:
        return np.ascontiguousarray(picture)
    if picture.ndim != 2:
        raise InputError(f"An array of shape {picture.shape} is no picture: give (height, width, 3)")
    return np.repeat(picture[..., None], 3, axis=2)


def _pixels_of_tensor(picture: Tensor) -> NDArray[np.uint8]:
    """Of floats in 0..1, rounded to the 8 bits of a file, or of bytes."""
    image = picture[0] if picture.ndim == 4 and len(picture) == 1 else picture
    if image.ndim != 3 or image.shape[0] != 3:
        raise InputError(f"A tensor of shape {tuple(picture.shape)} is no picture: give (3, height, width)")
    if image.is_floating_point():
        low, high = (value.item() for value in image.detach().aminmax())
        if not -0.01 <= low <= high <= 1.01:  # a resize overshoots a little; nan is refused too
            raise InputError(f"A picture from {low:.3g} to {high:.3g}: give floats in 0..1, or uint8 from 0 to 255")
        image = (image.detach().float() * 255).round().clamp(0, 255)
    elif image.dtype != torch.uint8:
        raise InputError(f"A tensor of {image.dtype} is no picture: give floats in 0..1, or uint8 from 0 to 255")
    return np.ascontiguousarray(image.permute(1, 2, 0).to("cpu", torch.uint8).numpy())
