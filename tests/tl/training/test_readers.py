from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch

import spatialwhisperer as sw
from spatialwhisperer._access.records import Where
from spatialwhisperer._access.result import Result
from spatialwhisperer._access.slide import Slide
from spatialwhisperer._access.tiles.lazy import LazyTiles
from spatialwhisperer._modalities import MODALITIES, Modality, register_modality
from spatialwhisperer.encoders.base import Encoder
from spatialwhisperer.encoders.recipe import EncoderIdentity, FeatureRecipe
from spatialwhisperer.encoders.spec import EncoderSpec
from spatialwhisperer.encoders.text.base import TextEncoder
from spatialwhisperer.pp.features.images import FeatureRecord, raw_tiles
from spatialwhisperer.tl._training import readers
from spatialwhisperer.tl._training.readers import key_of, module_dim, read_modality
from spatialwhisperer.tl._training.sources import describe
from tests.encoders.image.drawn_nuclei import lattice, tile

if TYPE_CHECKING:
    from collections.abc import Iterator

    from spatialwhisperer.tl._training.readers import Read

GENE, IMAGE, TEXT = sw.tl.GeneFeatures, sw.tl.ImageFeatures, sw.tl.TextFeatures


def table(n: int = 6, seed: int = 0, **obsm: Any) -> Any:
    counts = np.random.default_rng(seed).poisson(3, (n, 5)).astype(np.float32)
    out = ad.AnnData(sp.csr_matrix(counts), var=pd.DataFrame(index=list("ABCDE")))
    out.obs["patient"] = ["p"] * (n // 2) + ["q"] * (n - n // 2)
    for key, values in obsm.items():
        out.obsm[key] = values
    return out


def read(modality: str, request: Any, *objects: ad.AnnData, letter: str = "L", **options: Any) -> Read:
    keys = {modality: key_of(request, modality)}
    sources = describe(objects, modalities=[modality], keys=keys, text_keys=(), group_key="patient")
    defaults: dict[str, Any] = {"captions": [], "held_out": set(), "random_state": 0}
    return read_modality(modality, sources, request, letter=letter, **defaults | options)


def recorded(adata: ad.AnnData, key: str, recipe: FeatureRecipe, values: np.ndarray) -> ad.AnnData:
    """The object with features that state how they were made."""
    Slide.open(adata).put(Result(key, FeatureRecord(recipe, "MIT", Where()), obsm={key: values}))
    return adata


# ------------------------------------------------------------------------------------------------- features that are named


def test_named_features_are_taken_as_they_are_without_incomplete_rows() -> None:
    x = np.arange(12.0).reshape(6, 2)
    x[2, 1] = np.nan
    got = read("gene", GENE(key="X"), table(X=x), table(4), table(3, X=sp.csr_matrix(np.ones((3, 2)))))
    assert [p.tolist() for p in got.parts] == [np.delete(x, 2, axis=0).tolist(), np.ones((3, 2)).tolist()]
    assert [None if m is None else m.tolist() for m in got.masks] == [
        [True, True, False, True, True, True],
        None,
        [True] * 3,
    ]
    assert got.dim == 2
    assert got.recipe == FeatureRecipe(None, "X")
    assert got.encoder is None
    assert not got.trained
    assert got.parts[0].dtype == np.float32


def test_named_features_must_exist_and_be_complete_somewhere() -> None:
    with pytest.raises(KeyError, match=r"'X' is not in .obsm of any object .found: Y"):
        read("gene", GENE(key="X"), table(Y=np.zeros((6, 1))))
    with pytest.raises(ValueError, match=r"No object has complete gene features in .obsm\['X'\]"):
        read("gene", GENE(key="X"), table(X=np.full((6, 2), np.nan)))
    with pytest.raises(ValueError, match=r".obsm\['X'\] has different widths in the objects: 2, 3"):
        read("gene", GENE(key="X"), table(X=np.zeros((6, 2))), table(X=np.zeros((6, 3))))


@pytest.mark.parametrize(("modality", "request_"), [("gene", GENE(key="X")), ("image", IMAGE(key="X"))])
def test_infinite_features_are_refused(modality: str, request_: Any) -> None:
    with pytest.raises(ValueError, match=r".obsm\['X'\] is infinite, or beyond .* in 6 of 6 rows"):
        read(modality, request_, table(X=np.full((6, 2), 1e300)))


@pytest.mark.parametrize(("modality", "request_"), [("gene", GENE(key="X")), ("image", IMAGE(key="X"))])
def test_named_features_cannot_be_trained(modality: str, request_: Any) -> None:
    with pytest.raises(ValueError, match=f"fixed, and the locking code asks to train the {modality} encoder"):
        read(modality, request_, table(X=np.zeros((6, 2))), letter="U")


def test_a_recorded_recipe_is_kept_where_all_objects_have_it() -> None:
    recipe, x = FeatureRecipe(EncoderIdentity("stain_texture"), "X", (80.0,), 64), np.ones((6, 2), np.float32)
    both = [recorded(table(seed=seed), "X", recipe, x) for seed in range(2)]
    assert read("image", IMAGE(key="X"), *both).recipe == recipe
    # features of unknown origin beside them: the whole cannot be computed again
    assert read("image", IMAGE(key="X"), both[0], table(seed=2, X=x)).recipe == FeatureRecipe(None, "X")


def test_features_of_different_recipes_are_refused() -> None:
    x = np.ones((6, 2), np.float32)
    sizes = [FeatureRecipe(EncoderIdentity("stain_texture"), "X", (um,), 64) for um in (80.0, 100.0)]
    objects = [recorded(table(seed=seed), "X", recipe, x) for seed, recipe in enumerate(sizes)]
    with pytest.raises(ValueError, match=r"different tile sizes or by different encoders .*80.0 µm, 64 px; .*100.0 µm"):
        read("image", IMAGE(key="X"), *objects)


# ------------------------------------------------------------------------------------------------- counts


def test_counts_are_encoded_by_an_encoder_that_is_fitted_on_them() -> None:
    got = read("gene", GENE("pca", options={"n_latent": 2}), table(12), table(8, seed=1))
    assert [p.shape for p in got.parts] == [(12, 2), (8, 2)]
    assert got.encoder is not None
    assert got.recipe.name == "pca"
    assert np.allclose(got.parts[1], got.encoder.encode(table(8, seed=1).X), atol=1e-5)


def test_held_out_rows_do_not_shape_the_encoder() -> None:
    first, changed = table(12), table(12)
    changed.X = changed.X.toarray()
    changed.X[6:] = 7
    request = GENE("pca", options={"n_latent": 2})
    a, b = (read("gene", request, one, held_out={"q"}) for one in (first, changed))
    assert np.allclose(a.parts[0][:6], b.parts[0][:6], atol=1e-6)
    whole = read("gene", request, first)
    assert not np.allclose(np.abs(a.parts[0]), np.abs(whole.parts[0]), atol=1e-3)


def test_a_fitted_encoder_and_its_folder_are_the_same(tmp_path: Any) -> None:
    encoder = sw.pp.fit_gene_encoder(table(12), "pca", n_latent=2)
    encoder.save(tmp_path / "pca")
    one, other = read("gene", GENE(encoder), table()), read("gene", GENE(tmp_path / "pca"), table())
    assert np.array_equal(one.parts[0], other.parts[0])
    assert one.recipe == other.recipe


def test_an_encoder_without_weights_cannot_be_trained() -> None:
    with pytest.raises(ValueError, match="no weights to train"):
        read("gene", GENE("pca", options={"n_latent": 2}), table(12), letter="U")


def test_something_else_is_no_gene_encoder() -> None:
    with pytest.raises(TypeError, match="a name, a folder or a GeneEncoder, not float"):
        read("gene", GENE(3.0), table())  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------- text


class Letters(TextEncoder):
    """Length of a caption and its number of blanks."""

    spec = EncoderSpec("letters", "text", None)

    def encode(self, inputs: Any, **options: Any) -> np.ndarray:  # noqa: ARG002
        return np.array([[len(t), t.count(" ")] for t in inputs], np.float32)

    def module(self) -> torch.nn.Module:
        return torch.nn.Linear(2, 7)

    def collate(self, inputs: Any) -> torch.Tensor:
        return torch.from_numpy(self.encode(inputs))


def test_captions_of_all_objects_are_encoded_once() -> None:
    got = read("text", TEXT(Letters()), table(), captions=["a b", "abc"])
    assert got.parts[0].tolist() == [[3, 1], [3, 0]]
    assert got.masks == [None]
    assert got.dim == 2


def test_captions_of_an_encoder_that_is_trained_stay_texts() -> None:
    got = read("text", TEXT(Letters()), table(), captions=["a b", "abc"], letter="U")
    assert got.parts == [["a b", "abc"]]
    assert got.trained
    assert got.dim == 7


# ------------------------------------------------------------------------------------------------- other modalities


@pytest.fixture
def protein() -> Iterator[Modality]:
    modality = Modality("protein", reads="matrix", key="adt")
    register_modality(modality, overwrite=True)
    yield modality
    del MODALITIES["protein"]


@pytest.mark.usefixtures("protein")
def test_a_matrix_without_an_encoder_is_taken_as_it_is() -> None:
    got = read("protein", None, table(adt=np.ones((6, 3))), table())
    assert got.parts[0].tolist() == np.ones((6, 3)).tolist()
    assert got.masks[1] is None
    assert got.recipe == FeatureRecipe(None, "adt")


class Doubled(Encoder):
    """Twice its input, and the sum."""

    spec = EncoderSpec("doubled", "gene", None)

    def encode(self, inputs: Any, **options: Any) -> np.ndarray:  # noqa: ARG002
        return np.column_stack([2 * inputs, inputs.sum(axis=1)])


def test_a_matrix_with_an_encoder_is_encoded_without_incomplete_rows(
    protein: Modality, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder, x = Doubled(), np.arange(18.0).reshape(6, 3)
    x[1, 2] = np.nan
    register_modality(replace(protein, encoder="doubled"), overwrite=True)
    monkeypatch.setattr(
        readers, "open_encoder", lambda name, modality: {("doubled", "protein"): encoder}[name, modality]
    )
    got = read("protein", None, table(adt=x), table())
    whole = np.delete(x, 1, axis=0)
    assert [p.tolist() for p in got.parts] == [np.column_stack([2 * whole, whole.sum(axis=1)]).tolist()]
    assert [None if m is None else m.tolist() for m in got.masks] == [[True, False, True, True, True, True], None]
    assert (got.dim, got.trained, got.recipe) == (4, False, FeatureRecipe(encoder.identity))
    # its name does not open it
    assert got.encoder is encoder


# ------------------------------------------------------------------------------------------------- images


def test_tiles_are_read_raw_for_an_encoder_that_is_trained(simulated: Any) -> None:
    network = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    section = simulated.sections["P1"]
    got = read("image", IMAGE(network, tile_um=80, tile_px=16), section, letter="u")
    assert isinstance(got.parts[0], LazyTiles)
    assert got.parts[0].shape == (120, 3, 16, 16)
    expected, off = raw_tiles(Slide.open(section), got.recipe)
    assert np.array_equal(got.parts[0][:], expected[~off])
    assert (got.dim, got.trained) == (3, True)
    assert got.computed == ()
    assert (got.recipe.tile_um, got.recipe.tile_px) == ((80.0,), 16)


def test_stored_features_of_the_recipe_are_not_computed_again(simulated: Any) -> None:
    section = simulated.sections["P1"]
    got = read("image", IMAGE("stain_texture", tile_um=80, tile_px=64), section)
    assert np.array_equal(got.parts[0], section["table"].obsm["X_stain_texture"])
    assert got.computed == []
    # a name is enough to open it again
    assert got.encoder is None


def test_several_sizes_cannot_be_trained(simulated: Any) -> None:
    network = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    with pytest.raises(ValueError, match="takes tiles of one size, not of 80.0, 100.0 µm"):
        read("image", IMAGE(network, tile_um=(80, 100), tile_px=16), simulated.sections["P1"], letter="U")


# ------------------------------------------------------------------------------------------------- helpers


def test_the_key_of_a_modality() -> None:
    assert key_of(IMAGE("stain_texture"), "image") == "X_stain_texture"
    assert key_of(IMAGE("stain_texture", key="X"), "image") == "X"
    assert key_of(IMAGE(torch.nn.Identity()), "image") == "X_identity"
    assert key_of(GENE("pca"), "gene") is None
    assert key_of(GENE(key="X"), "gene") == "X"
    assert key_of(TEXT(), "text") is None


def test_an_encoder_that_is_trained_returns_a_matrix() -> None:
    class Flat(Encoder):
        spec = EncoderSpec("flat", "image", None)

        def encode(self, inputs: Any, **options: Any) -> np.ndarray:
            raise NotImplementedError

        def module(self) -> torch.nn.Module:
            return torch.nn.Identity()

    assert module_dim(Flat(), np.zeros((1, 4), np.float32)) == 4
    with pytest.raises(ValueError, match=r"must return a matrix \(n, d\); 'flat' returned \(1, 3, 2, 2\)"):
        module_dim(Flat(), np.zeros((1, 3, 2, 2), np.float32))
    stated: Any = SimpleNamespace(spec=EncoderSpec("stated", "image", 9))
    assert module_dim(stated, None) == 9


# ------------------------------------------------------------------------------------------------- an encoder of fine images


def with_image(mpp: float, **obsm: Any) -> Any:
    """A table with counts whose spots lie on an image of 0.5 µm per pixel, or said to be of another scale."""
    out = table(**obsm)
    out.obs_names = [f"{mpp:g}-{i}" for i in range(6)]
    out.obsm["spatial"] = np.linspace(100.0, 500.0, 12).reshape(6, 2)
    image = tile(lattice(18))
    out.uns["spatial"] = {f"L{mpp:g}": {"images": {"fullres": image.transpose(1, 2, 0)}, "scalefactors": {}}}
    sw.pp.tiles(out, tile_um=60, tile_px=48, mpp=mpp)
    return out


@pytest.mark.slow
def test_an_encoder_with_windows_takes_its_own_sizes_whatever_the_preset_and_tiles_say() -> None:
    got = read("image", IMAGE("nuclei", tile_um=(100.0, 154.0, 300.0, 600.0)), with_image(0.5))
    assert (got.recipe.name, got.recipe.tile_um, got.recipe.tile_px) == ("nuclei", (320.0,), 640)
    assert got.dim == sw.models.get_spec("nuclei").dim
    assert got.encoder is None
    ((_, result),) = got.computed
    assert set(result.obs) == {"sw_nuclei_per_mm2", "sw_nucleus_median_area_um2", "sw_lymphocyte_like_fraction"}


def test_one_image_that_is_too_coarse_decides_for_all_objects(capsys: Any) -> None:
    got = read("image", IMAGE("nuclei", tile_um=(100.0, 154.0), tile_px=48), with_image(0.5), with_image(1.0))
    assert (got.recipe.name, got.recipe.tile_um, got.recipe.tile_px) == ("stain_texture", (100, 154), 48)
    assert len(got.parts) == 2
    assert "L1 has 1: 'stain_texture' is taken instead" in capsys.readouterr().err
