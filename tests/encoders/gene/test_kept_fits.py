"""A fit that takes long is not made twice on the same counts with the same arguments."""

from __future__ import annotations

from typing import Any, ClassVar

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch

import spatialwhisperer as sw
from spatialwhisperer.encoders.gene import kept_fits
from spatialwhisperer.encoders.gene.kept_fits import fit_or_kept
from spatialwhisperer.encoders.gene.pca import PCAEncoder

GENES = [f"G{i}" for i in range(12)]
IDS = [""] * 12


class Slow(PCAEncoder):
    """A PCA that counts its fits."""

    keeps_fits: ClassVar[bool] = True
    fits_made: ClassVar[int] = 0

    @classmethod
    def fit(cls, *args: Any, **options: Any) -> Any:
        Slow.fits_made += 1
        return super().fit(*args, **options)


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    kept_fits._KEPT.clear()
    monkeypatch.setattr(Slow, "fits_made", 0)


def counts(seed: int = 0) -> sp.csr_matrix:
    return sp.csr_matrix(np.random.default_rng(seed).poisson(2.0, (40, 12)).astype(np.float32))


def test_the_same_call_again_returns_an_equal_encoder_of_its_own() -> None:
    values = {"n_latent": 3, "random_state": 0, "batch": np.repeat([0, 1], 20)}
    first, kept = fit_or_kept(Slow, counts(), GENES, IDS, values)
    assert not kept
    before, embedding = first.identity, first.encode(counts(1))
    # what a caller does to an encoder does not reach the one that is kept
    first.genes[0] = "another"
    for array in first.tensors().values():
        array[...] = 0
    again, kept = fit_or_kept(Slow, counts(), GENES, IDS, dict(values))
    assert kept
    assert Slow.fits_made == 1
    assert again.identity == before
    np.testing.assert_array_equal(again.encode(counts(1)), embedding)


@pytest.mark.parametrize("what", ["a count", "order of genes", "ids", "batch", "argument", "threads", "class"])
def test_anything_else_is_fitted(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kind: type[PCAEncoder] = Slow
    x, genes, ids = counts(), list(GENES), list(IDS)
    values: dict[str, Any] = {"n_latent": 3, "batch": np.repeat([0, 1], 20)}
    fit_or_kept(kind, x, genes, ids, values)
    if what == "a count":
        x[0, 0] += 1
    elif what == "order of genes":
        genes[:2] = genes[1::-1]
    elif what == "ids":
        ids[0] = "ENSG1"
    elif what == "batch":
        values["batch"] = np.repeat([0, 1], [10, 30])
    elif what == "argument":
        values["n_latent"] = 4
    elif what == "threads":
        n = torch.get_num_threads()
        monkeypatch.setattr(torch, "get_num_threads", lambda: n + 1)
    else:
        kind = type("Slow", (Slow,), {"__module__": Slow.__module__, "__qualname__": Slow.__qualname__})
    assert not fit_or_kept(kind, x, genes, ids, values)[1]
    assert Slow.fits_made == 2


def test_the_last_four_are_kept() -> None:
    for n in (1, 2, 3, 4, 5):
        fit_or_kept(Slow, counts(), GENES, IDS, {"n_latent": n})
    assert [fit_or_kept(Slow, counts(), GENES, IDS, {"n_latent": n})[1] for n in (2, 5, 1)] == [True, True, False]


@pytest.mark.parametrize("value", [pd.Interval(0, 1), object(), [{"a": pd.Timestamp(0)}], np.array(["a", {2, pd.NA}])])
def test_a_fit_with_values_that_cannot_be_compared_is_not_kept(value: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made = PCAEncoder.fit(counts(), GENES, IDS, n_latent=3)
    monkeypatch.setattr(Slow, "fit", lambda *_, **__: made)
    assert not fit_or_kept(Slow, counts(), GENES, IDS, {"labels": value})[1]
    assert not fit_or_kept(Slow, counts(), GENES, IDS, {"labels": value})[1]
    assert fit_or_kept(Slow, counts(), GENES, IDS, {"labels": np.array(["a", None])})[0] is made
    assert fit_or_kept(Slow, counts(), GENES, IDS, {"labels": np.array(["a", None])})[1]


def test_a_quick_fit_is_not_kept() -> None:
    fit_or_kept(PCAEncoder, counts(), GENES, IDS, {"n_latent": 3})
    assert not kept_fits._KEPT


@pytest.mark.parametrize("encoder", ["scvi", "set_transformer"])
def test_a_user_is_told(encoder: str, capsys: pytest.CaptureFixture[str]) -> None:
    adata = ad.AnnData(counts())
    adata.var_names = GENES
    options: dict[str, Any] = {"n_latent": 2, "max_epochs": 1, "device": "cpu"}
    first = sw.pp.fit_gene_encoder(adata, encoder, **options)
    with sw.settings.override(verbose=True):
        second = sw.pp.fit_gene_encoder(adata, encoder, **options)
    assert second.identity == first.identity
    said = capsys.readouterr()
    assert f"{encoder}: an earlier call fitted it on the same counts" in said.out + said.err
    np.testing.assert_array_equal(second.encode(counts(1)), first.encode(counts(1)))
