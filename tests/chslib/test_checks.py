"""What one hands over by mistake is refused in words: what came, what was expected, the cure; a compiled step pays nothing."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from chslib import HybridPool2d, RAIUNet, SpectralPool2d, load_pretrained, segmentation_loss
from chslib.pooling import MaxPool2d

SLICE = torch.rand(1, 1, 32, 32)
MASK = (SLICE > 0.5).float()
TINY = RAIUNet(widths=(4, 6)).eval()
MISTAKES: dict[str, tuple[Callable, str]] = {
    "a mask of 0 and 255": (lambda: segmentation_loss(SLICE, MASK * 255), r"values 0 to 255; .*0 and 1, e\.g\. \(mask > 0\)"),
    "one as bytes": (lambda: segmentation_loss(SLICE, (MASK * 255).byte()), r"values 0 to 255"),
    "one of -1 and 1": (lambda: segmentation_loss(SLICE, MASK * 2 - 1), r"values -1 to 1"),
    "a mask without its channel axis": (lambda: segmentation_loss(SLICE, MASK[0]), r"\(1, 1, 32, 32\).*\(1, 32, 32\).*unsqueeze\(1\)"),
    "a mask of numpy": (lambda: segmentation_loss(SLICE, MASK.numpy()), r"numpy\.ndarray; .*torch\.from_numpy"),
    "a slice of numpy": (lambda: TINY(SLICE.numpy()), r"numpy\.ndarray; .*torch\.from_numpy"),
    "bytes": (lambda: TINY((SLICE * 255).byte()), r"uint8; expected floating point, e\.g\. x\.float\(\) / 255"),
    "float64": (lambda: TINY(SLICE.double()), r"float64, the network is torch\.float32; .*x\.float\(\)"),
    "three channels": (lambda: TINY(SLICE.expand(1, 3, 32, 32)), r"\(1, 3, 32, 32\); expected \(N, 1, H, W\), .*in_channels=3"),
    "no channel": (lambda: TINY(SLICE[0]), r"\(1, 32, 32\); .*x\.unsqueeze\(1\)"),
    "a size to pool by": (lambda: SpectralPool2d(2), r"padding=2; expected one of .*no size to give"),
    "the same of the maximum": (lambda: MaxPool2d(2), r"padding=2; expected one of .*no size to give"),
    "numpy to pool": (lambda: SpectralPool2d()(np.zeros((1, 1, 4, 4))), r"numpy\.ndarray"),
    "other channels to pool": (lambda: HybridPool2d(8)(torch.rand(1, 4, 8, 8)), r"\(1, 4, 8, 8\); expected \(N, 8, H, W\)"),
    "intensities of 0 to 255": (lambda: load_pretrained("cpu/table2-lungs")(SLICE * 255), r"from \S+ to 25\d.*x / 255"),
    "Hounsfield units": (
        lambda: load_pretrained()(torch.linspace(-1024, 400, 1024).view(1, 1, 32, 32)), r"-1024 to 400.*chs-net segment",
    ),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_refused_with_its_cure(mistake: str) -> None:
    call, says = MISTAKES[mistake]
    with pytest.raises(ValueError, match=says):
        call()


def test_what_is_right_passes() -> None:
    for mask in (MASK, MASK.bool(), MASK.byte(), MASK * 0.5):
        assert torch.isfinite(segmentation_loss(SLICE, mask))
    assert TINY.double()(SLICE.double()).dtype == torch.float64
    TINY.float()
    network = load_pretrained("cpu/table2-lungs")
    network(SLICE)
    network.train()(SLICE * 4 - 2)  # trained further, on whatever one has


def test_a_compiled_step_has_no_check_in_it() -> None:
    """In one graph: nothing in it waits for a value."""
    step = torch.compile(segmentation_loss, backend="eager", fullgraph=True)
    assert step(SLICE, MASK * 255) < 0
