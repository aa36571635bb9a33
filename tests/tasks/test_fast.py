"""Networks changed to predict faster: the same labels, and what may not be folded is left as it was."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import contextzoo as cz
from lightning_app.kernels.folding import fold_batch_norms
from lightning_app.kernels.half import has_bfloat16


def moved(network: nn.Module) -> nn.Module:
    """With statistics and weights of batch norms that training would have moved."""
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None:
            for tensor, low, high in ((module.running_mean, -0.2, 0.2), (module.running_var, 0.8, 1.2)):
                assert tensor is not None
                nn.init.uniform_(tensor, low, high)
            nn.init.uniform_(module.weight, 0.8, 1.2)
            nn.init.uniform_(module.bias, -0.2, 0.2)
    return network.eval()


@pytest.mark.parametrize(("head", "backbone"), [("ccnet", "resnet10t"), ("fcn", "tf_efficientnet_lite0")])
def test_folded_networks_give_the_same_logits(head: str, backbone: str) -> None:
    network = cz.create_model(head, backbone, num_classes=5, output_stride=16, channels=32, pretrained=False)
    moved(network)
    images = torch.rand(1, 3, 96, 128)
    with torch.inference_mode():
        expected = network(images)
    assert network.fast(half=False) is network
    assert not any(isinstance(each, nn.BatchNorm2d) for each in network.modules())
    assert network.auxiliary is None
    with torch.inference_mode():
        logits = network(images)
    torch.testing.assert_close(logits, expected, rtol=1e-3, atol=1e-4)
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_bfloat16_keeps_the_last_layer_and_the_resize_in_float32() -> None:
    network = moved(cz.create_model("fcn", "resnet10t", num_classes=5, channels=32, pretrained=False))
    images = torch.rand(2, 3, 64, 96)
    with torch.inference_mode():
        expected = network(images)
        logits = network.fast(half=True)(images)
    assert logits.dtype == torch.float32
    assert (logits - expected).norm() < 0.02 * expected.norm()
    assert (logits != expected).any()


class Apart(nn.Module):
    """Its convolution's output is read twice, and its second batch norm reads a sum."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 3, bias=False)
        self.norm, self.other = nn.BatchNorm2d(4), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.convolution(x)
        total: Tensor = F.relu(self.other(self.norm(y) + 3 * y))
        return total


def test_what_is_read_elsewhere_is_not_folded() -> None:
    module, x = moved(Apart()), torch.rand(1, 3, 8, 8)
    names = set(module.state_dict())
    expected = module(x)
    assert fold_batch_norms(module, lambda: module(x)) == 0
    assert set(module.state_dict()) == names
    assert torch.equal(module(x), expected)


def test_only_what_stands_behind_a_convolution_is_folded() -> None:
    module = moved(nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU()))
    x = torch.rand(1, 3, 8, 8)
    expected = module(x)
    assert fold_batch_norms(module, lambda: module(x)) == 1
    assert isinstance(module[0], nn.BatchNorm2d)
    assert isinstance(module[2], nn.Identity)
    torch.testing.assert_close(module(x), expected)


def test_bfloat16_is_taken_where_the_processor_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    for told, expected in (({}, False), ({"avx512_bf16": True}, True), ({"amx_bf16": True}, True)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda told=told: told, raising=False)
        assert has_bfloat16(torch.device("cpu")) is expected
