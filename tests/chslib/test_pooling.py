"""1x1 convolution, and spectral, global and hybrid pooling, against their literal definitions."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from chslib.fast.cpu import PointwiseConv2d, conv1x1_of_parts
from chslib.pooling import (
    HALF_BAND_FROM,
    GlobalSpectralPool2d,
    HybridPool2d,
    MaxPool2d,
    SpectralPool2d,
    double,
    halve,
    spectral_operator,
    spectral_resample2d,
)

SIZES = [(8, 8), (7, 7), (8, 6), (7, 10), (9, 4), (16, 2), (2, 3), (1, 5)]
FORMATS = (torch.contiguous_format, torch.channels_last)


def maps(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def resample_spectrum(spectrum: Tensor, axis: int, out: int) -> Tensor:
    """Keep the frequencies that both grids hold; where +n/2 and -n/2 share a term, take half of each."""
    size = spectrum.shape[axis]
    kept = min(size, out)
    shape = list(spectrum.shape)
    shape[axis] = out
    result = spectrum.new_zeros(shape)
    for f in range(-(kept // 2), kept // 2 + 1):
        share = 0.5 if 2 * abs(f) == kept else 1.0
        result.select(axis, f % out).add_(share * spectrum.select(axis, f % size))
    return result


def by_dft(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Eq. 2 and its inverse as complex transforms, scaled to keep the mean."""
    spectrum = torch.fft.fft2(x)
    for axis, out in zip((-2, -1), size):
        spectrum = resample_spectrum(spectrum, axis, out)
    y = torch.fft.ifft2(spectrum) * (math.prod(size) / math.prod(x.shape[-2:]))
    assert y.imag.abs().max() < 1e-12  # averaging leaves nothing imaginary to drop
    return y.real


# ---- 1x1 convolution ---------------------------------------------------------------------------


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("bias", [True, False])
def test_conv1x1_is_the_general_convolution_with_its_gradients(memory_format, bias):
    module = PointwiseConv2d(3, 5, bias=bias).double()
    x = maps(2, 3, 4, 6).contiguous(memory_format=memory_format).requires_grad_()
    ours, literal = module(x), F.conv2d(x, module.weight, module.bias)
    assert ours.is_contiguous(memory_format=memory_format)
    torch.testing.assert_close(ours, literal, atol=1e-12, rtol=0)
    weights = maps(*ours.shape, seed=1)
    inputs = [x, *module.parameters()]
    for a, b in zip(
        torch.autograd.grad((ours * weights).sum(), inputs),
        torch.autograd.grad((literal * weights).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(a, b, atol=1e-12, rtol=0)


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("bias", [True, False])
def test_a_1x1_of_parts_is_the_1x1_of_their_concatenation_with_its_gradients(memory_format, bias):
    module = PointwiseConv2d(6, 5, bias=bias).double()
    parts = [
        maps(2, c, 4, 6, seed=c).contiguous(memory_format=memory_format).requires_grad_() for c in (1, 2, 3)
    ]
    ours = conv1x1_of_parts(parts, module.weight, module.bias)
    literal = F.conv2d(torch.cat(parts, dim=1), module.weight, module.bias)
    torch.testing.assert_close(ours, literal, atol=1e-12, rtol=0)
    inputs = [*parts, *module.parameters()]
    for mine, theirs in zip(
        torch.autograd.grad(ours.sin().sum(), inputs), torch.autograd.grad(literal.sin().sum(), inputs)
    ):
        torch.testing.assert_close(mine, theirs, atol=1e-12, rtol=0)


# ---- spectral pooling --------------------------------------------------------------------------


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("out", [(4, 4), (3, 5), (5, 2), (1, 1), (8, 8), (11, 12), (16, 3)])
@pytest.mark.parametrize("size", SIZES)
def test_spectral_resampling_is_the_direct_dft(size, out, memory_format):
    x = maps(2, 3, *size).contiguous(memory_format=memory_format)
    y = spectral_resample2d(x, out)
    assert y.shape == (2, 3, *out) and not y.is_complex()
    torch.testing.assert_close(y, by_dft(x, out), atol=1e-10, rtol=0)
    torch.testing.assert_close(y.mean((-2, -1)), x.mean((-2, -1)), atol=1e-12, rtol=0)


@pytest.mark.parametrize("size", SIZES)
def test_spectral_pooling_halves_and_same_padding_brings_the_low_pass_back(size):
    x = maps(2, 3, *size)
    half = tuple(max(side // 2, 1) for side in size)
    low = by_dft(x, half)
    torch.testing.assert_close(SpectralPool2d(padding="valid")(x), low, atol=1e-10, rtol=0)
    torch.testing.assert_close(SpectralPool2d(padding="same")(x), by_dft(low, size), atol=1e-10, rtol=0)


def test_an_operator_first_used_in_inference_can_train_afterwards():
    with torch.inference_mode():
        SpectralPool2d()(maps(1, 1, 26, 22))
    x = maps(1, 1, 26, 22).requires_grad_()
    SpectralPool2d()(x).sum().backward()
    torch.testing.assert_close(x.grad, torch.full_like(x, 1 / 4), atol=1e-12, rtol=0)


# ---- the half-band form ------------------------------------------------------------------------


@pytest.mark.parametrize("half", [1, 2, 3, 5, 8, 16, 33])
def test_the_half_band_form_is_the_operator_with_its_gradients(half):
    small, large = maps(2, half, 3), maps(2, 2 * half, 3, seed=1)
    odd = spectral_operator(2 * half, half)[:, 1::2].contiguous()
    torch.testing.assert_close(
        halve(large, odd), spectral_operator(2 * half, half) @ large, atol=1e-12, rtol=0
    )
    torch.testing.assert_close(
        double(small, odd), spectral_operator(half, 2 * half) @ small, atol=1e-12, rtol=0
    )
    assert torch.autograd.gradcheck(halve, (large.requires_grad_(), odd))
    assert torch.autograd.gradcheck(double, (small.requires_grad_(), odd))


@pytest.mark.parametrize("size", [(64, 64), (64, 32), (96, 66), (64, 40), (32, 130), (34, 16)])
@pytest.mark.parametrize("scale", [0.5, 2])
def test_large_maps_are_pooled_and_brought_back_as_by_the_dft(size, scale):
    assert max(size) >= HALF_BAND_FROM
    out = tuple(int(side * scale) for side in size)
    x = maps(2, 3, *size).contiguous(memory_format=torch.channels_last).requires_grad_()
    literal = x.detach().clone(memory_format=torch.contiguous_format).requires_grad_()
    ours, theirs = spectral_resample2d(x, out), by_dft(literal, out)
    assert ours.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(ours, theirs, atol=1e-10, rtol=0)
    back = maps(*ours.shape, seed=2)
    ours.backward(back)
    theirs.backward(back)
    torch.testing.assert_close(x.grad, literal.grad, atol=1e-10, rtol=0)


def test_large_maps_take_the_half_band_form_on_a_cpu(monkeypatch):
    taken = []
    for name, form in (("halve", halve), ("double", double)):
        monkeypatch.setattr(
            f"chslib.pooling.{name}", lambda *a, name=name, form=form: taken.append(name) or form(*a)
        )
    for side in (HALF_BAND_FROM // 2, HALF_BAND_FROM, 2 * HALF_BAND_FROM):
        x = torch.zeros(1, 2, side, side).contiguous(memory_format=torch.channels_last)
        SpectralPool2d(padding="same")(x)
    assert taken == ["halve", "halve", "double", "double"] * 2


@pytest.mark.parametrize("size", [(16, 16), (64, 64)])
def test_hybrid_pooling_under_autocast_stays_close_and_in_bfloat16(size):
    pool = HybridPool2d(4, padding="same")
    x = maps(2, 4, *size).float().contiguous(memory_format=torch.channels_last).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = pool(x)
    assert low.dtype == torch.bfloat16
    full = pool(x)
    assert (low.float() - full).abs().max() < 0.03 * full.abs().max()
    low.float().sum().backward()
    assert torch.isfinite(x.grad).all()


@pytest.mark.parametrize("size", SIZES)
def test_global_spectral_pooling_is_a_one_by_one_spectrum_and_the_mean(size):
    x = maps(2, 3, *size)
    y = GlobalSpectralPool2d()(x)
    assert y.shape == (2, 3, 1, 1)
    torch.testing.assert_close(y, spectral_resample2d(x, (1, 1)), atol=1e-12, rtol=0)
    torch.testing.assert_close(y[..., 0, 0], x.flatten(2).sum(2) / math.prod(size), atol=1e-12, rtol=0)


# ---- max and hybrid pooling --------------------------------------------------------------------


def test_max_pooling_takes_two_by_two_or_a_three_by_three_neighbourhood():
    x = torch.arange(16.0).view(1, 1, 4, 4)
    assert MaxPool2d()(x).flatten().tolist() == [5, 7, 13, 15]
    assert MaxPool2d(padding="same")(x)[0, 0, 0].tolist() == [5, 6, 7, 7]


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("size", [(8, 8), (6, 10), (7, 9)])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    "padding, same_spectral", [("valid", "lowpass"), ("same", "lowpass"), ("same", "identity"),
                               ("valid", "average"), ("same", "average")],
)  # fmt: skip
def test_hybrid_pooling_is_a_1x1_over_the_two_poolings_side_by_side(
    padding, same_spectral, size, bias, memory_format
):
    other = {"beside_max": "average"} if same_spectral == "average" else {"same_spectral": same_spectral}
    pool = HybridPool2d(3, 5, padding=padding, bias=bias, **other).double()
    x = maps(2, 3, *size).contiguous(memory_format=memory_format).requires_grad_()
    half = tuple(side // 2 for side in size)
    if same_spectral == "average":
        held = F.avg_pool2d(torch.ones_like(x), 3, 1, 1)  # the share of a window that lies on the map
        parts = [F.max_pool2d(x, 2), F.avg_pool2d(x, 2)]
        parts = parts if padding == "valid" else [F.max_pool2d(x, 3, 1, 1), F.avg_pool2d(x, 3, 1, 1) / held]
    elif padding == "valid":
        parts = [F.max_pool2d(x, 2), by_dft(x, half)]
    else:
        parts = [
            F.max_pool2d(x, 3, 1, 1),
            x if same_spectral == "identity" else by_dft(by_dft(x, half), size),
        ]
    literal = F.conv2d(torch.cat(parts, 1), pool.pointwise.weight, pool.pointwise.bias)
    ours = pool(x)
    torch.testing.assert_close(ours, literal, atol=1e-10, rtol=0)
    weights, inputs = maps(*ours.shape, seed=1), [x, *pool.parameters()]
    for a, b in zip(
        torch.autograd.grad((ours * weights).sum(), inputs),
        torch.autograd.grad((literal * weights).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(a, b, atol=1e-10, rtol=0)


# ---- errors ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: spectral_operator(0, 4), "0 -> 4"),
        (lambda: spectral_operator(4, 0), "4 -> 0"),
        (lambda: spectral_resample2d(torch.zeros(1, 1, 4, 4), (2, 0)), "at least 1"),
        (lambda: spectral_resample2d(torch.zeros(4), (2, 2)), r"shape \(4,\); expected \(..., H, W\)"),
        (lambda: SpectralPool2d(padding="full"), "'full'.*valid"),
        (lambda: MaxPool2d(padding="full"), "'full'.*valid"),
        (lambda: HybridPool2d(3, padding="full"), "'full'.*valid"),
        (lambda: HybridPool2d(3, same_spectral="crop"), "'crop'.*lowpass"),
    ],
)
def test_a_wrong_argument_is_named_with_what_was_expected(call, message):
    with pytest.raises(ValueError, match=message):
        call()
