"""The predictor of expression, on arrays, and in a model."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from spatialwhisperer._artifact.artifact import Artifact
from spatialwhisperer.encoders.recipe import EncoderIdentity, FeatureRecipe
from spatialwhisperer.models import ExpressionPredictor, Retrieval, Whisperer
from spatialwhisperer.models.configuration.model import (
    ContextConfig,
    HeadConfig,
    ModalityConfig,
    ModelConfig,
    RegressionFeatures,
)
from spatialwhisperer.models.expression.config import ExpressionConfig
from spatialwhisperer.models.expression.fit import fit_predictor
from spatialwhisperer.models.expression.predictor import KIND

if TYPE_CHECKING:
    from pathlib import Path

RETRIEVAL = Retrieval("image", "gene", k=5)
CONFIG = ExpressionConfig(
    genes=tuple(f"g{i}" for i in range(9)),
    gene_ids=("",) * 9,
    value_space="per_spot_log1p",
    retrieval=RETRIEVAL,
    method="retrieval",
    regression="features",
    regression_rank=3,
)


@pytest.fixture
def bank() -> dict[str, Any]:
    """Embeddings, what the regression reads, and expression of thirty observations."""
    rng = np.random.default_rng(0)
    return {
        "image": rng.normal(size=(30, 4)).astype(np.float32),
        "gene": rng.normal(size=(30, 4)).astype(np.float32),
        "regress_on": rng.normal(size=(30, 6)).astype(np.float32),
        "values": sp.csr_matrix(rng.poisson(2, size=(30, 9)).astype(np.float32)),
        "sections": np.repeat(["s1", "s2", "s3"], 10),
        "groups": np.repeat(["p1", "p1", "p2"], 10),
    }


def of(bank: dict[str, Any], **changes: Any) -> ExpressionPredictor:
    return fit_predictor(config=replace(CONFIG, **changes), **bank)


# ------------------------------------------------------------------------------------------------- on arrays


def test_what_the_bank_holds(bank: dict[str, Any]) -> None:
    predictor = of(bank)
    assert predictor.config.sections == ("s1", "s2", "s3")
    assert predictor.config.groups == ("p1", "p2")
    assert predictor.arrays["section"].tolist() == np.repeat([0, 1, 2], 10).tolist()
    assert predictor.arrays["group"].tolist() == np.repeat([0, 0, 1], 10).tolist()
    assert np.array_equal(predictor.arrays["gene"], bank["gene"])
    assert "image" not in predictor.arrays
    assert predictor.arrays["weight"].shape == (9, 6)
    assert predictor.methods() == ("retrieval", "regression", "both")
    assert np.isnan(predictor.held_out("retrieval")).all()
    assert "bank of 30 (image → gene, k = 5, uniform)" in repr(predictor)
    of_images = of(bank | {"gene": None}, retrieval=replace(RETRIEVAL, key="image"))
    assert np.array_equal(of_images.arrays["image"], bank["image"])
    with pytest.raises(ValueError, match="compares with gene embeddings, and there are none"):
        of(bank | {"gene": None})


def test_regression_retrieval_and_both(bank: dict[str, Any]) -> None:
    predictor = of(bank)
    rng = np.random.default_rng(1)
    z, x = (rng.normal(size=(8, n)).astype(np.float32) for n in (4, 6))
    z[2] = x[2] = np.nan
    regressed = predictor.regress(x)
    by_hand = x @ predictor.arrays["weight"].T + predictor.arrays["intercept"]
    assert np.allclose(regressed, by_hand, equal_nan=True)
    out, std = predictor.predict(z, regressed, method="regression")
    assert np.array_equal(out, regressed, equal_nan=True)
    retrieved, same = predictor.predict(z)
    assert np.array_equal(std, same, equal_nan=True)
    for values in (out, retrieved):
        assert np.flatnonzero(np.isnan(values).any(axis=1)).tolist() == [2]
    assert np.isnan(std[2])
    for weight in (0.0, 0.25, 1.0):
        mixed, _ = of(bank, weight=weight).predict(z, regressed, method="both")
        assert np.allclose(mixed, weight * regressed + (1 - weight) * retrieved, atol=1e-5, equal_nan=True)


def test_one_neighbour_is_the_neighbour(bank: dict[str, Any]) -> None:
    predictor = of(bank, retrieval=replace(RETRIEVAL, key="image"))
    out, std = predictor.predict(bank["image"], k=1)
    assert np.array_equal(out, bank["values"].toarray())
    assert (std == 0).all()


@pytest.mark.parametrize("kind", ["section", "group"])
def test_excluded_observations_are_never_used(kind: str, bank: dict[str, Any]) -> None:
    """Each value names its own section or patient."""
    names = bank[f"{kind}s"]
    codes = np.unique(names, return_inverse=True)[1]
    bank["values"] = sp.csr_matrix(np.eye(9, dtype=np.float32)[codes])
    for k in (5, None):
        predictor = of(bank, retrieval=replace(RETRIEVAL, key="image", k=k))
        out, _ = predictor.predict(bank["image"], exclude=(kind, names))
        assert (out[np.arange(30), codes] == 0).all()
        assert np.allclose(out.sum(axis=1), 1)
        # a name that the bank does not know excludes nothing
        free, _ = predictor.predict(bank["image"], exclude=(kind, np.full(30, "unknown")))
        assert np.array_equal(free, predictor.predict(bank["image"])[0])


def test_what_a_predictor_refuses(bank: dict[str, Any]) -> None:
    predictor = of(bank)
    with pytest.raises(ValueError, match="Unknown method 'mean'; choose one of retrieval, regression, both"):
        predictor.predict(bank["image"], method="mean")
    with pytest.raises(ValueError, match="Lower k to 30"):
        predictor.predict(bank["image"], k=31)
    with pytest.raises(ValueError, match="Lower k to 10"):
        predictor.predict(bank["image"], k=11, exclude=("group", np.full(30, "p1")))
    alone = of(bank | {"regress_on": None}, regression="none")
    assert alone.methods() == ("retrieval",)
    for method in ("regression", "both"):
        with pytest.raises(ValueError, match=f"no regression; use method='retrieval' instead of '{method}'"):
            alone.predict(bank["image"], method=method)


def test_accuracy_is_kept_beside_it(bank: dict[str, Any]) -> None:
    predictor = of(bank).with_accuracy({"both": np.arange(9, dtype=np.float32)}, weight=0.2)
    assert predictor.held_out("both").tolist() == list(range(9))
    assert np.isnan(predictor.held_out("retrieval")).all()
    assert predictor.config.weight == 0.2
    assert of(bank).with_accuracy({}).config.weight == CONFIG.weight
    with pytest.raises(ValueError, match=r"held_out_both \(3, not 9\)"):
        of(bank).with_accuracy({"both": np.arange(3)})


# ------------------------------------------------------------------------------------------------- storage


def test_it_comes_back_bit_for_bit(bank: dict[str, Any], tmp_path: Path) -> None:
    predictor = of({**bank, "rows": np.arange(len(bank["image"]), dtype=np.uint64)}, gene_lists={"HEG50": ("g0", "g1")})
    predictor = predictor.with_accuracy({"retrieval": np.arange(9, dtype=np.float32)})
    folder = predictor.artifact().write(tmp_path / "expression")
    back = ExpressionPredictor.from_artifact(Artifact.read(folder, KIND))
    assert back.config == predictor.config
    assert (back.values != predictor.values).nnz == 0
    assert back.values.dtype == predictor.values.dtype
    assert back.arrays.keys() == predictor.arrays.keys()
    for name, array in predictor.arrays.items():
        assert np.array_equal(back.arrays[name], array)
        assert back.arrays[name].dtype == array.dtype
    regressed = predictor.regress(bank["regress_on"])
    for method in predictor.methods():
        one, two = (p.predict(bank["image"], regressed, method=method) for p in (predictor, back))
        assert np.array_equal(one[0], two[0])
        assert np.array_equal(one[1], two[1])


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"values.shape": np.array([30, 8])}, "does not fit together"),
        ({"values.indices": np.array([0], np.int32)}, "does not fit together"),
        ({"values.shape": None}, "does not fit together"),
        ({"weight": np.zeros((8, 6), np.float32)}, r"weight \(8, not 9\)"),
        ({"intercept": None}, r"intercept \(0, not 9\)"),
        ({"gene": None}, r"gene \(0, not 30\)"),
        ({"gene": np.zeros((29, 4), np.float32)}, r"gene \(29, not 30\)"),
        ({"section": None}, r"section \(0, not 30\)"),
        ({"group": np.full(30, 2, np.int32)}, "'group' of this predictor of expression does not fit its 2 names"),
        ({"section": np.full(30, -1, np.int32)}, "'section' .* does not fit its 3 names"),
    ],
)
def test_stored_arrays_that_do_not_fit_are_refused(bank: dict[str, Any], tensors: dict[str, Any], message: str) -> None:
    artifact = of(bank).artifact()
    changed = {k: v for k, v in {**artifact.tensors, **tensors}.items() if v is not None}
    with pytest.raises(ValueError, match=message):
        ExpressionPredictor.from_artifact(Artifact(KIND, artifact.config, changed))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"genes": ["g0"]}, r"genes \(1, not 9\)"),
        ({"method": "mean"}, "method: Input should be"),
        ({"retrieval": {"k": "5"}}, "retrieval.k: "),
        ({"retrieval": {"weights": "inverse"}}, "Unknown weights 'inverse'"),
        ({"more": 1}, "more: Unexpected"),
    ],
)
def test_a_stored_configuration_that_does_not_fit_is_refused(
    bank: dict[str, Any], config: dict[str, Any], message: str
) -> None:
    artifact = of(bank).artifact()
    with pytest.raises(ValueError, match=message):
        ExpressionPredictor.from_artifact(Artifact(KIND, {**artifact.config, **config}, artifact.tensors))


OWN = RegressionFeatures(FeatureRecipe(EncoderIdentity("nuclei"), "X_nuclei", (320.0,), 640), 3)
STATISTICS = {
    "own_weight": np.arange(27, dtype=np.float32).reshape(9, 3),
    "own_intercept": np.arange(9, dtype=np.float32),
    "own_mean": np.array([1, 2, 3], np.float32),
    "own_std": np.array([1, 2, 4], np.float32),
}


def test_the_regression_on_features_of_its_own_is_that_by_hand(bank: dict[str, Any], tmp_path: Path) -> None:
    predictor = of(bank).with_own([OWN], STATISTICS)
    predictor = predictor.with_accuracy({"both": np.arange(9, dtype=np.float32)}, 0.25, own=True)
    x = np.array([[2, 2, 3], [1, 200, 3], [np.nan, 0, 0]], np.float32)
    z = np.array([[1, 0, 0], [0, 6, 0]])
    by_hand = z @ STATISTICS["own_weight"].T + STATISTICS["own_intercept"]
    back = ExpressionPredictor.from_artifact(Artifact.read(predictor.artifact().write(tmp_path / "expression"), KIND))
    for one in (predictor, back):
        out = one.regress_own(x)
        assert np.allclose(out[:2], by_hand)
        assert np.isnan(out[2]).all()
        assert (one.config.weight, one.config.own_weight) == (CONFIG.weight, 0.25)
        assert np.array_equal(one.held_out("both", own=True), np.arange(9))
        assert np.isnan(one.held_out("both")).all()
    retrieved, _ = predictor.predict(bank["image"][:3], method="retrieval")
    both, _ = predictor.predict(bank["image"][:3], out, method="both", own=True)
    assert np.allclose(both[:2], 0.25 * by_hand + 0.75 * retrieved[:2], atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "tensors", "message"),
    [
        ({}, {"own_weight": np.zeros((8, 3), np.float32)}, r"own_weight \(8, not 9\)"),
        ({}, {"own_weight": np.zeros((9, 2), np.float32)}, r"own_weight \(\(9, 2\), not \(9, 3\)\)"),
        ({}, {"own_std": np.zeros(2, np.float32)}, r"own_std \(2, not 3\)"),
        ({"dim": 4}, {}, r"own_mean \(3, not 4\)"),
        ({"dim": 0}, {}, "dim must be positive"),
        ({"standardize": "none"}, {}, "standardize: Input should be"),
        ({"recipe": {"encoder": None, "key": "X_nuclei"}}, {}, "'X_nuclei'.*no registered encoder gives"),
        ({"recipe": {"encoder": {"name": "m", "digest": "00"}, "key": "X_m"}}, {}, "'m'.*no registered encoder gives"),
    ],
)
def test_stored_features_of_the_regression_that_do_not_fit_are_refused(
    bank: dict[str, Any], changes: dict[str, Any], tensors: dict[str, Any], message: str
) -> None:
    artifact = of(bank).with_own([OWN], STATISTICS).artifact()
    features = [{**artifact.config["own_features"][0], **changes}]
    with pytest.raises(ValueError, match=message):
        ExpressionPredictor.from_artifact(
            Artifact(KIND, {**artifact.config, "own_features": features}, {**artifact.tensors, **tensors})
        )


def test_features_of_another_width_are_refused(bank: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="regression_features"):
        of(bank).with_own([OWN], STATISTICS).regress_own(np.zeros((2, 4), np.float32))
    with pytest.raises(ValueError, match="no features of its own"):
        of(bank).regress_own(np.zeros((2, 3), np.float32))


# ------------------------------------------------------------------------------------------------- in a model


def model_of(context: ContextConfig | None = None, **config: Any) -> Whisperer:
    torch.manual_seed(0)
    recipe = FeatureRecipe(EncoderIdentity("some"))
    width = 12 if context is not None else 6
    modalities = {
        "gene": ModalityConfig(recipe, 9, HeadConfig("linear_norm", 9)),
        "image": ModalityConfig(recipe, 6, HeadConfig("linear_norm", width), context),
    }
    return Whisperer(ModelConfig(4, modalities, **config))


def give(model: Whisperer, bank: dict[str, Any], where: dict[str, Any] | None = None, **changes: Any) -> np.ndarray:
    """Give a model a predictor of a bank in its own joint space; returns the image features of the bank."""
    x, counts = bank["regress_on"], np.random.default_rng(2).normal(size=(30, 9)).astype(np.float32)
    changes = {"regression": "features"} | changes
    mine = bank | {
        "image": model.project("image", x, unit=False, **(where or {})),
        "gene": model.project("gene", counts, unit=False),
        "regress_on": model.regression_input(x, **(where or {})) if changes["regression"] == "features" else None,
    }
    if changes["regression"] == "embedding":
        mine["regress_on"] = mine["image"]
    model.expression = of(mine, **changes)
    return x


def test_a_model_predicts_from_features(bank: dict[str, Any]) -> None:
    model = model_of()
    x = give(model, bank)
    z = model.project("image", x, unit=False)
    regressed = model.expression.regress(x)  # type: ignore[union-attr]
    for method in ("retrieval", "regression", "both"):
        out, std = model.predict_expression(x, method=method)
        one, two = model.expression.predict(z, regressed, method=method)  # type: ignore[union-attr]
        assert np.array_equal(out, one)
        assert np.array_equal(std, two)
    with pytest.raises(ValueError, match=r"gives features of shape \(n, 6\); found \(30, 5\)"):
        model.predict_expression(x[:, :5])
    with pytest.raises(ValueError, match="did not learn to predict expression. Train it with expression=True"):
        model_of().predict_expression(x)


def test_a_regression_may_read_the_embedding(bank: dict[str, Any]) -> None:
    model = model_of()
    x = give(model, bank, regression="embedding")
    out, _ = model.predict_expression(x, method="regression")
    z = model.project("image", x, unit=False)
    assert np.allclose(out, model.expression.regress(z))  # type: ignore[union-attr]


def test_context_that_is_not_learnt_reaches_the_regression(bank: dict[str, Any]) -> None:
    model = model_of(ContextConfig("section_mean", {"n_neighbours": 3}))
    where = {"sections": bank["sections"], "positions": np.random.default_rng(3).normal(size=(30, 2))}
    x = give(model, bank, where)
    assert model.expression.arrays["weight"].shape == (9, 12)  # type: ignore[union-attr]
    out, _ = model.predict_expression(x, method="regression", **where)
    seen = model.contextual("image", x, **where)
    assert np.allclose(out, model.expression.regress(seen), atol=1e-5)  # type: ignore[union-attr]
    with pytest.raises(ValueError, match="sees neighbours"):
        model.predict_expression(x, method="regression", sections=bank["sections"])


@pytest.mark.parametrize("norm", ["l2", "none"])
def test_a_decoder_reads_what_the_loss_compares(norm: str, bank: dict[str, Any], tmp_path: Path) -> None:
    model = model_of(decoder_dim=9, norm=norm)
    x = give(model, bank, regression="decoder").copy()
    assert "weight" not in model.expression.arrays  # type: ignore[union-attr]
    z = model.project("image", x, unit=norm == "l2")
    x[4] = np.nan
    out, _ = model.predict_expression(x, method="regression")
    with torch.inference_mode():
        by_hand = model.decoder(torch.from_numpy(z)).numpy()  # type: ignore[misc]
    assert np.isnan(out[4]).all()
    keep = np.arange(30) != 4
    assert np.allclose(out[keep], by_hand[keep], atol=1e-5)
    back = Whisperer.load(model.save(tmp_path / "m"))
    assert np.array_equal(back.predict_expression(x, method="regression")[0], out, equal_nan=True)


def test_a_stored_model_predicts_the_same(bank: dict[str, Any], tmp_path: Path) -> None:
    model = model_of()
    x = give(model, bank)
    back = Whisperer.load(model.save(tmp_path / "m"))
    for method in model.expression.methods():  # type: ignore[union-attr]
        for one, two in zip(*(m.predict_expression(x, method=method) for m in (model, back)), strict=True):
            assert np.array_equal(one, two)
    weights = tmp_path / "m" / "expression" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    with pytest.raises(ValueError, match="expression/model.safetensors is not the file that was written"):
        Whisperer.load(tmp_path / "m")
