"""What the hardware can do at best: arithmetic and memory traffic, measured in the same run."""

import time
from collections.abc import Callable

import torch
from torch import Tensor


def timed(function: Callable[..., object], *arguments: object, device: str = "cpu") -> float:
    """Seconds of a call, to the end of what it starts on a GPU."""
    start = time.perf_counter()
    function(*arguments)
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def best_of(
    function: Callable[..., object], *arguments: object, rounds: int = 5, device: str = "cpu"
) -> float:
    """Seconds of the fastest of some calls, after one that is not counted."""
    return min([timed(function, *arguments, device=device) for _ in range(rounds + 1)][1:])


def peak_flops(*, device: str = "cpu", dtype: torch.dtype = torch.float32, side: int = 3072) -> float:
    """Operations a second of one large matrix product: 2 n^3 over its time."""
    a, b = (torch.rand(side, side, device=device).to(dtype) for _ in range(2))
    out: Tensor = torch.empty_like(a)
    return 2 * side**3 / best_of(lambda: torch.mm(a, b, out=out), device=device)


def has_bfloat16(device: str) -> bool:
    """Whether the hardware multiplies in bfloat16; without, a product takes minutes in emulation."""
    return device == "cuda" or torch.ops.mkldnn._is_mkldnn_bf16_supported()


def copy_bandwidth(*, device: str = "cpu", megabytes: int = 512) -> float:
    """Bytes a second, read and written, of a copy too large for any cache."""
    source = torch.rand(megabytes * 2**20 // 4, device=device)
    target = torch.empty_like(source)
    target.copy_(source)
    return 2 * source.numel() * 4 / best_of(lambda: target.copy_(source), device=device)
