"""Rows of a slide in the joint space."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

import spatialwhisperer as sw
from spatialwhisperer import _modalities
from spatialwhisperer._access.slide import Slide
from spatialwhisperer._messages import SpatialWhispererWarning
from spatialwhisperer._modalities import Modality
from spatialwhisperer._provenance import record
from spatialwhisperer.encoders.image.networks.module import ModuleEncoder
from spatialwhisperer.encoders.recipe import FeatureRecipe
from spatialwhisperer.encoders.spec import EncoderSpec
from spatialwhisperer.models.configuration.model import ContextConfig, HeadConfig, ModalityConfig, ModelConfig
from spatialwhisperer.models.whisperer import Whisperer
from spatialwhisperer.tl._embedding.rows import (
    Embedded,
    check_any_row,
    check_modality,
    choose_modality,
    context_positions,
    embed_rows,
    given_rows,
    holds,
    row_inputs,
)

if TYPE_CHECKING:
    from pathlib import Path

    import anndata as ad

# ------------------------------------------------------------------------------------------------- which modality


def test_the_image_is_read_before_the_genes(rows: ad.AnnData, given: Whisperer) -> None:
    assert choose_modality(Slide.open(rows), given) == "image"
    del rows.obsm["X_tiles"]
    assert choose_modality(Slide.open(rows), given) == "gene"
    del rows.obsm["X_genes"]
    with pytest.raises(KeyError, match=r"nothing to embed: the model has .*no \.obsm\['X_tiles'\]\) and 0 genes"):
        choose_modality(Slide.open(rows), given)


def test_an_image_without_its_scale_factor_is_not_passed_over_in_silence(
    model: Any, adata: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    del adata.obsm["X_stain_texture"]
    library = adata.uns["spatial"]["P3"]
    library["images"] = {"hires": library["images"]["fullres"]}
    with pytest.warns(
        SpatialWhispererWarning, match=r"without an image\. Library 'P3' holds the image 'hires' without"
    ):
        assert choose_modality(Slide.open(adata), model) == "gene"
    assert "No H&E image was found: 'gene' is the modality that is read" in capsys.readouterr().err
    meant: Any
    for meant in ({"mpp": 0.5}, {"spot_pitch_um": 100.0}):
        with pytest.raises(
            ValueError, match=rf"{next(iter(meant))}=… is about an image that cannot be read\. Library 'P3'"
        ):
            choose_modality(Slide.open(adata, **meant), model)
    library["scalefactors"]["tissue_hires_scalef"] = 1.0
    assert choose_modality(Slide.open(adata, mpp=0.5), model) == "image"
    # without an image and its scale, and without positions
    del adata.uns["spatial"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert choose_modality(Slide.open(adata, mpp=0.5), model) == "gene"
        assert "No H&E image was found" in capsys.readouterr().err
        del adata.obsm["spatial"]
        assert choose_modality(Slide.open(adata), model) == "gene"
    assert capsys.readouterr().err == ""


def test_a_modality_is_held_where_its_input_is_there(
    rows: ad.AnnData, given: Whisperer, model: Any, adata: Any
) -> None:
    slide = Slide.open(rows)
    assert [holds(slide, given, m) for m in ("image", "gene", "text", "protein")] == [True, True, False, False]
    # an image and counts, from which features can be computed
    del adata.obsm["X_stain_texture"]
    assert holds(Slide.open(adata), model, "image")
    assert holds(Slide.open(adata), model, "gene")
    del adata.uns["spatial"]
    assert not holds(Slide.open(adata), model, "image")
    assert not holds(Slide.open(adata[:, :0].copy()), model, "gene")


@pytest.mark.parametrize(
    ("modality", "message"),
    [("text", "a table holds no text of its own; choose 'gene' or 'image'"), ("smell", "there is no such modality")],
)
def test_a_modality_without_rows_is_refused(modality: str, message: str) -> None:
    check_modality(None)
    check_modality("image")
    with pytest.raises(ValueError, match=message):
        check_modality(modality)


# ------------------------------------------------------------------------------------------------- embedding


def test_stored_features_are_projected(rows: ad.AnnData, given: Whisperer) -> None:
    got: Any = embed_rows(Slide.open(rows), given, "image")
    expected = given.project("image", rows.obsm["X_tiles"])
    assert np.array_equal(got.z, expected, equal_nan=True)
    assert np.isnan(got.z[2]).all()
    assert np.isfinite(np.delete(got.z, 2, axis=0)).all()
    assert np.array_equal(got.features, rows.obsm["X_tiles"], equal_nan=True)
    # nothing had to be computed but the embedding
    (result,) = got.results
    assert (result.key, list(result.obsm)) == ("X_sw_image", ["X_sw_image"])
    assert result.parameters["modality"] == "image"
    assert embed_rows(Slide.open(rows), given, "image", key_added="X_mine").results[-1].key == "X_mine"


def test_what_is_missing_is_named(rows: ad.AnnData, given: Whisperer) -> None:
    with pytest.raises(KeyError, match=r"cannot embed 'protein' from a table \(it has: image, gene, text\)"):
        embed_rows(Slide.open(rows), given, "protein")
    with pytest.raises(KeyError, match="'text' is not read from the rows of a table"):
        embed_rows(Slide.open(rows), given, "text")
    del rows.obsm["X_genes"]
    with pytest.raises(KeyError, match=r"'X_genes' is not in \.obsm \(found: X_tiles\)"):
        embed_rows(Slide.open(rows), given, "gene")


def test_a_matrix_is_a_modality(rows: ad.AnnData, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(_modalities.MODALITIES, "protein", Modality("protein", reads="matrix", key="protein"))
    recipe = FeatureRecipe(None, "protein")
    model = Whisperer(ModelConfig(3, {"protein": ModalityConfig(recipe, 4, HeadConfig("linear", 4))}))
    rows.obsm["protein"] = np.nan_to_num(rows.obsm["X_tiles"])
    assert choose_modality(Slide.open(rows), model) == "protein"
    got = embed_rows(Slide.open(rows), model, "protein")
    assert got.results[-1].key == "X_sw_protein"
    assert np.array_equal(got.z, model.project("protein", rows.obsm["protein"]))


def test_a_trained_encoder_reads_tiles(adata: Any) -> None:
    """Rows whose centre lies outside the image have no tile."""
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten())
    encoder = ModuleEncoder(network, EncoderSpec("pooled", "image", 12))
    recipe = FeatureRecipe(encoder.identity, "X_pooled", (80.0,), 16)
    image = ModalityConfig(recipe, 12, HeadConfig("linear", 12), trained=True)
    model = Whisperer(ModelConfig(3, {"image": image}), encoders={"image": encoder})
    adata.obsm["spatial"][[4, 50]] += 1e5
    sw.pp.tiles(adata, tile_um=80, tile_px=16, off_slide="nan")
    slide = Slide.open(adata)
    inputs: Any = row_inputs(slide, model, "image")
    assert inputs.values.shape == (120, 3, 16, 16)
    assert np.flatnonzero(inputs.missing).tolist() == [4, 50]
    got = embed_rows(slide, model, "image")
    assert np.flatnonzero(np.isnan(got.z).any(axis=1)).tolist() == [4, 50]
    assert got.features is None
    (result,) = got.results
    assert result.key == "X_sw_image"
    assert result.parameters["where"].image == slide.where.image  # for pictures, where no features are stored


def test_computed_features_are_written_and_read_again(adata: Any, model: Any) -> None:
    del adata.obsm["X_stain_texture"]
    slide = Slide.open(adata)
    first = row_inputs(slide, model, "image")
    assert [r.key for r in first.results] == ["X_stain_texture"]
    assert "X_stain_texture" not in adata.obsm
    slide.put(*first.results)
    second = row_inputs(Slide.open(adata), model, "image")
    assert second.results == ()
    assert np.array_equal(second.values, first.values)


def test_positions_are_those_that_the_context_needs(rows: ad.AnnData, given: Whisperer) -> None:
    rows.obsm["spatial"] = np.stack([np.arange(8) * 10.0, np.zeros(8)], axis=1)
    rows.obs["array_row"], rows.obs["array_col"] = 0, np.arange(8)
    slide = Slide.open(rows)
    assert context_positions(slide, given, "image") is None
    given.config = given.config.with_modality("image", context=ContextConfig("section_mean"))
    positions: Any = context_positions(slide, given, "image")
    assert np.array_equal(positions, rows.obsm["spatial"])
    given.config = given.config.with_modality("image", context=ContextConfig("batch_peer"))
    positions = context_positions(slide, given, "image")
    assert positions[:, 0].tolist() == list(range(8))


# ------------------------------------------------------------------------------------------------- stored embeddings


def test_a_stored_embedding_keeps_its_modality(rows: ad.AnnData, given: Whisperer) -> None:
    z = np.eye(3, dtype=np.float32)[[0, 1, 2, 0, 1, 2, 0, 1]]
    for key in ("X_sw_gene", "X_recorded", "X_unknown"):
        rows.obsm[key] = z
    record(rows, "X_recorded", {"modality": "image"})
    slide = Slide.open(rows)
    stored = {key: given_rows(slide, given, key, None) for key in ("X_sw_gene", "X_recorded", "X_unknown")}
    assert {key: one.modality for key, one in stored.items()} == {
        "X_sw_gene": "gene",
        "X_recorded": "image",
        "X_unknown": None,
    }
    assert given_rows(slide, given, "X_unknown", "image").modality == "image"
    # as anndata.concat leaves it: without its record
    with pytest.raises(ValueError, match=r"\.obsm\['X_sw_gene'\] was embedded from 'gene', not from 'image'"):
        given_rows(slide, given, "X_sw_gene", "image")
    assert all(np.array_equal(one.z, z) and one.results == () for one in stored.values())


def test_an_embedding_of_another_model_is_refused(rows: ad.AnnData, given: Whisperer) -> None:
    with pytest.raises(ValueError, match=r"\.obsm\['X_tiles'\] has 4 dimensions, the model 3: another model wrote it"):
        given_rows(Slide.open(rows), given, "X_tiles", None)
    with pytest.raises(KeyError, match=r"'X_none' not in \.obsm.*sw\.tl\.embed"):
        given_rows(Slide.open(rows), given, "X_none", None)


def test_an_embedding_that_is_recorded_of_another_model_is_refused(
    rows: ad.AnnData, given: Whisperer, tmp_path: Path
) -> None:
    slide = Slide.open(rows)
    slide.put(*embed_rows(slide, given, "image", key_added="X_mine").results)
    z = rows.obsm["X_mine"]
    assert np.array_equal(given_rows(slide, given, "X_mine", None).z, z, equal_nan=True)
    # the same model under another folder, and with another temperature
    again = Whisperer.load(given.save(tmp_path / "model"), encoders=dict(given.encoders))
    again.log_scale.data += 1
    assert np.array_equal(given_rows(slide, again, "X_mine", None).z, z, equal_nan=True)
    with torch.no_grad():
        next(again.heads["image"].parameters()).mul_(2)
    message = (
        r"\.obsm\['X_mine'\] was embedded by another model.*sw\.tl\.embed\(data, model=model, key_added='X_mine'\)"
    )
    with pytest.raises(ValueError, match=message):
        given_rows(slide, again, "X_mine", None)
    # a model without the modality
    other = Whisperer(ModelConfig(3, {"gene": given.config.modality("gene")}))
    with pytest.raises(ValueError, match="another model"):
        given_rows(slide, other, "X_mine", "gene")


def test_another_modality_than_the_recorded_one_is_refused(rows: ad.AnnData, given: Whisperer) -> None:
    slide = Slide.open(rows)
    slide.put(*embed_rows(slide, given, "gene", key_added="X_mine").results)
    assert given_rows(slide, given, "X_mine", "gene").modality == "gene"
    with pytest.raises(
        ValueError, match=r"\.obsm\['X_mine'\] was embedded from 'gene', not from 'image'.*modality='image'"
    ):
        given_rows(slide, given, "X_mine", "image")


def test_rows_that_are_not_of_unit_length_are_refused(rows: ad.AnnData, given: Whisperer) -> None:
    slide = Slide.open(rows)
    z = embed_rows(slide, given, "image").z
    for stored in (z, z.astype(np.float16), z.astype(np.float64)):
        rows.obsm["X_mine"] = stored
        assert np.allclose(given_rows(slide, given, "X_mine", None).z, z, atol=1e-3, equal_nan=True)
    rows.obsm["X_mine"] = z * np.where(np.arange(8) == 5, 1.002, 1)[:, None]
    with pytest.raises(ValueError, match=r"1 of 8 rows of \.obsm\['X_mine'\] are not of unit length \(row 5: 1\.002\)"):
        given_rows(slide, given, "X_mine", None)
    rows.obsm["X_mine"] = np.nan_to_num(5 * z)
    with pytest.raises(
        ValueError, match=r"8 of 8 rows .*\(row 0: 5\).*sw\.tl\.embed\(data, model=model, key_added='X_mine'\)"
    ):
        given_rows(slide, given, "X_mine", None)


def test_a_section_without_any_embedding_is_said(rows: ad.AnnData, given: Whisperer) -> None:
    rows.obs["library_id"] = ["A"] * 4 + ["B"] * 4
    rows.uns["spatial"] = {"A": {}, "B": {}}
    rows.obsm["X_mine"] = np.full((8, 3), 3**-0.5, np.float32)
    rows.obsm["X_mine"][2] = np.nan
    given_rows(Slide.open(rows), given, "X_mine", None)
    rows.obsm["X_mine"][4:] = np.nan
    with pytest.warns(UserWarning, match=r"No row of section B has an embedding in \.obsm\['X_mine'\]"):
        given_rows(Slide.open(rows), given, "X_mine", None)


@pytest.mark.parametrize(
    ("modality", "key", "message"),
    [
        ("image", "X_mine", r"\.obsm\['X_mine'\] holds NaN in each row"),
        ("image", None, "the tile of each leaves the slide"),
        ("gene", None, "no row has counts in the model's genes"),
        ("protein", None, "the values of each row hold NaN"),
    ],
)
def test_a_slide_without_any_embedding_is_refused(modality: str, key: str | None, message: str) -> None:
    z = np.full((5, 3), np.nan, np.float32)
    with pytest.raises(ValueError, match=f"None of the 5 rows has an embedding: .*{message}"):
        check_any_row(Embedded(z, modality), key)
    z[3] = 1
    check_any_row(Embedded(z, modality), key)
