"""Augmentation of whole batches, for rows beyond the paper's recipe (`replication.training.recipe`).

The paper names no augmentation (register row 12), and the rows of its tables have none.
What is drawn depends on the seed and the epoch alone, so that a resumed run is an unbroken one.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

Change = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Augmentation:
    """How far each slice may be changed; every slice of a batch is drawn on its own.

    Attributes:
        flip: share of the slices that are mirrored, left for right.
        rotation: degrees to either side.
        scale: 0.15: from 1/1.15 to 1.15 times the size.
        shift: in either direction, share of the side.
        brightness: added to the grey values, which lie in [0, 1].
        contrast: 0.2: grey values 1/1.2 to 1.2 times as far from the slice's mean.
        gamma: 0.3: grey values to the power of 1/1.3 to 1.3.
    """

    flip: float = 0.5
    rotation: float = 15.0
    scale: float = 0.15
    shift: float = 0.06
    brightness: float = 0.08
    contrast: float = 0.2
    gamma: float = 0.3

    def of_epoch(self, *, seed: int, epoch: int) -> Change:
        """What changes the batches of one epoch, one call a batch, in their order."""
        drawn = np.random.default_rng(
            [seed, epoch, 1]
        )  # 1: not the order of the slices, which is [seed, epoch]
        return lambda image, mask: self._change(image, mask, drawn)

    def _change(self, image: Tensor, mask: Tensor, drawn: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Image (N, C, H, W) in [0, 1] and mask (N, 1, H, W) of 0 and 1, moved alike, on their device."""

        def within(limit: float) -> np.ndarray:
            return drawn.uniform(-limit, limit, len(image))

        def factor(limit: float) -> np.ndarray:
            return np.exp(within(np.log1p(limit)))

        mirror = np.where(drawn.random(len(image)) < self.flip, -1.0, 1.0)
        angle, size = np.deg2rad(within(self.rotation)), factor(self.scale)
        across, down = within(2 * self.shift), within(2 * self.shift)  # the grid is 2 wide
        cos, sin = np.cos(angle) / size, np.sin(angle) / size
        at = np.array([[mirror * cos, -mirror * sin, across], [sin, cos, down]]).transpose(2, 0, 1)
        grey = np.stack([factor(self.gamma), factor(self.contrast), within(self.brightness)])

        where = torch.tensor(at, dtype=image.dtype, device=image.device)
        grid = F.affine_grid(where, list(image.shape), align_corners=False)
        image = F.grid_sample(image, grid, align_corners=False)  # black where nothing was
        mask = (F.grid_sample(mask, grid, align_corners=False) > 0.5).to(mask.dtype)

        power, stretch, add = torch.tensor(grey, dtype=image.dtype, device=image.device)[
            ..., None, None, None
        ]
        image = image.clamp(0, 1) ** power
        mean = image.mean((2, 3), keepdim=True)
        return ((image - mean) * stretch + mean + add).clamp(0, 1), mask
