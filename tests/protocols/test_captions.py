from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from spatialwhisperer.protocols import captions


@pytest.mark.parametrize(
    ("annotation", "caption"),
    [
        ("cancer 2", "breast carcinoma"),
        ("cancer in situ", captions.REGIONS["cancer in situ"]),
        ("adipose", captions.REGIONS["adipose tissue"]),
        ("breast glands 1", captions.REGIONS["breast glands"]),
        ("immune : B/plasma cells, APC", "immune cells with B cells and plasma cells and antigen-presenting cells"),
        ("unknown", None),
        (np.nan, None),
    ],
)
def test_clusters_are_put_into_words(annotation: object, caption: str | None) -> None:
    assert captions.caption_cluster(annotation) == caption


def test_every_target_is_prompted_by_captions_that_training_can_hold() -> None:
    known = {*captions.REGIONS.values(), *captions.CELLS.values()}
    assert {d for descriptions in captions.TARGETS.values() for d in descriptions} <= known


@pytest.fixture
def spots() -> ad.AnnData:
    """Two sections of eight spots with regions, clusters and proportions of cell types."""
    rng = np.random.default_rng(0)
    regions = ["invasive cancer"] * 5 + ["adipose tissue"] * 9 + ["undetermined", None]
    obs = pd.DataFrame(
        {
            "pathologist_label": pd.Categorical(regions),
            "cluster_annotation": ["cancer 2", "unknown"] * 8,
            "deconv_major_top": ["B-cells", "CAFs"] * 8,
            "section": ["X1"] * 8 + ["X2"] * 8,
        },
        index=[f"s{i}" for i in range(16)],
    )
    table = ad.AnnData(np.zeros((16, 0), np.float32), obs=obs)
    table.obsm["deconv_major"] = rng.random((16, len(captions.CELLS)))
    table.uns["deconv_major"] = {"classes": np.array(list(captions.CELLS), dtype=object)}
    return table


def test_a_caption_says_that_a_cell_type_is_among_the_highest_quarter_of_its_section(spots: ad.AnnData) -> None:
    captions.add_captions(spots)
    assert set(captions.CAPTION_COLUMNS) <= set(spots.obs)
    for number, (name, caption) in enumerate(captions.CELLS.items()):
        column = pd.Series(spots.obs[f"caption_type_{number}"])
        assert set(column.dropna()) == {caption}
        for section in ("X1", "X2"):
            inside = (spots.obs["section"] == section).to_numpy()
            values = spots.obsm["deconv_major"][inside, list(captions.CELLS).index(name)]
            assert set(np.flatnonzero(column[inside].notna())) == set(np.argsort(values)[-2:])


def test_a_rare_region_is_not_scored_and_an_unlabelled_spot_is_unknown(spots: ad.AnnData) -> None:
    truth = captions.targets(spots)
    assert list(truth) == ["tumour", "adipose", *captions.CELLS]
    assert truth["tumour"].sum() == 5
    assert truth["tumour"].isna().tolist() == [False] * 15 + [True]
    assert (truth[list(captions.CELLS)].sum() == 4).all()
    spots.obs["pathologist_label"] = ["invasive cancer"] * 4 + ["adipose tissue"] * 12
    assert list(captions.targets(spots)) == list(captions.CELLS)
