"""What the networks, the pooling and the loss refuse: what came, what was expected, and the cure."""

import torch
from torch import Tensor, nn


def may_look(x: Tensor, *, training: bool) -> bool:
    """Whether a tensor's values may be read to check them.

    That would stall a GPU at each training step, and break a compiled or captured graph.
    """
    if torch.compiler.is_compiling():
        return False
    return not (x.is_cuda and (training or torch.cuda.is_current_stream_capturing()))


def check_tensor(x: Tensor, *, floating: bool = True) -> None:
    """Refuse what is no tensor, or none of floating point.

    Raises:
        ValueError: with what came and the cure.
    """
    if not isinstance(x, Tensor):
        raise ValueError(
            f"Got a {type(x).__module__}.{type(x).__name__}; expected a torch.Tensor, e.g. torch.from_numpy(x)."
        )
    if floating and not x.is_floating_point():
        raise ValueError(f"Got a tensor of dtype {x.dtype}; expected floating point, e.g. x.float() / 255.")


def check_input(x: Tensor, network: nn.Module, *, divisor: int) -> None:
    """Refuse what a network cannot take, with what came, what was expected and the cure.

    Args:
        x: the batch, expected (N, ``network.in_channels``, H, W), floating, sides divisible by ``divisor``. Values
            that are not finite are refused where they may be read (`may_look`).

    Raises:
        ValueError: no tensor; wrong axes, channels, dtype or side lengths; values that are not finite.
    """
    check_tensor(x)
    shape, channels = tuple(x.shape), network.in_channels
    if x.ndim != 4 or shape[1] != channels:
        cure = {3: "x.unsqueeze(1) for (N, H, W)", 2: "x[None, None] for one slice"}.get(x.ndim)
        cure = cure or f"x[:, :{channels}], or a network built with in_channels={shape[1]}"
        raise ValueError(f"Got a tensor of shape {shape}; expected (N, {channels}, H, W), e.g. {cure}.")
    own = next(network.parameters()).dtype
    if x.dtype == torch.float64 != own:
        raise ValueError(
            f"Got a tensor of dtype {x.dtype}, the network is {own}; expected the same, e.g. x.float()."
        )
    height, width = shape[-2:]
    if height % divisor or width % divisor or not height or not width:
        target = tuple(max(divisor, -(-side // divisor) * divisor) for side in (height, width))
        raise ValueError(
            f"Got a slice of {height}x{width}; both sides must divide by {divisor}. "
            f"Pad it to {target[0]}x{target[1]}: "
            f"torch.nn.functional.pad(x, (0, {target[1] - width}, 0, {target[0] - height}))."
        )
    if may_look(x, training=network.training) and not torch.isfinite(x).all():
        bad = int((~torch.isfinite(x)).sum())
        raise ValueError(
            f"Got {bad} NaN or infinite values in a batch of shape {shape}; expected finite intensities. "
            "Mend the slice (torch.nan_to_num, or look at its window) before the network sees it."
        )


def check_grey(network: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    """Refuse intensities that trained weights do not know: a hook in front of a pretrained network, for evaluation.

    Raises:
        ValueError: values outside 0..1, where they may be read (`may_look`).
    """
    x = inputs[0]
    # To be trained further, on whatever; or `check_input` will say what is wrong.
    known = isinstance(x, Tensor) and x.is_floating_point() and x.numel()
    if network.training or not known or not may_look(x, training=False):
        return
    low, high = (float(value) for value in x.detach().aminmax())
    if low < -0.01 or high > 1.01:
        cure = "x / 255" if low >= 0 else "`chs-net segment` for a scan in Hounsfield units"
        raise ValueError(
            f"Got intensities from {low:g} to {high:g}; these weights were trained on grey values from 0 to 1: {cure}."
        )
