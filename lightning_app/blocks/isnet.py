"""ISNet: context of the image and of each class in it. arXiv:2108.12382."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_app.blocks._attention import attention
from lightning_app.blocks._layers import ConvBNReLU


class Correlation(nn.Module):
    """Attention whose query comes from one map and whose key and value come from another, with BN and ReLU throughout.

    Shape: query map (B, channels, H, W), key map (B, key_channels, H, W) -> (B, channels, H, W).

    Args:
        key_channels: width of the key map.
        inner: width of query, key and value.
    """

    def __init__(self, channels: int, key_channels: int, inner: int) -> None:
        super().__init__()
        self.scale = inner**-0.5
        self.query = nn.Sequential(ConvBNReLU(channels, inner), ConvBNReLU(inner, inner))
        self.key = nn.Sequential(ConvBNReLU(key_channels, inner), ConvBNReLU(inner, inner))
        self.value = ConvBNReLU(key_channels, inner)
        self.out = ConvBNReLU(inner, channels)

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        y: Tensor = self.out(attention(self.query(x), self.key(other), self.value(other), self.scale))
        return y


def class_context(x: Tensor, logits: Tensor) -> Tensor:
    """For each position the vector of the class that it is taken for, gathered from that class's positions.

    k_n = argmax_k l_kn; v_k = sum_{n: k_n = k} softmax over those n (l_kn) x_n; y_n = v_(k_n).

    Shape: (B, C, H, W), logits (B, K, H, W) -> (B, C, H, W).
    """
    flat, scores = x.flatten(2), logits.flatten(2)
    member = F.one_hot(scores.argmax(1), scores.shape[1]).movedim(-1, 1).bool()  # (B, K, N)
    there = member.any(-1, keepdim=True)
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
    hidden = scores.masked_fill(~member & there, float("-inf"))  # no row of nothing but -inf
    weights = hidden.softmax(-1).to(x.dtype) * there
    vectors = flat @ weights.mT  # (B, C, K)
    return (vectors @ member.to(x.dtype)).view_as(x)


class ImageContext(nn.Module):
    """f = A(x, [mean(x), x]), fused with x: y = CBR3([x, f]).

    Shape: (B, channels, H, W) -> the same.
    """

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.correlation = Correlation(channels, 2 * channels, inner)
        self.fuse = ConvBNReLU(2 * channels, channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        mean = F.adaptive_avg_pool2d(x, 1).expand_as(x)
        y: Tensor = self.fuse(torch.cat([x, self.correlation(x, torch.cat([mean, x], dim=1))], dim=1))
        return y


class SemanticContext(nn.Module):
    """f = A(x, class context of x), fused with that of the image: y = CBR3([image, f]).

    Shape: x (B, channels, H, W), logits (B, K, H, W), image (B, channels, H, W) -> (B, channels, H, W).
    """

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.correlation = Correlation(channels, channels, inner)
        self.fuse = ConvBNReLU(2 * channels, channels, 3)

    def forward(self, x: Tensor, logits: Tensor, image: Tensor) -> Tensor:
        y: Tensor = self.fuse(torch.cat([image, self.correlation(x, class_context(x, logits))], dim=1))
        return y
