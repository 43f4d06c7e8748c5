"""Every picture of every kind of object: none needs an argument about the scale, and all of a slide have a scale bar."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import spatialwhisperer as sw
from spatialwhisperer._access.slide import Slide
from spatialwhisperer.statistics.expression.value_spaces import to_space

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MPP = 2.0
PITCH_UM = 100.0
LABELS = ["adipocyte", "T cell", "fibroblast", "endothelial cell", "cancer cell"]


@pytest.fixture(scope="module")
def simulated() -> Any:
    """A coarse section whose genes have the names that the embedded model knows. Read only."""
    out = sw.datasets.simulate_sections(1, 60, n_genes=1100, n_reference_cells=20, mpp=MPP, random_state=0)
    encoder: Any = sw.models.default_model().encoders["gene"]
    out.sections["P1"]["table"].var_names = encoder.genes[:1100]
    return out.sections["P1"]


# ------------------------------------------------------------------------------------------------- the objects


def _pixels(section: Any) -> np.ndarray:
    return np.moveaxis(section.images["P1_image"]["scale0"]["image"].to_numpy(), 0, -1)


def bare_grid(section: Any) -> Any:
    """A grid over an H&E that does not state its scale, in an AnnData."""
    slide = ad.AnnData(np.zeros((1, 0), np.float32))
    slide.uns["spatial"] = {"P1": {"images": {"fullres": _pixels(section)}, "scalefactors": {}}}
    return sw.pp.tiles(slide, at="grid", tile_um=100, mpp=MPP, inplace=False)


def grid_in_place(section: Any) -> Any:
    """A grid over the H&E of a SpatialData."""
    import spatialdata as sd

    slide = sd.SpatialData(images=dict(section.images))
    sw.pp.tiles(slide, at="grid", tile_um=100)
    return slide


def visium(section: Any) -> Any:
    """An AnnData as Visium has it: a hexagonal array, images and scale factors, and no microns per pixel."""
    table = section["table"].copy()
    del table.uns["spatialdata_attrs"]
    step = (table.obsm["spatial"] - table.obsm["spatial"].min(axis=0)) * MPP / PITCH_UM
    table.obs["array_col"], table.obs["array_row"] = np.rint(step * [2, 2 / np.sqrt(3)]).astype(int).T
    factors = {
        "tissue_hires_scalef": 0.5,
        "spot_diameter_fullres": 55 / MPP,
        "fiducial_diameter_fullres": 105 / MPP,
    }
    images = {"fullres": _pixels(section), "hires": _pixels(section)[::2, ::2]}
    table.uns["spatial"] = {"P1": {"images": images, "scalefactors": factors}}
    return table


def shapes_alone(section: Any) -> Any:
    """A SpatialData whose table holds no positions: they lie in the shapes."""
    import spatialdata as sd

    table = section["table"].copy()
    del table.obsm["spatial"]
    return sd.SpatialData(images=dict(section.images), shapes=dict(section.shapes), tables={"table": table})


MAKERS = {f.__name__: f for f in (bare_grid, grid_in_place, visium, shapes_alone)}


@dataclass
class Annotated:
    """An annotated object, its table, and a prediction of its expression where it has counts."""

    data: Any
    table: ad.AnnData
    prediction: ad.AnnData | None


@pytest.fixture(scope="module", params=MAKERS)
def annotated(request: Any, simulated: Any) -> Annotated:
    data = MAKERS[request.param](simulated)
    sw.tl.zero_shot_annotate(data, LABELS, unknown="label", min_confidence=0.21)
    sw.tl.query(data, "fat tissue")
    sw.tl.spatial_domains(data, use="X_sw_image", n_domains=3)
    table: Any = Slide.open(data).table
    rows = np.arange(table.n_obs)
    table.obs["batch"] = pd.Categorical(np.where(rows % 2, "odd", "even"))
    table.obs["known"] = pd.Categorical(np.array(LABELS)[rows % 5])
    if not table.n_vars:
        return Annotated(data, table, None)
    values = to_space(table.X).toarray() / 2 + np.random.default_rng(0).normal(0, 0.5, table.shape)
    return Annotated(data, table, ad.AnnData(values.astype(np.float32), obs=table.obs[[]], var=table.var[[]]))


# ------------------------------------------------------------------------------------------------- the pictures


def bar_um(ax: Axes) -> float:
    """What the text of the scale bar says."""
    (text,) = (t.get_text() for t in ax.texts if t.get_text().endswith(("µm", " mm")))
    return float(text.split()[0]) * (1000 if text.endswith("mm") else 1)


def check_bars(axes: list[Axes], mpp: float) -> None:
    """Each of the axes shows a scale bar that is as long as its text says."""
    for ax in axes:
        assert np.ptp(np.asarray(ax.lines[-1].get_xdata())) * mpp == pytest.approx(bar_um(ax))


def test_the_slide_knows_its_scale(annotated: Annotated) -> None:
    (section,) = Slide.open(annotated.data).scaled()
    assert section.mpp == pytest.approx(MPP, rel=0.01)


def test_labels(annotated: Annotated) -> None:
    axes = sw.pl.annotation(annotated.data, confidence=True)
    assert len(axes) == 2
    check_bars(axes, MPP)
    assert len(np.asarray(axes[1].collections[0].get_offsets())) == annotated.table.n_obs
    axes[0].figure.canvas.draw()


def test_scores_and_a_query(annotated: Annotated) -> None:
    axes = sw.pl.scores(annotated.data)
    assert len(axes) == 1 + len(LABELS)
    check_bars(axes, MPP)
    check_bars(sw.pl.scores(annotated.data, key="sw_query"), MPP)


def test_top_tiles(annotated: Annotated) -> None:
    for label in ("T cell", "sw_query"):
        axes = sw.pl.top_tiles(annotated.data, label, n=3, lowest=True)
        check_bars(axes[:1], 1.0)  # these axes are in microns
        assert axes[0].get_xlim() == (0, 300)


def test_domains(annotated: Annotated) -> None:
    axes = sw.pl.domains(annotated.data, truth="known")
    assert len(axes) == 3
    check_bars(axes, MPP)


def test_expression_and_its_ranking(annotated: Annotated) -> None:
    if annotated.prediction is None:
        with pytest.raises(KeyError, match="predict_expression"):
            sw.pl.expression(annotated.data)
        return
    options: dict[str, Any] = {"prediction": annotated.prediction, "value_space": "per_spot_log1p"}
    axes = sw.pl.expression(annotated.data, n_genes=2, **options)
    check_bars([axes[i] for i in (0, 1, 3, 4)], MPP)
    report = sw.tl.gene_report(annotated.data, **options)
    assert len(sw.pl.gene_ranking(report, n=5).get_yticklabels()) == 5


def test_pictures_of_trust(annotated: Annotated) -> None:
    assert len(sw.pl.reliability(annotated.data, "known")) == 2
    assert sw.pl.roc(annotated.data, "known").get_title(loc="left").startswith("macro AUROC")
    assert sw.pl.confusion(annotated.data, labels_key="known", key="sw_label").images


def test_agreement_of_image_and_genes(annotated: Annotated) -> None:
    if annotated.prediction is None:
        with pytest.raises(KeyError, match="The data hold no gene that the model reads"):
            sw.tl.agreement(annotated.data)
        return
    sw.tl.agreement(annotated.data)
    axes = sw.pl.agreement(annotated.data)
    assert [ax.get_title() for ax in axes[2:]] == ["agreement", "wording sd"][: len(axes) - 2]
    check_bars(axes, MPP)


def test_batches(annotated: Annotated) -> None:
    axes = sw.pl.batches(
        annotated.data, batch_key="batch", embeddings="X_sw_image", labels_key="known", reduction="pca", k=5
    )
    assert len(axes) == 3


def test_transitivity(annotated: Annotated) -> None:
    report = sw.tl.transitivity(annotated.data, labels=LABELS)
    # without expression the quantities and the labels alone are shown
    assert len(sw.pl.transitivity(report)) == (2 if annotated.prediction is None else 4)


def test_pictures_are_drawn_into_the_axes_of_the_caller(annotated: Annotated) -> None:
    import matplotlib.pyplot as plt

    data = annotated.data
    _, (row, (below, *_)) = plt.subplots(2, 3)
    assert sw.pl.annotation(data, axes=row) == list(row[:2])
    assert sw.pl.domains(data, truth="known", axes=iter(row)) == list(row)
    assert sw.pl.reliability(data, "known", axes=row) == list(row[:2])
    assert sw.pl.roc(data, "known", ax=below) is below
    assert sw.pl.confusion(data, labels_key="known", key="sw_label", ax=below) is below
    report = pd.DataFrame({"pearson": [0.6, 0.4], "pearson_sd": [0.1, 0.2]}, index=["GNAS", "FN1"])
    assert sw.pl.gene_ranking(report, ax=below) is below
    assert len(plt.get_fignums()) == 1
    below.figure.canvas.draw()


def test_every_picture_of_an_object_is_drawn_here() -> None:
    drawn = set(re.findall(r"sw\.pl\.(\w+)\(", Path(__file__).read_text(encoding="utf-8")))
    assert drawn == set(sw.pl.__all__) - {"training"}  # which is of a model


# ------------------------------------------------------------------------------------------------- scale from the records


@pytest.fixture
def unscaled(simulated: Any) -> ad.AnnData:
    """An AnnData that does not state its scale."""
    adata = visium(simulated)
    adata.uns["spatial"]["P1"]["scalefactors"] = {"tissue_hires_scalef": 0.5}
    return adata


def test_a_picture_takes_the_scale_that_the_annotation_was_made_at(unscaled: ad.AnnData) -> None:
    before = sw.pl.annotation(unscaled, key="cell_type")
    assert not any(ax.lines or ax.texts for ax in before)
    sw.tl.zero_shot_annotate(unscaled, LABELS, unknown="label", mpp=MPP)
    check_bars(sw.pl.annotation(unscaled), MPP)
    check_bars(sw.pl.scores(unscaled), MPP)
    check_bars(sw.pl.domains(unscaled, key="cell_type"), MPP)
    check_bars(sw.pl.top_tiles(unscaled, "T cell", n=2)[:1], 1.0)
    (ax,) = sw.pl.annotation(unscaled, with_image=False, diameter_um=55)
    marks: Any = ax.collections[0]
    assert marks.diameter == pytest.approx(55 / MPP)


def test_records_that_differ_give_no_scale(unscaled: ad.AnnData) -> None:
    sw.tl.zero_shot_annotate(unscaled, LABELS, unknown="label", mpp=MPP)
    sw.pp.embed_images(unscaled, tile_um=100, tile_px=32, mpp=1.0, key_added="X_other")
    assert not any(ax.lines or ax.texts for ax in sw.pl.annotation(unscaled))
    with pytest.raises(ValueError, match=r"microns per pixel of section 'P1' are not known. Pass mpp=…"):
        sw.pl.top_tiles(unscaled, "T cell")
    check_bars(sw.pl.annotation(unscaled, mpp=MPP), MPP)
    check_bars(sw.pl.top_tiles(unscaled, "T cell", n=2, mpp=MPP)[:1], 1.0)


def test_a_size_in_microns_needs_a_scale(unscaled: ad.AnnData) -> None:
    with pytest.raises(ValueError, match="diameter_um needs the microns per pixel of section 'P1'"):
        sw.pl.annotation(unscaled, key="cell_type", diameter_um=55)


def test_a_picture_takes_the_image_that_the_annotation_was_read_from(simulated: Any) -> None:
    """Two images share a coordinate system with the spots: one is named for the annotation, and not again for pictures."""
    data = shapes_alone(simulated)
    data.images["other"] = data.images["P1_image"]
    sw.tl.zero_shot_annotate(data, LABELS, unknown="label", image_key="P1_image")
    check_bars(sw.pl.annotation(data), MPP)
    assert len(sw.pl.top_tiles(data, "T cell", n=2)) == 2
