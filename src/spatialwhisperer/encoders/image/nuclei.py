"""An image encoder without a network: statistics of the nuclei in H&E tiles."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import numpy as np

from spatialwhisperer import _keys
from spatialwhisperer._compute.blocks import each
from spatialwhisperer.encoders.image._nuclei import windows
from spatialwhisperer.encoders.image._nuclei.words import NucleusWords, packaged_words, robust_scale, standardised
from spatialwhisperer.encoders.image.base import ImageEncoder, check_tiles
from spatialwhisperer.encoders.image.stain import BLANK, SlideStain, unmixing_matrix
from spatialwhisperer.encoders.recipe import EncoderIdentity
from spatialwhisperer.encoders.registry import register_encoder
from spatialwhisperer.encoders.spec import EncoderSpec

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from spatialwhisperer.encoders.image._nuclei.segmentation import Scale
    from spatialwhisperer.encoders.image._nuclei.table import Nuclei

N_WORDS = 24
TILE_UM, TILE_PX = 320.0, 640
COARSEST_MPP = 0.75
"""Microns per pixel of the coarsest tiles and images on which nuclei are measured."""

_MOST_NUCLEI = 15_000
_READ_UM = 100.0
# how far the mask of nuclei reaches beyond them
_RIM_UM = 0.5


@register_encoder(
    EncoderSpec(
        "nuclei",
        "image",
        len(windows.names(N_WORDS)),
        input_px=TILE_PX,
        mpp=TILE_UM / TILE_PX,
        tile_um=TILE_UM,
        windows_um=windows.WINDOWS_UM,
        coarsest_mpp=COARSEST_MPP,
        licence="BSD-3-Clause; words of nuclei derived from her2st (CC BY 4.0)",
        commercial=True,
        citation="Macenko et al. 2009, ISBI 1107; Andersson et al. 2021, Nat Commun 12:6012 (sections of the words)",
    ),
)
class NucleiEncoder(ImageEncoder):
    """Statistics of the nuclei in H&E tiles; no network, no download.

    A tile of 320 µm gives the features of three windows around its centre, of 100, 154 and 300 µm. The rim of 10 µm is there so that
    no nucleus of a window is cut. Steps, with the stains of the image (:meth:`on_image`) in units of what 1 % of its tissue exceeds:

    - Mask: haematoxylin, smoothed by 0.8 µm, above 0.7 times its mean over 25 µm + 0.126, and above 0.22. Gaps of up to 20 µm² are
      filled.
    - Seeds: maxima, 3 µm apart, of the depth in the mask and the response to blobs of 2.2 µm. A watershed from them gives nuclei of 12
      to 350 µm².
    - Seventeen measurements of each nucleus: area, axis ratio and circularity; mean, deviations and profile of haematoxylin; eosin;
      haematoxylin, eosin, density and white in the ring of 3 µm around it; distances and number of its neighbours.
    - Words: the nearest of 24 kinds of nuclei, by their standardised measurements (k-means on training sections, soft assignment).

    A window is described by the number of its nuclei, their area, the mean stain of nuclei and rings, and the density and fraction of
    each word. Features other than counts are the training median where a window holds fewer than three nuclei.

    Row i depends on tile i and its image alone, not on the number of threads. All is computed on the CPU, on all its cores, also where
    there is a GPU: connected components and the watershed grow regions pixel by pixel in an order that torch has no operation for.

    Parameters
    ----------
    words
        Words of nuclei; ``None`` takes those of the package, from sections C2 to C5 of her2st (Andersson et al. 2021, CC BY 4.0).
    stain
        Stains of the image that the tiles are of; ``None`` takes the reference.

    Attributes
    ----------
    spec
        Facts about the encoder.

    Notes
    -----
    This describes texture. To find single cells call :func:`spatialwhisperer.pp.nuclei`, which is slower and outlines them better.
    Pixels of 20 or less in R, G and B are taken for masked background, and count as white. A pure white margin does not change the stains
    where the background is darker.

    Examples
    --------
    >>> import numpy as np
    >>> from spatialwhisperer.encoders.image.nuclei import NucleiEncoder
    >>> tiles = np.random.default_rng(0).integers(0, 256, (2, 3, 640, 640), dtype=np.uint8)
    >>> encoder = NucleiEncoder()
    >>> encoder.encode(tiles, mpp=0.5).shape == (2, len(encoder.feature_names()))
    True
    """

    looks_at_image = True

    def __init__(self, words: NucleusWords | None = None, stain: SlideStain | None = None) -> None:
        self.words = packaged_words() if words is None else words
        self.stain = SlideStain.reference() if stain is None else stain

    @property
    def identity(self) -> EncoderIdentity:
        """Name with the revision of the packaged words, or with the digest of others."""
        if type(self) is not NucleiEncoder:
            return super().identity
        packaged = self.words.digest == packaged_words().digest
        return self.identify(self.spec.name) if packaged else EncoderIdentity(self.spec.name, digest=self.words.digest)

    @classmethod
    def identify(
        cls,
        name: str,
        *,
        weights: str | Path | None = None,  # noqa: ARG003
        pretrained: bool = True,  # noqa: ARG003
    ) -> EncoderIdentity:
        """Name and revision of the packaged words."""
        return EncoderIdentity(name, revision=packaged_words().digest[:12])

    def on_image(self, sample: np.ndarray, *, mpp: float) -> Self:
        """Return the encoder with the stains of an image, estimated from tiles that cover it."""
        return type(self)(self.words, SlideStain.estimate(check_tiles(sample, mpp), mpp=mpp))

    def feature_names(self) -> list[str]:
        """Names of the features, in the order of the columns; the edge of their window comes last."""
        return windows.names(len(self.words.centroids))

    def encode(self, inputs: np.ndarray, *, mpp: float, device: str | None = None) -> np.ndarray:  # noqa: ARG002
        """Compute the features of tiles.

        Parameters
        ----------
        inputs
            uint8 tiles (n, 3, p, p) RGB that cover at least 300 µm. Windows lie around their centre.
        mpp
            Microns per pixel of the tiles, at most 0.75.
        device
            Not used: the features are computed on the CPU, on all its cores.

        Returns
        -------
        float32 (n, dim); row i depends on tile i and on the stains of the image.

        Raises
        ------
        TypeError
            Tiles are not uint8.
        ValueError
            Tiles have another shape, are too small or too coarse, or `mpp` is not positive.
        """
        nuclei = self.measure(inputs, mpp=mpp)
        out = np.empty((len(nuclei), len(self.feature_names())), np.float32)
        for row, found in zip(out, nuclei, strict=True):
            row[:] = windows.describe(found, self.words, inputs.shape[-1], float(mpp))
        return np.where(np.isnan(out), self.words.medians, out)

    def measure(self, tiles: np.ndarray, *, mpp: float) -> list[Nuclei]:
        """Find and measure the nuclei of each tile; arguments and errors are those of `encode`."""
        tiles = check_tiles(tiles, mpp)
        edge_um = tiles.shape[-1] * mpp
        if mpp > COARSEST_MPP or edge_um < max(windows.WINDOWS_UM):
            raise ValueError(
                f"Nuclei are measured on tiles of at least {max(windows.WINDOWS_UM):g} µm at {COARSEST_MPP:g} µm per pixel or finer; "
                f"these have {edge_um:.4g} µm at {mpp:.3g}. Cut tiles of {TILE_UM:g} µm and {TILE_PX} px, or take encoder='stain_texture'."
            )
        return measure_tiles(tiles, self.stain, float(mpp))

    def columns(self, features: np.ndarray) -> dict[str, np.ndarray]:
        """What people read of the window of 100 µm, float32 by column of ``.obs``.

        Nuclei per mm²; their median area in µm²; and the fraction of nuclei that are small and round like those of lymphocytes (13 to 38
        µm², axis ratio of at least 0.65, circularity of at least the training median). The last two are NaN with fewer than three nuclei.

        The mask of nuclei reaches 0.5 µm beyond them. The areas here are those of discs whose radius is 0.5 µm smaller; the features, on
        which models were trained, keep the areas of the mask, in which a small nucleus has 20 to 50 µm².

        Evenly dark nuclei of more than 11 µm across are divided: discs of 14 µm count three to four times, with areas that are too small.
        The response to blobs of 2.2 µm has several maxima in them. Call :func:`spatialwhisperer.pp.nuclei` where nuclei are that large.
        """
        names = self.feature_names()
        density, area, lymphocytes = (
            features[:, names.index(f"{name}_{_READ_UM:g}um")]
            for name in (windows.COUNT, windows.MEDIAN_AREA, windows.LYMPHOCYTES)
        )
        density = np.expm1(density)
        few = np.rint(density * (_READ_UM / 1000) ** 2) < windows.FEWEST
        return {
            _keys.NUCLEI_PER_MM2: density,
            _keys.NUCLEUS_MEDIAN_AREA: np.where(few, np.float32(np.nan), _without_rim(np.exp(area))),
            _keys.LYMPHOCYTE_LIKE: np.where(few, np.float32(np.nan), lymphocytes),
        }


def _without_rim(area_um2: np.ndarray) -> np.ndarray:
    """Areas of discs whose radius is smaller by what the mask reaches beyond nuclei."""
    radius = np.maximum(np.sqrt(area_um2 / np.float32(np.pi)) - np.float32(_RIM_UM), np.float32(0))
    return np.float32(np.pi) * radius**2


def measure_tiles(tiles: np.ndarray, stain: SlideStain, mpp: float) -> list[Nuclei]:
    """Find and measure the nuclei of uint8 tiles (n, 3, p, p), on all cores."""
    from spatialwhisperer.encoders.image._nuclei.segmentation import scale_of

    scale = scale_of(mpp)
    amounts = unmixing_matrix(*stain.stains)[:, :2] / np.array(stain.strengths, np.float32)
    # the third plane is the mean density as if the stains were those of the reference
    matrix = np.column_stack([amounts, stain.to_reference.mean(axis=1)])

    def one(tile: np.ndarray) -> Nuclei:
        return _measure(np.ascontiguousarray(tile), stain.densities, matrix, scale)

    return each(one, list(tiles))


def _measure(tile: np.ndarray, densities: np.ndarray, matrix: np.ndarray, scale: Scale) -> Nuclei:
    from spatialwhisperer.encoders.image._nuclei import filters
    from spatialwhisperer.encoders.image._nuclei.measures import measure
    from spatialwhisperer.encoders.image._nuclei.segmentation import segment

    planes = filters.stain_planes(tile, densities, matrix, BLANK)
    labels, n, depth, smooth = segment(planes[0], scale)
    return measure(labels, n, planes, smooth, depth, scale.mpp)


def fit_words(
    sections: Sequence[Sequence[Nuclei]],
    *,
    pitch_um: float,
    source: str,
    n_words: int = N_WORDS,
    random_state: int = 0,
) -> NucleusWords:
    """Learn words from the nuclei of training sections.

    Parameters
    ----------
    sections
        Nuclei of the tiles of each section, of 320 µm and 640 px, as :meth:`NucleiEncoder.measure` gives them.
    pitch_um
        Distance of neighbouring tiles in microns: words are learnt from the nuclei within half of it, so that none counts twice.
    source
        The sections, and their licence.
    n_words
        Number of words.
    random_state
        Seed. At most 15,000 nuclei of a section are drawn.
    """
    from sklearn.cluster import MiniBatchKMeans

    mpp = TILE_UM / TILE_PX
    rng = np.random.default_rng(random_state)
    drawn = []
    for tiles in sections:
        own = np.concatenate([n.measures[windows.from_centre(n, TILE_PX) * mpp < pitch_um / 2] for n in tiles])
        drawn.append(own[np.sort(rng.permutation(len(own))[:_MOST_NUCLEI])])
    centre, scale = robust_scale(np.concatenate(drawn))
    z = standardised(np.concatenate(drawn), centre, scale)
    means = MiniBatchKMeans(n_words, random_state=random_state, n_init=3, batch_size=4096).fit(z)
    # from the commonest word to the rarest
    centroids = means.cluster_centers_[np.argsort(-np.bincount(means.labels_, minlength=n_words), kind="stable")]
    words = NucleusWords(centre, scale, centroids, np.zeros(len(windows.names(n_words))), source)
    features = np.array([windows.describe(n, words, TILE_PX, mpp) for tiles in sections for n in tiles])
    return NucleusWords(centre, scale, centroids, np.nanmedian(features, axis=0), source)
