"""An image encoder without weights: stain, colour and texture statistics of H&E tiles at scales in microns."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from spatialwhisperer._compute.blocks import each
from spatialwhisperer._settings import settings
from spatialwhisperer.encoders.image.base import ImageEncoder, check_tiles
from spatialwhisperer.encoders.image.stain import BLANK, REFERENCE_STAINS, TISSUE_PIXEL, SlideStain, unmixing_matrix
from spatialwhisperer.encoders.registry import register_encoder
from spatialwhisperer.encoders.spec import EncoderSpec

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

SCALES_UM = (1.0, 2.0, 4.0, 8.0, 16.0)
WIDTHS_UM = (6.0, 10.0, 18.0, 34.0, 58.0)
MIN_EDGE_PX = 16

_SMALLEST_GRID = 8
_QUANTILES = (0.05, 0.5, 0.95)
_DENSE_OD = 0.12
_NUCLEAR_H = 0.3
_PALE_H = 0.15
_PEAK_H = 0.1
_PATTERN_H = 0.05
_BATCH_BYTES = 2**30
_FEWEST_LOOKED_AT, _MOST_LOOKED_AT = 4, 100


@register_encoder(
    EncoderSpec(
        "stain_texture",
        "image",
        158,
        tile_um=154.0,
        licence="BSD-3-Clause (no weights)",
        commercial=True,
        citation="Macenko et al. 2009, ISBI 1107; Haralick et al. 1973, IEEE SMC 3:610; "
        "Ojala et al. 2002, IEEE TPAMI 24:971",
    ),
)
class StainTextureEncoder(ImageEncoder):
    """Stain, colour and texture statistics of H&E tiles; no weights, no download.

    The stains of an image are estimated once, from tiles that cover the whole of it (:meth:`on_image`). Its white point, the colours of
    haematoxylin and eosin and their strengths are then mapped to those of a reference (Macenko et al. 2009). The features of a tile
    therefore do not depend on which rows are annotated, and hardly on how the section was stained.

    A tile is averaged onto square grids of 1, 2, 4, 8 and 16 microns per cell (native pixels where these are larger; at
    least 8 cells along an edge). On the grids lie:

    - means, deviations and skewness of colours and stains; means of tissue, of its haematoxylin-rich and of its
      haematoxylin-poor part alone; quantiles of stains
    - correlation of haematoxylin with eosin and of density with saturation, per scale
    - gradient, Laplacian and deviation per stain and scale, as logarithms
    - rotation-invariant uniform binary patterns of haematoxylin (Ojala et al. 2002) with a tolerance against pixel noise
    - local maxima of haematoxylin: how many, how high
    - granulometry: what grey openings and closings of growing width remove (sizes of nuclei, nests and gaps)

    Pixels of 20 or less in R, G and B are taken for masked background, and count as white. A pure white margin does not change the stains
    where the background is darker.

    On CUDA the same is computed by torch. Numbers are those of the CPU but for rounding; where a pixel lies within rounding of a
    threshold, it may count on its other side.

    Parameters
    ----------
    stain
        Stains of the image that the tiles are of; ``None`` takes the tiles as they are.
    look
        What the image looks like with its own stains; see :class:`ImageEncoder`.

    Attributes
    ----------
    spec
        Facts about the encoder.

    Examples
    --------
    >>> import numpy as np
    >>> from spatialwhisperer.encoders.image.stain_texture import StainTextureEncoder
    >>> tiles = np.random.default_rng(0).integers(0, 256, (2, 3, 64, 64), dtype=np.uint8)
    >>> encoder = StainTextureEncoder()
    >>> encoder.encode(tiles, mpp=0.5).shape == (2, len(encoder.feature_names()))
    True
    """

    looks_at_image = True
    in_batches = True

    def __init__(self, stain: SlideStain | None = None, look: tuple[float, ...] = ()) -> None:
        self.stain = SlideStain.reference() if stain is None else stain
        self.look = look

    def on_image(self, sample: np.ndarray, *, mpp: float) -> StainTextureEncoder:
        """Return the encoder with the stains of an image, estimated from tiles that cover it."""
        stain = SlideStain.estimate(check_tiles(sample, mpp), mpp=mpp)
        return StainTextureEncoder(stain, _look(sample, mpp, stain))

    def feature_names(self) -> list[str]:
        """Names of the features, in the order of the columns."""
        return list(_names())

    def encode(self, inputs: np.ndarray, *, mpp: float, device: str | None = None) -> np.ndarray:
        """Compute the features of tiles.

        Parameters
        ----------
        inputs
            uint8 tiles (n, 3, p, p) RGB, p at least 16.
        mpp
            Microns per pixel of the tiles.
        device
            Torch device; ``None`` takes that of the settings. On CUDA many tiles are computed at a time, on all visible GPUs for
            "cuda"; features differ by rounding. On any other device they are computed on the CPU, on all its cores.

        Returns
        -------
        float32 (n, dim); row i depends on tile i and on the stains of the image.

        Raises
        ------
        TypeError
            Tiles are not uint8.
        ValueError
            Tiles have another shape or are smaller than 16 px, or `mpp` is not positive.
        """
        tiles = check_tiles(inputs, mpp, smallest=MIN_EDGE_PX)
        name = settings.resolve_device(device)
        if name.startswith("cuda"):
            from spatialwhisperer._compute.devices import devices_of

            return on_devices(tiles, float(mpp), self.stain, devices_of(name))
        rows = each(lambda tile: _row(tile, float(mpp), self.stain), list(tiles))
        return np.array(rows, np.float32).reshape(len(tiles), len(_names()))


def _look(sample: np.ndarray, mpp: float, stain: SlideStain) -> tuple[float, ...]:
    """Means and standard deviations of the features of tissue before stains are normalised; empty where there are too few tiles."""
    if sample.shape[-1] < MIN_EDGE_PX:
        return ()
    density = [stain.densities[channel][sample[:, channel]].mean(axis=(1, 2)) for channel in range(3)]
    tissue = np.flatnonzero((np.mean(density, axis=0) > TISSUE_PIXEL) & (sample.max(axis=1) > BLANK).all(axis=(1, 2)))
    if len(tissue) < _FEWEST_LOOKED_AT:
        return ()
    some = tissue[np.unique(np.linspace(0, len(tissue) - 1, _MOST_LOOKED_AT).astype(int))]
    as_it_is = SlideStain.reference()
    features = np.array(each(lambda tile: _row(tile, mpp, as_it_is), list(sample[some])))
    return (*features.mean(axis=0).tolist(), *features.std(axis=0).tolist())


@cache
def _names() -> tuple[str, ...]:
    from spatialwhisperer.encoders.image._texture import kernels

    white = np.full((3, MIN_EDGE_PX, MIN_EDGE_PX), 255, np.uint8)
    return tuple(describe(white, 1.0, SlideStain.reference(), kernels))


def _row(tile: np.ndarray, mpp: float, stain: SlideStain) -> list[float]:
    from spatialwhisperer.encoders.image._texture import kernels

    return list(describe(tile, mpp, stain, kernels).values())


def on_devices(tiles: np.ndarray, mpp: float, stain: SlideStain, devices: Sequence[torch.device]) -> np.ndarray:
    """Features of uint8 tiles (n, 3, p, p), computed by torch on devices, many tiles at a time, float32 (n, dim)."""
    import torch

    from spatialwhisperer._compute.batched import Computing, by_batches
    from spatialwhisperer.encoders.image._texture import tensors

    def features(batch: torch.Tensor) -> torch.Tensor:
        return torch.stack(list(describe(batch, mpp, stain, tensors).values()), dim=1)

    size = max(1, _BATCH_BYTES // (tensors.BYTES_PER_PIXEL * tiles.shape[-1] ** 2))
    return by_batches(tiles, size, [Computing(device, features) for device in devices])


def grid_edge(edge_px: int, mpp: float, scale_um: float) -> int:
    """Cells along the edge of a tile at a scale: never finer than its pixels, never fewer than eight."""
    return int(np.clip(round(edge_px * mpp / scale_um), _SMALLEST_GRID, edge_px))


def describe(tile: Any, mpp: float, stain: SlideStain, loops: Any) -> dict[str, Any]:
    """All features of one uint8 (3, p, p) tile, or of (b, 3, p, p) tiles, by name.

    Parameters
    ----------
    tile
        The tile, or a tensor of tiles.
    mpp
        Microns per pixel.
    stain
        Stains of the image.
    loops
        The module `_texture.kernels` for a tile, or `_texture.tensors` for a tensor of tiles; each feature is then a tensor (b,).
    """
    rgb = loops.restain(tile, stain.densities, stain.to_reference, BLANK)
    edge = tile.shape[-1]
    out: dict[str, Any] = {}
    for scale in SCALES_UM:
        colours = loops.area_resample(rgb, grid_edge(edge, mpp, scale))
        planes = loops.stain_planes(colours, unmixing_matrix(*REFERENCE_STAINS))
        if scale == 1:
            _composition(colours, planes, out, loops)
        if scale == 2:
            _quantiles(planes, out, loops)
            _granulometry(planes, edge * mpp / planes.shape[-1], out, loops)
        _texture(planes, scale, out, loops)
    return out


def _composition(colours: Any, planes: Any, out: dict[str, Any], loops: Any) -> None:
    """Add means and standard deviations of colours and stains, over the tile and over kinds of tissue."""
    for name, plane in zip(("red", "green", "blue"), colours, strict=True):
        mean, sd, _ = loops.moments(plane)
        out[f"{name}_mean"], out[f"{name}_sd"] = mean / 255, loops.logarithm(sd / 255)
    for name, plane in zip(("h", "e", "residual", "od", "saturation"), planes, strict=True):
        mean, sd, skew = loops.moments(plane)
        out[f"{name}_mean"], out[f"{name}_sd"] = mean, loops.logarithm(sd)
        if name in ("h", "e", "od"):
            out[f"{name}_skew"] = skew

    every, never = -np.inf, np.inf
    for name, gate in (
        ("tissue", (TISSUE_PIXEL, every, never)),
        ("nuclear", (every, _NUCLEAR_H, never)),
        ("pale", (TISSUE_PIXEL, every, _PALE_H)),
    ):
        fraction, h, e, residual, _, saturation = loops.gated_means(planes, *gate)
        out[f"{name}_fraction"] = loops.root(fraction)
        out[f"{name}_e"], out[f"{name}_residual"], out[f"{name}_saturation"] = e, residual, saturation
        if name != "pale":
            out[f"{name}_h"] = h
    out["dense_fraction"] = loops.root(loops.gated_means(planes, _DENSE_OD, every, never)[0])


def _quantiles(planes: Any, out: dict[str, Any], loops: Any) -> None:
    for name, k in (("h", 0), ("e", 1), ("od", 3)):
        ordered = loops.ordered(planes[k])
        for q in _QUANTILES:
            out[f"{name}_q{round(100 * q)}"] = ordered[round(q * (len(ordered) - 1))]


def _granulometry(planes: Any, cell_um: float, out: dict[str, Any], loops: Any) -> None:
    """Add what openings (bodies) and closings (gaps) of growing width remove from haematoxylin and density."""
    widths = [2 * max(round(um / cell_um / 2 - 0.5), 1) + 1 for um in WIDTHS_UM]
    for stain, k in (("h", 0), ("od", 3)):
        plane = loops.smooth(planes[k])
        for kind, sign in (("body", 1), ("gap", -1)):
            signed = sign * plane
            before = loops.moments(signed)[0]
            for um, width in zip(WIDTHS_UM, widths, strict=True):
                after = loops.opened_mean(signed, width)
                out[f"{stain}_{kind}_{um:g}um"] = before - after
                before = after
            out[f"{stain}_{kind}_rest"] = sign * before


def _texture(planes: Any, scale: float, out: dict[str, Any], loops: Any) -> None:
    """Add edges, correlations, binary patterns and peaks at one scale."""
    for name, k in (("h", 0), ("e", 1), ("od", 3)):
        gradient, laplacian = loops.edges(planes[k])
        out[f"{name}_gradient_{scale:g}um"], out[f"{name}_laplacian_{scale:g}um"] = (
            loops.logarithm(gradient),
            loops.logarithm(laplacian),
        )
        if scale > 1:
            out[f"{name}_sd_{scale:g}um"] = loops.logarithm(loops.moments(planes[k])[1])
    out[f"h_e_correlation_{scale:g}um"] = loops.correlation(planes[0], planes[1])
    out[f"od_saturation_correlation_{scale:g}um"] = loops.correlation(planes[3], planes[4])
    if scale > 4 and scale != 8:
        return
    h = loops.smooth(planes[0])
    if scale > 1:
        for bin_, fraction in enumerate(loops.binary_patterns(h, _PATTERN_H)):
            out[f"h_pattern{bin_}_{scale:g}um"] = loops.root(fraction)
    if scale < 8:
        fraction, mean, sd = loops.peaks(h, _PEAK_H)
        out[f"h_peak_fraction_{scale:g}um"], out[f"h_peak_mean_{scale:g}um"] = loops.root(fraction), mean
        out[f"h_peak_sd_{scale:g}um"] = sd
