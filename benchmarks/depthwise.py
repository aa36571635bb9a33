"""Milliseconds of the backward pass of depthwise convolutions, PyTorch's and ours, and our share of the roofline.

    python benchmarks/depthwise.py [--batch 2] [--threads 1] [--repeats 5] [--model tf_efficientnet_lite0]

Every depthwise shape of the model at 360x480 and output stride 16, in fp32 and bf16, both memory layouts; interleaved
pairs, medians, CPU time. The roofline is the time that the machine takes to copy as many bytes as the backward pass
must read and write: dL/dy twice, x and dL/dx once. Then a training step of the whole backbone.
"""

import argparse
import statistics
import time
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_app import kernels
from lightning_app.backbones.timm import TimmBackbone
from lightning_app.kernels import depthwise
from lightning_app.tools.bench_timing import interleaved

SIZE = (360, 480)
LAYOUTS = {"rows": torch.contiguous_format, "channels_last": torch.channels_last}
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def shapes(model: TimmBackbone) -> dict[tuple[Any, ...], int]:
    """(channels, height, width, kernel, stride, dilation) -> how many layers have them."""
    found: dict[tuple[Any, ...], int] = {}

    def note(layer: nn.Conv2d, inputs: tuple[Tensor], _: Tensor) -> None:
        if layer.groups > 1:
            key = (layer.groups, *inputs[0].shape[2:], layer.kernel_size[0], layer.stride[0], layer.dilation[0])
            found[key] = found.get(key, 0) + 1

    hooks = [layer.register_forward_hook(note) for layer in model.modules() if isinstance(layer, nn.Conv2d)]
    with torch.no_grad():
        model.eval()(torch.zeros(1, 3, *SIZE))
    for hook in hooks:
        hook.remove()
    return found


def pair(case: list[Any], options: argparse.Namespace) -> tuple[float, float]:
    """Median milliseconds: PyTorch's, ours."""
    times = interleaved(case, options.repeats, options.clock)
    return statistics.median(times[0]), statistics.median(times[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tf_efficientnet_lite0")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    options.clock = time.process_time if options.threads == 1 else time.perf_counter
    torch.set_num_threads(options.threads)
    model = TimmBackbone(options.model, output_stride=16)
    block, other = torch.ones(2, 2**25)
    copy_ms = statistics.median(interleaved([lambda: other.copy_(block)], 5, options.clock)[0])
    bytes_per_ms = 2 * block.numel() * 4 / copy_ms

    geometry = ("layers", "channels", "map", "kernel", "stride", "dilation", "dtype", "layout")
    table = Table(*geometry, "PyTorch ms", "ours", "faster", "roofline")
    for (channels, height, width, kernel, stride, dilation), layers in shapes(model).items():
        for dtype_name, dtype in DTYPES.items():
            for layout_name, layout in LAYOUTS.items():
                x = torch.randn(options.batch, channels, height, width).to(dtype, memory_format=layout)
                weight = torch.randn(channels, 1, kernel, kernel).to(dtype)
                pad = (kernel - 1) // 2 * dilation
                x, weight = x.requires_grad_(), weight.requires_grad_()
                arguments = (x, weight, None, stride, pad, dilation, channels)
                if not depthwise.is_slow(weight, dtype, (stride, stride), (dilation, dilation)):
                    continue
                outputs = [F.conv2d(*arguments), depthwise.conv2d(*arguments)]
                grad = torch.randn_like(outputs[0])

                def backward(y: Tensor, leaves: Any = (x, weight), grad: Tensor = grad) -> object:
                    return torch.autograd.grad(y, leaves, grad, retain_graph=True)

                plain, ours = pair([lambda y=y: backward(y) for y in outputs], options)
                floor = (2 * grad.nbytes + 2 * x.nbytes) / bytes_per_ms
                shape = (f"{height}x{width}", f"{kernel}x{kernel}", f"{stride}", f"{dilation}")
                figures = (f"{plain:.2f}", f"{ours:.2f}", f"{plain / ours:.1f}x", f"{floor / ours:.2f}")
                table.add_row(f"{layers}", f"{channels}", *shape, dtype_name, layout_name, *figures)
    Console(width=140).print(table)

    steps = Table("training step", "layout", "PyTorch ms/image", "ours", "faster")
    for dtype_name, dtype in DTYPES.items():
        for layout_name, layout in LAYOUTS.items():
            model.train().to(memory_format=layout)
            images = torch.randn(options.batch, 3, *SIZE).to(memory_format=layout)

            def step(fast: bool, images: Tensor = images, dtype: torch.dtype = dtype) -> None:
                with kernels.fast(fast), torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
                    loss = model(images)[-1].float().square().mean()
                loss.backward()

            plain, ours = pair([lambda: step(False), lambda: step(True)], options)
            figures = (f"{plain / options.batch:.0f}", f"{ours / options.batch:.0f}", f"{plain / ours:.2f}x")
            steps.add_row(f"{options.model} {dtype_name}", layout_name, *figures)
    Console(width=140).print(steps)
    print(f"{torch.__version__=} {SIZE[0]}x{SIZE[1]}, batch {options.batch}, copies at {bytes_per_ms / 1e6:.1f} GB/s")


if __name__ == "__main__":
    main()
