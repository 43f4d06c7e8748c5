from __future__ import annotations

from dataclasses import replace
from typing import Any

import anndata as ad
import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

import spatialwhisperer as sw
from spatialwhisperer._messages import SpatialWhispererWarning
from spatialwhisperer._provenance import record, recorded_as
from spatialwhisperer.pl.annotation import coarser_score
from spatialwhisperer.tl._annotation.record import AnnotationRecord


def table_of(data: Any) -> Any:
    return data["table"] if hasattr(data, "tables") else data


def test_labels_have_their_colours_and_a_legend(annotated: Any, labels: dict[str, str]) -> None:
    import matplotlib.pyplot as plt

    axes: Any = sw.pl.annotation(annotated, confidence=False)
    assert len(axes) == 2
    assert plt.fignum_exists(axes[0].figure.number)
    assert axes[1].get_title().endswith("sw_label")
    words = [t.get_text() for t in axes[1].get_legend().get_texts()]
    assert words == [*labels, "no label"]
    patches = axes[1].collections[0]
    assert len(np.asarray(patches.get_offsets())) == 120
    colours = table_of(annotated).uns["sw_label_colors"]
    assert len(colours) == 5
    codes = table_of(annotated).obs["sw_label"].cat.codes.to_numpy()
    drawn = [mpl.colors.to_hex(c) for c in patches.get_facecolor()]
    expected = [mpl.colors.to_hex(colours[c]) if c >= 0 else "#b8b8b8" for c in codes]
    assert drawn == expected


def test_the_caller_chooses_axes_sections_and_colours(section: Any) -> None:
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


def test_each_class_has_a_panel_of_scores(annotated: Any, labels: dict[str, str]) -> None:
    axes = sw.pl.scores(annotated)
    assert [ax.get_title() for ax in axes[1:]] == list(labels)
    assert axes[0].get_title().endswith("H&E")
    two = sw.pl.scores(annotated, classes=["T cell", "adipocyte"], n_columns=2)
    assert len(two) == 3
    (_, query) = sw.pl.scores(annotated, key="sw_query")
    assert query.get_title() == "“fat tissue”"
    assert len(query.figure.axes) == 3


def test_a_region_is_drawn_with_the_summed_probability_of_its_labels(annotated: Any) -> None:
    table = table_of(annotated)
    stated = recorded_as(table, "sw_label", AnnotationRecord)
    assert stated is not None
    inside = list(stated.classes[:2])
    record(table, "sw_label", replace(stated, coarser={"both": tuple(inside)}, probabilities="stored"))
    rng = np.random.default_rng(0)
    table.obsm["sw_label_probability"] = probability = rng.dirichlet(np.ones(len(stated.classes)), table.n_obs)
    # the confidence of a row is the probability of its label
    table.obs["sw_label_confidence"] = probability[np.arange(table.n_obs), table.obs["sw_label"].cat.codes]
    expected = probability[:, 0] + probability[:, 1]
    summed = coarser_score(table, "sw_label", "both")
    assert summed is not None
    np.testing.assert_allclose(summed, expected)
    assert coarser_score(table, "sw_label", inside[0]) is None
    axes = sw.pl.scores(annotated, classes=[inside[0], "both"])
    assert [ax.get_title() for ax in axes[1:]] == [inside[0], "both (probability)"]
    best = sw.pl.top_tiles(annotated, "both", n=1)
    assert float(best[0].get_xlabel()) == pytest.approx(expected.max(), abs=0.006)


def test_rows_without_scores_are_not_drawn(section: Any, model: Any) -> None:
    sw.tl.query(section, "fat tissue", model=model)
    section["table"].obs.loc[section["table"].obs_names[:20], "sw_query"] = np.nan
    _, ax = sw.pl.scores(section, key="sw_query")
    assert len(np.asarray(ax.collections[0].get_offsets())) == 100


def test_unknown_names_are_refused(section: Any, model: Any, labels: dict[str, str]) -> None:
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


@pytest.mark.parametrize(("n_labels", "chance"), [(1, 0.5), (2, 0.5), (4, 0.25)])
def test_opacity_rises_from_the_chance_of_a_guess_to_the_highest_confidence(n_labels: int, chance: float) -> None:
    import anndata as ad
    import pandas as pd

    from spatialwhisperer.pl.annotation import _Opacity

    labels = pd.Series(pd.Categorical(["a", None, "a"], categories=list("abcd")[:n_labels]))
    confidence = np.full(3, 0.9)
    table = ad.AnnData(np.zeros((3, 1)), obs=pd.DataFrame({"l_confidence": confidence}, index=list("xyz")))
    opacity = _Opacity(table, "l", labels, 0.5)
    assert opacity.at(np.array([0, chance, (chance + 0.9) / 2, 0.9, 1])) == pytest.approx([0.05, 0.05, 0.275, 0.5, 0.5])
    table.obs["l_confidence"] = [chance, 0.9, np.nan]
    # a row without a label keeps its opacity, and one without a confidence counts as sure
    assert _Opacity(table, "l", labels, 0.5).of_rows() == pytest.approx([0.05, 0.5, 0.5])


def test_labels_of_low_confidence_are_transparent(section: Any, model: Any, labels: dict[str, str]) -> None:
    table = section["table"]
    sw.tl.zero_shot_annotate(section, labels, model=model, min_confidence=0.6)
    ax: Any
    (ax,) = sw.pl.annotation(section, with_image=False, confidence=True, alpha=0.8)
    alphas = np.asarray(ax.collections[0].get_facecolor())[:, 3]
    sure = table.obs["sw_label_confidence"].to_numpy(float)
    given = table.obs["sw_label"].notna().to_numpy()
    expected = 0.8 * (0.1 + 0.9 * (sure - 0.2) / 0.8)
    assert np.allclose(alphas[given], expected[given], atol=1e-5)
    assert np.allclose(alphas[~given], 0.8)
    words = [t.get_text() for t in ax.get_legend().get_texts()]
    assert words[-3:] == ["confidence 100%", "confidence 60%", "confidence 20%"]
    del table.obs["sw_label_confidence"]
    with pytest.raises(KeyError, match=r"confidence=True needs numbers in \.obs\['sw_label_confidence'\]"):
        sw.pl.annotation(section, confidence=True)


@pytest.mark.parametrize("axes", [[None], 7, [1, 2]])
def test_a_call_that_fails_writes_no_colours(section: Any, axes: Any) -> None:
    for draw in (
        lambda: sw.pl.annotation(section, key="cell_type", axes=axes),
        lambda: sw.pl.domains(section, key="cell_type", truth="patient", axes=axes),
    ):
        with pytest.raises((TypeError, ValueError), match="axes"):
            draw()
    assert not [key for key in section["table"].uns if key.endswith("_colors")]


@pytest.mark.parametrize("stored", [["nope"] * 5, [1] * 5, 7, None, "rgbcm"])
def test_stored_colours_that_are_none_give_way(section: Any, stored: Any) -> None:
    section["table"].uns["cell_type_colors"] = stored
    sw.pl.annotation(section, key="cell_type", with_image=False)
    colours = section["table"].uns["cell_type_colors"]
    assert len(colours) == 5
    assert all(map(mpl.colors.is_color_like, colours))


@pytest.mark.parametrize("draw", [sw.pl.annotation, sw.pl.scores])
def test_one_column_is_drawn(section: Any, draw: Any) -> None:
    with pytest.raises(TypeError, match="key must be text"):
        draw(section, key=["cell_type"])


def test_a_palette_holds_colours(section: Any) -> None:
    palette = dict.fromkeys(section["table"].obs["cell_type"].cat.categories, "nope")
    with pytest.raises(ValueError, match="palette must hold colours that matplotlib knows; found 'nope'"):
        sw.pl.annotation(section, key="cell_type", palette=palette)


def test_scores_are_real_numbers_with_a_name_each(section: Any) -> None:
    table = section["table"]
    table.uns["own"] = {"classes": ["a", "b"]}
    table.obsm["own_scores"] = np.ones((table.n_obs, 2)) * 1j
    with pytest.raises(ValueError, match="own_scores.* must be a matrix of numbers, not complex"):
        sw.pl.scores(section, key="own")
    table.obsm["own_scores"] = np.ones((table.n_obs, 3))
    with pytest.raises(ValueError, match="has 3 columns, and .* names a, b: they do not belong together"):
        sw.pl.scores(section, key="own")
    table.obs["own"] = np.ones(table.n_obs) * 1j
    del table.obsm["own_scores"]
    with pytest.raises(KeyError, match="There are no scores"):
        sw.pl.scores(section, key="own")


def test_scores_whose_class_names_were_lost_in_a_join_are_named(
    adata: Any, model: Any, labels: Any, tmp_path: Any
) -> None:
    sw.tl.zero_shot_annotate(adata, labels, model=model, unknown="label")
    joined = ad.concat({"P3": adata, "P4": adata}, label="library_id", index_unique="-")
    joined.uns["spatial"] = dict.fromkeys(("P3", "P4"), adata.uns["spatial"]["P3"])
    message = r"names of its classes in \.uns\['sw_label'\] were lost, .* Annotate the joined object again"
    calls: list[Any] = [
        sw.pl.scores,
        lambda data: sw.pl.top_tiles(data, "fat", key="sw_label"),
        lambda data: sw.tl.evaluate_annotation(data, "cell_type"),
        lambda data: sw.tl.agreement(data, model=model),
    ]
    for call in calls:
        with pytest.raises(KeyError, match=message):
            call(joined)
    with pytest.warns(SpatialWhispererWarning, match=message):
        sw.io.write_qupath(joined, tmp_path / "joined.geojson", section="P3")
    # labels need no names of classes
    assert len(sw.pl.annotation(joined, with_image=False)) == 2
    sw.tl.zero_shot_annotate(joined, labels, model=model, unknown="label")
    assert len(sw.pl.scores(joined, section="P4")) == 1 + len(labels)


def test_low_confidence_is_transparent_by_default(section: Any, model: Any, labels: dict[str, str]) -> None:
    sw.tl.zero_shot_annotate(section, labels, model=model, unknown="label")
    (shaded,) = sw.pl.annotation(section, with_image=False)
    (plain,) = sw.pl.annotation(section, with_image=False, confidence=False)
    (truth,) = sw.pl.annotation(section, key="cell_type", with_image=False)
    n = [len(np.unique(np.asarray(ax.collections[0].get_facecolor())[:, 3].round(4))) for ax in (shaded, plain, truth)]
    assert n[0] > 20
    assert n[1:] == [1, 1]


def test_the_legend_has_no_confidence_where_no_row_has_a_label(
    section: Any, model: Any, labels: dict[str, str]
) -> None:
    sw.tl.zero_shot_annotate(section, labels, model=model, unknown="label")
    ax: Any = sw.pl.annotation(section, with_image=False)[0]
    assert sum("confidence" in text.get_text() for text in ax.get_legend().get_texts()) == 3
    section["table"].obs["sw_label"] = section["table"].obs["sw_label"].where(np.zeros(120, bool))
    ax = sw.pl.annotation(section, with_image=False)[0]
    words = [text.get_text() for text in ax.get_legend().get_texts()]
    assert words[-1] == "no label"
    assert not [word for word in words if "confidence" in word]


def test_a_label_has_one_colour_in_the_annotation_and_the_truth(
    section: Any, model: Any, labels: dict[str, str]
) -> None:
    table = section["table"]
    sw.tl.zero_shot_annotate(section, labels, model=model, unknown="label")
    own = dict(zip(table.obs["sw_label"].cat.categories, table.uns["sw_label_colors"], strict=True))
    table.obs["known"] = pd.Categorical(np.resize([*reversed(labels), "something else"], table.n_obs))
    sw.pl.annotation(section, key="known", with_image=False)
    known = dict(zip(table.obs["known"].cat.categories, table.uns["known_colors"], strict=True))
    assert {name: known[name] for name in own} == own
    assert len(set(known.values())) == len(known)


def test_a_flat_map_of_scores_looks_flat(section: Any) -> None:
    table, rng = section["table"], np.random.default_rng(0)
    table.uns["sw_label"] = {"classes": np.array(["clear", "flat", "missing"])}
    values = rng.normal(size=(table.n_obs, 3)) * [1, 0.01, np.nan] + [0, 5, 0]
    table.obsm["sw_label_scores"] = values.astype(np.float32)
    clear, flat, missing = sw.pl.scores(section)[1:]
    spread = [np.ptp(np.asarray(ax.collections[0].get_facecolor())[:, 1]) for ax in (clear, flat)]
    assert spread[0] > 0.8
    assert spread[1] < 0.05
    assert not missing.collections


def test_the_colour_bar_is_as_opaque_as_the_map(section: Any) -> None:
    table = section["table"]
    table.obs["score"] = np.linspace(0, 1, table.n_obs)
    _, ax = sw.pl.scores(section, key="score", alpha=0.4)
    (bar,) = (other for other in ax.figure.axes if hasattr(other, "_colorbar"))
    assert bar._colorbar.alpha == 0.4
    drawn = np.asarray(ax.collections[0].get_facecolor())
    expected = mpl.colormaps["viridis"](bar._colorbar.norm(table.obs["score"]))
    np.testing.assert_allclose(drawn, np.c_[expected[:, :3], np.full(table.n_obs, 0.4)])


def test_few_scores_beside_many_of_one_value_are_seen(section: Any) -> None:
    table = section["table"]
    table.obs["rare"] = np.r_[np.zeros(table.n_obs - 2), 5.0, 10.0]
    _, ax = sw.pl.scores(section, key="rare")
    (bar,) = (other for other in ax.figure.axes if hasattr(other, "_colorbar"))
    assert (bar._colorbar.vmin, bar._colorbar.vmax, bar._colorbar.extend) == (0, 10, "neither")
    assert len(np.unique(np.asarray(ax.collections[0].get_facecolor()).round(3), axis=0)) == 3


@pytest.mark.parametrize(
    ("ends", "arrows"), [((), "neither"), ((-9.0,), "min"), ((9.0,), "max"), ((-9.0, 9.0), "both")]
)
def test_scores_beyond_the_colour_bar_are_said_by_an_arrow(section: Any, ends: Any, arrows: str) -> None:
    table = section["table"]
    # two percent at either end are cut off, and here they are like their neighbours
    table.obs["score"] = np.r_[np.repeat([0.0, 1.0], 4), ends, np.linspace(0, 1, table.n_obs - 8 - len(ends))]
    _, ax = sw.pl.scores(section, key="score")
    (bar,) = (other for other in ax.figure.axes if hasattr(other, "_colorbar"))
    assert bar._colorbar.extend == arrows


def test_decimals_are_no_classes(section: Any) -> None:
    table = section["table"]
    table.obs["score"] = np.linspace(0, 1, table.n_obs)
    table.obs["counts"] = np.arange(table.n_obs, dtype=np.float32)
    for key in ("score", "counts"):
        for draw in (sw.pl.annotation, sw.pl.domains):
            with pytest.raises(
                ValueError, match=rf"{key}.* holds 120 different numbers.*sw\.pl\.scores\(data, key='{key}'\)"
            ):
                draw(section, key=key)
        assert f"{key}_colors" not in table.uns
        assert sw.pl.scores(section, key=key)
    # integers beside a missing value, and decimals that are called classes
    table.obs["cluster"] = np.where(np.arange(table.n_obs), np.arange(table.n_obs) % 3, np.nan)
    table.obs["dose"] = pd.Categorical(np.array([0.5, 1.5])[np.arange(table.n_obs) % 2])
    for key, n in (("cluster", 3), ("dose", 2)):
        sw.pl.annotation(section, key=key, with_image=False)
        assert len(table.uns[f"{key}_colors"]) == n
