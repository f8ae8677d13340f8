"""Spectral pooling at the five sizes of the default network: the dense forms against FFTs.

Forward and backward together. The network's form is compared with the best FFT at each size, and
with the limit: its products at the peak rate, or the maps in and out at copy bandwidth, whichever
takes longer.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks.fft import FORMS as FFTS
from benchmarks.limits import timed
from chslib.network import WIDTHS
from chslib.pooling import HALF_BAND_FROM, spectral_operator, spectral_resample2d
from replication.memory import keep_freed_memory

SIDES = (256, 128, 64, 32, 16)  # of the maps that the five stages hold at 256x256
FORMATS = {"NCHW": torch.contiguous_format, "channels_last": torch.channels_last}


def by_network(x: Tensor) -> Tensor:
    """What the network runs: half-band products in channels_last on a CPU, dense ones elsewhere."""
    return spectral_resample2d(x, (x.shape[-2] // 2, x.shape[-1] // 2))


def by_dense_operator(x: Tensor) -> Tensor:
    """Y = A X B^T with the whole operators, in any memory format."""
    a, b = (spectral_operator(n, n // 2).to(x) for n in x.shape[-2:])
    return a @ (x @ b.t())


OURS = "network's form"
FORMS = {
    OURS: (by_network, "channels_last"),
    "dense operator": (by_dense_operator, "NCHW"),
    **{f"{name}, {layout}": (form, layout) for name, form in FFTS.items() for layout in FORMATS},
}


def error(form: Any, side: int) -> float:
    """Largest difference from the dense operator, output and gradient, in float64."""
    x = torch.rand(1, 2, side, side, dtype=torch.float64, requires_grad=True)
    back = torch.rand(1, 2, side // 2, side // 2, dtype=torch.float64)
    function, layout = form
    ours, theirs = function(x.contiguous(memory_format=FORMATS[layout])), by_dense_operator(x)
    gradients = [torch.autograd.grad(y, x, back)[0] for y in (ours, theirs)]
    pairs = ((ours.detach(), theirs.detach()), gradients)
    return max(float((a - b).abs().max()) for a, b in pairs)


def there_and_back(form: Callable[[Tensor], Tensor], x: Tensor, back: Tensor) -> None:
    """What is timed."""
    torch.autograd.grad(form(x), x, back)


def flops(side: int, channels: int, batch: int, *, half_band: bool) -> float:
    """Of the two products, forward and backward (which is the transposed pair): 2 a multiplication."""
    half = side // 2
    multiplications = batch * channels * (half * side * side + half * half * side)
    return 4 * multiplications / (2 if half_band else 1)


def measure(
    *, batch: int, peak: float, bandwidth: float, rounds: int, device: str = "cpu", dtype: torch.dtype
) -> list[dict[str, Any]]:
    """A row for each size: seconds of each form (best of the rounds, taken in turns) and what follows."""
    keep_freed_memory()
    rows = []
    for side, channels in zip(SIDES, WIDTHS, strict=True):
        shape = (batch, channels, side, side)
        seconds: dict[str, list[float]] = {name: [] for name in FORMS}
        inputs = {}
        for layout, memory_format in FORMATS.items():
            x = torch.rand(shape, device=device).to(dtype).contiguous(memory_format=memory_format)
            back = torch.rand(batch, channels, side // 2, side // 2, device=device).to(dtype)
            inputs[layout] = (x.requires_grad_(), back.contiguous(memory_format=memory_format))
        for turn in range(rounds + 1):
            for name, (form, layout) in FORMS.items():
                if dtype == torch.bfloat16 and "fft" in name:
                    continue  # no FFT takes it
                x, back = inputs[layout]
                taken = timed(there_and_back, form, x, back, device=device)
                if turn:  # the first warms up
                    seconds[name].append(taken)
        best = {name: min(times) for name, times in seconds.items() if times}
        half_band = device == "cpu" and side >= HALF_BAND_FROM
        arithmetic = flops(side, channels, batch, half_band=half_band) / peak
        maps = batch * channels * (side**2 + (side // 2) ** 2)
        traffic = 2 * maps * torch.finfo(dtype).bits / 8 / bandwidth  # read one, write the other; and back
        ffts = [best[name] for name in best if "fft" in name]
        rows.append(
            {
                "side": side,
                "channels": channels,
                "batch": batch,
                "form": "half-band" if half_band else "dense",
                "seconds": best,
                "rounds": seconds,
                "limit_seconds": max(arithmetic, traffic),
                "limit": "products" if arithmetic > traffic else "memory",
                "over_best_fft": min(ffts) / best[OURS] if ffts else None,
                "over_limit": best[OURS] / max(arithmetic, traffic),
                "error": {name: error(form, side) for name, form in FORMS.items()},
            }
        )
    return rows
