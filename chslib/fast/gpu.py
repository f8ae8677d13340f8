"""Fast forms on a GPU, in Triton: depthwise convolution and 3x3 max pooling of channels_last maps.

Both are bound by memory, and the general kernels behind torch take several times as long on bfloat16
maps of a few dozen channels (`benchmarks/`). Each is deterministic: nothing is added atomically, and
gradients of the maximum go to the first of equal values, as torch's do. Sums are in float32.

Without Triton, or elsewhere than on a GPU, the plain forms of torch are used. With TRITON_INTERPRET=1 set
before the import the kernels run on a CPU, slowly, so that tests can hold them against the plain forms.
"""

import logging
import os
from functools import lru_cache

import torch
from torch import Tensor

try:
    import triton
    import triton.language as tl
except ImportError:  # torch for a CPU comes without it
    triton = None

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
KINDS = (torch.float32, torch.bfloat16, torch.float16)


@lru_cache
def _say_why() -> None:
    logging.getLogger(__name__).warning("Triton is missing: the plain, slower kernels of torch are used.")


def usable(x: Tensor) -> bool:
    """Whether these forms take maps (N, C, H, W): on a GPU, where Triton is, in single or half precision."""
    if triton is None and x.is_cuda:
        _say_why()
    there = triton is not None and (x.is_cuda or INTERPRETED)
    return there and x.ndim == 4 and x.shape[1] > 1 and x.dtype in KINDS


if triton is not None:

    @triton.jit
    def _at(P, H, W, C, BP: tl.constexpr, BC: tl.constexpr, block):
        """Pixels and channels of a block; row and column of each pixel."""
        p = block * BP + tl.arange(0, BP)
        c = tl.program_id(1) * BC + tl.arange(0, BC)
        return p, c, (p // W) % H, p % W

    @triton.jit
    def _neighbour(P, H, W, C, p, c, row, col, sy, sx):
        """Offsets of the pixels sy rows below and sx columns right of others, and which of them there are."""
        there = (p < P) & (row + sy >= 0) & (row + sy < H) & (col + sx >= 0) & (col + sx < W)
        return (p + sy * W + sx)[:, None] * C + c[None, :], there[:, None] & (c < C)[None, :]

    @triton.jit
    def _convolve(x, w, y, P, H, W, C, K: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr):
        p, c, row, col = _at(P, H, W, C, BP, BC, tl.program_id(0))
        total = tl.zeros((BP, BC), tl.float32)
        for dy in tl.static_range(K):
            for dx in tl.static_range(K):
                at, there = _neighbour(P, H, W, C, p, c, row, col, dy - K // 2, dx - K // 2)
                v = tl.load(x + at, mask=there, other=0.0)
                k = tl.load(w + (dy * K + dx) * C + c, mask=c < C, other=0.0)
                total += v.to(tl.float32) * k.to(tl.float32)[None, :]
        inside = (p < P)[:, None] & (c < C)[None, :]
        tl.store(y + p[:, None] * C + c[None, :], total.to(y.dtype.element_ty), mask=inside)

    @triton.jit
    def _weight_gradient(
        x, g, out, P, H, W, C, STEPS, K: tl.constexpr, KK: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr
    ):
        chunk, tap = tl.program_id(0), tl.arange(0, KK)
        channel = tl.program_id(1) * BC + tl.arange(0, BC)
        total = tl.zeros((KK, BC), tl.float32)
        for step in range(STEPS):
            p, c, row, col = _at(P, H, W, C, BP, BC, chunk * STEPS + step)
            inside = (p < P)[:, None] & (c < C)[None, :]
            gradient = tl.load(g + p[:, None] * C + c[None, :], mask=inside, other=0.0).to(tl.float32)
            for dy in tl.static_range(K):
                for dx in tl.static_range(K):
                    at, there = _neighbour(P, H, W, C, p, c, row, col, dy - K // 2, dx - K // 2)
                    v = tl.load(x + at, mask=there, other=0.0).to(tl.float32)
                    total += tl.where(tap[:, None] == dy * K + dx, tl.sum(v * gradient, 0)[None, :], 0.0)
        at = (chunk * K * K + tap[:, None]) * C + channel[None, :]
        tl.store(out + at, total, mask=(tap < K * K)[:, None] & (channel < C)[None, :])

    @triton.jit
    def _maximum(x, y, where, P, H, W, C, BP: tl.constexpr, BC: tl.constexpr):
        p, c, row, col = _at(P, H, W, C, BP, BC, tl.program_id(0))
        best = tl.full((BP, BC), float("-inf"), tl.float32)
        winner = tl.full((BP, BC), 4, tl.int32)
        for dy in tl.static_range(3):
            for dx in tl.static_range(3):
                at, there = _neighbour(P, H, W, C, p, c, row, col, dy - 1, dx - 1)
                v = tl.load(x + at, mask=there, other=float("-inf")).to(tl.float32)
                winner = tl.where(v > best, dy * 3 + dx, winner)
                best = tl.where(v > best, v, best)
        inside = (p < P)[:, None] & (c < C)[None, :]
        tl.store(y + p[:, None] * C + c[None, :], best.to(y.dtype.element_ty), mask=inside)
        tl.store(where + p[:, None] * C + c[None, :], winner.to(tl.uint8), mask=inside)

    @triton.jit
    def _maximum_gradient(g, where, gx, P, H, W, C, BP: tl.constexpr, BC: tl.constexpr):
        p, c, row, col = _at(P, H, W, C, BP, BC, tl.program_id(0))
        total = tl.zeros((BP, BC), tl.float32)
        for dy in tl.static_range(3):
            for dx in tl.static_range(3):  # the window that sees this pixel at (dy, dx)
                at, there = _neighbour(P, H, W, C, p, c, row, col, 1 - dy, 1 - dx)
                winner = tl.load(where + at, mask=there, other=255).to(tl.int32)
                v = tl.load(g + at, mask=there, other=0.0).to(tl.float32)
                total += tl.where(winner == dy * 3 + dx, v, 0.0)
        inside = (p < P)[:, None] & (c < C)[None, :]
        tl.store(gx + p[:, None] * C + c[None, :], total.to(gx.dtype.element_ty), mask=inside)


def _blocks(channels: int) -> tuple[int, int]:
    """Pixels and channels of a block: 2048 values, few of them beyond the last channel."""
    wide = 16 if 0 < channels % 32 <= 16 else 32
    return 2048 // wide, wide


def _last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def _like(x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    return torch.empty_like(x, dtype=dtype, memory_format=torch.channels_last)


def _sizes(x: Tensor) -> tuple[tuple[int, int], tuple[int, int, int, int]]:
    """The grid of blocks, and pixels, height, width and channels."""
    n, c, height, width = x.shape
    pixels, (bp, bc) = n * height * width, _blocks(c)
    return (triton.cdiv(pixels, bp), triton.cdiv(c, bc)), (pixels, height, width, c)


def _block_sizes(x: Tensor) -> dict[str, int]:
    bp, bc = _blocks(x.shape[1])
    return {"BP": bp, "BC": bc, "num_warps": 4}


@torch.library.custom_op("chslib::depthwise", mutates_args=())
def depthwise_op(x: Tensor, w: Tensor) -> Tensor:
    """`depthwise` without autocast."""
    x, k = _last(x), w.shape[-1]
    y, (grid, sizes) = _like(x), _sizes(x)
    taps = w.reshape(len(w), k * k).t().contiguous()
    _convolve[grid](x, taps, y, *sizes, K=k, **_block_sizes(x))
    return y


@torch.library.custom_op("chslib::depthwise_weight_gradient", mutates_args=())
def weight_gradient_op(x: Tensor, g: Tensor, k: int) -> Tensor:
    """Gradient of the filters (C, 1, k, k), added up in chunks and these in one sum."""
    x, g = _last(x), _last(g)
    ((blocks, across), sizes) = _sizes(x)
    steps = max(1, min(64, blocks // 1056))  # a few chunks for each of a large GPU's processors
    chunks = triton.cdiv(blocks, steps)
    out = torch.empty((chunks, k * k, x.shape[1]), dtype=torch.float32, device=x.device)
    taps = triton.next_power_of_2(k * k)
    _weight_gradient[(chunks, across)](x, g, out, *sizes, steps, K=k, KK=taps, **_block_sizes(x))
    return out.sum(0).t().reshape(-1, 1, k, k).to(x.dtype).contiguous()


@torch.library.custom_op("chslib::max3", mutates_args=())
def max3_op(x: Tensor) -> tuple[Tensor, Tensor]:
    """`max3`, and where in its window each maximum was, 0..8."""
    x = _last(x)
    y, where, (grid, sizes) = _like(x), _like(x, torch.uint8), _sizes(x)
    _maximum[grid](x, y, where, *sizes, **_block_sizes(x))
    return y, where


@torch.library.custom_op("chslib::max3_gradient", mutates_args=())
def max3_gradient_op(g: Tensor, where: Tensor) -> Tensor:
    """Gradient of the maps from that of their maxima."""
    g = _last(g)
    gx, (grid, sizes) = _like(g), _sizes(g)
    _maximum_gradient[grid](g, where, gx, *sizes, **_block_sizes(g))
    return gx


depthwise_op.register_fake(lambda x, w: _like(x))
weight_gradient_op.register_fake(lambda x, g, k: x.new_empty((x.shape[1], 1, k, k)))
max3_op.register_fake(lambda x: (_like(x), _like(x, torch.uint8)))
max3_gradient_op.register_fake(lambda g, where: _like(g))


def _depthwise_backward(ctx, g: Tensor) -> tuple[Tensor | None, Tensor]:
    x, w = ctx.saved_tensors
    g = g.to(x.dtype)
    gx = depthwise_op(g, w.flip(-1, -2).contiguous()) if ctx.needs_input_grad[0] else None
    return gx, weight_gradient_op(x, g, w.shape[-1]).to(w.dtype)


def _keep_winners(ctx, inputs: tuple[Tensor], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(output[1])
    ctx.mark_non_differentiable(output[1])


depthwise_op.register_autograd(
    _depthwise_backward, setup_context=lambda ctx, inputs, output: ctx.save_for_backward(*inputs)
)
max3_op.register_autograd(
    lambda ctx, g, _: max3_gradient_op(g, ctx.saved_tensors[0]), setup_context=_keep_winners
)


def depthwise(x: Tensor, w: Tensor) -> Tensor:
    """Depthwise k x k convolution, k odd, stride 1, zero padding: (N, C, H, W), (C, 1, k, k) -> (N, C, H, W)."""
    if torch.is_autocast_enabled(x.device.type):
        kind = torch.get_autocast_dtype(x.device.type)
        x, w = x.to(kind), w.to(kind)
    return depthwise_op(x, w)


def max3(x: Tensor) -> Tensor:
    """3 x 3 max pooling at stride 1 with padding 1: (N, C, H, W) -> (N, C, H, W)."""
    return max3_op(x)[0]
