"""The segmentor: any image size, normalisation, side outputs, memory format, compiled and exported."""

import copy

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_app.backbones.base import Backbone
from lightning_app.backbones.timm import TimmBackbone
from lightning_app.heads.encnet import EncNet
from lightning_app.heads.fcn import FCN
from lightning_app.heads.several import Several
from lightning_app.registry import HEADS, Entry
from lightning_app.tasks.semantic.network import Segmentor
from lightning_app.util.errors import InputError

TORCH = tuple(int(part) for part in torch.__version__.split(".")[:2])


class Pixels(Backbone):
    """Levels are the normalised image, and what lies in blocks of 8 x 8 of it."""

    channels = (3, 3)
    reductions = (1, 8)
    mean = (0.2, 0.4, 0.5)
    std = (0.1, 0.2, 1.0)
    size_multiple = 8

    def forward(self, images: Tensor) -> list[Tensor]:
        return [images, images[..., ::8, ::8]]


def tiny(**options: bool) -> Segmentor:
    torch.manual_seed(0)
    backbone = TimmBackbone("resnet10t", output_stride=16)
    head, auxiliary = (FCN(backbone.channels, 3, channels=8, num_convs=1, levels=[level]) for level in (-1, -2))
    return Segmentor(backbone, head, auxiliary, auxiliary_weight=0.3, **options).eval()


def test_images_are_normalised_and_padded_with_the_mean_colour() -> None:
    model = Segmentor(Pixels(), FCN([3, 3], 2, channels=2)).double()
    images = torch.rand(2, 3, 13, 17, dtype=torch.float64)
    mean, std = (torch.tensor(each, dtype=torch.float64).view(3, 1, 1) for each in (Pixels.mean, Pixels.std))
    expected = F.pad((images - mean) / std, (0, 7, 0, 3))
    assert torch.equal(model.features(images)[0], expected)  # no rounding of float32 is left in the constants


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_constants_are_exact_in_every_precision_and_not_saved(dtype: torch.dtype) -> None:
    model = Segmentor(Pixels(), FCN([3, 3], 2, channels=2))
    for cast in (model.to(torch.bfloat16).to(dtype), model.to("meta").to_empty(device="cpu").to(dtype)):
        assert torch.equal(cast.mean.flatten(), torch.tensor(Pixels.mean, dtype=dtype))
        assert torch.equal(cast.std.flatten(), torch.tensor(Pixels.std, dtype=dtype))
    assert not {"mean", "std"} & model.state_dict().keys()


@pytest.mark.parametrize("size", [(8, 8), (1, 1), (13, 17), (16, 31)])
@torch.no_grad()
def test_any_size_equals_the_padded_image(size: tuple[int, int]) -> None:
    height, width = size
    torch.manual_seed(0)
    model = Segmentor(Pixels(), FCN([3, 3], 2, channels=2, levels=[1])).eval()
    images = torch.rand(1, 3, height, width)
    mean = torch.tensor(Pixels.mean).view(3, 1, 1).expand(1, 3, -(-height // 8) * 8, -(-width // 8) * 8)
    padded = mean.clone()
    padded[..., :height, :width] = images
    torch.testing.assert_close(model(images), model(padded)[..., :height, :width])


@torch.no_grad()
def test_outputs_hold_the_prediction_and_every_side_output_at_image_size() -> None:
    model = tiny()
    images = torch.rand(2, 3, 33, 47)
    logits, (auxiliary,) = model.outputs(images)
    assert torch.equal(logits, model(images))
    assert auxiliary.weight == 0.3
    expected = F.interpolate(model.auxiliary(model.features(images)), (33, 47), mode="bilinear")
    torch.testing.assert_close(auxiliary.logits, expected)

    present = Segmentor(model.backbone, EncNet(model.backbone.channels, 3, channels=8, codes=4)).eval()
    logits, (presence,) = present.outputs(images)
    assert presence.logits.shape == (2, 3)  # which classes are there: no map to resize
    torch.testing.assert_close(logits, present(images))


@pytest.mark.parametrize("shape", [(0, 3, 8, 8), (1, 3, 0, 8), (1, 3, 8, 0), (1, 1, 8, 8), (3, 8, 8)], ids=str)
def test_images_that_are_none_are_refused(shape: tuple[int, ...]) -> None:
    model = Segmentor(Pixels(), FCN([3, 3], 2, channels=2))
    for call in (model, model.outputs):
        with pytest.raises(InputError, match=r"Images are of shape .*: give \(B, 3, H, W\)"):
            call(torch.zeros(shape))


class Narrow(Backbone):
    """Levels at strides 4 to 32, each an average of the pixels with a batch norm of its own."""

    channels = (8, 8, 8, 8)
    reductions = (4, 8, 16, 32)
    size_multiple = 32

    def __init__(self) -> None:
        super().__init__()
        self.norms = torch.nn.ModuleList(torch.nn.BatchNorm2d(8) for _ in self.reductions)

    def forward(self, images: Tensor) -> list[Tensor]:
        x = torch.cat([images, images, images[:, :2]], dim=1)
        return [norm(F.avg_pool2d(x, step)) for norm, step in zip(self.norms, self.reductions, strict=True)]


@pytest.mark.parametrize("entry", HEADS.values(), ids=list(HEADS))
def test_one_image_a_batch_trains_or_is_refused_in_one_line(entry: Entry) -> None:
    """Batch norm needs two values per channel; a coarsest level of one pixel is one, and so is a pyramid's mean."""
    torch.manual_seed(0)
    model = Segmentor(Narrow(), entry.cls(Narrow.channels, 3)).train()
    pools = entry.slug in ("apcnet", "deeplabv3", "deeplabv3plus", "knet", "pspnet", "upernet")
    for side in (128, 32) if pools else (32,):
        with pytest.raises(InputError, match=r"cannot train on batches of 1 image.*--data.batch_size 2") as caught:
            model.outputs(torch.rand(1, 3, side, side))
        assert str(caught.value).startswith(entry.cls.__name__)
        assert "\n" not in str(caught.value)
    assert model.outputs(torch.rand(1 + pools, 3, 128, 128)).logits.isfinite().all()
    assert model.outputs(torch.rand(2, 3, 32, 32)).logits.isfinite().all()


@torch.no_grad()
def test_channels_last_changes_nothing_but_the_layout() -> None:
    model, last = tiny(), tiny(channels_last=True)
    images = torch.rand(1, 3, 33, 47)
    torch.testing.assert_close(last(images), model(images), rtol=1e-4, atol=1e-5)
    assert last.backbone.model.layer1[0].conv1.weight.is_contiguous(memory_format=torch.channels_last)
    assert last.features(images)[0].is_contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def test_compiling_keeps_the_names_of_the_weights() -> None:
    model = tiny()
    names, expected = list(model.state_dict()), model(torch.ones(1, 3, 32, 32))
    compiled = copy.deepcopy(model)
    compiled.backbone.compile(backend="eager")
    compiled.head.compile(backend="eager")
    torch.testing.assert_close(compiled(torch.ones(1, 3, 32, 32)), expected)
    assert list(compiled.state_dict()) == names


@pytest.mark.skipif(TORCH < (2, 13), reason="the export of torch 2.11 ties free sides to odd or even ones")
@torch.no_grad()
def test_an_exported_graph_holds_at_other_sizes() -> None:
    model = tiny()
    sides = {2: torch.export.Dim.AUTO, 3: torch.export.Dim.AUTO}
    program = torch.export.export(
        model, (torch.rand(2, 3, 64, 96),), dynamic_shapes=({0: torch.export.Dim.AUTO, **sides},)
    )
    for size in ((1, 3, 33, 47), (3, 3, 65, 31)):
        images = torch.rand(size)
        torch.testing.assert_close(program.module()(images), model(images))


def test_several_auxiliary_heads_are_one_part() -> None:
    """Each has a loss of its own, and the part is rebuilt from plain data."""
    torch.manual_seed(0)
    side = Several(Narrow.channels, 3, heads=[{"head": "fcn", "channels": 4, "levels": [2]}, {"head": "linear"}])
    model = Segmentor(Narrow(), FCN(Narrow.channels, 3, channels=4), side, auxiliary_weight=0.3)
    logits, sides = model.outputs(torch.rand(2, 3, 64, 64))
    assert [(each.logits.shape, each.weight) for each in sides] == [(logits.shape, 0.3)] * 2
    assert [type(head).__name__ for head in model.auxiliary_heads] == ["FCN", "Linear"]
    again = Several(Narrow.channels, 3, **side.description(skip=2)["init_args"])
    assert list(again.state_dict()) == list(side.state_dict())
    for heads, message in (
        ([], "needs heads"),
        ([{"channels": 4}], "names no head"),
        ([{"head": "fcnn"}], 'Did you mean "fcn"'),
        ([{"head": "fcn", "chanels": 4}], "cannot build fcn"),
    ):
        with pytest.raises(InputError, match=message):
            Several(Narrow.channels, 3, heads=heads)
