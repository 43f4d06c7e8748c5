"""Compiled loops behind the stain and texture features; every one has a plain NumPy or SciPy twin in the tests."""

from __future__ import annotations

import math

import numpy as np

from spatialwhisperer._compute.kernels import kernel

# sums may be added in another order, which lets them run on vector units; no value here is ever NaN
_SUMS = {"reassoc", "nsz", "contract", "nnan"}

AROUND = ((0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1), (1, 0), (1, 1))
"""Signed offsets (row, column) of the eight neighbours, in order around the centre."""

LEAST_SD = 1e-4
"""Standard deviation up to which a plane counts as one that does not vary."""

LEAST_RISE = 1e-6
"""What a maximum rises above its neighbours at least: averages of equal pixels differ by rounding."""


@kernel(nogil=True, fastmath=_SUMS)
def area_resample(planes: np.ndarray, n: int) -> np.ndarray:
    """Average float32 (c, p, p) planes over n × n equal cells; a pixel on a border counts by its area inside the cell."""
    c, p = planes.shape[0], planes.shape[1]
    if n == p:
        return planes.copy()
    step = p / n
    rows = np.zeros((c, n, p), np.float32)
    out = np.zeros((c, n, n), np.float32)
    for i in range(n):
        low, high = i * step, min((i + 1) * step, float(p))
        for y in range(int(low), min(int(math.ceil(high)), p)):
            weight = np.float32((min(high, y + 1.0) - max(low, float(y))) / step)
            for k in range(c):
                for x in range(p):
                    rows[k, i, x] += weight * planes[k, y, x]
    for j in range(n):
        low, high = j * step, min((j + 1) * step, float(p))
        for x in range(int(low), min(int(math.ceil(high)), p)):
            weight = np.float32((min(high, x + 1.0) - max(low, float(x))) / step)
            for k in range(c):
                for i in range(n):
                    out[k, i, j] += weight * rows[k, i, x]
    return out


@kernel(nogil=True, fastmath=_SUMS)
def restain(tile: np.ndarray, densities: np.ndarray, matrix: np.ndarray, blank: int) -> np.ndarray:
    """Map the optical densities of a uint8 (3, h, w) tile by a matrix, float32 intensities of 0 to 255.

    `densities` (3, 256) holds the optical density of each intensity. Pixels of at most `blank` in R, G and B become white.
    """
    h, w = tile.shape[1], tile.shape[2]
    out = np.empty((3, h, w), np.float32)
    unit = np.float32(math.log(10.0))
    for i in range(h):
        for j in range(w):
            r, g, b = tile[0, i, j], tile[1, i, j], tile[2, i, j]
            if max(r, g, b) <= blank:
                out[0, i, j], out[1, i, j], out[2, i, j] = 255, 255, 255
                continue
            x, y, z = densities[0, r], densities[1, g], densities[2, b]
            for k in range(3):
                density = x * matrix[0, k] + y * matrix[1, k] + z * matrix[2, k]
                light = np.float32(256) * math.exp(-density * unit) - np.float32(1)
                out[k, i, j] = min(max(light, np.float32(0)), np.float32(255))
    return out


@kernel(nogil=True, fastmath=_SUMS)
def stain_planes(rgb: np.ndarray, inverse: np.ndarray) -> np.ndarray:
    """Turn float32 (3, n, n) intensities of 0 to 255 into five planes (5, n, n).

    The planes are haematoxylin, eosin, residual stain, mean optical density and saturation.
    """
    n, m = rgb.shape[1], rgb.shape[2]
    out = np.empty((5, n, m), np.float32)
    unit = np.float32(1 / math.log(10.0))
    top = np.float32(math.log(256.0))
    for i in range(n):
        for j in range(m):
            r, g, b = rgb[0, i, j], rgb[1, i, j], rgb[2, i, j]
            od_r = (top - math.log(r + np.float32(1))) * unit
            od_g = (top - math.log(g + np.float32(1))) * unit
            od_b = (top - math.log(b + np.float32(1))) * unit
            for k in range(3):
                out[k, i, j] = od_r * inverse[0, k] + od_g * inverse[1, k] + od_b * inverse[2, k]
            out[3, i, j] = (od_r + od_g + od_b) / np.float32(3)
            high = max(r, g, b)
            out[4, i, j] = (high - min(r, g, b)) / max(high, np.float32(1))
    return out


@kernel(nogil=True, fastmath=_SUMS)
def moments(plane: np.ndarray) -> tuple[float, float, float]:
    """Mean, standard deviation and skewness of a plane; skewness is 0 where nothing varies."""
    flat = plane.ravel()
    total = 0.0
    for i in range(flat.size):
        total += flat[i]
    mean = total / flat.size
    second, third = 0.0, 0.0
    for i in range(flat.size):
        d = flat[i] - mean
        second += d * d
        third += d * d * d
    sd = math.sqrt(second / flat.size)
    return mean, sd, (third / flat.size) / sd**3 if sd > LEAST_SD else 0.0


@kernel(nogil=True, fastmath=_SUMS)
def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson correlation of two planes; 0 where one of them does not vary."""
    mean_a, sd_a, _ = moments(a)
    mean_b, sd_b, _ = moments(b)
    if sd_a <= LEAST_SD or sd_b <= LEAST_SD:
        return 0.0
    total = 0.0
    for i in range(a.shape[0]):
        for j in range(a.shape[1]):
            total += (a[i, j] - mean_a) * (b[i, j] - mean_b)
    return total / a.size / (sd_a * sd_b)


@kernel(nogil=True, fastmath=_SUMS)
def gated_means(planes: np.ndarray, od_floor: float, h_floor: float, h_ceiling: float) -> np.ndarray:
    """Fraction of pixels above an optical density and between two haematoxylin levels, then the mean of every plane there."""
    c, n, m = planes.shape
    sums = np.zeros(c)
    weight = np.empty(m, np.float32)
    count = 0.0
    for i in range(n):
        for j in range(m):
            h = planes[0, i, j]
            inside = (planes[3, i, j] > od_floor) & (h > h_floor) & (h <= h_ceiling)
            weight[j] = np.float32(1) if inside else np.float32(0)
            count += weight[j]
        for k in range(c):
            total = 0.0
            for j in range(m):
                total += weight[j] * planes[k, i, j]
            sums[k] += total
    out = np.zeros(c + 1)
    out[0] = count / (n * m)
    if count > 0:
        out[1:] = sums / count
    return out


@kernel(nogil=True, fastmath=_SUMS)
def edges(plane: np.ndarray) -> tuple[float, float]:
    """Mean gradient length and root mean square of the Laplacian over the inner pixels, per pixel step."""
    n, m = plane.shape
    gradient, laplacian = 0.0, 0.0
    for i in range(1, n - 1):
        for j in range(1, m - 1):
            gy = 0.5 * (plane[i + 1, j] - plane[i - 1, j])
            gx = 0.5 * (plane[i, j + 1] - plane[i, j - 1])
            gradient += math.sqrt(gx * gx + gy * gy)
            lap = plane[i + 1, j] + plane[i - 1, j] + plane[i, j + 1] + plane[i, j - 1] - 4.0 * plane[i, j]
            laplacian += lap * lap
    count = (n - 2) * (m - 2)
    return gradient / count, math.sqrt(laplacian / count)


@kernel(nogil=True, fastmath=_SUMS)
def smooth(plane: np.ndarray) -> np.ndarray:
    """Blur with the 3 × 3 binomial kernel; borders are repeated."""
    n, m = plane.shape
    rows = np.empty((n, m), np.float32)
    out = np.empty((n, m), np.float32)
    quarter, half = np.float32(0.25), np.float32(0.5)
    for i in range(n):
        up, down = max(i - 1, 0), min(i + 1, n - 1)
        for j in range(m):
            rows[i, j] = quarter * (plane[up, j] + plane[down, j]) + half * plane[i, j]
    for i in range(n):
        for j in range(m):
            left, right = rows[i, max(j - 1, 0)], rows[i, min(j + 1, m - 1)]
            out[i, j] = quarter * (left + right) + half * rows[i, j]
    return out


@kernel(nogil=True)
def binary_patterns(plane: np.ndarray, tolerance: float) -> np.ndarray:
    """Frequencies (10,) of the rotation-invariant uniform patterns of the neighbours that exceed the centre by `tolerance`."""
    n, m = plane.shape
    limit = np.float32(tolerance)
    counts = np.zeros(10)
    for i in range(1, n - 1):
        for j in range(1, m - 1):
            floor = plane[i, j] + limit
            ones, changes = 0, 0
            before = plane[i + AROUND[7][0], j + AROUND[7][1]] >= floor
            for k in range(8):
                bit = plane[i + AROUND[k][0], j + AROUND[k][1]] >= floor
                ones += bit
                changes += bit != before
                before = bit
            counts[ones if changes <= 2 else 9] += 1
    return counts / ((n - 2) * (m - 2))


@kernel(nogil=True)
def peaks(plane: np.ndarray, floor: float) -> tuple[float, float, float]:
    """Fraction of inner pixels above all eight neighbours and above `floor`; mean and deviation of their height."""
    n, m = plane.shape
    count, total, square = 0, 0.0, 0.0
    for i in range(1, n - 1):
        for j in range(1, m - 1):
            # squares are subtracted below
            v = np.float64(plane[i, j])
            if v <= floor:
                continue
            top, limit = True, plane[i, j] - np.float32(LEAST_RISE)
            for k in range(8):
                if plane[i + AROUND[k][0], j + AROUND[k][1]] >= limit:
                    top = False
                    break
            if top:
                count += 1
                total += v
                square += v * v
    fraction = count / ((n - 2) * (m - 2))
    if count == 0:
        return fraction, 0.0, 0.0
    mean = total / count
    return fraction, mean, math.sqrt(max(square / count - mean * mean, 0.0))


@kernel(nogil=True, fastmath=_SUMS)
def window_minimum(plane: np.ndarray, width: int) -> np.ndarray:
    """Minimum over width × width windows centred on each pixel, cut at the border; `width` is odd."""
    n, m = plane.shape
    r = width // 2
    tall, wide = n + 2 * r, m + 2 * r
    a, b = np.empty(max(tall * m, n * wide), np.float32), np.empty(max(tall * m, n * wide), np.float32)
    # rows above and below that no minimum is taken from, then columns left and right
    _fill(a[: r * m])
    for i in range(n):
        _copy(plane[i], a[(r + i) * m : (r + i + 1) * m])
    _fill(a[(r + n) * m : tall * m])
    a, b = _least_ahead(a, b, tall * m, width, m)
    for i in range(n):
        start = i * wide
        _fill(b[start : start + r])
        _copy(a[i * m : (i + 1) * m], b[start + r : start + r + m])
        _fill(b[start + r + m : start + wide])
    b, a = _least_ahead(b, a, n * wide, width, 1)
    out = np.empty((n, m), np.float32)
    for i in range(n):
        _copy(b[i * wide : i * wide + m], out[i])
    return out


@kernel(nogil=True, fastmath=_SUMS)
def _least_ahead(a: np.ndarray, b: np.ndarray, n: int, width: int, stride: int) -> tuple[np.ndarray, np.ndarray]:
    """Minimum over `width` of the first `n` entries of `a`, `stride` apart, from each on, and the other of the two buffers."""
    # after a pass each entry holds the minimum over `span` entries from itself on, so a few passes reach any width
    span = 1
    while span < width:
        step = min(span, width - span)
        n -= step * stride
        _minima(a, b, n, step * stride)
        a, b = b, a
        span += step
    return a, b


@kernel(nogil=True, fastmath=_SUMS)
def _minima(source: np.ndarray, target: np.ndarray, n: int, ahead: int) -> None:
    """Smaller of two entries that are `ahead` apart; a function of its own with slices, or it does not run on vector units."""
    near, far, out = source[:n], source[ahead : ahead + n], target[:n]
    for i in range(n):
        out[i] = min(near[i], far[i])


@kernel(nogil=True, fastmath=_SUMS)
def _fill(line: np.ndarray) -> None:
    """Fill with infinity; `numpy.full` and assignment to a slice do not run on vector units."""
    for i in range(line.size):
        line[i] = np.float32(np.inf)


@kernel(nogil=True, fastmath=_SUMS)
def _copy(source: np.ndarray, target: np.ndarray) -> None:
    for i in range(source.size):
        target[i] = source[i]


@kernel(nogil=True)
def opened_mean(plane: np.ndarray, width: int) -> float:
    """Mean of the grey opening of a plane with a square of `width` pixels: what remains after narrower bright parts go."""
    return moments(-window_minimum(-window_minimum(plane, width), width))[0]


def ordered(plane: np.ndarray) -> np.ndarray:
    """Values of a plane in rising order."""
    return np.sort(plane, axis=None)


def root(value: float) -> float:
    """Square root."""
    return math.sqrt(value)


def logarithm(value: float) -> float:
    """Natural logarithm of a positive number, levelled off below a thousandth."""
    return math.log(max(value, 0.0) + 1e-3)
