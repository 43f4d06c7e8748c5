"""The predictor of expression and its regression, on arrays."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch

from spatialwhisperer.models import Context, Expression, Preset, Retrieval, Whisperer
from spatialwhisperer.models.expression import fit_predictor
from spatialwhisperer.models.presets import PRESETS
from spatialwhisperer.networks.decoder import make_decoder
from spatialwhisperer.statistics.reduced_rank import ALPHAS, reduced_rank_ridge
from spatialwhisperer.tl._training.expression import by_section, gene_lists, row_hash
from spatialwhisperer.training.batches import ItemBatches, Items


def planted(n: int = 400, g: int = 40, rank: int = 3, noise: float = 0.5, seed: int = 0) -> tuple[Any, ...]:
    """Features, values and the map of low rank between them; the noise of a gene is its own."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 10))
    weight = rng.normal(size=(g, rank)) @ rng.normal(size=(rank, 10)) / np.sqrt(rank)
    y = x @ weight.T + noise * rng.normal(size=(n, g)) + rng.normal(size=g)
    return x, y, weight, np.repeat([0, 1], n // 2)


def error(fitted: dict[str, np.ndarray], weight: np.ndarray) -> float:
    return float(np.square(fitted["weight"] - weight).mean() / np.square(weight).mean())


# ------------------------------------------------------------------------------------------------- the regression


def test_a_planted_map_is_recovered() -> None:
    x, y, weight, sections = planted()
    fitted = reduced_rank_ridge(x, sp.csr_matrix(y), sections, rank=3)
    assert fitted["weight"].shape == (40, 10)
    assert fitted["weight"].dtype == fitted["intercept"].dtype == np.float32
    assert error(fitted, weight) < 0.02
    predicted = x @ fitted["weight"].T + fitted["intercept"]
    assert np.allclose(predicted.mean(axis=0), y.mean(axis=0), atol=1e-4)


def test_low_rank_beats_full_rank_where_rows_are_few() -> None:
    x, y, weight, sections = planted(n=60, noise=3.0)
    low, full = (error(reduced_rank_ridge(x, sp.csr_matrix(y), sections, rank=r), weight) for r in (3, 40))
    assert low < 0.9 * full


def test_unpaired_sections_help_to_find_the_components() -> None:
    x, y, weight, sections = planted(n=60, noise=3.0)
    other = planted(n=2000, noise=3.0)
    more = sp.csr_matrix(other[1] + 5)  # a shift of the section does not matter
    assert np.array_equal(planted(n=60)[2], weight)
    assert not np.array_equal(other[2], weight)
    # the same map, other tissue
    rng = np.random.default_rng(1)
    same = rng.normal(size=(2000, 10)) @ weight.T + 3 * rng.normal(size=(2000, 40)) + 5
    without = error(reduced_rank_ridge(x, sp.csr_matrix(y), sections, rank=3), weight)
    with_it = error(reduced_rank_ridge(x, sp.csr_matrix(y), sections, rank=3, unpaired=[sp.csr_matrix(same)]), weight)
    misled = error(reduced_rank_ridge(x, sp.csr_matrix(y), sections, rank=3, unpaired=[more]), weight)
    assert with_it < without < misled


@pytest.mark.parametrize("offset", [0.0, 1.0])
def test_shifts_of_sections_do_not_matter(offset: float) -> None:
    """Nor where the features of the sections differ too, which would explain the shift."""
    x, y, _, sections = planted()
    x += offset * sections[:, None]
    plain = reduced_rank_ridge(x, sp.csr_matrix(y), sections, rank=3)
    shift = np.random.default_rng(2).normal(scale=20, size=(2, 40))[sections]
    moved = reduced_rank_ridge(x, sp.csr_matrix(y + shift), sections, rank=3)
    assert np.allclose(plain["weight"], moved["weight"], atol=1e-4)
    assert np.allclose(moved["intercept"], plain["intercept"] + shift.mean(axis=0), atol=1e-4)


def test_full_rank_is_ridge() -> None:
    """With all components the projection is the identity, and what is left is scikit-learn's ridge."""
    from sklearn.linear_model import Ridge, RidgeCV

    x, y, _, _ = planted(noise=2.0)
    fitted = reduced_rank_ridge(x, sp.csr_matrix(y), np.zeros(400), rank=100)
    # a rotation of the targets leaves the sum of squared errors, so the penalty is that of the genes themselves
    alpha = RidgeCV(alphas=ALPHAS).fit(x - x.mean(axis=0), y - y.mean(axis=0)).alpha_
    assert min(ALPHAS) <= alpha <= max(ALPHAS)
    ridge = Ridge(alpha=alpha).fit(x, y)
    assert np.allclose(fitted["weight"], ridge.coef_, atol=1e-4)
    assert np.allclose(fitted["intercept"], ridge.intercept_, atol=1e-4)


def test_noise_is_shrunk_to_the_mean() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(300, 20)), rng.normal(size=(300, 15)) + 3
    fitted = reduced_rank_ridge(x, sp.csr_matrix(y), np.zeros(300), rank=5)
    assert (x @ fitted["weight"].T).std() < 0.1
    assert np.allclose(fitted["intercept"], 3, atol=0.3)


def test_a_sample_chooses_the_penalty_of_many_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    from spatialwhisperer.statistics import reduced_rank

    x, y, weight, sections = planted(n=1000)
    whole = reduced_rank_ridge(x, sp.csr_matrix(y), sections, rank=3)
    monkeypatch.setattr(reduced_rank, "ROWS_FOR_PENALTY", 200)
    sampled = reduced_rank_ridge(x, sp.csr_matrix(y), sections, rank=3)
    assert error(sampled, weight) < 0.02
    assert np.corrcoef(whole["weight"].ravel(), sampled["weight"].ravel())[0, 1] > 0.999


# ------------------------------------------------------------------------------------------------- the predictor


def model_of(width: int = 6, genes: int = 9, **config: Any) -> Whisperer:
    heads = {"gene": {"kind": "linear_norm", "in_dim": genes}, "image": {"kind": "linear_norm", "in_dim": width}}
    torch.manual_seed(0)
    return Whisperer({"projection_dim": 4, "heads": heads, **config})


@pytest.fixture
def bank() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {
        "image": rng.normal(size=(30, 6)).astype(np.float32),
        "gene": rng.normal(size=(30, 9)).astype(np.float32),
        "values": sp.csr_matrix(rng.poisson(2, size=(30, 9)).astype(np.float32)),
        "sections": np.repeat(["s1", "s2", "s3"], 10),
        "groups": np.repeat(["p1", "p1", "p2"], 10),
        "positions": {},
    }


def config_of(retrieval: dict[str, Any] | None = None, method: str = "retrieval") -> dict[str, Any]:
    how = {"query": "image", "key": "gene", "k": 5, "weights": "uniform", "temperature": 0.1}
    return {
        "genes": [f"g{i}" for i in range(9)],
        "gene_ids": [""] * 9,
        "value_space": "per_spot_log1p",
        "retrieval": how | (retrieval or {}),
        "method": method,
        "regression_rank": 3,
    }


def test_what_the_bank_holds(bank: dict[str, Any]) -> None:
    model = model_of()
    predictor = fit_predictor(model, **bank, config=config_of())
    assert predictor.config["sections"] == ["s1", "s2", "s3"]
    assert predictor.config["groups"] == ["p1", "p2"]
    assert predictor.arrays["section"].tolist() == np.repeat([0, 1, 2], 10).tolist()
    assert predictor.arrays["group"].tolist() == np.repeat([0, 0, 1], 10).tolist()
    assert np.array_equal(predictor.arrays["gene"], model.project("gene", bank["gene"], unit=False))
    assert "image" not in predictor.arrays
    assert predictor.arrays["weight"].shape == (9, 6)
    assert predictor.methods() == ("retrieval", "regression", "both")
    assert np.isnan(predictor.held_out("retrieval")).all()
    assert "bank of 30 (image → gene, k = 5, uniform)" in repr(predictor)
    of_images = fit_predictor(model, **bank | {"gene": None}, config=config_of({"key": "image"}))
    assert np.array_equal(of_images.arrays["image"], model.project("image", bank["image"], unit=False))


def test_regression_retrieval_and_both(bank: dict[str, Any]) -> None:
    model = model_of()
    predictor = fit_predictor(model, **bank, config=config_of())
    x = np.random.default_rng(1).normal(size=(8, 6)).astype(np.float32)
    x[2] = np.nan
    regressed, spread = predictor.predict(model, x, method="regression")
    assert np.allclose(regressed, x @ predictor.arrays["weight"].T + predictor.arrays["intercept"], equal_nan=True)
    retrieved, same = predictor.predict(model, x)
    assert np.array_equal(spread, same, equal_nan=True)
    for out in (regressed, retrieved):
        assert np.flatnonzero(np.isnan(out).any(axis=1)).tolist() == [2]
    assert np.isnan(spread[2])
    for share in (0.0, 0.25, 1.0):
        predictor.config["weight"] = share
        mixed, _ = predictor.predict(model, x, method="both")
        assert np.allclose(mixed, share * regressed + (1 - share) * retrieved, atol=1e-5, equal_nan=True)


def test_one_neighbour_is_the_neighbour(bank: dict[str, Any]) -> None:
    model = model_of()
    predictor = fit_predictor(model, **bank, config=config_of({"key": "image"}))
    out, spread = predictor.predict(model, bank["image"], k=1)
    assert np.array_equal(out, bank["values"].toarray())
    assert (spread == 0).all()


@pytest.mark.parametrize("kind", ["section", "group"])
def test_excluded_observations_are_never_used(kind: str, bank: dict[str, Any]) -> None:
    """Each value names its own section or patient."""
    names = bank[f"{kind}s"]
    codes = np.unique(names, return_inverse=True)[1]
    bank["values"] = sp.csr_matrix(np.eye(9, dtype=np.float32)[codes])
    model = model_of()
    for k in (5, None):
        predictor = fit_predictor(model, **bank, config=config_of({"key": "image", "k": k}))
        out, _ = predictor.predict(model, bank["image"], exclude=(kind, names))
        assert (out[np.arange(30), codes] == 0).all()
        assert np.allclose(out.sum(axis=1), 1)
        # a name that the bank does not know excludes nothing
        free, _ = predictor.predict(model, bank["image"], exclude=(kind, np.full(30, "unknown")))
        assert np.array_equal(free, predictor.predict(model, bank["image"])[0])


def test_what_a_predictor_refuses(bank: dict[str, Any]) -> None:
    model = model_of()
    predictor = fit_predictor(model, **bank, config=config_of())
    with pytest.raises(ValueError, match="Unknown method 'mean'"):
        predictor.predict(model, bank["image"], method="mean")
    with pytest.raises(ValueError, match="Lower k to 30"):
        predictor.predict(model, bank["image"], k=31)
    with pytest.raises(ValueError, match="Lower k to 10"):
        predictor.predict(model, bank["image"], k=11, exclude=("group", np.full(30, "p1")))
    with pytest.raises(ValueError, match=r"expects features of shape \(n, 6\)"):
        predictor.predict(model, bank["image"][:, :5])


def test_it_is_stored_bit_for_bit(bank: dict[str, Any], tmp_path: Any) -> None:
    model = model_of()
    model.expression = fit_predictor(model, **bank, config=config_of())
    model.expression.arrays["held_out_retrieval"] = np.arange(9, dtype=np.float32)
    back = Whisperer.load(model.save(tmp_path / "m"))
    assert back.expression.config == model.expression.config
    assert (back.expression.values != model.expression.values).nnz == 0
    assert set(back.expression.arrays) == set(model.expression.arrays)
    for name, array in model.expression.arrays.items():
        assert np.array_equal(back.expression.arrays[name], array)
        assert back.expression.arrays[name].dtype == array.dtype
    for method in model.expression.methods():
        one, two = (m.expression.predict(m, bank["image"], method=method) for m in (model, back))
        assert np.array_equal(one[0], two[0])
        assert np.array_equal(one[1], two[1])
    weights = tmp_path / "m" / "expression" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    with pytest.raises(ValueError, match="expression/model.safetensors is not the file that was written"):
        Whisperer.load(tmp_path / "m")


def test_context_that_is_not_learnt_reaches_the_regression(bank: dict[str, Any]) -> None:
    contexts = {"image": {"kind": "section_mean", "in_dim": 6, "options": {"n_neighbours": 3}}}
    heads = {"gene": {"kind": "linear_norm", "in_dim": 9}, "image": {"kind": "linear_norm", "in_dim": 12}}
    model = Whisperer({"projection_dim": 4, "heads": heads, "contexts": contexts})
    xy = np.random.default_rng(3).normal(size=(30, 2))
    predictor = fit_predictor(model, **bank | {"positions": {"image": xy}}, config=config_of())
    assert predictor.arrays["weight"].shape == (9, 12)
    where = {"sections": bank["sections"], "positions": xy}
    out, _ = predictor.predict(model, bank["image"], method="regression", **where)
    seen = model.contextual("image", bank["image"], **where)
    assert np.allclose(out, seen @ predictor.arrays["weight"].T + predictor.arrays["intercept"], atol=1e-5)
    with pytest.raises(ValueError, match="sees neighbours"):
        predictor.predict(model, bank["image"], method="regression", sections=bank["sections"])


# ------------------------------------------------------------------------------------------------- decoder, accuracy, parts


@pytest.mark.parametrize("norm", ["l2", "none"])
def test_the_decoder_reads_what_the_loss_compares(norm: str, bank: dict[str, Any], tmp_path: Any) -> None:
    model = model_of(decoder={"out_dim": 9, "hidden": 16}, norm=norm)
    model.expression = fit_predictor(model, **bank, config=config_of())
    assert model.expression.config["regression"] == "decoder"
    assert "weight" not in model.expression.arrays
    x = bank["image"].copy()
    x[4] = np.nan
    out, _ = model.expression.predict(model, x, method="regression")
    z = model.project("image", bank["image"], unit=norm == "l2")
    with torch.inference_mode():
        by_hand = model.decoder(torch.from_numpy(z)).numpy()
    assert np.isnan(out[4]).all()
    keep = np.arange(30) != 4
    assert np.allclose(out[keep], by_hand[keep], atol=1e-5)
    back = Whisperer.load(model.save(tmp_path / "m"))
    assert np.array_equal(back.expression.predict(back, x, method="regression")[0], out, equal_nan=True)


def test_shapes_of_the_decoder() -> None:
    decoder = make_decoder(5, out_dim=7, hidden=11)
    assert decoder(torch.zeros(3, 5)).shape == (3, 7)


def test_values_follow_their_items_through_batches() -> None:
    """A decoder sees the value of the row that the image belongs to; without images it sees none."""
    rng = np.random.default_rng(0)
    values = sp.csr_matrix(np.arange(12, dtype=np.float32).reshape(4, 3))
    index = {"image": np.array([0, 1, -1, 2]), "gene": np.arange(4), "text": np.array([-1, 0, 0, -1])}
    inputs = {"image": rng.normal(size=(3, 2)), "gene": rng.normal(size=(4, 2)), "text": rng.normal(size=(1, 2))}
    items = Items(inputs, index, np.arange(4), np.arange(4), values=values, value_index=np.array([3, -1, 1, 0]))
    batch = ItemBatches(items, {})[np.array([3, 2, 1, 0])]["values"]
    assert batch["at"].tolist() == [0, 3]
    assert batch["y"].tolist() == [[0, 1, 2], [9, 10, 11]]
    kept = ItemBatches(items.subset(np.array([0, 3])), {})[np.array([0])]["values"]
    assert kept["y"].tolist() == [[9, 10, 11]]
    language = items.with_pairs([("gene", "text")])
    assert "values" not in ItemBatches(language, {})[np.arange(len(language))]


def test_accuracy_is_within_sections() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(60, 3)).astype(np.float32)
    sections = np.repeat(["a", "b"], 30)
    predicted = truth.copy()
    predicted[30:, 0] *= -1
    predicted[:, 1] += np.where(sections == "a", 100, 0)  # between sections
    truth[:30, 2] = 5  # constant, so undefined there
    r = by_section(sp.csr_matrix(truth), predicted, sections)
    assert np.allclose(r, [0, 1, 1], atol=1e-4)
    truth[:, 2] = 5
    assert np.isnan(by_section(sp.csr_matrix(truth), predicted, sections)[2])


def test_lists_of_genes() -> None:
    rng = np.random.default_rng(0)
    values = rng.uniform(0, 1, size=(40, 60))
    values[:, 7] += 5
    values[::2, 9] += 3
    values[20:, 3] += 8  # differs between sections, and not within them
    lists = gene_lists(sp.csr_matrix(values), [f"g{i}" for i in range(60)], np.repeat([0, 1], 20))
    assert lists["HEG50"][0] == "g7"
    assert lists["HVG50"][0] == "g9"
    assert "g3" not in lists["HVG50"][:1]
    assert {len(v) for v in lists.values()} == {50}


def test_the_hash_of_rows_knows_no_order() -> None:
    def hashed(names: list[str], xy: list[list[float]]) -> str:
        table = ad.AnnData(np.zeros((len(names), 1)), obs=pd.DataFrame(index=names), obsm={"spatial": np.array(xy)})
        return row_hash(table, np.ones(len(names), bool))

    here = hashed(["a", "b"], [[0, 1], [2, 3]])
    assert here == hashed(["b", "a"], [[2, 3], [0, 1]])
    assert here != hashed(["a", "c"], [[0, 1], [2, 3]])
    # another slide may number its spots alike
    assert here != hashed(["a", "b"], [[0, 1], [2, 4]])


def test_parts_are_values() -> None:
    preset = PRESETS["bleep"]
    assert isinstance(preset, Preset)
    assert replace(preset, norm="l2") != preset
    assert Expression() == Expression()
    with pytest.raises(AttributeError):
        preset.norm = "l2"  # type: ignore[misc]
    with pytest.raises(TypeError):
        preset.joint.heads["gene"] = "none"  # type: ignore[index]
    assert Context().sides == ()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"query": "protein"}, "Unknown side 'protein'"),
        ({"weights": "inverse"}, "Unknown weights 'inverse'; choose one of uniform"),
        ({"k": 0}, "k must be a whole number of at least 1, or None"),
        ({"k": 2.5}, "k must be a whole number of at least 1, or None"),
        ({"temperature": 0}, "temperature must be positive"),
    ],
)
def test_what_a_retrieval_refuses(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Retrieval(**options)
