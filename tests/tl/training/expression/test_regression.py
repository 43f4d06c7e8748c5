"""A regression of expression with image features of its own, on the slides that are fine enough for them."""

from __future__ import annotations

import dataclasses
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import spatialwhisperer as sw
from spatialwhisperer._provenance import recorded
from spatialwhisperer.statistics.reduced_rank import reduced_rank_ridge
from spatialwhisperer.tl._training.expression import regression
from tests.encoders.image.drawn_nuclei import tile

pytestmark = pytest.mark.slow

EDGE = 880
SIZES = sw.tl.ImageFeatures(tile_um=(60, 120), tile_px=30)
COUNTED = "G0"


def slide(name: str, patient: str, factor: int = 1, seed: int = 0) -> Any:
    """Spots on nuclei of two sizes; gene 0 follows the number of large ones nearby, the others nothing."""
    rng = np.random.default_rng(seed)
    centres = EDGE * rng.uniform(0, 1, (900, 2)) ** [1.6, 1.0]
    radius = np.where(centres[:, 1] + rng.normal(0, 80, 900) > EDGE / 2, 2.2, 4.5)
    image = tile(centres, radius, edge=EDGE).reshape(3, EDGE // factor, factor, EDGE // factor, factor)
    steps = np.linspace(220, 660, 6)
    xy = np.stack(np.meshgrid(steps, steps), -1).reshape(-1, 2)
    near = np.hypot(*(xy[:, None] - centres[None]).transpose(2, 0, 1)) < 120
    counts = rng.poisson(20, (36, 12))
    counts[:, 0] = rng.poisson(2 * (near & (radius > 3)).sum(axis=1))
    out = ad.AnnData(counts.astype(np.float32), var=pd.DataFrame(index=[f"G{i}" for i in range(12)]))
    out.obs_names = [f"{name}{i}" for i in range(36)]
    out.obs["patient"] = patient
    out.obsm["spatial"] = xy / factor
    pixels = image.mean(axis=(2, 4)).astype(np.uint8).transpose(1, 2, 0)
    # the spot is 60 µm wide, from which 0.5 µm per pixel follow
    out.uns["spatial"] = {name: {"images": {"fullres": pixels}, "scalefactors": {"microns_per_pixel": 0.5 * factor}}}
    return out


@pytest.fixture(scope="module")
def slides() -> list[Any]:
    """Three fine slides of two patients, and a coarse one of a third."""
    names = (("a", "A", 1), ("b", "A", 1), ("c", "B", 1), ("d", "D", 4))
    return [slide(name, patient, factor, seed) for seed, (name, patient, factor) in enumerate(names)]


def copies(slides: list[Any]) -> list[Any]:
    return [one.copy() for one in slides]


def train(slides: list[Any], **options: Any) -> Any:
    preset = sw.models.get_preset("whisperer").replace(batch_size=36)
    defaults: dict[str, Any] = {"preset": preset, "image": SIZES, "gene": "identity", "max_epochs": 1}
    return sw.tl.train(slides, **defaults | options)


@pytest.fixture(scope="module")
def trained(slides: list[Any]) -> Any:
    """The slides after training, and the model."""
    data = copies(slides)
    return data, train(data, expression=sw.tl.ExpressionOptions(genes=[f"G{i}" for i in range(12)]))


def predict(model: Any, data: Any, **options: Any) -> Any:
    return sw.tl.predict_expression(data, model=model, inplace=False, **options)


def record_of(out: Any) -> Any:
    return recorded(out, "sw_expression")


def with_tissue(out: Any) -> Any:
    """Rows with a prediction: a few tiles of the simulated slides show no tissue."""
    shown = np.isfinite(out.X).all(axis=1)
    assert shown.sum() >= 30
    return shown


def log_counts(table: Any) -> Any:
    counts = table.X
    return np.log1p(1e4 * counts / counts.sum(axis=1, keepdims=True))


def test_it_is_the_ridge_of_both_features_of_the_fine_slides(trained: Any) -> None:
    data, model = trained
    config, arrays = model.expression.config, model.expression.arrays
    assert [one.recipe.name for one in config.own_features] == ["stain_texture", "nuclei"]
    assert [one.standardize for one in config.own_features] == ["global", "global"]
    x = np.concatenate([np.hstack([t.obsm["X_stain_texture"], t.obsm["X_nuclei"]]) for t in data[:3]])
    mean, std = x.mean(axis=0), x.std(axis=0)
    std[std <= 1e-7 * np.maximum(1, abs(mean))] = 1
    z = np.clip((x - mean) / std, -6, 6)
    values, sections = np.concatenate([log_counts(t) for t in data[:3]]), np.repeat(["0:a", "1:b", "2:c"], 36)
    by_hand = reduced_rank_ridge(z, values, sections, rank=20, unpaired=[log_counts(data[3])])
    assert np.allclose(arrays["own_weight"], by_hand["weight"], atol=1e-4)
    out = predict(model, data[0], method="regression")
    shown = with_tissue(out)
    assert np.allclose(out.X[shown], (z[:36] @ by_hand["weight"].T + by_hand["intercept"])[shown], atol=1e-3)
    # the other regression is that of the image features of the model, on all slides
    assert arrays["weight"].shape == (12, data[0].obsm["X_stain_texture"].shape[1])
    assert "X_nuclei" not in data[3].obsm


def test_both_is_mixed_with_the_weight_of_the_regression_that_is_used(trained: Any) -> None:
    data, model = trained
    for table, weight in ((data[1], model.expression.config.own_weight), (data[3], model.expression.config.weight)):
        both, one, other = (predict(model, table, method=m).X for m in ("both", "regression", "retrieval"))
        assert np.allclose(both, weight * one + (1 - weight) * other, atol=1e-4, equal_nan=True)


def test_a_coarse_slide_is_predicted_by_the_features_of_the_model(
    trained: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    _, model = trained
    coarse = slide("e", "E", 4, seed=9)
    capsys.readouterr()
    out = predict(model, coarse, method="regression")
    said = capsys.readouterr()
    assert "instead of stain_texture, nuclei: 'nuclei' needs 0.75 µm per pixel or finer, and e has 2" in (
        said.out + said.err
    )
    read = record_of(out)["regression"]
    assert read["input"] == "features"
    assert [one["encoder"]["name"] for one in read["features"]] == ["stain_texture"]
    sw.pp.embed_images(coarse, tile_um=(60, 120), tile_px=30)
    x = model.regression_input(coarse.obsm["X_stain_texture"], sections=np.repeat("e", 36))
    shown = with_tissue(out)
    assert np.allclose(out.X[shown], model.expression.regress(x)[shown], atol=1e-4)
    assert np.array_equal(out.var["held_out_pearson"], model.expression.held_out("regression"), equal_nan=True)


def test_the_record_and_the_card_state_what_was_read(trained: Any) -> None:
    _, model = trained
    out = predict(model, slide("f", "F", seed=10))
    record = record_of(out)
    assert record["regression"]["input"] == "own features"
    assert [one["encoder"]["name"] for one in record["regression"]["features"]] == ["stain_texture", "nuclei"]
    assert record["weight"] == model.expression.config.own_weight
    assert np.array_equal(out.var["held_out_pearson"], model.expression.held_out("both", own=True), equal_nan=True)
    assert record_of(predict(model, slide("f", "F", seed=10), method="retrieval"))["regression"] is None
    assert "regression on stain_texture + nuclei of fine images, else on the image features of the model" in repr(model)


def test_features_are_stored_and_used_again(trained: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    data, model = trained
    from spatialwhisperer.pp.features import images as features

    monkeypatch.setattr(features, "embed_tiles", lambda *_, **__: pytest.fail("features are computed again"))
    before = predict(model, data[0]).X
    again: Any = train(data, expression=sw.tl.ExpressionOptions(genes=model.expression.genes, cross_validate=False))
    assert np.array_equal(again.expression.arrays["own_weight"], model.expression.arrays["own_weight"])
    # without its image a slide has stored features still
    table = data[0].copy()
    first, second = (predict(one, table, method="regression").X for one in (again, model))
    assert np.array_equal(first, second, equal_nan=True)
    assert before.shape == (36, 12)


def test_a_saved_model_predicts_the_same(trained: Any, tmp_path: Any) -> None:
    _, model = trained
    new = slide("g", "G", seed=11)
    back = sw.models.Whisperer.load(model.save(tmp_path / "model"))
    assert back.expression is not None
    assert back.expression.config == model.expression.config
    assert np.array_equal(predict(back, new).X, predict(model, new.copy()).X)
    assert "X_nuclei" not in new.obsm or "sw_nuclei_per_mm2" in new.obs


def test_the_accuracy_is_that_of_slides_left_out_by_hand(slides: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaving out the only patient with fine slides would leave none, so its sections are left out in turn."""
    monkeypatch.setattr(regression, "FEWEST", 36)
    from spatialwhisperer.tl._training.expression import predictor as expression

    monkeypatch.setattr(expression, "FEWEST", 36)
    # training measures all rows that have features, with tissue or not
    whole = "spatialwhisperer.tl._annotation.range.compared.on_tissue"
    monkeypatch.setattr(whole, lambda features, _: np.ones(len(features), bool))
    data = copies([slides[0], slides[1], slides[3]])
    genes = [f"G{i}" for i in range(12)]
    model = train(data, expression=sw.tl.ExpressionOptions(genes=genes))
    r = []
    for out in (0, 1):
        rest = [one for i, one in enumerate(data) if i != out]
        options = sw.tl.ExpressionOptions(genes=genes, cross_validate=False)
        x = predict(train(rest, expression=options), data[out], method="regression").X
        r.append([np.corrcoef(x[:, g], log_counts(data[out])[:, g])[0, 1] for g in range(12)])
    assert np.allclose(model.expression.held_out("regression", own=True), np.mean(r, axis=0), atol=2e-2)
    assert model.expression.held_out("regression", own=True)[0] > 0.5


def test_too_few_fine_pairs_leave_everything_as_it_was(slides: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    data = copies([slides[0], slides[3]])
    model = train(data, expression=True)
    said = capsys.readouterr()
    assert "36 training pairs have an image for stain_texture + nuclei, and 100 are needed" in said.out + said.err
    assert model.expression.config.own_features == ()
    assert "X_nuclei" not in data[0].obsm


@pytest.mark.parametrize("how", ["key", "preset", "none", "encoder"])
def test_other_models_keep_their_regression(slides: list[Any], how: str) -> None:
    data = copies(slides[:3])
    options: dict[str, Any] = {"expression": sw.tl.ExpressionOptions(cross_validate=False)}
    if how == "key":
        for one in data:
            one.obsm["X_given"] = np.random.default_rng(0).normal(size=(36, 4)).astype(np.float32)
        options["image"] = sw.tl.ImageFeatures(key="X_given")
    elif how == "preset":
        options["preset"] = sw.models.get_preset("bleep").replace(batch_size=36)
    elif how == "none":
        options["expression"] = sw.tl.ExpressionOptions(cross_validate=False, image=())
    else:
        preset = sw.models.get_preset("whisperer")
        names = ("nuclei",)
        assert preset.expression is not None
        options["preset"] = preset.replace(
            batch_size=36, expression=dataclasses.replace(preset.expression, image=names)
        )
    model = train(data, **options)
    assert model.expression is not None
    assert model.expression.config.own_features == ()
    assert all("X_nuclei" not in one.obsm for one in data)


@pytest.mark.parametrize(
    ("image", "of_model", "message"),
    [
        ("nucleii", SIZES, "nucleii"),
        (["nuclei", "nuclei"], SIZES, "names an encoder twice"),
        (sw.tl.ImageFeatures("nuclei", tile_um=100), SIZES, "takes no other sizes; found tile_um=100"),
        (sw.tl.ImageFeatures(key="X_given"), SIZES, "takes encoders by their registered name"),
        ("nuclei", sw.tl.ImageFeatures(key="X_given"), "is features under the key 'X_given'"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_written(
    slides: list[Any], image: Any, of_model: Any, message: str, tmp_path: Any
) -> None:
    data = copies(slides[:3])
    for one in data:
        one.obsm["X_given"] = np.ones((36, 3), np.float32)
    with pytest.raises(ValueError, match=message):
        train(data, image=of_model, expression=sw.tl.ExpressionOptions(image=image), folder=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    assert all(set(one.obsm) == {"spatial", "X_given"} for one in data)


def test_features_of_another_preset_can_be_asked_for(slides: list[Any]) -> None:
    data = copies(slides[:3])
    preset = sw.models.get_preset("bleep").replace(batch_size=36)
    own = sw.tl.ImageFeatures("stain_texture", tile_um=90, tile_px=30)
    options = sw.tl.ExpressionOptions(cross_validate=False, image=[own])
    model = sw.tl.train(data, preset=preset, image=SIZES, expression=options, max_epochs=1)
    assert model.expression is not None
    (one,) = model.expression.config.own_features
    assert (one.recipe.key, one.recipe.tile_um) == ("X_stain_texture_expression", (90.0,))
    # of one encoder, at other sizes than those of the model
    assert data[0].obsm["X_stain_texture_expression"].shape == (36, one.dim)


def test_a_run_is_resumed_with_the_same_features_only(trained: Any, tmp_path: Any) -> None:
    data, _ = trained
    options = sw.tl.ExpressionOptions(cross_validate=True)
    first: Any = train(data[:3], expression=options, folder=tmp_path)
    again: Any = train(data[:3], expression=options, folder=tmp_path, resume=True)
    for name, array in first.expression.arrays.items():
        assert np.array_equal(again.expression.arrays[name], array, equal_nan=True)
    with pytest.raises(ValueError, match="own_features"):
        train(data[:3], expression=sw.tl.ExpressionOptions(cross_validate=True, image=()), folder=tmp_path, resume=True)
