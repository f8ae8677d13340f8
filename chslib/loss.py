"""The segmentation loss (Sec. 3.3, Eqs. 13-15), from logits.

Eq. 13 sums the cross entropy over all pixels and Eq. 15 averages it with a Dice loss in [0, 1];
the two only balance if the cross entropy is a mean, which we take (register row 10). Eq. 14 is
taken literally, with squared terms in the denominator, per image, then averaged over the batch.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from chslib.checks import check_tensor, may_look

TERMS = ("both", "cross entropy", "dice")
REDUCTIONS = ("mean", "sum")


def dice_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Dice loss (Eq. 14), a mean over images: 1 - 2 sum(y p) / (sum(y^2) + sum(p^2)).

    An image without a positive pixel scores 1 as long as anything is predicted at all, whatever
    its size (so only the cross entropy teaches there), and 0 where the prediction is exactly
    empty too: the 0/0 of Eq. 14 is read as agreement, the rule of `chslib.metrics`.

    Args:
        logits: (N, C, H, W), before the sigmoid.
        target: same shape, 0 or 1.
    """
    p, y = torch.sigmoid(logits.float()).flatten(1), target.float().flatten(1)
    overlap = 2 * (y * p).sum(1)
    total = (y * y).sum(1) + (p * p).sum(1)
    tiny = torch.finfo(total.dtype).tiny  # only ever met by an exact 0/0
    loss = torch.where(total > 0, 1 - overlap / total.clamp_min(tiny), torch.zeros_like(total))
    return loss.mean()


def segmentation_loss(
    logits: Tensor, target: Tensor, *, terms: str = "both", cross_entropy: str = "mean"
) -> Tensor:
    """Eq. 15: half the mean binary cross entropy (Eq. 13) plus half the Dice loss (Eq. 14).

    Computed in float32 whatever the autocast dtype, and finite for logits up to +-1e4 and beyond.

    Args:
        logits: (N, C, H, W), before the sigmoid.
        target: same shape, values in [0, 1]; others are refused where they may be read (`chslib.checks.may_look`).
        terms: "both"; or, not the paper's, "cross entropy" or "dice" alone and whole.
        cross_entropy: "mean" over pixels, or "sum" over those of an image as Eq. 13 writes it, then
            averaged over the batch (register row 10).

    Raises:
        ValueError: no tensors; shapes differ; a mask of 0 and 255; an argument outside the above.
    """
    if terms not in TERMS or cross_entropy not in REDUCTIONS:
        raise ValueError(
            f"terms={terms!r}, cross_entropy={cross_entropy!r}; expected one of {TERMS} and one of {REDUCTIONS}."
        )
    for tensor in (logits, target):
        check_tensor(tensor, floating=tensor is logits)
    if logits.shape != target.shape:
        raise ValueError(
            f"The loss got logits of shape {tuple(logits.shape)} and a target of shape {tuple(target.shape)}; "
            "expected the same, e.g. target.unsqueeze(1) for a mask without its channel axis."
        )
    if may_look(target, training=logits.requires_grad) and target.numel():
        low, high = (float(value) for value in target.aminmax())
        if low < 0 or high > 1:
            raise ValueError(
                f"The loss got a target of values {low:g} to {high:g}; expected a mask of 0 and 1, e.g. "
                "(mask > 0).float() for one of 0 and 255."
            )
    if terms == "dice":
        return dice_loss(logits, target)
    entropy = F.binary_cross_entropy_with_logits(logits.float(), target.float())
    if cross_entropy == "sum":
        entropy = entropy * logits[0].numel()
    return entropy if terms == "cross entropy" else 0.5 * entropy + 0.5 * dice_loss(logits, target)
