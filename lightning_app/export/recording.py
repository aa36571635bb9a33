"""A network as a graph of operators, for images of any size."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from io import StringIO
from typing import Final

import timm.layers.padding
import torch
from torch.export import Dim, ExportedProgram

from lightning_app.export.graphs import Graph, Size
from lightning_app.util.errors import InputError, causes

EXAMPLE: Final = (7, 3, 195, 259)  # to record with: no map is twice its neighbour, and nothing is equal by chance


def record(graph: Graph, size: Size | None) -> ExportedProgram:
    """The graph of the operators, free along the axes that the graph leaves free.

    Args:
        size: height and width, where it is to take this size alone.

    Raises:
        InputError: PyTorch cannot record it.
    """
    free = {axis: Dim.AUTO for axis in graph.axes if not size or axis == 0}
    images = torch.rand(EXAMPLE[0] if 0 in graph.axes else 1, EXAMPLE[1], *(size or EXAMPLE[2:]))
    try:
        with _padding_in_whole_numbers(), redirect_stderr(StringIO()):  # where PyTorch prints the graph that it gave up
            program = torch.export.export(graph, (images,), dynamic_shapes=(free,), strict=False)
    except InputError:
        raise
    except Exception as error:  # whatever recording raises, from any of PyTorch's layers
        what = f"{type(graph.network).__name__} cannot be recorded"
        hint = "" if size else " for any size; for one, give --size HxW"
        raise InputError(f"{what}{hint}: {first_line(error)}") from error
    _forget_assertions(program)
    return program


def first_line(error: Exception) -> str:
    """What was wrong in the first place, in one line."""
    first = causes(error)[-1]
    return next((line.strip() for line in str(first).splitlines() if line.strip()), type(first).__name__)


@contextmanager
def quiet() -> Iterator[None]:
    """Without what PyTorch's exporters say on the way, which is for their authors."""
    names = ("torch.export", "torch.onnx", "torch._inductor", "torch.utils.cpp_extension", "onnxscript", "root")
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def _padding_in_whole_numbers() -> Iterator[None]:
    """timm computes what it pads by math.ceil of a quotient, which no file holds and of which no range is known."""

    def padding(side: int, kernel_size: int, stride: int, dilation: int) -> int:
        reach = (kernel_size - 1) * dilation + 1
        needed = ((side + stride - 1) // stride - 1) * stride + reach - side
        return needed if reach >= stride else max(needed, 0)  # PyTorch takes minutes to read nested maxima

    usual = timm.layers.padding.get_same_padding
    timm.layers.padding.get_same_padding = padding
    try:
        yield
    finally:
        timm.layers.padding.get_same_padding = usual


def _forget_assertions(program: ExportedProgram) -> None:
    """Without what PyTorch asserts of numbers that are known when it runs alone.

    Some of it is wrong: torchvision says that NMS keeps two boxes at least. What the graph gives is verified.
    """
    graph = program.graph
    for node in graph.find_nodes(op="call_function", target=torch.ops.aten._assert_scalar.default):
        graph.erase_node(node)
    graph.eliminate_dead_code()
