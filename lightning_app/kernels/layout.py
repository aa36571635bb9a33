"""How maps lie in memory."""

import torch
from torch import Tensor

from lightning_app.kernels.switch import is_fast, is_traced


def classes_together(logits: Tensor) -> Tensor:
    """The same logits, those of a pixel side by side, on a CPU that learns nothing from them.

    There PyTorch enlarges maps (B, K, h, w) at up to twice the speed, and finds the likeliest class of a pixel, as the
    softmax over classes, without a step of a whole map between one class and the next.
    """
    learns = torch.is_grad_enabled() and logits.requires_grad
    if learns or logits.device.type != "cpu" or not is_fast() or is_traced():
        return logits
    return logits.contiguous(memory_format=torch.channels_last)
