from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from spatialwhisperer.pp.correction import harmonize_expression
from spatialwhisperer.statistics.expression.value_spaces import to_space

GENES = [f"G{i}" for i in range(30)]


def table(seed: int, factor: float, n: int = 70) -> Any:
    """Two kinds of rows; ten genes are ``factor`` times as high in this section."""
    rng = np.random.default_rng(seed)
    kind = np.arange(n) % 2
    rate = np.full((n, 30), 3.0)
    rate[:, :5] *= 1 + 4 * kind[:, None]
    rate[:, 10:20] *= factor
    return ad.AnnData(
        sp.csr_matrix(rng.poisson(rate).astype(np.float32)),
        obs=pd.DataFrame({"patient": "p", "kind": kind}, index=[f"r{i}" for i in range(n)]),
        var=pd.DataFrame(index=GENES),
    )


def gap(parts: list[np.ndarray], columns: slice) -> float:
    return float(np.abs(parts[0][:, columns].mean(axis=0) - parts[1][:, columns].mean(axis=0)).mean())


def test_sections_agree_and_kinds_stay_apart() -> None:
    pytest.importorskip("harmonypy")
    parts = [table(0, 1.0), table(1, 4.0, n=60)]
    state = np.random.get_state()[1].tolist()  # noqa: NPY002
    before = [to_space(p.X.toarray()) for p in parts]
    after = harmonize_expression(parts, genes=GENES)
    assert [(a.shape, a.dtype) for a in after] == [((70, 30), np.float32), ((60, 30), np.float32)]
    assert gap(after, slice(10, 20)) < 0.3 * gap(before, slice(10, 20))
    for values, part in zip(after, parts, strict=True):
        kind = part.obs["kind"].to_numpy() == 1
        assert (values[kind, :5].mean(axis=0) - values[~kind, :5].mean(axis=0)).min() > 0.5
    assert np.random.get_state()[1].tolist() == state  # noqa: NPY002
    assert [list(p.layers) for p in parts] in ([[], []], [[None], [None]])
    assert not parts[0].uns
    again = harmonize_expression(parts, genes=GENES)
    np.testing.assert_allclose(again[1], after[1], atol=1e-5)


def test_genes_come_in_the_order_asked_for_and_batches_from_a_column() -> None:
    pytest.importorskip("harmonypy")
    parts = [table(0, 1.0), table(1, 4.0)]
    joined = ad.concat(parts, index_unique="-", keys=["a", "b"], label="section")
    apart = harmonize_expression(parts, genes=GENES[::-1], ridge=None)
    together = harmonize_expression(joined, genes=GENES[::-1], batch_key="section", ridge=None)
    assert len(together) == 1
    np.testing.assert_allclose(together[0], np.vstack(apart), atol=1e-5)


def test_genes_are_scaled_within_sections_whatever_the_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    harmonypy = pytest.importorskip("harmonypy")
    monkeypatch.setattr(harmonypy, "run_harmony", lambda x, *_, **__: SimpleNamespace(Z_corr=np.asarray(x).T))
    space = "per_gene_log10_peer"
    parts = [table(0, 1.0), table(1, 4.0, n=60), table(2, 2.0)]
    parts[2].obs["patient"] = "q"
    got = harmonize_expression(parts, genes=GENES, batch_key="patient", value_space=space)
    for values, part in zip(got, parts, strict=True):
        np.testing.assert_allclose(values, to_space(part.X.toarray(), space), rtol=1e-6)


def test_as_many_genes_as_rows_are_not_transposed() -> None:
    pytest.importorskip("harmonypy")
    parts = [table(0, 1.0, n=15), table(1, 1.0, n=15)]
    after = np.vstack(harmonize_expression(parts, genes=GENES, ridge=1e6))
    # so strong a penalty leaves the values as they were
    np.testing.assert_allclose(after, np.vstack([to_space(p.X.toarray()) for p in parts]), atol=1e-2)


def test_what_cannot_be_is_refused() -> None:
    parts = [table(0, 1.0), table(1, 4.0)]
    with pytest.raises(KeyError, match="1 genes are not in object 0: NOPE"):
        harmonize_expression(parts, genes=["G1", "NOPE"])
    with pytest.raises(ValueError, match="one batch"):
        harmonize_expression(parts, genes=GENES, batch_key="patient")
    with pytest.raises(KeyError, match="batch_key='slide'"):
        harmonize_expression(parts, genes=GENES, batch_key="slide")
    with pytest.raises(ValueError, match="Unknown value space"):
        harmonize_expression(parts, genes=GENES, value_space="log2")
    with pytest.raises(ValueError, match="ridge"):
        harmonize_expression(parts, genes=GENES, ridge=-1)
    with pytest.raises(ValueError, match="ridge must be a positive number"):
        harmonize_expression(parts, genes=GENES, ridge=0)
    with pytest.raises(ValueError, match="repeats"):
        harmonize_expression(parts, genes=["G1", "G1"])
    with pytest.raises(ValueError, match="genes is empty"):
        harmonize_expression(parts, genes=[])
    with pytest.raises(TypeError, match="one string"):
        harmonize_expression(parts, genes="G1")
    with pytest.raises(ValueError, match="10 rows are too few"):
        harmonize_expression([table(0, 1.0, n=5), table(1, 1.0, n=5)], genes=GENES)
