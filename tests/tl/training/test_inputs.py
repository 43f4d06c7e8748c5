from __future__ import annotations

from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import spatialwhisperer as sw
from spatialwhisperer.models import Context, Preset, get_preset
from spatialwhisperer.retrieval.neighbours import section_neighbours
from spatialwhisperer.statistics.standardize import standardize, statistics
from spatialwhisperer.tl._training.inputs import Inputs, prepare_inputs
from spatialwhisperer.tl._training.sources import describe

REQUESTS: dict[str, Any] = {"gene": sw.tl.GeneFeatures(key="X_g"), "image": sw.tl.ImageFeatures(key="X_i")}


def table(n: int = 30, seed: int = 0, *, image: bool = True, spatial: bool = True) -> Any:
    """Features of genes and perhaps of images; two patients."""
    rng = np.random.default_rng(seed)
    out = ad.AnnData(
        obs=pd.DataFrame({"patient": np.where(np.arange(n) < n // 2, "p", "q")}, index=list(map(str, range(n))))
    )
    out.obsm["X_g"] = rng.normal(3 + seed, 2, size=(n, 3))
    if image:
        out.obsm["X_i"] = rng.normal(5, 4, size=(n, 4))
    if spatial:
        out.obsm["spatial"] = rng.uniform(size=(n, 2)) * 100
    return out


def prepared(*objects: Any, preset: Preset | None = None, held_out: set[str] | None = None, **changes: Any) -> Inputs:
    preset = (
        get_preset("bleep").replace(standardize={"image": "section", "gene": "global"}) if preset is None else preset
    )
    requests = REQUESTS | changes
    keys = {"gene": "X_g", "image": "X_i"}
    sources = describe(
        objects,
        modalities=requests,
        keys=keys,
        text_keys=(),
        group_key="patient",
        array_positions=preset.context.array_positions,
    )
    return prepare_inputs(sources, preset, requests, held_out=held_out or set(), random_state=0)


def test_features_of_several_objects_are_stacked_in_order() -> None:
    first, second = table(), table(20, 1, image=False)
    got = prepared(first, second)
    genes = np.concatenate([first.obsm["X_g"], second.obsm["X_g"]])
    assert np.allclose(got.modalities["gene"].raw, genes)
    assert np.allclose(got.modalities["image"].raw, first.obsm["X_i"])
    assert got.items.index["gene"].tolist() == list(range(50))
    assert got.items.index["image"].tolist() == list(range(30)) + [-1] * 20
    assert got.items.group.tolist() == first.obs["patient"].tolist() + second.obs["patient"].tolist()
    assert got.captions == []
    assert got.unlocked == {}
    rows = got.observations.iloc[[40, 3]]
    assert np.allclose(got.rows_of("gene", rows), genes[[40, 3]])


def test_features_are_standardised_as_the_preset_says() -> None:
    first, second = table(), table(25, 1)
    got = prepared(first, second)
    genes = np.concatenate([first.obsm["X_g"], second.obsm["X_g"]]).astype(np.float32)
    mean, std = statistics(genes)
    assert np.allclose(got.items.inputs["gene"], (genes - mean) / std, atol=1e-5)
    images = [standardize(t.obsm["X_i"].astype(np.float32), how="section", mean=mean, std=std) for t in (first, second)]
    assert np.allclose(got.items.inputs["image"], np.concatenate(images), atol=1e-5)
    plain = prepared(first, preset=get_preset("bleep").replace(standardize={}))
    assert np.allclose(plain.items.inputs["gene"], first.obsm["X_g"])


def test_held_out_rows_do_not_enter_the_training_statistics() -> None:
    given = table()
    training = (given.obs["patient"] == "p").to_numpy()
    got = prepared(given, held_out={"q"}).modalities["gene"].statistics
    assert got is not None
    expected = statistics(given.obsm["X_g"][training].astype(np.float32))
    assert all(np.allclose(a, b) for a, b in zip(got, expected, strict=True))


def test_incomplete_rows_have_no_input() -> None:
    given = table()
    given.obsm["X_i"][[4, 9], 1] = np.nan
    got = prepared(given)
    assert np.flatnonzero(got.items.index["image"] < 0).tolist() == [4, 9]
    assert len(got.items.inputs["image"]) == 28
    assert got.items.index["image"][10] == 8


def test_captions_keep_their_order_and_point_to_their_features() -> None:
    class Lengths(sw.models.TextEncoder):
        spec = sw.models.EncoderSpec("lengths", "text", None)

        def encode(self, inputs: Any, **options: Any) -> np.ndarray:  # noqa: ARG002
            return np.array([[len(t)] for t in inputs], np.float32)

    given = table(4)
    given.obs["text"] = ["long one", "b", None, "b"]
    requests: dict[str, Any] = {"gene": REQUESTS["gene"], "text": sw.tl.TextFeatures(Lengths())}
    sources = describe([given], modalities=requests, keys={"gene": "X_g"}, text_keys=["text"], group_key="patient")
    got = prepare_inputs(sources, get_preset("spatialwhisperer"), requests, held_out=set(), random_state=0)
    assert got.captions == ["long one", "b"]
    assert got.items.index["text"].tolist() == [0, 1, -1, 1]
    assert got.items.inputs["text"].tolist() == [[8], [1]]
    assert got.modalities["text"].statistics is None


class Letters(sw.models.TextEncoder):
    """Codes of the letters, of lower case where ``cased`` is off."""

    spec = sw.models.EncoderSpec("letters", "text", None)

    def __init__(self, *, cased: bool) -> None:
        self.cased = cased

    def encode(self, inputs: Any, **options: Any) -> np.ndarray:  # noqa: ARG002
        texts = [t if self.cased else t.lower() for t in inputs]
        return np.array([[len(t), sum(map(ord, t))] for t in texts], np.float32)


@pytest.mark.parametrize(
    ("cased", "captions", "index"),
    [(False, ["T cell", "fat"], [0, 0, 0, 1, 0]), (True, ["T cell", "T Cell", "t cell", "fat"], [0, 1, 2, 3, 1])],
)
def test_captions_that_differ_in_case_alone_are_one_where_the_encoder_sees_no_difference(
    cased: bool, captions: list[str], index: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    given = table(5)
    given.obs["text"] = ["T cell", "T Cell", "t cell", "fat", "T Cell"]
    given.obs["more"] = ["T Cell", None, None, "fat", None] if not cased else None
    wordings = {"t  cell": ["T  lymphocyte"], "fat": ["adipose"]}
    text = sw.tl.TextFeatures(Letters(cased=cased), wordings=wordings)
    requests: dict[str, Any] = {"gene": REQUESTS["gene"], "text": text}
    sources = describe(
        [given], modalities=requests, keys={"gene": "X_g"}, text_keys=["text", "more"], group_key="patient"
    )
    got = prepare_inputs(sources, get_preset("spatialwhisperer"), requests, held_out=set(), random_state=0)
    assert got.captions == captions
    assert got.items.index["text"].tolist() == index
    assert dict(got.wordings) == {"t cell" if cased else "T cell": ["T lymphocyte"], "fat": ["adipose"]}
    said = "'T Cell' is read as 'T cell', 't cell' is read as 'T cell'"
    assert (said in capsys.readouterr().err) is not cased


# ------------------------------------------------------------------------------------------------- context


def with_context(kind: str = "section_knn", **options: Any) -> Preset:
    return get_preset("bleep").replace(standardize={}, context=Context(kind, ("gene",), options or {"n_neighbours": 4}))


def test_neighbours_are_those_of_the_own_section() -> None:
    first, second = table(), table(20, 1)
    got = prepared(first, second, preset=with_context())
    xy = np.concatenate([first.obsm["spatial"], second.obsm["spatial"]])
    near = section_neighbours(xy, np.repeat([0, 1], [30, 20]), 4)
    assert np.array_equal(got.items.context["gene"]["neighbours"], near.index)
    assert np.array_equal(got.items.context["gene"]["offsets"], near.offsets)
    context = got.modalities["gene"].context
    assert context is not None
    assert (context.kind, dict(context.options)) == ("section_knn", {"n_neighbours": 4})
    assert got.modalities["image"].context is None


def test_a_context_needs_positions() -> None:
    partly = table(seed=1)
    partly.obsm["spatial"][:4, 0] = np.nan
    with pytest.raises(
        ValueError, match=r"\(section_knn\), and 30 rows of object 1, 4 rows of object 2 have no position"
    ):
        prepared(table(), table(spatial=False), partly, preset=with_context())


def test_rows_of_no_pair_need_no_position() -> None:
    got = prepared(table(), table(20, image=False, spatial=False), preset=with_context())
    assert got.items.context["gene"]["neighbours"][30:, 1:].max() == -1
    placed = table()
    placed.obs["array_row"], placed.obs["array_col"] = np.arange(30) // 6, np.arange(30) % 6
    array = get_preset("mclstexp", "peer").replace(standardize={}, locking="LLL")
    got = prepared(placed, table(20, image=False, spatial=False), preset=array)
    assert got.items.context["gene"]["positions"][30:].tolist() == [[0, 0]] * 20


def test_a_context_needs_frozen_features(simulated: Any) -> None:
    section = simulated.sections["P1"]
    requests: dict[str, Any] = {"image": sw.tl.ImageFeatures("test_resnet.r160_in1k", tile_um=80, tile_px=32)}
    sources = describe([section], modalities=["image"], keys={}, text_keys=(), group_key="patient")
    preset = get_preset("bleep").replace(locking="LLu", context=Context("section_knn", ("image",), {"n_neighbours": 4}))
    with pytest.raises(ValueError, match="which needs frozen features. Lock the image encoder"):
        prepare_inputs(sources, preset, requests, held_out=set(), random_state=0)
