"""Whether images are like the training tissue: the report, and the labels that rows do not get."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import spatialwhisperer as sw
from spatialwhisperer._provenance import recorded_as
from spatialwhisperer.models.reference import Reference
from spatialwhisperer.models.whisperer import Whisperer
from spatialwhisperer.tl._annotation.record import AnnotationRecord

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LABELS = ["fat cell", "T cell", "fibroblast"]


def with_limits(row: float, section: float) -> Whisperer:
    """The embedded model with other limits, which has not seen whole images."""
    model = Whisperer.load("her2st-mini")
    assert model.reference is not None
    arrays = {k: v for k, v in model.reference.arrays.items() if k not in ("look", "unseen_look")}
    arrays |= {"unseen_row": np.full(401, row), "unseen_section": np.full(5, section / 1.5)}
    model.reference = Reference(model.reference.config, arrays)
    return model


@pytest.fixture(scope="module")
def slide() -> Any:
    """A simulated section with the features that the embedded model reads. Read only."""
    out = sw.datasets.simulate_sections(1, 40, n_genes=50, n_reference_cells=50, random_state=0).sections["P1"]
    sw.tl.embed(out)
    return out


@pytest.fixture
def data(slide: Any) -> Any:
    import spatialdata as sd

    return sd.SpatialData(images=dict(slide.images), shapes=dict(slide.shapes), tables={"table": slide["table"].copy()})


@pytest.fixture(scope="module")
def middle(slide: Any) -> float:
    """A distance that half of the rows exceed."""
    found = slide["table"].copy()
    reference = sw.models.default_model().reference
    assert reference is not None
    return float(np.median(reference.row_distance(found.obsm["X_stain_texture"])))


# ------------------------------------------------------------------------------------------------- the report


def test_the_report_names_each_section(data: Any, middle: float) -> None:
    before = list(data["table"].obs)
    report = sw.tl.tissue_range(data, model=with_limits(middle, 1.0))
    (row,) = report.itertuples()
    assert (row.Index, row.n_rows, row.n_tissue, row.verdict, row.trained_on) == (
        "P1_spots",
        40,
        40,
        "out of range",
        False,
    )
    assert row.out_of_range == pytest.approx(0.5)
    assert row.limit == pytest.approx(1.0)
    assert report["distance"].item() > 1.0
    assert report.attrs["row_limit"] == pytest.approx(middle)
    assert report.attrs["left_out"] == "groups"
    assert "colours and textures of section 'P1_spots'" in report.attrs["range"][0]
    assert list(data["table"].obs) == before
    assert sw.tl.tissue_range(data, model=with_limits(middle, 5.0))["verdict"].tolist() == ["in range"]


def test_the_distance_of_a_section_is_the_larger_one_of_its_rows_and_its_image(data: Any) -> None:
    """Both are shown, so that the reader sees which of them is out of range."""
    model = sw.models.default_model()
    assert model.reference is not None
    of_rows = model.reference.image_distance(data["table"].obsm["X_stain_texture"])
    report = sw.tl.tissue_range(data, model=model)
    of_image = report["image_distance"].item()
    assert of_image > 0
    assert report["mean_distance"].item() == pytest.approx(of_rows)
    assert report["distance"].item() == pytest.approx(max(of_rows, of_image))
    # without what the encoder saw of the images of the training, the rows alone decide
    without = sw.tl.tissue_range(data, model=with_limits(2.0, 1.0))
    assert np.isnan(without["image_distance"].item())
    assert without["distance"].item() == pytest.approx(of_rows)


def test_the_distance_of_each_row_is_written_where_asked(data: Any) -> None:
    sw.tl.tissue_range(data, key_added="distance")
    model = sw.models.default_model()
    assert model.reference is not None
    expected = model.reference.row_distance(data["table"].obsm["X_stain_texture"])
    np.testing.assert_array_equal(data["table"].obs["distance"], expected)


def test_a_model_without_the_distances_says_so(data: Any) -> None:
    old = Whisperer.load("her2st-mini")
    assert old.reference is not None
    old.reference = Reference(replace(old.reference.config, unseen=None), old.reference.arrays)
    bare = Whisperer.load("her2st-mini")
    bare.reference = None
    for model in (old, bare):
        with pytest.raises(ValueError, match=r"does not hold the distances of left-out training tissue.*sw\.tl\.train"):
            sw.tl.tissue_range(data, model=model)


# ------------------------------------------------------------------------------------------------- labels


def labelled(data: Any, model: Whisperer, **options: Any) -> Any:
    table = data["table"].copy()
    table.uns.pop("sw_label", None)
    data.tables["table"] = table
    sw.tl.zero_shot_annotate(data, LABELS, model=model, **options)
    return data["table"]


def test_a_section_that_is_out_of_range_gets_no_label(data: Any, capfd: pytest.CaptureFixture[str]) -> None:
    table = labelled(data, sw.models.default_model())
    assert table.obs["sw_label"].isna().all()
    assert table.obs["sw_label_reason"].tolist() == ["section out of range"] * 40
    assert table.obs["sw_label_confidence"].notna().all()
    lines = [line for line in capfd.readouterr().err.splitlines() if "get no label" in line]
    assert len(lines) == 1
    assert "40 of 40 rows get no label" in lines[0]
    record = recorded_as(table, "sw_label", AnnotationRecord)
    assert record is not None
    assert (record.unknown, dict(record.without_label)) == ("abstain", {"section out of range": 40})
    assert record.section_limit == pytest.approx(1.4, abs=0.01)
    assert record.row_limit == pytest.approx(2.2, abs=0.01)


def test_rows_that_are_out_of_range_get_no_label_and_the_others_the_same(data: Any, middle: float) -> None:
    model = with_limits(middle, 5.0)
    every = labelled(data, model, unknown="label")
    assert every.obs["sw_label"].notna().all()
    assert every.obs["sw_label_reason"].isna().all()
    some = labelled(data, model)
    assert model.reference is not None
    out = model.reference.row_distance(some.obsm["X_stain_texture"]) > middle
    assert out.sum() == 20
    np.testing.assert_array_equal(some.obs["sw_label"].isna(), out)
    assert (some.obs["sw_label"].astype(str)[~out] == every.obs["sw_label"].astype(str)[~out]).all()
    assert (some.obs["sw_label_reason"][out] == "row out of range").all()
    np.testing.assert_array_equal(some.obsm["sw_label_scores"], every.obsm["sw_label_scores"])
    for column in ("sw_label_confidence", "sw_label_margin"):
        np.testing.assert_array_equal(some.obs[column], every.obs[column])


def test_tissue_comes_before_confidence_and_gets_no_coarser_label(data: Any, middle: float) -> None:
    options: dict[str, Any] = {"min_confidence": 0.5, "hierarchy": sw.tl.Hierarchy(rollup=True)}
    labels = ["T cell", "B cell", "fat cell"]
    table = data["table"]
    sw.tl.zero_shot_annotate(data, labels, model=with_limits(middle, 5.0), **options)
    out = table.obs["sw_label_reason"] == "row out of range"
    assert out.sum() == 20
    assert table.obs["sw_label"][out].isna().all()
    rest = set(table.obs["sw_label_reason"][~out].dropna())
    assert rest <= {"below min_confidence"}


def test_stored_embeddings_are_not_compared(data: Any) -> None:
    table = labelled(data, sw.models.default_model(), embedding_key="X_sw_image")
    assert table.obs["sw_label"].notna().all()
    record = recorded_as(table, "sw_label", AnnotationRecord)
    assert record is not None
    assert (record.unknown, record.row_limit) == (None, None)


def test_an_older_model_labels_every_row_and_says_so(data: Any, capfd: pytest.CaptureFixture[str]) -> None:
    old = Whisperer.load("her2st-mini")
    assert old.reference is not None
    old.reference = Reference(replace(old.reference.config, unseen=None), old.reference.arrays)
    assert labelled(data, old).obs["sw_label"].notna().all()
    assert "does not hold the distances of left-out training tissue" in capfd.readouterr().err


def test_unknown_takes_two_words(data: Any) -> None:
    with pytest.raises(ValueError, match="unknown must be one of 'abstain', 'label', not 'drop'"):
        sw.tl.zero_shot_annotate(data, LABELS, unknown="drop")  # type: ignore[arg-type]


@pytest.mark.parametrize("store", ["h5ad", "zarr"])
def test_reasons_survive_storage(data: Any, tmp_path: Path, store: str) -> None:
    import anndata as ad

    table = labelled(data, sw.models.default_model())
    del table.uns["spatialdata_attrs"]
    getattr(table, f"write_{store}")(tmp_path / f"x.{store}")
    read: Callable[[Path], Any] = getattr(ad, f"read_{store}")
    back = read(tmp_path / f"x.{store}")
    assert back.obs["sw_label"].isna().all()
    assert (back.obs["sw_label_reason"] == table.obs["sw_label_reason"]).all()


# ------------------------------------------------------------------------------------------------- training


def test_training_measures_the_range_and_recognises_its_sections(
    model: Any, simulated: Any, section: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    assert model.reference.config.unseen == "groups"
    assert len(model.reference.arrays["unseen_section"]) == 2
    report = sw.tl.tissue_range(section, model=model)
    assert (report["verdict"].tolist(), report["trained_on"].tolist()) == (["in range"], [False])
    assert sw.tl.tissue_range(simulated.sections["P1"], model=model)["trained_on"].tolist() == [True]
    capfd.readouterr()
    copy = simulated.sections["P1"]["table"].copy()
    del copy.uns["spatialdata_attrs"]
    sw.tl.zero_shot_annotate(copy, LABELS[:2], model=model, modality="gene")
    assert "The model was trained on section" in capfd.readouterr().err
    record = recorded_as(copy, "sw_label", AnnotationRecord)
    assert record is not None
    assert len(record.trained_on) == 1


@pytest.mark.slow
def test_a_training_section_is_recognised_by_its_image_too(
    model: Any, simulated: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    """A grid of tiles has other rows than the spots of training."""
    import spatialdata as sd

    def bare(name: str) -> Any:
        return sd.SpatialData(images=dict(simulated.sections[name].images))

    known, new = bare("P1"), bare("P3")
    assert sw.tl.tissue_range(known, model=model)["trained_on"].tolist() == [True]
    assert sw.tl.tissue_range(new, model=model)["trained_on"].tolist() == [False]
    capfd.readouterr()
    sw.tl.zero_shot_annotate(known, LABELS, model=model, unknown="label")
    assert "The model was trained on section" in capfd.readouterr().err
    record = recorded_as(known["sw_tiles"], "sw_label", AnnotationRecord)
    assert record is not None
    assert len(record.trained_on) == 1
    tiles = bare("P1")
    sw.pp.tiles(tiles, at="grid", tile_um=100)
    assert len(sw.tl.evidence(tiles, labels=LABELS, model=model).attrs["trained_on"]) == 1


# ------------------------------------------------------------------------------------------------- real sections


@pytest.mark.slow
def test_breast_is_in_range_and_the_olfactory_bulb_is_not(data_folder: Path) -> None:
    from spatialwhisperer.protocols.annotation.guard.measure import fraction, judge, reference_of
    from spatialwhisperer.protocols.annotation.guard.tissue import breast, foreign

    others = foreign(data_folder, smoke=True)
    bulbs = [part for name, parts in others.items() if "olfactory" in name for part in parts.values()]
    if not bulbs:
        pytest.skip("needs sections of the olfactory bulb")
    known = breast(data_folder, smoke=True)
    embedded = sw.models.default_model().reference
    assert embedded is not None
    assert fraction([judge(x, embedded) for x in bulbs]) == 1
    unseen = reference_of({name: x for name, x in known.items() if name != "C3"})
    assert fraction([judge(known["C3"], unseen)]) <= 0.05
