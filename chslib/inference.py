"""CHS-Net over whole volumes: in batches, in bounded memory, on a CPU or a GPU.

Two things are done here that training cannot do. Batch normalisation is a fixed affine map once
a network is trained, so it is folded into the convolution in front of it (`folded`). And a slice
in which the first network finds no lung feeds the second one an empty contour map, which has one
and the same answer each time: it is worked out once.
"""

import copy
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from chslib.attention import SpectralSpatialAttention
from chslib.blocks import DepthwiseSeparableConv2d, InceptionConv
from chslib.fast.cpu import PointwiseConv2d
from chslib.network import CHSNet, contour_map
from chslib.pooling import HybridPool2d


class Segmentation(NamedTuple):
    """Binary masks of a volume, uint8 (S, H, W) each."""

    lungs: np.ndarray
    infection: np.ndarray


def _fold_into(conv: nn.Conv2d, norm: nn.Module) -> nn.Identity:
    assert isinstance(norm, nn.BatchNorm2d) and norm.running_mean is not None and norm.running_var is not None
    conv.weight, conv.bias = fuse_conv_bn_weights(
        conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
    )
    return nn.Identity()


def _last_convolution(module: nn.Module) -> nn.Conv2d | None:
    """The convolution whose output a module returns, where that can be told."""
    if isinstance(module, DepthwiseSeparableConv2d | HybridPool2d):
        return module.pointwise
    if isinstance(module, nn.Sequential) and len(module):
        return _last_convolution(module[-1])
    return module if isinstance(module, nn.Conv2d) and type(module) in (nn.Conv2d, PointwiseConv2d) else None


def folded(network: nn.Module) -> nn.Module:
    """A copy in evaluation mode with each batch normalisation folded into its convolution.

    The copy computes the same maps to rounding error, in fewer passes over memory; it cannot be
    trained on. A normalisation whose convolution cannot be told stays where it is.

    Args:
        network: `RAIUNet`, `CHSNet`, or any network built of them and of plain sequences.
    """
    network = copy.deepcopy(network).eval().requires_grad_(False)
    for module in list(network.modules()):
        if isinstance(module, InceptionConv):
            module.norm_relu[0] = _fold_into(module.merge, module.norm_relu[0])
        if isinstance(module, SpectralSpatialAttention):  # gamma normalises a sum of two convolutions
            norm = module.gamma[0]
            assert isinstance(norm, nn.BatchNorm2d) and norm.running_var is not None
            scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
            module.down.weight = nn.Parameter(module.down.weight * scale.view(-1, 1, 1, 1), False)
            module.gamma[0] = _fold_into(module.deep, norm)
        if isinstance(module, nn.Sequential):
            for i in range(1, len(module)):
                if isinstance(module[i], nn.BatchNorm2d) and (conv := _last_convolution(module[i - 1])):
                    module[i] = _fold_into(conv, module[i])
                if isinstance(module[i], nn.ReLU):  # behind a convolution of its own: nothing else reads it
                    module[i] = nn.ReLU(inplace=True)
    return network


Progress = Callable[[range], Iterable[int]]  # what shows how far it is, such as tqdm.tqdm


def _batches(volume: np.ndarray, size: int, progress: Progress | None) -> Iterator[tuple[slice, np.ndarray]]:
    if size < 1:
        raise ValueError(f"batch_size={size}; expected at least 1.")
    starts = range(0, len(volume), size)
    for start in progress(starts) if progress else starts:
        part = slice(start, start + size)
        yield part, volume[part]


def accelerator() -> torch.device:
    """The GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@torch.inference_mode()
def predict_logits(
    network: nn.Module, inputs: np.ndarray, *, batch_size: int, progress: Progress | None = None
) -> Iterator[tuple[slice, Tensor]]:
    """Logits (N, 1, H, W) of one network, batch by batch, each with the rows that it is of.

    The network is left in the mode that it was in. Arguments as for `predict_masks`.
    """
    device = next(network.parameters()).device
    was_training = network.training
    network.eval()
    try:
        for part, slices in _batches(inputs, batch_size, progress):
            batch = torch.from_numpy(slices).to(device).float() / 255
            with torch.autocast("cuda", dtype=torch.bfloat16, enabled=device.type == "cuda"):
                logits = network(batch.to(memory_format=torch.channels_last))
            yield part, logits
    finally:
        network.train(was_training)


def predict_masks(
    network: nn.Module, inputs: np.ndarray, *, batch_size: int, progress: Progress | None = None
) -> np.ndarray:
    """Binary masks (sigmoid > 0.5, register row 44) by one network, which is left in the mode that it was in.

    Args:
        network: one stage, on the device to use; on a GPU it runs in bfloat16.
        inputs: uint8 (S, C, H, W): CT slices, or contour maps of `second_stage_inputs`.
        batch_size: slices at a time.
        progress: wraps the batches' first rows and shows how far it is, such as `tqdm.tqdm`; None: silent.

    Returns:
        uint8 (S, 1, H, W) of 0 and 1.
    """
    masks = np.empty((len(inputs), 1, *inputs.shape[2:]), dtype=np.uint8)
    for part, logits in predict_logits(network, inputs, batch_size=batch_size, progress=progress):
        masks[part] = (logits > 0).cpu().numpy()
    return masks


@torch.inference_mode()
def segment_volume(
    network: CHSNet, volume: np.ndarray, *, batch_size: int = 8, progress: Progress | None = None
) -> Segmentation:
    """Lungs and infection of a whole volume, slice by slice as the paper does it (Fig. 5).

    Memory is bounded by the batch: the volume and its masks, one byte a voxel each, and the maps
    of ``batch_size`` slices. On a GPU in bfloat16. Pass `folded(network)` to save time.

    Args:
        network: a trained cascade, on the device to use, in evaluation mode.
        volume: (S, H, W), uint8 as in a slice store, or floating in 0..1; sides as the network
            was trained on (`load_pretrained` says which).
        batch_size: slices at a time.
        progress: see `predict_masks`.

    Raises:
        ValueError: another shape or dtype; sides that the network cannot halve; a network in
            training mode.
    """
    if volume.ndim != 3 or not (volume.dtype == np.uint8 or np.issubdtype(volume.dtype, np.floating)):
        raise ValueError(
            f"Got a volume of shape {volume.shape} and dtype {volume.dtype}; expected (S, H, W), uint8 or "
            "floating in 0..1 (`chs-net segment` reads scans in Hounsfield units)."
        )
    if network.training:
        raise ValueError("Got a network in training mode; expected network.eval() before it segments.")
    device = next(network.parameters()).device
    result = Segmentation(*(np.zeros(volume.shape, np.uint8) for _ in range(2)))
    of_nothing: Tensor | None = None  # the second network's answer to an empty contour map
    with torch.autocast("cuda", dtype=torch.bfloat16, enabled=device.type == "cuda"):
        for part, slices in _batches(volume, batch_size, progress):
            ct = torch.from_numpy(np.ascontiguousarray(slices)).to(device)[:, None].float()
            ct = (ct / 255 if volume.dtype == np.uint8 else ct).to(memory_format=torch.channels_last)
            lungs = network.lungs(ct) > 0
            between = contour_map(ct, lungs.to(ct.dtype), cascade=network.cascade)
            seen = between.flatten(1).any(1)
            infection = torch.empty_like(lungs)
            if seen.any():
                infection[seen] = network.infection(between[seen]) > 0
            if not seen.all():
                if of_nothing is None:
                    of_nothing = network.infection(torch.zeros_like(between[:1])) > 0
                infection[~seen] = of_nothing
            result.lungs[part] = lungs[:, 0].cpu().numpy()
            result.infection[part] = infection[:, 0].cpu().numpy()
    return result
