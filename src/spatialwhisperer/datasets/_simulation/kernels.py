"""Paint a simulated section: haematoxylin and eosin densities per pixel, then colours (numba kernels, one thread)."""

from __future__ import annotations

import numpy as np

from spatialwhisperer._compute.kernels import kernel


@kernel()
def _bilinear(grid, y, x):
    h, w = grid.shape
    y = min(max(y, 0.0), h - 1.001)
    x = min(max(x, 0.0), w - 1.001)
    i, j = int(y), int(x)
    v, u = y - i, x - j
    top = grid[i, j] * (1 - u) + grid[i, j + 1] * u
    return top * (1 - v) + (grid[i + 1, j] * (1 - u) + grid[i + 1, j + 1] * u) * v


@kernel()
def paint_background(haem, eosin, tissue, haem_map, eosin_map, fibre_map, phase_map, fine, coarse, px_per_cell):
    """Stain of the tissue between the nuclei: smooth maps, grain, and wavy fibres where ``fibre_map`` says so."""
    n = fine.shape[0]
    m = coarse.shape[0]
    for r in range(haem.shape[0]):
        for c in range(haem.shape[1]):
            y, x = r / px_per_cell, c / px_per_cell
            grain = fine[r % n, c % n]
            blotch = coarse[r % m, c % m]
            # ragged edge: the grain moves the threshold
            inside = min(max((_bilinear(tissue, y, x) + 3.0 * blotch) / 2.0 + 0.5, 0.0), 1.0)
            if inside <= 0.0:
                haem[r, c] = 0.0
                eosin[r, c] = 0.0
                continue
            wave = np.sin(_bilinear(phase_map, y, x) + 0.5 * blotch)
            fibre = _bilinear(fibre_map, y, x)
            cleft = min(max((-wave - 0.72 + 0.12 * blotch) * 4.0, 0.0), 1.0) * fibre
            level = (1.0 + 0.11 * grain + 0.14 * blotch) * (1.0 + 0.22 * fibre * wave) * (1.0 - 0.75 * cleft)
            level = max(level, 0.02)
            haem[r, c] = inside * _bilinear(haem_map, y, x) * level
            eosin[r, c] = inside * _bilinear(eosin_map, y, x) * level


@kernel()
def paint_discs(haem, eosin, xy, radius, kind, wobble, rim_px, fine):
    """Vacuoles of fat (``kind`` 0: empty, thin rim) and vessels (``kind`` 1: pink wall, blood or nothing inside)."""
    h, w = haem.shape
    n = fine.shape[0]
    for k in range(len(xy)):
        x0, y0, size = xy[k, 0], xy[k, 1], radius[k]
        reach = size * 1.25 + 2 * rim_px
        for r in range(max(0, int(y0 - reach)), min(h, int(y0 + reach) + 1)):
            for c in range(max(0, int(x0 - reach)), min(w, int(x0 + reach) + 1)):
                if haem[r, c] == 0.0 and eosin[r, c] == 0.0:
                    continue  # background stays as it is
                dy, dx = r - y0, c - x0
                angle = np.arctan2(dy, dx)
                bump = 1.0 + wobble[k, 0] * np.cos(2 * angle + wobble[k, 1]) + wobble[k, 2] * np.cos(3 * angle)
                depth = size * bump - np.sqrt(dy * dy + dx * dx)
                if depth <= -rim_px:
                    continue
                grain = fine[r % n, c % n]
                if kind[k] == 0:
                    if depth > 0:
                        lumen = min(depth / rim_px, 1.0)
                        eosin[r, c] = eosin[r, c] * (1 - lumen) + 0.015 * lumen
                        haem[r, c] = haem[r, c] * (1 - lumen) + 0.005 * lumen
                elif depth > rim_px:
                    blood = wobble[k, 3]
                    eosin[r, c] = 0.02 + blood * max(0.75 + 0.5 * grain, 0.05)
                    haem[r, c] = 0.005 + 0.06 * blood
                else:
                    eosin[r, c] = max(eosin[r, c], 0.62 + 0.08 * grain)


@kernel()
def paint_nuclei(haem, eosin, xy, long_px, short_px, angle, dark, vesicular, fine):
    """Ellipses of haematoxylin with soft edges; ``vesicular`` ones are pale inside, with a dark rim and a nucleolus."""
    h, w = haem.shape
    n = fine.shape[0]
    for k in range(len(xy)):
        x0, y0, a, b = xy[k, 0], xy[k, 1], long_px[k], short_px[k]
        cos, sin = np.cos(angle[k]), np.sin(angle[k])
        reach = a + 2.0
        edge = max(b, 1.0)
        for r in range(max(0, int(y0 - reach)), min(h, int(y0 + reach) + 2)):
            for c in range(max(0, int(x0 - reach)), min(w, int(x0 + reach) + 2)):
                dy, dx = r - y0, c - x0
                u, v = (dx * cos + dy * sin) / a, (dy * cos - dx * sin) / b
                d = np.sqrt(u * u + v * v)
                cover = min(max((1.0 - d) * edge * 0.7 + 0.5, 0.0), 1.0)
                if cover <= 0.0:
                    continue
                chromatin = 1.0 + 0.18 * fine[(r + 17 * k) % n, (c + 29 * k) % n]
                if vesicular[k] > 0:
                    chromatin *= 1.0 - vesicular[k] * (0.42 - 0.5 * d * d)
                    du, dv = u - 0.25, v + 0.2
                    if du * du + dv * dv < 0.05:
                        chromatin *= 1.35
                value = dark[k] * max(chromatin, 0.1)
                haem[r, c] = max(haem[r, c], haem[r, c] * (1 - cover) + value * cover)
                eosin[r, c] *= 1 - 0.55 * cover


@kernel()
def stain(rgb, haem, eosin, vectors, background, fine, noise):
    """Beer-Lambert: colour = light * exp(-(haematoxylin + eosin optical density)), plus camera noise, into uint8 (3, h, w)."""
    n = fine.shape[0]
    for channel in range(3):
        for r in range(haem.shape[0]):
            for c in range(haem.shape[1]):
                density = haem[r, c] * vectors[0, channel] + eosin[r, c] * vectors[1, channel]
                shot = fine[(3 * r + 41 * channel) % n, (5 * c + 7 * r) % n]
                value = background[channel] * np.exp(-density) + noise * shot
                rgb[channel, r, c] = np.uint8(min(max(value, 0.0), 255.0))
