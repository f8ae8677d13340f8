"""Spectral pooling by 2 (Eq. 2) through FFTs, as most code that pools spectrally writes it.

The same map as `chslib.pooling.SpectralPool2d`: means kept, and the two Nyquist terms of an even
grid averaged (register rows 4 and 6). (N, C, H, W) -> (N, C, H/2, W/2), H and W even.
"""

import torch
from torch import Tensor


def _crop(spectrum: Tensor, dim: int, size: int) -> Tensor:
    """Low half of a full spectrum along `dim`; the term at the cut is the mean of +n/2 and -n/2."""
    half, n = size // 2, spectrum.shape[dim]
    if size % 2:
        return torch.cat([spectrum.narrow(dim, 0, half + 1), spectrum.narrow(dim, n - half, half)], dim)
    cut = (spectrum.narrow(dim, half, 1) + spectrum.narrow(dim, n - half, 1)) / 2
    rest = spectrum.narrow(dim, n - half + 1, half - 1)
    return torch.cat([spectrum.narrow(dim, 0, half), cut, rest], dim)


def pool_by_rfft2(x: Tensor) -> Tensor:
    """Real transforms: the inverse one drops what is not Hermitian, which averages the last column."""
    h, w = x.shape[-2] // 2, x.shape[-1] // 2
    spectrum = _crop(torch.fft.rfft2(x)[..., : w // 2 + 1], -2, h)
    return torch.fft.irfft2(spectrum, s=(h, w)) / 4


def pool_by_fft2(x: Tensor) -> Tensor:
    """Complex transforms, the literal reading of Eq. 2."""
    h, w = x.shape[-2] // 2, x.shape[-1] // 2
    return torch.fft.ifft2(_crop(_crop(torch.fft.fft2(x), -2, h), -1, w)).real / 4


FORMS = {"rfft2": pool_by_rfft2, "fft2": pool_by_fft2}
