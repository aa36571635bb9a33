"""Criss-cross attention on CUDA that never holds its H x W x (H + W) weights.

With s_ij = q_i.k_j, L_i = log sum_j exp(s_ij) and p_ij = exp(s_ij - L_i), j over the row and the column of i::

    out_i = sum_j p_ij v_j
    ds_ij = p_ij (g_i.v_j - D_i),  g = dout,  D_i = g_i.out_i
    dq_i = sum_j ds_ij k_j,  dk_j = sum_i ds_ij q_i,  dv_j = sum_i p_ij g_i

Once L and D are known, rows and columns are sums that do not need each other. So every kernel runs over the rows and
then over the columns, where it adds to what it left and leaves out i itself, which the row has counted. A program takes
one tile of a line, which is a row or a column, and meets the tiles of that line one by one; p is made anew wherever it
is needed. Sums are fp32 and in a fixed order.

Papers: Huang et al., CCNet, ICCV 2019; Dao et al., FlashAttention, NeurIPS 2022.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators
# mypy: disable-error-code="import-untyped, import-not-found"
# because triton has no types and reads the annotations of its kernels as its own

import warnings
from functools import cache
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _tile(pid, height, width, COLUMN: tl.constexpr, BLOCK: tl.constexpr):
    """A program's tile: indices on a line, their places in the (B, H, W) map, and the line's start, step and length."""
    if COLUMN:
        lines, length, line_step, step = width, height, 1, width
    else:
        lines, length, line_step, step = height, width, width, 1
    tiles = tl.cdiv(length, BLOCK)
    line = pid // tiles
    start = (line // lines).to(tl.int64) * height * width + (line % lines) * line_step
    i = (pid % tiles) * BLOCK + tl.arange(0, BLOCK)
    return i, start + i * step, start, step, length


@triton.jit
def _vectors(x, pitch, places, inside, channels, size):
    """The vectors at places of a map that are ``pitch`` elements apart; 0 outside of a line and from ``size`` on."""
    mask = inside[:, None] & (channels < size)[None, :]
    return tl.load(x + places[:, None] * pitch + channels[None, :], mask=mask, other=0.0)


@triton.jit
def _store(x, values, pitch, places, inside, channels, size):
    mask = inside[:, None] & (channels < size)[None, :]
    tl.store(x + places[:, None] * pitch + channels[None, :], values.to(x.dtype.element_ty), mask=mask)


@triton.jit
def _seen(scores, i, j, length, COLUMN: tl.constexpr):
    """The scores, and -inf beyond the end of the line or, in a column, at i = j."""
    seen = (j < length)[None, :]
    if COLUMN:
        seen = seen & (i[:, None] != j[None, :])
    return tl.where(seen, scores, float("-inf"))


@triton.jit
def _log_sum_exp(
    q, k, lse, q_pitch, k_pitch, height, width, depth, size,
    COLUMN: tl.constexpr, BLOCK: tl.constexpr, DEPTH: tl.constexpr, CHUNK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """L_i; the columns set out from that of the rows, which is finite: a row always sees i."""
    i, places, start, step, length = _tile(tl.program_id(0), height, width, COLUMN, BLOCK)
    channels = tl.arange(0, DEPTH)
    q_tile = _vectors(q, q_pitch, places, i < length, channels, depth)
    if COLUMN:
        top = tl.load(lse + places, mask=i < length, other=0.0)
        total = tl.full([BLOCK], 1.0, tl.float32)
    else:
        top = tl.full([BLOCK], float("-inf"), tl.float32)
        total = tl.full([BLOCK], 0.0, tl.float32)
    for first in range(0, length, BLOCK):
        j = first + tl.arange(0, BLOCK)
        k_tile = _vectors(k, k_pitch, start + j * step, j < length, channels, depth)
        scores = _seen(tl.dot(q_tile, tl.trans(k_tile), input_precision=PRECISION), i, j, length, COLUMN)
        higher = tl.maximum(top, tl.max(scores, 1))
        total = total * tl.exp(top - higher) + tl.sum(tl.exp(scores - higher[:, None]), 1)
        top = higher
    tl.store(lse + places, top + tl.log(total), mask=i < length)


@triton.jit
def _weighted_sum(
    x, y, values, lse, out, x_pitch, y_pitch, values_pitch, height, width, depth, size,
    COLUMN: tl.constexpr, OF_KEYS: tl.constexpr,
    BLOCK: tl.constexpr, DEPTH: tl.constexpr, CHUNK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """A chunk of sum_j p_ij values_j with x = q and y = k; OF_KEYS: of sum_j p_ji values_j with x = k and y = q."""
    chunks = tl.cdiv(size, CHUNK)
    i, places, start, step, length = _tile(tl.program_id(0) // chunks, height, width, COLUMN, BLOCK)
    channels = tl.arange(0, DEPTH)
    chunk = (tl.program_id(0) % chunks) * CHUNK + tl.arange(0, CHUNK)
    x_tile = _vectors(x, x_pitch, places, i < length, channels, depth)
    if COLUMN:
        total = _vectors(out, size, places, i < length, chunk, size).to(tl.float32)
    else:
        total = tl.full([BLOCK, CHUNK], 0.0, tl.float32)
    if not OF_KEYS:
        lse_tile = tl.load(lse + places, mask=i < length, other=0.0)[:, None]
    for first in range(0, length, BLOCK):
        j = first + tl.arange(0, BLOCK)
        there = start + j * step
        y_tile = _vectors(y, y_pitch, there, j < length, channels, depth)
        scores = _seen(tl.dot(x_tile, tl.trans(y_tile), input_precision=PRECISION), i, j, length, COLUMN)
        if OF_KEYS:
            lse_tile = tl.load(lse + there, mask=j < length, other=0.0)[None, :]
        p = tl.exp(scores - lse_tile)
        values_tile = _vectors(values, values_pitch, there, j < length, chunk, size)
        total = tl.dot(p.to(values_tile.dtype), values_tile, total, input_precision=PRECISION)
    _store(out, total, size, places, i < length, chunk, size)


@triton.jit
def _grad_dot_out(grad, out, dot, grad_pitch, places, size, BLOCK: tl.constexpr, CHUNK: tl.constexpr):
    """D_i."""
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    total = tl.full([BLOCK], 0.0, tl.float32)
    for first in range(0, size, CHUNK):
        chunk = first + tl.arange(0, CHUNK)
        grad_tile = _vectors(grad, grad_pitch, i, i < places, chunk, size).to(tl.float32)
        total += tl.sum(grad_tile * _vectors(out, size, i, i < places, chunk, size).to(tl.float32), 1)
    tl.store(dot + i, total, mask=i < places)


@triton.jit
def _products(
    x, y, x_pitch, y_pitch, here, there, here_inside, there_inside, size,
    BLOCK: tl.constexpr, CHUNK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """x_i.y_j, a chunk of channels at a time."""
    total = tl.full([BLOCK, BLOCK], 0.0, tl.float32)
    for first in range(0, size, CHUNK):
        chunk = first + tl.arange(0, CHUNK)
        x_tile = _vectors(x, x_pitch, here, here_inside, chunk, size)
        y_tile = _vectors(y, y_pitch, there, there_inside, chunk, size)
        total = tl.dot(x_tile, tl.trans(y_tile), total, input_precision=PRECISION)
    return total


@triton.jit
def _grad_of_scores(
    x, y, x_side, y_side, lse, dot, out, x_pitch, y_pitch, x_side_pitch, y_side_pitch, height, width, depth, size,
    COLUMN: tl.constexpr, OF_KEYS: tl.constexpr,
    BLOCK: tl.constexpr, DEPTH: tl.constexpr, CHUNK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """dq with x = q, y = k and their sides g and v; OF_KEYS: dk with x = k, y = q and their sides v and g."""
    i, places, start, step, length = _tile(tl.program_id(0), height, width, COLUMN, BLOCK)
    channels = tl.arange(0, DEPTH)
    if COLUMN:
        total = _vectors(out, depth, places, i < length, channels, depth).to(tl.float32)
    else:
        total = tl.full([BLOCK, DEPTH], 0.0, tl.float32)
    if not OF_KEYS:
        lse_tile = tl.load(lse + places, mask=i < length, other=0.0)[:, None]
        dot_tile = tl.load(dot + places, mask=i < length, other=0.0)[:, None]
    for first in range(0, length, BLOCK):
        j = first + tl.arange(0, BLOCK)
        there = start + j * step
        dp = _products(
            x_side, y_side, x_side_pitch, y_side_pitch, places, there, i < length, j < length, size,
            BLOCK, CHUNK, PRECISION,
        )  # fmt: skip
        scores = _products(  # in chunks, too: a whole x_tile held over the loop above spills registers in fp32
            x, y, x_pitch, y_pitch, places, there, i < length, j < length, depth, BLOCK, CHUNK, PRECISION
        )
        if OF_KEYS:
            lse_tile = tl.load(lse + there, mask=j < length, other=0.0)[None, :]
            dot_tile = tl.load(dot + there, mask=j < length, other=0.0)[None, :]
        ds = tl.exp(_seen(scores, i, j, length, COLUMN) - lse_tile) * (dp - dot_tile)
        y_tile = _vectors(y, y_pitch, there, j < length, channels, depth)
        total = tl.dot(ds.to(y_tile.dtype), y_tile, total, input_precision=PRECISION)
    _store(out, total, depth, places, i < length, channels, depth)


def criss_cross(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """What ``lightning_app.blocks.ccnet.criss_cross`` gives, and its first derivatives.

    Shape: q, k (B, H, W, d), v (B, H, W, e), all fp32, fp16 or bf16 -> (B, H, W, e).
    """
    out: Tensor = _forward(q, k, v)[0]
    return out


@torch.compiler.assume_constant_result
def runs_on(device: torch.device) -> bool:
    """Whether the kernels run there: NVIDIA, compute capability 8.0 or higher, and triton finds what it needs."""
    return _runs_on(device)


@cache
def _runs_on(device: torch.device) -> bool:
    if torch.version.hip is not None or torch.cuda.get_device_capability(device) < (8, 0):
        return False
    try:
        x = torch.zeros(1, 16, device=device)
        _dot(x, x, x.new_empty(1))
    except Exception as error:  # no C compiler, no Python.h, a driver older than the code that triton makes
        warnings.warn(f"criss-cross attention runs in its plain form, triton does not work here: {error}", stacklevel=2)
        return False
    return True


def tiles(dtype: torch.dtype, depth: int, size: int) -> tuple[dict[str, Any], int]:
    """A kernel's options and how many values it takes at a time, by the shared memory that d = 128 takes.

    fp32 products round to TF32 where torch's own may (torch.set_float32_matmul_precision), else not.
    """
    exact = dtype == torch.float32 and not _tf32()
    options = {
        "BLOCK": 32 if exact else 64,
        "DEPTH": max(16, triton.next_power_of_2(depth)),
        "PRECISION": "ieee" if exact else "tf32",
        "num_warps": 4 if exact else 8,
        "num_stages": 2,
    }
    return options, min(64 if dtype == torch.float32 else 128, max(16, triton.next_power_of_2(size)))


def _tf32() -> bool:
    matmul = torch.backends.cuda.matmul
    try:
        return bool(matmul.fp32_precision == "tf32")
    except AttributeError:  # before torch 2.9; from then on allow_tf32 raises where the new setting was used
        return bool(matmul.allow_tf32)


@torch.library.custom_op("contextzoo::criss_cross", mutates_args=())  # torch.compile keeps an operator whole
def _forward(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    out, lse = _forward_outputs(q, k, v)
    q, k, v = _rows(q), _rows(k), _rows(v)
    _run(_log_sum_exp, (q, k), (lse,), out)
    _run(_weighted_sum, (q, k, v), (lse, out), out, OF_KEYS=False)
    return out, lse


@_forward.register_fake
def _forward_outputs(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    return v.new_empty(v.shape), v.new_empty(v.shape[:3], dtype=torch.float32)


@torch.library.custom_op("contextzoo::criss_cross_backward", mutates_args=())
def _backward(grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    grad_q, grad_k, grad_v = _backward_outputs(grad, q, k, v, out, lse)
    grad, q, k, v = _rows(grad), _rows(q), _rows(k), _rows(v)
    dot = torch.empty_like(lse)
    _dot(grad, out, dot)
    _run(_grad_of_scores, (q, k, grad, v), (lse, dot, grad_q), out, OF_KEYS=False)
    _run(_grad_of_scores, (k, q, v, grad), (lse, dot, grad_k), out, OF_KEYS=True)
    _run(_weighted_sum, (k, q, grad), (lse, grad_v), out, OF_KEYS=True)
    return grad_q, grad_k, grad_v


@_backward.register_fake
def _backward_outputs(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape)


def _save(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs, *output)


def _differentiate(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    grads: tuple[Tensor, Tensor, Tensor] = _backward(grad, *ctx.saved_tensors)
    return grads


_forward.register_autograd(_differentiate, setup_context=_save)


def _rows(x: Tensor) -> Tensor:
    """(B, H, W, c) -> (B H W, c) with neighbouring channels: a view of a slice of a contiguous map's channels."""
    x = x.reshape(-1, x.shape[3])
    return x if x.stride(1) == 1 else x.contiguous()


def _run(kernel: Any, inputs: tuple[Tensor, ...], others: tuple[Tensor, ...], out: Tensor, **flags: bool) -> None:
    """Over the rows and then over the columns."""
    batch, height, width, size = out.shape
    depth = inputs[0].shape[1]
    options, chunk = tiles(out.dtype, depth, size)
    arguments = (*inputs, *others, *(x.stride(0) for x in inputs), height, width, depth, size)
    with torch.cuda.device_of(out):
        for column in (False, True):
            lines, length = (width, height) if column else (height, width)
            programs = batch * lines * triton.cdiv(length, options["BLOCK"])
            if kernel is _weighted_sum:
                programs *= triton.cdiv(size, chunk)
            kernel[(programs,)](*arguments, COLUMN=column, CHUNK=chunk, **flags, **options)


def _dot(grad: Tensor, out: Tensor, dot: Tensor) -> None:
    with torch.cuda.device_of(dot):
        block, chunk = 32, 64
        grid = (triton.cdiv(dot.numel(), block),)
        _grad_dot_out[grid](grad, out, dot, grad.stride(0), dot.numel(), out.shape[-1], BLOCK=block, CHUNK=chunk)
