"""What published transformers do otherwise than timm's of the same name."""

from collections.abc import Mapping
from typing import Any

import torch
from timm.models import beit, swin_transformer, twins
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_app.util.errors import InputError, check_choice

APART = -1000.0  # added to what must not attend


def change_transformer(model: nn.Module, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Make those changes that are a transformer's; gives back those that this network has no place for.

    Raises:
        InputError: a word that is not known.
    """
    left = dict(changes)
    inner = getattr(model, "model", model)  # timm's getter of features wraps plain transformers
    if isinstance(inner, VisionTransformer):
        _change_vit(inner, left)
    if left.get("pad_patches") and isinstance(patches := getattr(inner, "patch_embed", None), nn.Module):
        patches.dynamic_img_pad = left.pop("pad_patches")
    for module in list(model.modules()):
        if isinstance(module, swin_transformer.SwinTransformerBlock) and changes.get("pad_windows"):
            module.__class__ = PaddedFirst
            module.always_partition = True
            module.shift_size = module.target_shift_size
            left.pop("pad_windows", None)
        elif isinstance(module, beit.Attention) and changes.get("key_bias"):
            _let_keys_learn(module)
            left.pop("key_bias", None)
        elif isinstance(module, twins.PatchEmbed) and changes.get("pad_patches"):
            module.__class__ = PaddedPatches
            left.pop("pad_patches", None)
        elif isinstance(module, twins.LocallyGroupedAttn) and changes.get("mask_padding"):
            module.__class__ = MaskedWindows
            left.pop("mask_padding", None)
    if isinstance(inner, twins.Twins) and left.pop("stage_norm", False):
        for stage, width in zip(inner.blocks, inner.embed_dims, strict=True):
            stage[-1].__class__ = NormalisedBlock
            stage[-1].norm = nn.LayerNorm(width)
    return left


def _change_vit(model: VisionTransformer, left: dict[str, Any]) -> None:
    """ViT's changes, taken out of ``left``."""
    eps = model.blocks[0].norm1.eps
    if left.pop("final_norm", False):
        model.norm = nn.LayerNorm(model.embed_dim, eps=eps)
    if padding := left.pop("patch_padding", 0):
        model.patch_embed.proj.padding = (padding, padding)
    if left.pop("patch_bias", True) is False:
        model.patch_embed.proj.register_parameter("bias", None)
    positions, token = left.pop("positions", None), left.pop("class_token", None)
    if positions is None and token is None and isinstance(model.norm, nn.Identity):
        return
    check_choice("positions", positions or "bicubic", ("bicubic", "bilinear"))
    check_choice("class_token", token or "none", ("none", "concat", "absent"))
    if model.reg_token is not None or model.no_embed_class or model.pos_embed is None:
        raise InputError("positions, class_token and final_norm can be changed in plain ViTs only")
    model.__class__ = PlainViT
    model.resize_mode, model.token = positions or "bicubic", token
    model.num_prefix_tokens = 0 if token in ("none", "absent") else 1


class PlainViT(VisionTransformer):  # type: ignore[misc]
    """Positions resized in the weights' own precision; levels with the class token beside each position, or without."""

    resize_mode: str
    token: str | None

    def _pos_embed(self, x: Tensor) -> Tensor:
        height, width = x.shape[1:3]
        first, table = self.pos_embed.split((1, self.pos_embed.shape[1] - 1), dim=1)
        if self.token == "absent":
            table = self.pos_embed
        # beside a class token, as many positions in another shape are taken as they are
        if table.shape[1] != height * width or (
            self.token == "absent" and (height, width) != self.patch_embed.grid_size
        ):
            grid = table.mT.reshape(1, -1, *self.patch_embed.grid_size)
            table = F.interpolate(grid, (height, width), mode=self.resize_mode).flatten(2).mT
        x = x.flatten(1, 2) + table
        if self.token not in ("none", "absent"):
            x = torch.cat([(self.cls_token + first).expand(x.shape[0], -1, -1), x], dim=1)
        dropped: Tensor = self.pos_drop(x)
        return dropped

    def forward_intermediates(self, x: Tensor, indices: Any = None, **options: Any) -> Any:
        """As timm's, for lists of levels: the last block's is normalised where there is a norm."""
        levels = super().forward_intermediates(
            x, indices=indices, output_fmt="NCHW", intermediates_only=True, return_prefix_tokens=True
        )
        last = len(self.blocks) - 1
        made = []
        for index, level in zip(indices, levels, strict=True):
            tokens: Tensor | None
            level, tokens = level if isinstance(level, tuple) else (level, None)
            norm = self.norm if index % len(self.blocks) == last else nn.Identity()
            level = norm(level.movedim(1, -1)).movedim(-1, 1)
            if self.token == "concat" and tokens is not None:
                token = norm(tokens[:, 0])[..., None, None]
                level = torch.cat([level, token.expand_as(level)], dim=1)
            made.append(level)
        return made


class PaddedFirst(swin_transformer.SwinTransformerBlock):  # type: ignore[misc]
    """Pads to whole windows, then shifts; timm shifts first, and so wraps other positions around."""

    def _attn(self, x: Tensor) -> Tensor:
        height, width = x.shape[1:3]
        down, across = self.window_size
        x = F.pad(x, (0, 0, 0, -width % across, 0, -height % down))
        attended: Tensor = super()._attn(x)
        return attended[:, :height, :width].contiguous()


class PaddedPatches(twins.PatchEmbed):  # type: ignore[misc]
    """Patches of a map that is padded to whole ones."""

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
        down, across = self.patch_size
        x = F.pad(x, (0, -x.shape[-1] % across, 0, -x.shape[-2] % down))
        patches: tuple[Tensor, tuple[int, int]] = super().forward(x)
        return patches


class NormalisedBlock(twins.Block):  # type: ignore[misc]
    """The last block of a stage and the stage's norm."""

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        normalised: Tensor = self.norm(super().forward(x, size))
        return normalised


class MaskedWindows(twins.LocallyGroupedAttn):  # type: ignore[misc]
    """Windows in which padding and what is no padding do not attend each other.

    As the published weights were trained: where only one side is padded, nothing is masked.
    """

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        (height, width), side = size, self.ws
        below, right = -height % side, -width % side
        if not (below and right):
            unmasked: Tensor = super().forward(x, size)
            return unmasked
        x = F.pad(x.view(x.shape[0], *size, -1), (0, 0, 0, right, 0, below))
        padding = F.pad(x.new_zeros(height, width), (0, right, 0, below), value=1.0)
        windows = self._windows(padding[None, ..., None]).squeeze(-1)  # (1, windows, side * side)
        apart = (windows.unsqueeze(2) != windows.unsqueeze(3)) * APART
        windows = self._windows(x)
        qkv = self.qkv(windows).view(*windows.shape[:3], 3, self.num_heads, -1)
        q, k, v = qkv.permute(3, 0, 1, 4, 2, 5)  # (B, windows, heads, side * side, C / heads)
        dropout = self.attn_drop.p if self.training else 0.0
        y = F.scaled_dot_product_attention(q, k, v, apart.unsqueeze(2).to(q.dtype), dropout, scale=self.scale)
        y = y.transpose(2, 3).reshape(x.shape[0], x.shape[1] // side, x.shape[2] // side, side, side, -1)
        y = y.transpose(2, 3).reshape(x.shape)
        projected: Tensor = self.proj_drop(self.proj(y[:, :height, :width].flatten(1, 2)))
        return projected

    def _windows(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, windows, side * side, C)."""
        batch, height, width, channels = x.shape
        cells = x.view(batch, height // self.ws, self.ws, width // self.ws, self.ws, channels)
        return cells.transpose(2, 3).reshape(batch, -1, self.ws * self.ws, channels)


def _let_keys_learn(attention: nn.Module) -> None:
    bias = attention.k_bias
    assert isinstance(bias, Tensor)
    del attention.k_bias
    attention.k_bias = nn.Parameter(torch.zeros_like(bias))
