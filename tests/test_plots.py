from __future__ import annotations

from typing import Any

import matplotlib as mpl
import numpy as np
import pytest

import spatialwhisperer as sw

mpl.use("agg")


@pytest.fixture(autouse=True)
def _close() -> Any:
    import matplotlib.pyplot as plt

    plt.close("all")
    yield
    plt.close("all")


@pytest.fixture(params=["SpatialData", "AnnData"])
def annotated(request: Any, section: Any, adata: Any, model: Any, labels: dict[str, str]) -> Any:
    data = section if request.param == "SpatialData" else adata
    sw.tl.zero_shot_annotate(data, labels, model=model, min_confidence=0.9)
    sw.tl.query(data, "fat tissue", model=model)
    return data


def table_of(data: Any) -> Any:
    return data["table"] if hasattr(data, "tables") else data


def test_annotation(annotated: Any, labels: dict[str, str]) -> None:
    import matplotlib.pyplot as plt

    axes = sw.pl.annotation(annotated)
    assert len(axes) == 2
    assert plt.fignum_exists(axes[0].figure.number)
    assert axes[1].get_title().endswith("sw_label")
    words = [t.get_text() for t in axes[1].get_legend().get_texts()]
    assert words == [*labels, "no label"]
    patches = axes[1].collections[0]
    assert len(patches.get_paths()) == 120
    colours = table_of(annotated).uns["sw_label_colors"]
    assert len(colours) == 5
    codes = table_of(annotated).obs["sw_label"].cat.codes.to_numpy()
    drawn = [mpl.colors.to_hex(c) for c in patches.get_facecolors()]
    expected = [mpl.colors.to_hex(colours[c]) if c >= 0 else "#b8b8b8" for c in codes]
    assert drawn == expected


def test_marks_lie_where_the_spots_are(section: Any) -> None:
    (ax,) = sw.pl.annotation(section, key="cell_type", with_image=False, diameter_um=55)
    spots = section.shapes["P3_spots"]
    boxes = [p.get_extents() for p in ax.collections[0].get_paths()]
    centres = np.array([[(b.x0 + b.x1) / 2, (b.y0 + b.y1) / 2] for b in boxes])
    assert np.allclose(centres, np.column_stack([spots.geometry.x, spots.geometry.y]), atol=0.5)
    assert np.allclose([b.width for b in boxes], 55 / 0.5, rtol=0.02)
    assert ax.yaxis_inverted()
    assert ax.get_aspect() == 1


def test_own_axes_sections_and_colours(section: Any) -> None:
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots()
    categories = section["table"].obs["cell_type"].cat.categories
    palette = dict(zip(categories, ["red", "blue", "green", "black", "orange"], strict=True))
    axes = sw.pl.annotation(
        section, key="cell_type", sections=["P3_spots"], with_image=False, axes=[ax], palette=palette
    )
    assert axes == [ax]
    assert plt.get_fignums() == [figure.number]
    assert section["table"].uns["cell_type_colors"] == [mpl.colors.to_hex(c) for c in palette.values()]
    sw.pl.annotation(section, key="cell_type", with_image=False, axes=ax)
    with pytest.raises(ValueError, match="2 axes are needed; 1 were given"):
        sw.pl.annotation(section, key="cell_type", axes=ax)


def test_scores(annotated: Any, labels: dict[str, str]) -> None:
    axes = sw.pl.scores(annotated)
    assert [ax.get_title() for ax in axes[1:]] == list(labels)
    assert axes[0].get_title().endswith("H&E")
    two = sw.pl.scores(annotated, classes=["T cell", "adipocyte"], n_columns=2)
    assert len(two) == 3
    (_, query) = sw.pl.scores(annotated, key="sw_query")
    assert query.get_title() == "“fat tissue”"
    assert len(query.figure.axes) == 3


def test_rows_without_scores_are_not_drawn(section: Any, model: Any) -> None:
    sw.tl.query(section, "fat tissue", model=model)
    section["table"].obs.loc[section["table"].obs_names[:20], "sw_query"] = np.nan
    _, ax = sw.pl.scores(section, key="sw_query")
    assert len(ax.collections[0].get_paths()) == 100


def test_a_grid_is_drawn_as_squares(simulated: Any, model: Any, labels: dict[str, str]) -> None:
    import spatialdata as sd

    slide = sd.SpatialData(images=dict(simulated.sections["P3"].images))
    sw.pp.tiles(slide, at="grid", tile_um=160)
    sw.tl.zero_shot_annotate(slide, labels, model=model)
    (ax,) = sw.pl.annotation(slide, with_image=False)
    path = ax.collections[0].get_paths()[0]
    assert path.get_extents().width == pytest.approx(320)
    assert len(path) == 5


def test_training(model: Any) -> None:
    (ax,) = sw.pl.training(model)
    assert ax.get_title() == "gene-text"
    assert ax.get_xlabel() == "step"
    opened = sw.models.Whisperer.load(model.folder)
    with pytest.raises(ValueError, match="no training history"):
        sw.pl.training(opened)


def test_training_draws_each_loss_once(simulated: Any) -> None:
    model = sw.tl.train(
        [*simulated.sections.values(), simulated.reference], schedule="joint", max_epochs=2, validation=["P3", "R2"]
    )
    (ax,) = sw.pl.training(model)
    names = [t.get_text() for t in ax.get_legend().get_texts()]
    assert len(names) == len(set(names))
    assert len(ax.lines) == len(names)
    assert any(line.get_linestyle() == "--" for line in ax.lines)


def test_unknown_names(section: Any, model: Any, labels: dict[str, str]) -> None:
    with pytest.raises(KeyError, match=r"'sw_label' not in \.obs"):
        sw.pl.annotation(section)
    with pytest.raises(KeyError, match="There are no scores for 'sw_label'"):
        sw.pl.scores(section)
    with pytest.raises(KeyError, match="no sections"):
        sw.pl.annotation(section, key="cell_type", sections=["P9"])
    with pytest.raises(KeyError, match="palette has no colour for"):
        sw.pl.annotation(section, key="cell_type", palette={"T cell": "red"})
    assert "cell_type_colors" not in section["table"].uns
    sw.tl.zero_shot_annotate(section, labels, model=model)
    with pytest.raises(KeyError, match="no scores for stroma"):
        sw.pl.scores(section, classes=["stroma"])


def test_a_section_without_an_image(adata: Any) -> None:
    del adata.uns["spatial"]
    with pytest.raises(KeyError, match="no H&E image"):
        sw.pl.annotation(adata, key="cell_type")
