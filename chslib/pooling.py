"""Spectral, global spectral and hybrid pooling (Sec. 3.1.1, Eq. 2, Fig. 8).

Spectral pooling (Rippel et al. 2015) takes the DFT of each feature map, keeps the low
frequencies and goes back. On the real line that map is linear and separable, so for an
input of H x W it equals two small dense products

    Y = A X B^T,    A: (h, H),  B: (w, W),

with A and B fixed by the sizes alone. They are built once in float64 and cached; no FFT,
no complex numbers and no imaginary remainder are involved.

Pooling by 2 keeps half the band, and half of such an operator needs no arithmetic: the ideal
half-band filter is zero at every even shift but the middle one. Pooled sample i is half of
sample 2i plus a product with the odd samples alone, and on the way back up the even samples are
the pooled ones. On a CPU large maps take that form, which is as exact and halves the products;
`benchmarks/` measures both forms against FFTs.

Where the paper is silent or contradicts itself:

* register row 4: Eq. 2 is orthonormal, so each halving would double the mean; we scale by
  hw / HW in frequency, which keeps the mean of every map;
* register row 6: at an even output size the kept spectrum has one Nyquist term and the
  input two (+n/2 and -n/2); we average them, which makes the output exactly real;
* register row 3: "same" pooling cropped to full size would be the identity; we low-pass at
  half the frequencies and go back to full size;
* register row 5: global spectral pooling keeps the DC term alone: it is the mean.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from chslib.checks import check_tensor
from chslib.fast import gpu
from chslib.fast.cpu import PointwiseConv2d, conv1x1, double, halve

PADDINGS = ("valid", "same")


def spectral_operator(size: int, out_size: int) -> Tensor:
    """The 1-D spectral resampling operator as a dense real matrix, float64, on the CPU.

    Row i, column j is ``1/size * sum_k w_k cos(2 pi k (i/out_size - j/size))`` over the
    frequencies that both grids hold, |k| <= min(size, out_size) / 2. All weights w_k are 1
    but the two Nyquist ends of an even grid, which count one half each (register row 6).
    Smaller ``out_size`` crops the spectrum (Eq. 2), larger pads it with zeros.

    Args:
        size: length of the input signal, samples.
        out_size: length of the output signal, samples.

    Returns:
        Matrix of shape (out_size, size); every row sums to 1, so means are kept.

    Raises:
        ValueError: a size below 1.
    """
    if size < 1 or out_size < 1:
        raise ValueError(f"spectral_operator got sizes {size} -> {out_size}; both must be at least 1.")
    kept = min(size, out_size)
    k = torch.arange(-(kept // 2), kept // 2 + 1, dtype=torch.float64)
    weight = torch.ones_like(k)
    if kept % 2 == 0:
        weight[0] = weight[-1] = 0.5
    i = torch.arange(out_size, dtype=torch.float64)[:, None, None] / out_size
    j = torch.arange(size, dtype=torch.float64)[None, :, None] / size
    return (weight * torch.cos(2 * math.pi * k * (i - j))).sum(-1) / size


# By sizes, part, dtype and device. A compiled graph takes them as they are, if they are there before it is traced.
_OPERATORS: dict[tuple[object, ...], Tensor] = {}


def _constant(size: int, out_size: int, odd: bool, dtype: torch.dtype, device: torch.device) -> Tensor:
    key = (size, out_size, odd, dtype, device)
    if key not in _OPERATORS:
        # inference_mode(False): a matrix made under inference mode could not be used to train later.
        with torch.inference_mode(False):
            operator = spectral_operator(size, out_size)
            operator = operator[:, 1::2].contiguous() if odd else operator
            _OPERATORS[key] = operator.to(dtype=dtype, device=device)
    return _OPERATORS[key]


def _operator_as(size: int, out_size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    return _constant(size, out_size, False, dtype, device)


def _odd_columns(size: int, dtype: torch.dtype) -> Tensor:
    """What `spectral_operator(size, size // 2)` does to the odd samples: (size/2, size/2), on the CPU."""
    return _constant(size, size // 2, True, dtype, torch.device("cpu"))


HALF_BAND_FROM = 32  # samples a side; below, the dense product is as fast (benchmarks/)


def _resample_rows(x: Tensor, size: int) -> Tensor:
    """Resample (N, H, K) along H to (N, size, K), by whichever form is faster there."""
    height = x.shape[1]
    if x.device.type == "cpu" and max(height, size) >= HALF_BAND_FROM:
        if height == 2 * size:
            return halve(x, _odd_columns(height, x.dtype))
        if size == 2 * height:
            return double(x, _odd_columns(size, x.dtype))
    return torch.matmul(_operator_as(height, size, x.dtype, x.device), x)


def spectral_resample2d(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Resample maps (N, C, H, W) to (N, C, h, w) by cropping or zero-padding their spectrum.

    To be compiled once, a network is called once before `torch.compile`: that makes the operators, and
    a trace that makes them does not hold for the next call.

    Args:
        x: real maps, any floating dtype.
        size: (h, w), each at least 1; smaller is pooling, larger is band-limited upsampling.

    Raises:
        ValueError: ``x`` has fewer than two axes or is not floating point, or a size below 1.
    """
    check_tensor(x)
    if x.ndim < 2:
        raise ValueError(f"Spectral pooling got a tensor of shape {tuple(x.shape)}; expected (..., H, W).")
    (height, width), (h, w) = x.shape[-2:], size
    if x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous():
        # Along the height over rows of W * C contiguous values, along the width over rows of C: no
        # copy changes the memory format. The order leaves the smaller map between the two.
        n, c = x.shape[:2]
        y = x.permute(0, 2, 3, 1)
        if h > height:
            y = _resample_rows(y.reshape(n * height, width, c), w)
            y = _resample_rows(y.reshape(n, height, w * c), h)
        else:
            y = _resample_rows(y.reshape(n, height, width * c), h)
            y = _resample_rows(y.reshape(n * h, width, c), w)
        return y.view(n, h, w, c).permute(0, 3, 1, 2)
    a = _operator_as(height, h, x.dtype, x.device)
    b = _operator_as(width, w, x.dtype, x.device)
    # The width first: it folds into one large product; the height is then a batched one.
    return torch.matmul(a, torch.matmul(x, b.t()))


def _check_padding(padding: str) -> None:
    if padding not in PADDINGS:
        raise ValueError(
            f"Pooling got padding={padding!r}; expected one of {PADDINGS}. It halves both sides: there is no size to give."
        )


class SpectralPool2d(nn.Module):
    """Spectral pooling by 2 (Eq. 2), exactly real and mean-preserving.

    "valid": (N, C, H, W) -> (N, C, H//2, W//2). "same": the same low-pass brought back to
    (N, C, H, W) (register row 3).

    Args:
        padding: "valid" or "same".
    """

    def __init__(self, padding: str = "valid") -> None:
        super().__init__()
        _check_padding(padding)
        self.padding = padding

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        pooled = spectral_resample2d(x, (max(height // 2, 1), max(width // 2, 1)))
        return pooled if self.padding == "valid" else spectral_resample2d(pooled, (height, width))

    def extra_repr(self) -> str:
        return f"padding={self.padding!r}"


class GlobalSpectralPool2d(nn.Module):
    """Global spectral pooling (Sec. 3.2): (N, C, H, W) -> (N, C, 1, 1).

    Of a 1 x 1 spectrum only the DC term is left, so this is the mean over each map, and the
    contrast that the paper draws with global average pooling is empty (register row 5).
    """

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=(-2, -1), keepdim=True)


class MaxPool2d(nn.Module):
    """Max pooling in the two forms that hybrid pooling needs.

    "valid": 2 x 2 at stride 2. "same": 3 x 3 at stride 1, as in the inception block that the
    paper builds on; the window is not given (register row 20).
    """

    def __init__(self, padding: str = "valid") -> None:
        super().__init__()
        _check_padding(padding)
        self.padding = padding

    def forward(self, x: Tensor) -> Tensor:
        if self.padding == "valid":
            return F.max_pool2d(x, 2)
        return gpu.max3(x) if gpu.usable(x) else F.max_pool2d(x, 3, stride=1, padding=1)


class HybridPool2d(nn.Module):
    """Hybrid pooling P_h (Sec. 3.1.1): max and spectral pooling in parallel, concatenated, 1x1.

    (N, C, H, W) -> (N, out, H//2, W//2) for "valid", (N, out, H, W) for "same".

    Args:
        in_channels: C.
        out_channels: channels after the 1x1 convolution; C by default.
        padding: "valid" or "same".
        same_spectral: what "same" spectral pooling does: "lowpass" (default) or "identity",
            the reading of the authors' later code (register row 3).
        beside_max: "spectral" (the paper), or "average": the pooling that Sec. 3.1.1 argues against,
            2x2 for "valid", 3x3 at stride 1 over the pixels that exist for "same".
        bias: bias of the 1x1; off where a batch normalisation follows.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int | None = None,
        *,
        padding: str = "valid",
        same_spectral: str = "lowpass",
        beside_max: str = "spectral",
        bias: bool = True,
    ) -> None:
        super().__init__()
        if beside_max not in ("spectral", "average"):
            raise ValueError(f"beside_max={beside_max!r}; expected 'spectral' or 'average'.")
        if same_spectral not in ("lowpass", "identity"):
            raise ValueError(f"same_spectral={same_spectral!r}; expected 'lowpass' or 'identity'.")
        self.max = MaxPool2d(padding=padding)
        self.spectral: nn.Module
        if beside_max == "average":
            valid = padding == "valid"
            self.spectral = nn.AvgPool2d(2) if valid else nn.AvgPool2d(3, 1, 1, count_include_pad=False)
        elif padding == "same" and same_spectral == "identity":
            self.spectral = nn.Identity()
        else:
            self.spectral = SpectralPool2d(padding=padding)
        self.pointwise = PointwiseConv2d(2 * in_channels, out_channels or in_channels, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        check_tensor(x)
        if x.ndim != 4 or 2 * x.shape[1] != self.pointwise.in_channels:
            expected = f"(N, {self.pointwise.in_channels // 2}, H, W)"
            raise ValueError(f"Hybrid pooling got a tensor of shape {tuple(x.shape)}; expected {expected}.")
        # The 1x1 over [max, spectral] is the sum of two 1x1, and the spectral one commutes with the
        # pooling, which mixes no channels: it is taken where the maps are smallest, and nothing is
        # concatenated in memory.
        of_max, of_spectral = self.pointwise.weight.chunk(2, dim=1)
        peaks = conv1x1(self.max(x), of_max, self.pointwise.bias)
        if isinstance(self.spectral, SpectralPool2d) and self.spectral.padding == "same":
            height, width = x.shape[-2:]
            low = conv1x1(spectral_resample2d(x, (max(height // 2, 1), max(width // 2, 1))), of_spectral)
            return peaks + spectral_resample2d(low, (height, width))
        return peaks + conv1x1(self.spectral(x), of_spectral)
