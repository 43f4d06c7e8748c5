"""Whether images are like those that a model was trained on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from spatialwhisperer import _keys
from spatialwhisperer._access import section_codes
from spatialwhisperer._provenance import recorded
from spatialwhisperer.statistics.standardize import MIN_ROWS

if TYPE_CHECKING:
    from anndata import AnnData

    from spatialwhisperer.models import Whisperer

SAME_MPP = 1.25
"""Scales within this factor of the training images' count as theirs."""

TISSUE = 0.05
"""Share of a tile that must be tissue for its row to count, where the encoder tells (`stain_texture`)."""

MOST_GLASS = 0.5


@dataclass(frozen=True)
class SectionRange:
    """How one section's image compares with the training images.

    Attributes
    ----------
    name
        Section.
    n_rows, n_tissue
        Rows, and those with a complete tile on tissue.
    mpp, factor
        Microns per pixel at which its tiles are read, and how many times coarser (above 1) or finer (below 1) that is than
        the training images; ``None`` where one of the two is not known.
    distance, limit
        Distance of its features from the training sections' and the largest that counts as alike
        (:meth:`~spatialwhisperer.models.reference.Reference.image_distance`); ``None`` where there are no features.
    """

    name: str
    n_rows: int
    n_tissue: int
    mpp: float | None
    factor: float | None
    distance: float | None
    limit: float | None


def check_range(
    table: AnnData, model: Whisperer, *, features: np.ndarray | None = None, sections: np.ndarray | None = None
) -> list[str]:
    """Say in which ways the images of a table lie outside what a model was trained on.

    Parameters
    ----------
    table
        Table with image features in the slot that the model reads, or the provenance of its tiles alone.
    model
        A trained model.
    features
        Image features of the rows, shape (n, d), where the table does not hold them.
    sections
        Section of each row, shape (n,), where the table alone does not tell.

    Returns
    -------
    One sentence with numbers for each way: scale, colour and texture, too few rows on tissue. An empty list where nothing
    stands out, or the model has no reference or no image side.

    Examples
    --------
    >>> import spatialwhisperer as sw
    >>> from spatialwhisperer.tl._annotation.training_range import check_range
    >>> sections, _ = sw.datasets.simulate_sections(2, 80, n_genes=60, n_reference_cells=50, random_state=0)
    >>> model = sw.tl.train(sections["P1"], max_epochs=5, tile_px=64)
    >>> sw.tl.embed(sections["P2"], model=model)
    >>> check_range(sections["P2"]["table"], model)
    []
    """
    said: list[str] = []
    ranges = section_ranges(table, model, features=features, sections=sections)
    training = None if model.reference is None else model.reference.config.get("mpp")
    for kind in (_scale, _look, _rows):
        sentences = [s for s in (kind(one, training) for one in ranges) if s]
        more = len(sentences) - 3
        said += sentences[:3] + ([f"… and likewise {more} more sections."] if more > 0 else [])
    return said


def section_ranges(
    table: AnnData, model: Whisperer, *, features: np.ndarray | None = None, sections: np.ndarray | None = None
) -> list[SectionRange]:
    """Compare each section of a table with the training images; none where the model has no reference or image side."""
    if model.reference is None or "image" not in model.modalities:
        return []
    slot = model.config["encoders"].get("image", {}).get("slot")
    if features is None and slot in table.obsm and "image" not in model.towers:
        features = np.asarray(table.obsm[slot])
    if features is not None and features.shape[1] != model.feature_dim("image"):
        features = None
    scales = _mpp(table, slot)
    codes = _codes(table) if sections is None else np.asarray(sections, dtype=object)
    out = []
    for name in dict.fromkeys(codes):
        rows = codes == name
        # a table that was cut out of its SpatialData has lost the name that its one image was recorded under
        mpp = scales.get(name, next(iter(scales.values())) if len(scales) == 1 else None)
        x = None if features is None else features[rows]
        out.append(_one(name, int(rows.sum()), mpp, x, model.reference))
    return out


def _one(name: str, n: int, mpp: float | None, x: Any, reference: Any) -> SectionRange:
    read_at, factor = _factor(mpp, reference.config)
    if x is None:
        return SectionRange(name, n, n, read_at, factor, None, None)
    tissue = _on_tissue(x, reference.config.get("encoder"))
    distance = limit = None
    if reference.has("feature_mean") and tissue.any():
        distance, limit = reference.image_distance(x[tissue]), reference.image_limit()
    return SectionRange(name, n, int(tissue.sum()), read_at, factor, distance, limit)


def _codes(table: AnnData) -> np.ndarray:
    attrs = table.uns.get("spatialdata_attrs")
    if attrs is not None and attrs.get("region_key") in table.obs:
        return table.obs[attrs["region_key"]].astype(str).to_numpy(dtype=object)
    return np.asarray(section_codes(table), dtype=object)


def _mpp(table: AnnData, slot: str | None) -> dict[str, float]:
    """Microns per full-resolution pixel by section, as recorded with the features or the tiles."""
    for key in (slot, _keys.TILES):
        stored = (recorded(table, key) or {}).get("mpp") if key else None
        if stored:
            return {str(name): float(value) for name, value in stored.items() if value}
    return {}


def _factor(mpp: float | None, config: dict[str, Any]) -> tuple[float | None, float | None]:
    """Scale at which tiles are read, and how much coarser or finer that is than in training.

    A tile is never sharper than its image, and never sharper than its own pixels.
    """
    if mpp is None or not config.get("mpp"):
        return None, None
    low, high = config["mpp"]
    if config.get("tile_um") is not None and config.get("tile_px"):
        own = float(np.min(config["tile_um"])) / config["tile_px"]
        mpp, low, high = max(mpp, own), max(low, own), max(high, own)
    return mpp, mpp / high if mpp > high else min(1.0, mpp / low)


def _on_tissue(x: np.ndarray, encoder: str | None) -> np.ndarray:
    complete = np.isfinite(x).all(axis=1)
    if encoder != "stain_texture":
        return complete
    from spatialwhisperer.encoders.image.stain_texture import StainTextureEncoder

    # of several tile sizes the first; the feature is the square root of the share
    share = x[:, StainTextureEncoder().feature_names().index("tissue_share")]
    return complete & (np.nan_to_num(share) >= np.sqrt(TISSUE))


# ------------------------------------------------------------------------------------------------- sentences


def _scale(one: SectionRange, training: Any) -> str | None:
    if one.factor is None or 1 / SAME_MPP <= one.factor <= SAME_MPP:
        return None
    low, high = training
    trained = f"{low:.3g}" if np.isclose(low, high, rtol=0.01) else f"{low:.3g} to {high:.3g}"
    how = f"{one.factor:.1f} times coarser" if one.factor > 1 else f"{1 / one.factor:.1f} times finer"
    return (
        f"Section {one.name!r} is read at {one.mpp:.3g} µm per pixel, {how} than the images in training ({trained} µm per "
        "pixel): its fine texture is another."
    )


def _look(one: SectionRange, _training: Any) -> str | None:
    if one.distance is None or one.limit is None or one.distance <= one.limit:
        return None
    return (
        f"The colours and textures of section {one.name!r} lie {one.distance:.1f} standard deviations from the nearest "
        f"training section (up to {one.limit:.1f} is usual): check the stain, the scale and that the image is in colour."
    )


def _rows(one: SectionRange, _training: Any) -> str | None:
    if one.n_tissue < MIN_ROWS:
        return (
            f"Section {one.name!r} has {one.n_tissue} rows with a whole tile on tissue, of {one.n_rows}; with fewer than "
            f"{MIN_ROWS} its features cannot be brought to the scale of a section."
        )
    if one.n_tissue < (1 - MOST_GLASS) * one.n_rows:
        return (
            f"Of {one.n_rows} rows of section {one.name!r} only {one.n_tissue} have a tile on tissue; the others shift the "
            "scale of its features. Leave out empty tiles."
        )
    return None
