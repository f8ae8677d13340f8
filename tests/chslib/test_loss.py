"""Eqs. 13-15: a table worked out by hand, the literal form, and the extremes."""

import math

import pytest
import torch

from chslib.loss import dice_loss, segmentation_loss


def logit(p: float) -> float:
    return math.log(p / (1 - p))


# Probabilities and masks of one image; BCE is a mean over pixels, Dice has squared denominators.
TABLE = [
    # -ln 1/2; 1 - 2*0.5 / (1 + 0.25)
    ([0.5], [1], math.log(2), 0.2),
    # -ln 1/2; 1 - 2*0.5 / (1 + 2*0.25)
    ([0.5, 0.5], [1, 0], math.log(2), 1 / 3),
    # -(2 ln 3/4) / 2; 1 - 2*0.75 / (1 + 9/16 + 1/16)
    ([0.75, 0.25], [1, 0], -math.log(0.75), 1 / 13),
    # -(ln 0.2 + ln 0.4) / 2; 1 - 2*0.2 / (1 + 0.04 + 0.36)
    ([0.2, 0.6], [1, 0], -(math.log(0.2) + math.log(0.4)) / 2, 5 / 7),
    # -ln 3/4; no positive pixel: 1 however little is predicted
    ([0.25, 0.25], [0, 0], -math.log(0.75), 1.0),
    # -ln 0.9; 1 - 2*1.8 / (2 + 1.62)
    ([0.9, 0.9], [1, 1], -math.log(0.9), 1 - 3.6 / 3.62),
]


@pytest.mark.parametrize("probabilities, mask, cross_entropy, dice", TABLE)
def test_the_loss_is_what_pencil_and_paper_give(probabilities, mask, cross_entropy, dice):
    logits = torch.tensor([logit(p) for p in probabilities]).view(1, 1, 1, -1)
    target = torch.tensor(mask).view(1, 1, 1, -1)
    assert float(dice_loss(logits, target)) == pytest.approx(dice, abs=1e-6)
    assert float(segmentation_loss(logits, target)) == pytest.approx((cross_entropy + dice) / 2, abs=1e-6)


def test_dice_is_a_mean_over_images_not_over_all_their_pixels():
    logits = torch.tensor([logit(0.5), logit(0.5), logit(0.75), logit(0.25)]).view(2, 1, 1, 2)
    target = torch.tensor([1, 0, 1, 0]).view(2, 1, 1, 2)
    assert float(dice_loss(logits, target)) == pytest.approx((1 / 3 + 1 / 13) / 2, abs=1e-6)


def test_the_loss_is_eqs_13_to_15_in_their_literal_form():
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(4, 1, 16, 12, generator=generator)
    y = (torch.rand(4, 1, 16, 12, generator=generator) > 0.8).double()
    p = 1 / (1 + torch.exp(-logits.double()))
    bcl = -(y * p.log() + (1 - y) * (1 - p).log()).mean()
    axes = (1, 2, 3)
    dl = (1 - 2 * (y * p).sum(axes) / (y.abs().pow(2).sum(axes) + p.abs().pow(2).sum(axes))).mean()
    for target in (y, y.float(), y.bool(), y.to(torch.uint8)):
        torch.testing.assert_close(
            segmentation_loss(logits, target).double(), bcl / 2 + dl / 2, atol=1e-6, rtol=0
        )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("value", [-1e4, 1e4, -60.0, -45.0, 88.0, 0.0])
@pytest.mark.parametrize("positives", [0, 3, 16])
def test_value_and_gradient_stay_finite_at_the_extremes(dtype, value, positives):
    logits = torch.full((2, 1, 4, 4), value, dtype=dtype, requires_grad=True)
    target = (torch.arange(16) < positives).float().expand(2, 16).reshape(2, 1, 4, 4)
    loss = segmentation_loss(logits, target)
    loss.backward()
    assert loss.dtype == torch.float32 and torch.isfinite(loss) and loss >= 0
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("wrong, value", [(False, 0.0), (True, 0.5 * 1e4 + 0.5)])
def test_certain_logits_score_nothing_when_right_and_their_size_when_wrong(wrong, value):
    target = (torch.arange(16) < 5).float().view(1, 1, 4, 4)
    logits = 1e4 * (2 * target - 1) * (-1 if wrong else 1)
    assert float(segmentation_loss(logits, target)) == pytest.approx(value, rel=1e-6)


def test_logits_of_an_autocast_network_are_scored_in_single_precision():
    logits = torch.linspace(-3, 3, 16).view(1, 1, 4, 4).to(torch.bfloat16)
    target = (torch.arange(16) > 9).view(1, 1, 4, 4)
    assert segmentation_loss(logits, target) == segmentation_loss(logits.float(), target)


@pytest.mark.parametrize("value, dice", [(-1e4, 0.0), (-10.0, 1.0), (0.0, 1.0), (1e4, 1.0)])
def test_an_empty_mask_scores_zero_only_against_an_exactly_empty_prediction(value, dice):
    logits = torch.full((1, 1, 4, 4), value)
    assert float(dice_loss(logits, torch.zeros_like(logits))) == dice


def test_on_an_empty_mask_the_cross_entropy_still_teaches():
    logits = torch.zeros(1, 1, 4, 4, requires_grad=True)
    segmentation_loss(logits, torch.zeros(1, 1, 4, 4)).backward()
    assert (logits.grad > 0).all()


def test_the_other_readings_of_the_loss_by_hand():
    """Two images of two pixels: logits 0, so p = 1/2 and each pixel costs ln 2."""
    logits, target = torch.zeros(2, 1, 1, 2), torch.tensor([[[[1.0, 0.0]]], [[[1.0, 1.0]]]])
    dice = ((1 - 2 * 0.5 / (1 + 0.5)) + (1 - 2 * 1.0 / (2 + 0.5))) / 2
    ln2 = math.log(2)
    for arguments, expected in (
        ({}, 0.5 * ln2 + 0.5 * dice),
        ({"terms": "dice"}, dice),
        ({"terms": "cross entropy"}, ln2),
        ({"cross_entropy": "sum"}, 0.5 * 2 * ln2 + 0.5 * dice),
    ):
        assert segmentation_loss(logits, target, **arguments).item() == pytest.approx(expected), arguments
    with pytest.raises(ValueError, match="terms='bce'.*expected one of"):
        segmentation_loss(logits, target, terms="bce")
