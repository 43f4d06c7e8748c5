"""The loops of `_texture.kernels` as torch operations over many tiles at a time, for a GPU.

Each function is the twin of the one of its name there: a plane (n, m) is a stack of planes (b, n, m) here, and a number is a tensor (b,).
Nothing is a product of matrices, which GPUs round to ten bits where the caller allows it (TF32).
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch.nn import functional

from spatialwhisperer.encoders.image._texture.kernels import AROUND, LEAST_RISE, LEAST_SD

BYTES_PER_PIXEL = 160
"""Memory that the features of a tile take at most, per pixel of it."""

_INNER = slice(1, -1)


def restain(tiles: torch.Tensor, densities: np.ndarray, matrix: np.ndarray, blank: int) -> torch.Tensor:
    """Map the optical densities of uint8 (b, 3, h, w) tiles by a matrix, float32 (3, b, h, w)."""
    channels = tiles.transpose(0, 1)
    table = torch.from_numpy(densities).to(tiles.device)
    density = [table[k].index_select(0, channels[k].flatten().int()).view_as(channels[k]) for k in range(3)]
    out = torch.stack([_mixed(density, matrix[:, k]) for k in range(3)])
    out = out.mul_(-math.log(10.0)).exp_().mul_(256).sub_(1).clamp_(0, 255)
    return out.masked_fill_(channels.amax(dim=0) <= blank, 255)


def area_resample(planes: torch.Tensor, n: int) -> torch.Tensor:
    """Average (c, b, p, p) planes over n × n equal cells; a pixel on a border counts by its area inside the cell."""
    p = planes.shape[-1]
    if n == p:
        return planes
    first, weights = _area_weights(p, n)
    starts = torch.from_numpy(first).to(planes.device)
    fractions = torch.from_numpy(weights).to(planes.device)
    # beyond the last pixel the weight is zero
    places = [(starts + k).clamp_(max=p - 1) for k in range(weights.shape[1])]
    rows = planes.new_zeros((*planes.shape[:-2], n, p))
    for k, place in enumerate(places):
        rows.addcmul_(planes.index_select(-2, place), fractions[:, k, None])
    out = planes.new_zeros((*planes.shape[:-2], n, n))
    for k, place in enumerate(places):
        out.addcmul_(rows.index_select(-1, place), fractions[:, k])
    return out


def stain_planes(rgb: torch.Tensor, inverse: np.ndarray) -> torch.Tensor:
    """Turn (3, b, n, n) intensities of 0 to 255 into haematoxylin, eosin, residual, density and saturation, (5, b, n, n)."""
    density = (rgb + 1).log_().neg_().add_(math.log(256.0)).mul_(1 / math.log(10.0))
    out = rgb.new_empty((5, *rgb.shape[1:]))
    for k in range(3):
        out[k] = _mixed(list(density), inverse[:, k])
    out[3] = (density[0] + density[1] + density[2]) / 3
    high = rgb.amax(dim=0)
    out[4] = (high - rgb.amin(dim=0)) / high.clamp(min=1)
    return out


def moments(plane: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Mean, standard deviation and skewness of planes; skewness is 0 where nothing varies."""
    mean, from_mean = _centred(plane)
    squares = from_mean * from_mean
    sd = _mean(squares).sqrt()
    third = _mean(squares.mul_(from_mean))
    return mean, sd, torch.where(sd > LEAST_SD, third / sd.clamp(min=LEAST_SD) ** 3, 0.0)


def correlation(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Pearson correlations of planes; 0 where one of them does not vary."""
    from_mean_a, from_mean_b = _centred(a)[1], _centred(b)[1]
    sd_a, sd_b = (_mean(d * d).sqrt() for d in (from_mean_a, from_mean_b))
    product = _mean(from_mean_a.mul_(from_mean_b))
    varies = (sd_a > LEAST_SD) & (sd_b > LEAST_SD)
    return torch.where(varies, product / (sd_a * sd_b).clamp(min=LEAST_SD**2), 0.0)


def gated_means(planes: torch.Tensor, od_floor: float, h_floor: float, h_ceiling: float) -> torch.Tensor:
    """Fraction of pixels inside the limits, then the mean of every plane there, (c + 1, b)."""
    h = planes[0]
    inside = ((planes[3] > od_floor) & (h > h_floor) & (h <= h_ceiling)).to(planes.dtype)
    count = _sum(inside)
    sums = torch.stack([_sum(plane * inside) for plane in planes])
    return torch.cat([count[None] / (h.shape[-2] * h.shape[-1]), sums / count.clamp(min=1)])


def edges(plane: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean gradient length and root mean square of the Laplacian over the inner pixels, per pixel step."""
    centre, (right, _, up, _, left, _, down, _) = _neighbours(plane)
    gradient = ((down - up).mul_(0.5).square_() + (right - left).mul_(0.5).square_()).sqrt_()
    laplacian = (down + up + right + left).sub_(centre, alpha=4)
    return _mean(gradient), _mean(laplacian.square_()).sqrt()


def smooth(plane: torch.Tensor) -> torch.Tensor:
    """Blur with the 3 × 3 binomial kernel; borders are repeated."""
    padded = functional.pad(plane[:, None], (1, 1, 1, 1), mode="replicate")[:, 0]
    rows = 0.25 * (padded[..., :-2, :] + padded[..., 2:, :]) + 0.5 * padded[..., _INNER, :]
    return 0.25 * (rows[..., :-2] + rows[..., 2:]) + 0.5 * rows[..., _INNER]


def binary_patterns(plane: torch.Tensor, tolerance: float) -> torch.Tensor:
    """Frequencies (10, b) of the rotation-invariant uniform patterns of the neighbours that exceed the centre by `tolerance`."""
    centre, around = _neighbours(plane)
    floor = centre + tolerance
    ones = torch.zeros(centre.shape, dtype=torch.uint8, device=plane.device)
    changes = torch.zeros_like(ones)
    before = around[-1] >= floor
    for neighbour in around:
        bit = neighbour >= floor
        ones += bit
        changes += bit ^ before
        before = bit
    codes = ones.masked_fill_(changes > 2, 9)
    return torch.stack([_mean((codes == code).to(plane.dtype)) for code in range(10)])


def peaks(plane: torch.Tensor, floor: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Fraction of inner pixels above all eight neighbours and above `floor`; mean and deviation of their height."""
    centre, around = _neighbours(plane)
    top, limit = centre > floor, centre - LEAST_RISE
    for neighbour in around:
        top &= neighbour < limit
    heights = (centre * top).double()
    count = _sum(top.to(plane.dtype))
    some = count.clamp(min=1)
    mean = _sum(heights) / some
    sd = (_sum(heights * heights) / some - mean * mean).clamp_(min=0).sqrt_()
    return count / (centre.shape[-2] * centre.shape[-1]), mean, sd


def opened_mean(plane: torch.Tensor, width: int) -> torch.Tensor:
    """Mean of the grey opening of planes with a square of `width` pixels: what remains after narrower bright parts go."""
    return _mean(window_maximum(-window_maximum(-plane, width), width))


def window_maximum(plane: torch.Tensor, width: int) -> torch.Tensor:
    """Maximum over width × width windows centred on each pixel, cut at the border; `width` is odd."""
    r = width // 2
    rows = functional.max_pool2d(plane[:, None], (width, 1), stride=1, padding=(r, 0))
    return functional.max_pool2d(rows, (1, width), stride=1, padding=(0, r))[:, 0]


def ordered(plane: torch.Tensor) -> torch.Tensor:
    """Values of planes in rising order, (n * m, b)."""
    return plane.flatten(1).sort(dim=1).values.T


def root(value: torch.Tensor) -> torch.Tensor:
    """Square root."""
    return value.sqrt()


def logarithm(value: torch.Tensor) -> torch.Tensor:
    """Natural logarithm of positive numbers, levelled off below a thousandth."""
    return (value.clamp(min=0) + 1e-3).log()


def _area_weights(p: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    """First pixel of each of n cells over p pixels (n,), and the fraction of the cell that it and the next pixels cover (n, width)."""
    low = np.arange(n) * (p / n)
    high = np.minimum(np.arange(1, n + 1) * (p / n), p)
    first = low.astype(np.int64)
    pixels = first[:, None] + np.arange(int((np.ceil(high) - first).max()))
    overlap = np.minimum(high[:, None], pixels + 1.0) - np.maximum(low[:, None], pixels)
    return first, (np.maximum(overlap, 0) * (n / p)).astype(np.float32)


def _mixed(planes: list[torch.Tensor], weights: np.ndarray) -> torch.Tensor:
    """Weighted sum of three planes."""
    x, y, z = (float(weight) for weight in weights)
    return (planes[0] * x).add_(planes[1], alpha=y).add_(planes[2], alpha=z)


def _neighbours(plane: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """The inner pixels, and their eight neighbours in order around them."""
    n, m = plane.shape[-2:]
    around = [plane[..., 1 + i : n - 1 + i, 1 + j : m - 1 + j] for i, j in AROUND]
    return plane[..., _INNER, _INNER], around


def _centred(plane: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    mean = _mean(plane)
    return mean, plane - mean.to(plane.dtype)[:, None, None]


def _mean(plane: torch.Tensor) -> torch.Tensor:
    return plane.mean(dim=(-2, -1), dtype=torch.float64)


def _sum(plane: torch.Tensor) -> torch.Tensor:
    return plane.sum(dim=(-2, -1), dtype=torch.float64)
