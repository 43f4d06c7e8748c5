"""The same tissue gets the same labels, whatever else is annotated with it and however it was stained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from spatialdata import SpatialData
from spatialdata.models import Image2DModel
from spatialdata.transformations import get_transformation

import spatialwhisperer as sw
from spatialwhisperer.protocols import captions
from spatialwhisperer.protocols.annotation.scores import aurocs

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

pytestmark = pytest.mark.slow

BREAST, BULB = ("C2", "C3", "C4", "C5"), ("11", "05")
SECTIONS = (*BREAST, *BULB)


@pytest.fixture(scope="module")
def sections(data_folder: Path) -> dict[str, SpatialData]:
    """Real sections, each with the features that the embedded model reads. Read only."""
    out = {name: sw.datasets.her2st(name, data_dir=data_folder) for name in BREAST}
    if (data_folder / "mob_regions").is_dir():
        out |= {name: sw.datasets.olfactory_bulb(name, data_dir=data_folder) for name in BULB}
    for section in out.values():
        sw.tl.embed(section, modality="image")
    return out


def take(sections: dict[str, SpatialData], name: str) -> SpatialData:
    if name not in sections:
        pytest.skip("needs the sections of the olfactory bulb")
    return sections[name]


def scores(data: Any) -> pd.DataFrame:
    out = sw.tl.zero_shot_annotate(data, modality="image", normalize="none", inplace=False)
    assert out is not None
    return out


def part(section: SpatialData, rows: np.ndarray) -> SpatialData:
    """Some rows, without features that were stored."""
    table = section["table"][rows].copy()
    for key in list(table.obsm):
        if key.startswith("X_"):
            del table.obsm[key]
    table.uns.pop("spatialwhisperer", None)
    return SpatialData(images=dict(section.images), shapes=dict(section.shapes), tables={"table": table})


def changed(whole: pd.DataFrame, other: pd.DataFrame) -> float:
    """Fraction of rows with another best label."""
    mine = whole.loc[other.index]
    return float((mine.to_numpy().argmax(axis=1) != other.to_numpy().argmax(axis=1)).mean())


def kept_rows(section: SpatialData, what: str) -> np.ndarray:
    table = section["table"]
    n, rng = table.n_obs, np.random.default_rng(0)
    if what in ("19 rows", "20 rows"):
        return np.sort(rng.choice(n, int(what[:2]), replace=False))
    if what == "a random half":
        return np.sort(rng.choice(n, n // 2, replace=False))
    x = np.asarray(table.obsm["spatial"])[:, 0]
    if what == "the left half":
        return np.flatnonzero(x <= np.median(x))
    column = "pathologist_label" if "pathologist_label" in table.obs else "layer"
    regions = table.obs[column].astype(object)
    return np.flatnonzero((regions == regions.value_counts().index[0]).to_numpy())


@pytest.mark.parametrize("what", ["a random half", "the left half", "one tissue", "19 rows", "20 rows"])
@pytest.mark.parametrize("name", SECTIONS)
def test_labels_do_not_depend_on_the_other_rows(sections: dict[str, SpatialData], name: str, what: str) -> None:
    section = take(sections, name)
    some = scores(part(section, kept_rows(section, what)))
    whole = scores(section)
    assert changed(whole, some) <= 0.02
    np.testing.assert_allclose(some, whole.loc[some.index], atol=1e-5)


def test_labels_do_not_depend_on_another_section(sections: dict[str, SpatialData], data_folder: Path) -> None:
    both = sw.datasets.her2st(["C2", "A1"], data_dir=data_folder)
    together = scores(both)
    whole = scores(sections["C2"])
    rows = together.index[both["table"].obs["section"].astype(str) == "C2"]
    np.testing.assert_allclose(together.loc[rows], whole, atol=1e-5)


def restained(section: SpatialData, h: float, e: float, light: float) -> SpatialData:
    """The section with weaker or stronger stains and other light."""
    out = part(section, np.arange(section["table"].n_obs))
    stains = np.array([[0.75, 0.58, 0.31], [0.45, 0.77, 0.45]])
    stains /= np.linalg.norm(stains, axis=1, keepdims=True)
    basis = np.vstack([stains, np.cross(*stains)])
    change = (np.linalg.inv(basis) @ np.diag([h, e, 1.0]) @ basis).astype(np.float32)
    (name, image), *_ = section.images.items()
    image = image["scale0"]["image"] if hasattr(image, "keys") and "scale0" in image else image
    pixels = np.asarray(image.data)
    glass = np.percentile(pixels[:, ::8, ::8], 99, axis=(1, 2)).astype(np.float32)
    # optical density of each value of each channel, in powers of 2
    density = -np.log2((np.arange(256, dtype=np.float32) + 1) / (glass[:, None] + 1))
    new = np.empty_like(pixels)
    for top in range(0, pixels.shape[1], 512):
        strip = np.stack([d[p] for d, p in zip(density, pixels[:, top : top + 512], strict=True)])
        strip = np.exp2(-np.tensordot(change.T, strip, 1)) * (glass[:, None, None] + 1)
        new[:, top : top + 512] = (light * strip - 1).clip(0, 255).round()
    everywhere: Any = get_transformation(section.images[name], get_all=True)
    out.images[name] = Image2DModel.parse(
        new, dims=("c", "y", "x"), c_coords=["r", "g", "b"], transformations=everywhere
    )
    return out


_CHANGES = ((1.1, 0.9, 1.0), (0.9, 1.1, 1.0), (1.1, 1.1, 0.97))


@pytest.mark.parametrize(
    ("name", "change"),
    [*(("C2", change) for change in _CHANGES), *zip(BREAST[1:], _CHANGES, strict=True)],
)
def test_labels_hardly_depend_on_the_staining(
    sections: dict[str, SpatialData], name: str, change: tuple[float, float, float]
) -> None:
    section = sections[name]
    other = restained(section, *change)
    sw.tl.embed(other, modality="image")
    assert changed(scores(section), scores(other)) <= 0.10
    truth = captions.targets(section["table"])
    before, after = (
        aurocs(
            sw.tl.zero_shot_annotate(x, captions.TARGETS, modality="image", normalize="none", inplace=False),
            truth,
        )["auroc"].mean()
        for x in (section, other)
    )
    assert abs(before - after) <= 0.01
