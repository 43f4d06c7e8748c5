from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

import spatialwhisperer as sw

CLASSES = ["cancer cell", "T cell", "fibroblast", "adipocyte", "endothelial cell"]


@pytest.fixture(scope="module")
def data():
    return sw.datasets.simulate_sections(3, 120, n_genes=300, n_reference_cells=400, mpp=1.0, random_state=1)


def pixels(data, patient: str) -> np.ndarray:
    return np.asarray(data.sections[patient][f"{patient}_image"]["scale0"]["image"])


def log_normalised(counts) -> np.ndarray:
    counts = counts.toarray().astype(float)
    return np.log1p(counts / counts.sum(axis=1, keepdims=True) * 1e4)


def test_sections_follow_the_conventions(data):
    from spatialdata.models import get_table_keys
    from spatialdata.transformations import get_transformation

    assert list(data.sections) == ["P1", "P2", "P3"]
    for name, sdata in data.sections.items():
        assert set(sdata.images) == {f"{name}_image"}
        assert set(sdata.shapes) == {f"{name}_spots", f"{name}_cells"}
        assert set(sdata.coordinate_systems) == {name, "microns"}
        assert pixels(data, name).dtype == np.uint8
        assert pixels(data, name).shape[0] == 3
        for key, region in [("table", f"{name}_spots"), ("cells", f"{name}_cells")]:
            table = sdata[key]
            declared, *keys = get_table_keys(table)
            assert [declared] == [region] or declared == [region]
            assert keys == ["region", "instance_id"]
            assert set(table.obs["region"]) == {region}
            # unlike those of other sections, so that tables can be put together
            assert all(row.startswith(f"{name}_") for row in table.obs_names)
            assert set(table.obs["section"]) == set(table.obs["patient"]) == {name}
            assert list(table.obs["cell_type"].cat.categories) == CLASSES
            shapes = sdata[region]
            assert list(shapes.index) == list(table.obs["instance_id"])
            centres = np.column_stack([shapes.geometry.x, shapes.geometry.y])
            np.testing.assert_allclose(centres, table.obsm["spatial"], rtol=1e-5)
            for element in (shapes, sdata[f"{name}_image"]):
                to_um = get_transformation(element, "microns").to_affine_matrix(("x", "y"), ("x", "y"))
                np.testing.assert_allclose(to_um, np.diag([1.0, 1.0, 1.0]))
                to_px = get_transformation(element, name).to_affine_matrix(("x", "y"), ("x", "y"))
                np.testing.assert_allclose(to_px, np.eye(3))


def test_spot_table_holds_counts_and_truth(data):
    table = data.sections["P2"]["table"]
    assert table.shape == (120, 300)
    assert sp.isspmatrix_csr(table.X)
    assert table.X.dtype == np.int32
    assert table.X.min() >= 0
    share = table.obsm["cell_type_proportions"]
    assert share.dtype == np.float32
    np.testing.assert_allclose(share.sum(axis=1), 1, rtol=1e-5)
    assert list(table.uns["cell_type_proportions"]["classes"]) == CLASSES
    assert (share.argmax(axis=1) == table.obs["cell_type"].cat.codes).all()
    # a type's markers are highest in its own spots
    logged = log_normalised(table.X)
    for k, name in enumerate(CLASSES):
        score = logged[:, (table.var["marker_of"] == name).to_numpy()].mean(axis=1)
        assert np.corrcoef(score, share[:, k])[0, 1] > 0.7


def test_cells_table_is_empty_but_for_the_truth(data):
    cells = data.sections["P1"]["cells"]
    assert cells.n_vars == 0
    assert cells.n_obs > 1000
    assert (cells.obs["cell_type"].value_counts() > 10).all()


def test_reference_is_labelled_single_cells_of_other_patients(data):
    reference = data.reference
    assert reference.shape == (400, 300)
    assert sp.isspmatrix_csr(reference.X)
    assert reference.X.dtype == np.int32
    assert list(reference.obs["cell_type"].cat.categories) == CLASSES
    assert not set(reference.obs["patient"]) & set(data.sections)
    assert reference.obs.groupby("cell_type", observed=True)["text"].nunique().eq(1).all()
    assert reference.obs["text"].nunique() == len(CLASSES)
    assert list(reference.var_names) == list(data.sections["P1"]["table"].var_names)
    assert reference.var["gene_ids"].str.fullmatch(r"ENSG\d{11}").all()
    assert reference.var["gene_ids"].is_unique


def test_image_looks_like_stained_tissue_on_glass(data):
    image = pixels(data, "P1").astype(float)
    sdata = data.sections["P1"]
    corner = image[:, :20, :20]
    assert corner.min() > 225
    assert np.abs(corner.mean(axis=(1, 2)) - 242).max() < 8
    x, y = sdata["cells"].obsm["spatial"].astype(int).T
    dark = sdata["cells"].obs["cell_type"].isin(["cancer cell", "T cell"]).to_numpy()
    nuclei = image[:, y[dark], x[dark]].mean(axis=1)
    x, y = sdata["table"].obsm["spatial"].astype(int).T
    tissue = image[:, y, x].mean(axis=1)
    assert (nuclei < tissue).all()
    assert nuclei[2] > nuclei[0] > nuclei[1]  # blue-violet
    assert tissue[1] < min(tissue[0], tissue[2]) - 10  # pink and purple, never green


def test_patients_differ_in_stain_and_expression(data):
    colour = [pixels(data, p).mean(axis=(1, 2)) for p in data.sections]
    assert np.abs(colour[0] - colour[1]).max() > 1
    plain = sw.datasets.simulate_sections(
        2, 40, n_genes=60, n_reference_cells=20, mpp=2.0, batch_sd=0, counts_per_cell=5e3
    )
    batch = sw.datasets.simulate_sections(
        2, 40, n_genes=60, n_reference_cells=20, mpp=2.0, batch_sd=1, counts_per_cell=5e3
    )

    def gap(d) -> float:
        first, second = (np.log(np.asarray(s["table"].X.mean(axis=0)) + 1) for s in d.sections.values())
        return float(np.std(first - second))

    assert gap(batch) > 2 * gap(plain)


def test_seed_decides_everything_and_nothing_else_does():
    options: Any = {"n_genes": 40, "n_reference_cells": 30, "mpp": 2.0}
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    one: Any = sw.datasets.simulate_sections(1, 30, random_state=5, **options)
    two: Any = sw.datasets.simulate_sections(2, 30, random_state=5, **options)
    other: Any = sw.datasets.simulate_sections(1, 30, random_state=6, **options)
    assert (np.random.get_state()[1] == before).all()  # noqa: NPY002
    np.testing.assert_array_equal(pixels(one, "P1"), pixels(two, "P1"))
    assert (one.sections["P1"]["table"].X != two.sections["P1"]["table"].X).nnz == 0
    assert (one.reference.X != two.reference.X).nnz == 0
    assert one.reference.obs.equals(two.reference.obs)
    assert (one.reference.X != other.reference.X).nnz > 0
    assert (two.sections["P1"]["table"].X != two.sections["P2"]["table"].X).nnz > 0


def test_lengths_are_physical():
    for mpp in (1.0, 2.5):
        d = sw.datasets.simulate_sections(
            1, 25, n_genes=20, n_reference_cells=5, mpp=mpp, spot_pitch_um=80.0, spot_diameter_um=40.0
        )
        spots = d.sections["P1"]["P1_spots"]
        np.testing.assert_allclose(spots["radius"] * mpp, 20.0)
        xy = d.sections["P1"]["table"].obsm["spatial"] * mpp
        gap = np.linalg.norm(xy[:, None] - xy[None], axis=-1) + 1e9 * np.eye(len(xy))
        np.testing.assert_allclose(gap.min(axis=1).min(), 80.0, rtol=1e-4)
        height = pixels(d, "P1").shape[1] * mpp
        assert (xy > 0).all()
        assert (xy < height).all()


def test_size_can_be_chosen():
    d = sw.datasets.simulate_sections(1, 25, n_genes=20, n_reference_cells=5, mpp=2.0, size_px=500)
    assert pixels(d, "P1").shape == (3, 500, 500)


def test_survives_zarr(tmp_path, data):
    import spatialdata as sd

    data.sections["P1"].write(tmp_path / "p1.zarr")
    back = sd.read_zarr(tmp_path / "p1.zarr")
    table, again = data.sections["P1"]["table"], back["table"]
    assert (table.X != again.X).nnz == 0
    np.testing.assert_array_equal(table.obsm["cell_type_proportions"], again.obsm["cell_type_proportions"])
    assert list(again.uns["cell_type_proportions"]["classes"]) == CLASSES
    assert list(again.obs["cell_type"].cat.categories) == CLASSES
    assert back["cells"].shape == data.sections["P1"]["cells"].shape
    np.testing.assert_array_equal(np.asarray(back["P1_image"]["scale0"]["image"]), pixels(data, "P1"))


def test_types_can_be_told_from_the_image_through_expression(data):
    """Image to expression on two patients, expression to type on the reference, tested on the third patient."""
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.metrics import roc_auc_score
    from sklearn.preprocessing import StandardScaler

    def features(patient: str) -> np.ndarray:
        density = -np.log((pixels(data, patient).astype(float) + 1) / 245)
        rows = []
        for x, y in data.sections[patient]["table"].obsm["spatial"].astype(int):
            tile = density[:, max(0, y - 40) : y + 40, max(0, x - 40) : x + 40]
            quantiles = np.quantile(tile, [0.1, 0.5, 0.9, 0.97], axis=(1, 2)).ravel()
            edges = [np.abs(np.diff(tile[0], axis=a)).mean() for a in (0, 1)]
            rows.append(np.r_[tile.mean(axis=(1, 2)), tile.std(axis=(1, 2)), quantiles, edges])
        return StandardScaler().fit_transform(rows)

    train, test = ["P1", "P2"], "P3"
    expression = {p: log_normalised(data.sections[p]["table"].X) for p in train}
    ridge = Ridge(10.0).fit(np.vstack([features(p) for p in train]), np.vstack(list(expression.values())))
    scaler = StandardScaler().fit(log_normalised(data.reference.X))
    classifier = LogisticRegression(C=0.01).fit(
        scaler.transform(log_normalised(data.reference.X)), data.reference.obs["cell_type"]
    )
    score = classifier.decision_function(scaler.transform(ridge.predict(features(test))))
    truth = data.sections[test]["table"].obs["cell_type"].to_numpy()
    auroc = [roc_auc_score(truth == c, score[:, i]) for i, c in enumerate(classifier.classes_)]
    assert np.mean(auroc) > 0.85


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"n_patients": 0}, ValueError, "n_patients must be at least 1"),
        ({"n_genes": 5}, ValueError, "n_genes must be at least 20"),
        ({"n_spots": 10.5}, TypeError, "n_spots must be a whole number"),
        ({"mpp": 0.0}, ValueError, "mpp must be positive"),
        ({"mpp": float("nan")}, ValueError, "mpp must be positive"),
        ({"stain_sd": -1.0}, ValueError, "stain_sd must be 0 or more"),
        ({"size_px": 300}, ValueError, "Raise size_px"),
        ({"size_px": 0}, ValueError, "size_px must be at least 1"),
        ({"random_state": None}, ValueError, "random_state must be a whole number from 0"),
    ],
)
def test_refuses_what_makes_no_sense(arguments, error, text):
    with pytest.raises(error, match=text):
        sw.datasets.simulate_sections(**{"n_patients": 1, "n_spots": 50} | arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_patients": 2**40}, "n_patients must be at most 10000000,"),
        ({"mpp": 1e-12}, "mpp must lie between 0.001 and 10000000,"),
        ({"mpp": 1e-3}, "pixels along an edge, and at most 40000 fit into memory"),
        ({"spot_pitch_um": 1e-3}, "spots along an edge"),
        ({"batch_sd": 1e12}, "batch_sd must be at most 10"),
        ({"n_spots": True}, "n_spots must be an integer|n_spots must be a whole number"),
        ({"mpp": "1"}, "mpp must be"),
    ],
)
def test_what_would_never_end_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        sw.datasets.simulate_sections(**{"n_patients": 1, "n_spots": 50} | arguments)
