from __future__ import annotations

import time

import numpy as np
import pandas as pd
import pytest

from spatialwhisperer.protocols import low_data
from spatialwhisperer.protocols.__main__ import main


def test_subsets_are_nested_and_seeded() -> None:
    for n in (2, 5, 346):
        previous = None
        for share in low_data.SHARES:
            rows = low_data.nested_rows(n, share, seed=3)
            assert len(rows) == max(2, round(share * n))
            assert (np.diff(rows) > 0).all()
            np.testing.assert_array_equal(rows, low_data.nested_rows(n, share, seed=3))
            if previous is not None:
                assert set(rows) <= set(previous)
            previous = rows
    assert set(low_data.nested_rows(346, 1 / 8, 0)) != set(low_data.nested_rows(346, 1 / 8, 1))


def test_a_share_of_several_tables_is_one_of_their_rows_together() -> None:
    import anndata as ad

    tables = [
        ad.AnnData(
            np.zeros((n, 0), np.float32), obs=pd.DataFrame({"row": np.arange(n)}).set_index(np.arange(n).astype(str))
        )
        for n in (40, 3)
    ]
    whole = low_data._cut(tables, 1.0, 0)
    assert [t.n_obs for t in whole] == [40, 3]
    small = low_data._cut(tables, 1 / 8, 0)
    assert sum(t.n_obs for t in small) == round(43 / 8)
    assert all(t.n_obs for t in small)


def test_captions_are_cut_within_each_object() -> None:
    import anndata as ad

    obs = pd.DataFrame({"caption_region": ["a", None] * 40}).set_index(np.arange(80).astype(str))
    table = ad.AnnData(np.zeros((80, 1), np.float32), obs=obs)
    (part,) = low_data._captioned([table], ["caption_region", "caption_cells"], 1 / 8, 0)
    assert part.n_obs == 5
    assert part.obs["caption_region"].notna().all()


def test_image_text_pairs_hold_no_genes() -> None:
    import anndata as ad

    obs = pd.DataFrame(
        {"pathologist_label": ["invasive cancer", "undetermined", None, "adipose tissue"], "patient": "A"}
    )
    table = ad.AnnData(np.ones((4, 3), np.float32), obs=obs.set_index(np.arange(4).astype(str)))
    table.obsm["X"] = np.arange(8.0).reshape(4, 2)
    (part,) = low_data._image_text([table], "X", 1.0, 0)
    assert part.n_vars == 0
    assert part.obs["caption_region"].tolist() == ["invasive breast carcinoma", "adipose tissue with fat cells"]
    np.testing.assert_array_equal(part.obsm["X"], [[0, 1], [6, 7]])


def example() -> pd.DataFrame:
    rows = []
    for seed in (0, 1):
        for share in low_data.SHARES:
            for pair, condition, source in (
                ("image–gene", low_data.BRIDGED, "image"),
                ("gene–text", low_data.ALONE, "expression"),
                ("image–text", low_data.ALONE, "image"),
            ):
                for name, value in (("tumour", 0.6), ("B-cells", 0.8)):
                    rows.append(
                        {
                            "split": "s",
                            "test": "t",
                            "pair": pair,
                            "condition": condition,
                            "input": source,
                            "share": share,
                            "seed": seed,
                            "n_pairs": int(64 * share),
                            "class": name,
                            "auroc": value - 0.1 * (1 - share) + 0.02 * seed,
                        }
                    )
    rows.append(rows[-1] | {"condition": low_data.OTHERS, "share": 0.0, "n_pairs": 0, "auroc": 0.55})
    return pd.DataFrame(rows)


def test_summary_and_report() -> None:
    runs = low_data.summary(example()).set_index(["pair", "measure", "share", "seed"])["auroc"]
    assert runs["image–gene", "labels", 1.0, 0] == pytest.approx(0.7)
    assert runs["image–gene", "regions", 1.0, 0] == pytest.approx(0.6)
    assert runs["image–gene", "cell types", 1.0, 1] == pytest.approx(0.82)
    text = low_data.report(example(), 2)
    assert "| s | labels | with the other pairs | image | 0.710 ± 0.014 |" in text
    assert "Pairs: s: 1 = 64, 1/8 = 8, 1/64 = 1." in text


def test_curve_shows_every_line() -> None:
    import matplotlib.pyplot as plt

    figure = low_data.draw(example())
    panels = figure.axes
    assert len(panels) == 3
    assert [t.get_text() for t in panels[0].get_xticklabels()] == ["1/64", "1/8", "1"]
    np.testing.assert_allclose(panels[2].lines[0].get_ydata(), [0.7 - 0.1 * (1 - s) + 0.01 for s in (1 / 64, 1 / 8, 1)])
    levels = [line.get_ydata()[0] for line in panels[2].lines[1:]]
    assert levels == pytest.approx([0.55, 0.71, 0.5])
    plt.close(figure)


@pytest.mark.slow
def test_smoke_run_on_real_sections(data_folder, tmp_path) -> None:
    arguments = ["low-data", "--data", str(data_folder), "--out", str(tmp_path), "--smoke"]
    main(arguments)
    table = pd.read_csv(tmp_path / "low_data.csv")
    assert set(table["pair"]) == set(low_data.PAIRS)
    assert set(table["share"]) == {1.0, 1 / 64, 0.0}
    assert table["auroc"].between(0, 1).all()
    runs = low_data.summary(table).groupby(["pair", "condition", "measure", "share"])["auroc"].mean()
    # section C3 by the image of section A1 and other patients' expression: measured .72
    assert runs["image–gene", low_data.BRIDGED, "labels", 1.0] > 0.65
    assert runs["gene–text", low_data.BRIDGED, "labels", 1.0] == runs["image–gene", low_data.BRIDGED, "labels", 1.0]
    assert runs["gene–text", low_data.ALONE, "labels", 1.0] > runs["gene–text", low_data.ALONE, "labels", 1 / 64]
    assert (tmp_path / "low_data.png").stat().st_size > 20_000
    start = time.perf_counter()
    main(arguments)  # nothing is trained again
    assert time.perf_counter() - start < 20
