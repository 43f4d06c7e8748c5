from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import spatialwhisperer as sw
from spatialwhisperer._access.slide import Slide
from spatialwhisperer._access.tiles.plan import plan_tiles
from spatialwhisperer._provenance import recorded
from spatialwhisperer.pl.top_tiles import top_tiles
from spatialwhisperer.pp.features.tile_features import read_tiles


def table_of(data: Any) -> Any:
    return data["table"] if hasattr(data, "tables") else data


def scores_of(data: Any, label: str) -> np.ndarray:
    table = table_of(data)
    return table.obsm["sw_label_scores"][:, list(table.uns["sw_label"]["classes"]).index(label)]


def written(axes: Any) -> list[float]:
    """The score under each tile."""
    return [float(ax.get_xlabel().split("\n")[0].replace("−", "-")) for ax in axes]


def rows_drawn(axes: Any, data: Any) -> np.ndarray:
    """Rows of the table whose tile, read by itself, is what an axes shows."""
    plan = plan_tiles(Slide.open(data, mpp=0.5))
    tiles = np.moveaxis(read_tiles(plan, 80, 160), 1, -1)
    return np.array([np.flatnonzero((tiles == ax.images[0].get_array()).all(axis=(1, 2, 3)))[0] for ax in axes])


def test_the_best_tiles_in_their_order(annotated: Any) -> None:
    scores = scores_of(annotated, "T cell")
    axes = top_tiles(annotated, "T cell", n=7, n_columns=4)
    rows = rows_drawn(axes, annotated)
    assert len(set(rows)) == 7
    assert rows[0] == scores.argmax()
    assert (np.diff(scores[rows]) <= 0).all()
    assert written(axes) == pytest.approx(scores[rows], abs=0.006)
    assert axes[0].figure.get_suptitle() == "T cell: tiles of 80 µm"
    assert len({round(ax.get_position().y0, 3) for ax in axes}) == 2
    xy = table_of(annotated).obsm["spatial"]
    between = np.abs(xy[rows][:, None] - xy[rows][None]).max(axis=2)[~np.eye(7, dtype=bool)]
    assert between.min() >= 0.999 * 160
    # whatever is better than the last one was left out because it overlaps one that is drawn
    for row in np.setdiff1d(np.flatnonzero(scores > scores[rows[-1]]), rows):
        assert np.abs(xy[rows] - xy[row]).max(axis=1).min() < 160


def test_a_query_and_its_opposite(annotated: Any) -> None:
    score = table_of(annotated).obs["sw_query"].to_numpy()
    axes = top_tiles(annotated, "sw_query", n=5, lowest=True, caption="cell_type")
    assert axes[0].figure.get_suptitle() == "“fat tissue”: tiles of 80 µm"
    rows = rows_drawn(axes, annotated)
    assert score[rows[:5]].min() > score[rows[5:]].max()
    assert rows[5] == score.argmin()
    assert (axes[0].get_ylabel(), axes[5].get_ylabel()) == ("highest", "lowest")
    types = table_of(annotated).obs["cell_type"].iloc[rows].astype(str)
    assert [ax.get_xlabel().split("\n")[1] for ax in axes] == list(types)
    xy = table_of(annotated).obsm["spatial"][rows]
    assert np.abs(xy[:5, None] - xy[None, 5:]).max(axis=2).min() >= 0.999 * 160


def test_the_scale_bar_is_true(annotated: Any) -> None:
    axes = top_tiles(annotated, "adipocyte", n=3)
    bar = axes[0].lines[-1].get_xdata()
    text = axes[0].texts[0].get_text()
    assert text == f"{np.ptp(np.asarray(bar)):g} µm"
    # the axes are in microns
    assert axes[0].get_xlim() == (0, 80)
    assert not axes[1].lines


def test_rows_without_a_score_and_few_rows(section: Any) -> None:
    table = section["table"]
    table.obs["score"] = np.nan
    table.obs.loc[table.obs_names[:3], "score"] = [0.3, 0.2, 0.1]
    table.obsm["spatial"][1] = table.obsm["spatial"][0]
    section.shapes["P3_spots"].loc[table.obs["instance_id"].iloc[1], "geometry"] = section.shapes[
        "P3_spots"
    ].geometry.loc[table.obs["instance_id"].iloc[0]]
    axes = top_tiles(section, "score", n=12)
    assert [ax.get_xlabel() for ax in axes] == ["0.30", "0.10"]
    table.obs["score"] = np.nan
    with pytest.raises(ValueError, match="No row has a score for 'score'"):
        top_tiles(section, "score")


def test_only_what_is_drawn_is_read(annotated: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from spatialwhisperer._access.tiles import reader

    boxes = []

    def spy(level: Any, left: int, top: int, right: int, bottom: int, **options: Any) -> np.ndarray:
        boxes.append((right - left) * (bottom - top))
        return read_pixels(level, left, top, right, bottom, **options)

    read_pixels = reader.read_pixels
    monkeypatch.setattr(reader, "read_pixels", spy)
    top_tiles(annotated, "T cell", n=1)
    # a tile of 160 pixels, and one pixel around it
    assert sum(boxes) <= 163 * 163


@pytest.mark.slow
def test_sections(simulated: Any, model: Any, labels: dict[str, str]) -> None:
    import spatialdata as sd

    # concatenating renames the coordinate systems of what it is given
    both = sd.concatenate(
        {n: sd.deepcopy(simulated.sections[n].subset([f"{n}_image", f"{n}_spots", "table"])) for n in ("P2", "P3")}
    )
    tables = [both.tables.pop(name) for name in list(both.tables)]
    import anndata as ad
    from spatialdata.models import TableModel

    table: Any = ad.concat(tables)
    attrs = {"region_key": "region", "instance_key": "instance_id"}
    table.obs["region"] = table.obs["region"].astype(str).astype("category")
    both.tables["table"] = TableModel.parse(table, region=list(table.obs["region"].cat.categories), **attrs)
    sw.tl.zero_shot_annotate(both, labels, model=model)
    regions = list(both["table"].obs["region"].cat.categories)
    axes = top_tiles(both, "T cell", n=4, tile_um=80, per_section=True, lowest=True)
    names = [f"{name}\n{end}" for name in regions for end in ("highest", "lowest")]
    assert [ax.get_ylabel() for ax in axes[::4]] == names
    mixed = top_tiles(both, "T cell", n=8, tile_um=80)
    assert {ax.get_xlabel().split("\n")[1] for ax in mixed} <= set(regions)
    one = top_tiles(both, "T cell", n=8, tile_um=80, sections=regions[:1])
    assert all("\n" not in ax.get_xlabel() for ax in one)
    with pytest.raises(KeyError, match="no sections P9"):
        top_tiles(both, "T cell", tile_um=80, sections=["P9"])


def test_joined_sections_know_the_size_from_the_model(adata: Any, model: Any, labels: dict[str, str]) -> None:
    """Joining drops the provenance of the features, which differs between the sections."""
    import anndata as ad

    other = adata.copy()
    other.obs_names = ["other_" + name for name in other.obs_names]
    other.uns["spatial"] = {"P4": other.uns["spatial"].pop("P3")}
    for one in (adata, other):
        del one.obsm["X_stain_texture"]
        sw.tl.zero_shot_annotate(one, labels, model=model)
    both = ad.concat({"P3": adata, "P4": other}, label="library_id", uns_merge="unique")
    assert recorded(both, "X_stain_texture") is None
    axes = top_tiles(both, "T cell", n=4)
    assert axes[0].get_xlim() == (0, 80)


def test_several_sizes_show_the_widest_and_outline_the_others(section: Any) -> None:
    sw.pp.embed_images(section, tile_um=(80, 240), tile_px=32, key_added="X_wide")
    del section["table"].obsm["X_stain_texture"]
    section["table"].obs["score"] = np.arange(120.0)
    axes = top_tiles(section, "score", n=3)
    assert axes[0].get_xlim() == (0, 240)
    inner: Any
    (inner,) = axes[1].patches
    assert (inner.get_width(), inner.get_xy()) == (80, (80, 80))


@pytest.mark.slow
def test_a_grid_without_expression(simulated: Any, model: Any, labels: dict[str, str]) -> None:
    import spatialdata as sd

    slide = sd.SpatialData(images=dict(simulated.sections["P3"].images))
    sw.pp.tiles(slide, at="grid", tile_um=80)
    sw.tl.zero_shot_annotate(slide, labels, model=model)
    # neighbours in a grid touch and do not overlap
    scores = slide["sw_tiles"].obsm["sw_label_scores"][:, 0]
    axes = top_tiles(slide, next(iter(labels)), n=9)
    assert written(axes) == pytest.approx(np.sort(scores)[::-1][:9], abs=0.006)


def test_unclear_calls(annotated: Any) -> None:
    table = table_of(annotated)
    before = table.copy()
    with pytest.raises(KeyError, match="no scores for 'T-cell' .*labels of 'sw_label': .*T cell"):
        top_tiles(annotated, "T-cell")
    with pytest.raises(KeyError, match="holds no numbers"):
        top_tiles(annotated, "cell_type")
    with pytest.raises(KeyError, match="caption='truth' is not in"):
        top_tiles(annotated, "T cell", caption="truth")
    with pytest.raises(ValueError, match="n must be a positive whole number, not 0"):
        top_tiles(annotated, "T cell", n=0)
    with pytest.raises(ValueError, match="tile_um must be"):
        top_tiles(annotated, "T cell", tile_um=-1)
    for slot in ("X_stain_texture", "X_sw_image", "sw_label"):
        table.obsm.pop(slot, None)
        table.uns["spatialwhisperer"].pop(slot)
    with pytest.raises(ValueError, match=r"size of the tiles is not known.*tile_um=…"):
        top_tiles(annotated, "T cell")
    assert len(top_tiles(annotated, "T cell", tile_um=80)) == 12
    assert list(table.obs) == list(before.obs)
    assert set(table.uns) == set(before.uns)


def test_a_section_without_an_image(adata: Any, model: Any, labels: dict[str, str]) -> None:
    sw.tl.zero_shot_annotate(adata, labels, model=model)
    del adata.uns["spatial"]
    with pytest.raises(KeyError, match="no H&E image"):
        top_tiles(adata, "T cell")


@pytest.mark.slow
def test_real_section(data_folder: Any) -> None:
    sdata = sw.datasets.her2st("C3", data_dir=data_folder)
    axes = top_tiles(sdata, "total_counts", n=6, tile_um=100, lowest=True, caption="pathologist_label")
    assert len(axes) == 12
    # the resolution of the slide
    assert np.asarray(axes[0].images[0].get_array()).shape[0] > 100
