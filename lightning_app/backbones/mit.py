"""Mix Transformer, SegFormer's encoder, as segmentation_models_pytorch has it. arXiv:2105.15203."""

import torch
from torch import Tensor, nn

from lightning_app.backbones.base import Backbone
from lightning_app.backbones.norms import set_norm_eps
from lightning_app.util.errors import check_choice

NAMES = tuple(f"mit_b{i}" for i in range(6))


class MiT(Backbone):
    """Four levels of overlapping patches, attended with keys and values of reduced size.

    Shape: normalised images (B, 3, H, W), any H and W -> levels of strides 4, 8, 16 and 32.

    Args:
        name: mit_b0 to mit_b5. Weights of NVIDIA's, from which most start, allow no commercial use.
        norm_eps: eps of every layer norm; the published segmentation weights have 1e-6 in all of them.

    Raises:
        InputError: an unknown name.

    Reference: segmentation_models_pytorch's MixVisionTransformer; OpenMMLab's.
    """

    def __init__(self, name: str = "mit_b0", norm_eps: float = 1e-6) -> None:
        super().__init__()
        from segmentation_models_pytorch.encoders import get_encoder  # costs seconds

        check_choice("name", name, NAMES)
        self.name = name
        with torch.device("cpu"):  # it reads numbers while it is built
            model = get_encoder(name, weights=None)
        self.model: nn.Module = model.to(torch.get_default_device())
        set_norm_eps(self, {"norm_eps": norm_eps})
        self.channels = list(model.out_channels[-4:])
        self.reductions = [4, 8, 16, 32]

    def forward(self, images: Tensor) -> list[Tensor]:
        return list(self.model(images)[-4:])
