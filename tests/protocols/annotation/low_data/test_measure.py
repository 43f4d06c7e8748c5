from __future__ import annotations

import time

import numpy as np
import pandas as pd
import pytest

from spatialwhisperer.protocols.__main__ import main
from spatialwhisperer.protocols.annotation.low_data import measure as low_data
from spatialwhisperer.protocols.annotation.low_data.tables import ALONE, BRIDGED, PAIRS, summary


def test_subsets_are_nested_and_seeded() -> None:
    for n in (2, 5, 346):
        previous = None
        for fraction in low_data.FRACTIONS:
            rows = low_data.nested_rows(n, fraction, seed=3)
            assert len(rows) == max(2, round(fraction * n))
            assert (np.diff(rows) > 0).all()
            np.testing.assert_array_equal(rows, low_data.nested_rows(n, fraction, seed=3))
            if previous is not None:
                assert set(rows) <= set(previous)
            previous = rows
    assert set(low_data.nested_rows(346, 1 / 8, 0)) != set(low_data.nested_rows(346, 1 / 8, 1))


def test_a_fraction_of_several_tables_is_one_of_their_rows_together() -> None:
    import anndata as ad

    tables = [
        ad.AnnData(
            np.zeros((n, 0), np.float32), obs=pd.DataFrame({"row": np.arange(n)}).set_index(np.arange(n).astype(str))
        )
        for n in (40, 3)
    ]
    whole = low_data.subset(tables, 1.0, 0)
    assert [t.n_obs for t in whole] == [40, 3]
    small = low_data.subset(tables, 1 / 8, 0)
    assert sum(t.n_obs for t in small) == round(43 / 8)
    assert all(t.n_obs for t in small)


def test_captions_are_cut_within_each_object() -> None:
    import anndata as ad

    obs = pd.DataFrame({"caption_region": ["a", None] * 40}).set_index(np.arange(80).astype(str))
    table = ad.AnnData(np.zeros((80, 1), np.float32), obs=obs)
    (part,) = low_data.captioned_subset([table], ["caption_region", "caption_cells"], 1 / 8, 0)
    assert part.n_obs == 5
    assert part.obs["caption_region"].notna().all()


def test_image_text_pairs_hold_no_genes() -> None:
    import anndata as ad

    obs = pd.DataFrame(
        {"pathologist_label": ["invasive cancer", "undetermined", None, "adipose tissue"], "patient": "A"}
    )
    table = ad.AnnData(np.ones((4, 3), np.float32), obs=obs.set_index(np.arange(4).astype(str)))
    table.obsm["X"] = np.arange(8.0).reshape(4, 2)
    (part,) = low_data.image_text_subset([table], "X", 1.0, 0)
    assert part.n_vars == 0
    assert part.obs["caption_region"].tolist() == ["invasive breast carcinoma", "adipose tissue with fat cells"]
    np.testing.assert_array_equal(part.obsm["X"], [[0, 1], [6, 7]])


@pytest.mark.slow
def test_smoke_run_on_real_sections(data_folder, tmp_path) -> None:
    arguments = ["low-data", "--data", str(data_folder), "--out", str(tmp_path), "--smoke"]
    main(arguments)
    table = pd.read_csv(tmp_path / "low_data.csv")
    assert set(table["pair"]) == set(PAIRS)
    assert set(table["fraction"]) == {1.0, 1 / 64, 0.0}
    assert table["auroc"].between(0, 1).all()
    runs = summary(table).groupby(["pair", "condition", "measure", "fraction"])["auroc"].mean()
    # section C3 by the image of section A1 and other patients' expression: measured .72
    assert runs["image–gene", BRIDGED, "labels", 1.0] > 0.65
    assert runs["gene–text", BRIDGED, "labels", 1.0] == runs["image–gene", BRIDGED, "labels", 1.0]
    assert runs["gene–text", ALONE, "labels", 1.0] > runs["gene–text", ALONE, "labels", 1 / 64]
    assert (tmp_path / "low_data.png").stat().st_size > 20_000
    start = time.perf_counter()
    main(arguments)  # nothing is trained again
    assert time.perf_counter() - start < 20
