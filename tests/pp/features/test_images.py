from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import anndata as ad
import numpy as np
import pytest

import spatialwhisperer as sw
from spatialwhisperer._access.slide import Slide
from spatialwhisperer._provenance import record, recorded_as
from spatialwhisperer.encoders.recipe import EncoderIdentity, FeatureRecipe
from spatialwhisperer.pp.features.encoder_choice import choose_encoder
from spatialwhisperer.pp.features.images import (
    FeatureRecord,
    Features,
    given_features,
    image_features,
    image_recipe,
    with_key,
)

UM, PX = 32, 16
KEY = "X_pixels"


@pytest.fixture
def stored(build: Any, noisy: Any) -> Any:
    """A slide with features that the package has computed."""
    noisy.uns["spatial"]["M"] = noisy.uns["spatial"]["L"]
    noisy.uns["spatial"]["L"]["scalefactors"]["microns_per_pixel"] = 0.5
    sw.pp.embed_images(noisy, encoder=build.Pixels(), tile_um=UM, tile_px=PX)
    return noisy


class Asked:
    """What comes of asking for features: whether the encoder was opened, and what was said."""

    def __init__(self, data: Any, encoder: Any, caplog: Any, *, key: str | None = None, **arguments: Any) -> None:
        options = {name: arguments.pop(name) for name in ("mpp", "image_key") if name in arguments}
        self.opened = 0
        slide, choice = Slide.open(data, **options), choose_encoder(encoder)
        self.recipe = image_recipe(slide, choice, key=key, **({"tile_um": UM, "tile_px": PX} | arguments))
        caplog.clear()
        with caplog.at_level(logging.INFO, logger="spatialwhisperer"):
            self.features: Features = image_features(slide, self.recipe, self._load(choice))
        self.scale = [m for m in caplog.messages if m.startswith("Scale of ")]
        self.said = " ".join(m for m in caplog.messages if m not in self.scale)

    def _load(self, choice: Any) -> Any:
        def load() -> Any:
            self.opened += 1
            return choice.open()

        return load


# ------------------------------------------------------------------------------------------------- stored, or again


def test_features_of_the_same_recipe_are_used_and_the_encoder_stays_closed(
    build: Any, stored: Any, caplog: Any
) -> None:
    got = Asked(stored, build.Pixels(), caplog)
    assert got.opened == 0
    assert got.features.result is None
    assert got.features.results == ()
    assert np.array_equal(got.features.values, stored.obsm[KEY])
    assert got.said == ""


def test_what_the_call_leaves_open_is_no_difference(build: Any, stored: Any, caplog: Any) -> None:
    """Sizes as whole numbers or not, one size in a sequence, and the scale that the object states as an argument."""
    for arguments in ({"tile_um": 32.0}, {"tile_um": [32]}, {"mpp": 0.5}, {"image_key": "L"}):
        assert Asked(stored, build.Pixels(), caplog, **arguments).opened == 0


def another(build: Any) -> Any:
    """An encoder of the same name with a weight of its own."""
    encoder = build.Pixels()
    encoder.gain = 2
    return encoder


def test_features_of_other_pixels_are_computed_again(build: Any, stored: Any, caplog: Any) -> None:
    """An image that was replaced under its name, as after a normalisation of its stain."""
    images = stored.uns["spatial"]["L"]["images"]
    (name,) = images
    images[name] = 255 - np.asarray(images[name])
    got = Asked(stored, build.Pixels(), caplog)
    assert got.opened == 1
    assert f".obsm['{KEY}'] was computed from other pixels than those of row " in got.said
    assert not np.allclose(got.features.values, stored.obsm[KEY])


def test_features_of_other_places_are_computed_again(build: Any, stored: Any, caplog: Any) -> None:
    stored.obsm["spatial"] = stored.obsm["spatial"][:, ::-1].copy()
    got = Asked(stored, build.Pixels(), caplog)
    assert got.opened == 1
    assert f".obsm['{KEY}'] was computed while row " in got.said
    assert "lay elsewhere" in got.said


def test_features_of_rows_that_were_renamed_are_computed_again(build: Any, stored: Any, caplog: Any) -> None:
    stored.obs_names = [f"new_{name}" for name in stored.obs_names]
    got = Asked(stored, build.Pixels(), caplog)
    assert got.opened == 1
    assert "was computed of rows with other names" in got.said


def test_some_of_the_rows_in_another_order_keep_their_features(build: Any, stored: Any, caplog: Any) -> None:
    rows = np.random.default_rng(0).permutation(stored.n_obs)[: stored.n_obs // 2]
    part = stored[rows].copy()
    got = Asked(part, build.Pixels(), caplog)
    assert got.opened == 0
    np.testing.assert_array_equal(got.features.values, stored.obsm[KEY][rows])


def test_a_replaced_image_is_noticed_by_a_single_row(build: Any, stored: Any, caplog: Any) -> None:
    images = stored.uns["spatial"]["L"]["images"]
    (name,) = images
    images[name] = 255 - np.asarray(images[name])
    for row in range(stored.n_obs):
        assert Asked(stored[[row]].copy(), build.Pixels(), caplog).opened == 1


@pytest.mark.parametrize("change", ["image", "places"])
@pytest.mark.parametrize("names", [["same"] * 5, ["same", "same", "r2", "r3", "r4"]])
def test_rows_whose_names_repeat_are_compared(
    build: Any, stored: Any, caplog: Any, names: list[str], change: str
) -> None:
    stored.obs_names = names
    sw.pp.embed_images(stored, encoder=build.Pixels(), tile_um=UM, tile_px=PX)
    assert Asked(stored, build.Pixels(), caplog).opened == 0
    if change == "image":
        images = stored.uns["spatial"]["L"]["images"]
        images["fullres"] = 255 - np.asarray(images["fullres"])
    else:
        stored.obsm["spatial"] = stored.obsm["spatial"][::-1].copy()
    assert Asked(stored, build.Pixels(), caplog).opened == 1


def two_sections(build: Any, *, names: str = "{section}{i}") -> tuple[Any, Any]:
    """Two objects of a section each, whose libraries `build.visium` names in ``.obs``."""
    out = []
    for seed, (section, n) in enumerate({"A": 4, "B": 5}.items()):
        one = build.visium({section: build.noise(seed)}, {section: build.XY[:n]})
        one.uns["spatial"][section]["scalefactors"]["microns_per_pixel"] = 0.5
        one.obs_names = [names.format(section=section, i=i) for i in range(n)]
        out.append(one)
    return out[0], out[1]


def test_the_same_names_in_two_sections_are_told_apart(build: Any, caplog: Any) -> None:
    both = ad.concat(two_sections(build, names="barcode{i}"), uns_merge="unique")
    sw.pp.embed_images(both, encoder=build.Pixels(), tile_um=UM, tile_px=PX)
    assert Asked(both, build.Pixels(), caplog).opened == 0
    one = both[(both.obs["library_id"] == "B").to_numpy()].copy()
    assert Asked(one, build.Pixels(), caplog).opened == 0
    both.obsm["spatial"][4:] = both.obsm["spatial"][4:][::-1].copy()
    assert Asked(both, build.Pixels(), caplog).opened == 1
    assert Asked(both[:4].copy(), build.Pixels(), caplog).opened == 0


# ------------------------------------------------------------------------------------------------- joined tables


@pytest.mark.parametrize("arguments", [{"tile_um": 64}, {"mpp": 0.51}, None])
def test_the_record_of_one_section_does_not_stand_for_another(build: Any, caplog: Any, arguments: Any) -> None:
    """Features of B were computed of other tiles, at another scale, or not at all."""
    a, b = two_sections(build)
    sw.pp.embed_images(a, encoder=build.Pixels(), tile_um=UM, tile_px=PX)
    if arguments is not None:
        if "mpp" in arguments:
            b.uns["spatial"]["B"]["scalefactors"]["microns_per_pixel"] = arguments.pop("mpp")
        sw.pp.embed_images(b, encoder=build.Pixels(), tile_px=PX, **({"tile_um": UM} | arguments))
    both = ad.concat([a, b], join="outer", uns_merge="first")
    got = Asked(both, build.Pixels(), caplog)
    assert got.opened == 1
    assert f".obsm['{KEY}'] was computed without section 'B'" in got.said
    assert np.isfinite(got.features.values).all()
    Slide.open(both).put(*got.features.results)
    assert Asked(both, build.Pixels(), caplog).opened == 0
    assert Asked(both[3:7].copy(), build.Pixels(), caplog).opened == 0


@pytest.mark.parametrize("merge", ["same", "unique"])
def test_features_whose_records_differ_are_replaced(build: Any, caplog: Any, merge: Any) -> None:
    """Of the records nothing is left, and the features are the package's own all the same."""
    a, b = two_sections(build)
    for one in (a, b):
        sw.pp.embed_images(one, encoder=build.Pixels(), tile_um=UM, tile_px=PX)
    both = ad.concat([a, b], uns_merge=merge)
    both.uns["spatial"] = a.uns["spatial"] | b.uns["spatial"]
    got = Asked(both, build.Pixels(), caplog)
    assert got.opened == 1
    assert got.said.endswith("The features are computed again.")
    Slide.open(both).put(*got.features.results)
    assert Asked(both, build.Pixels(), caplog).opened == 0


def test_rows_that_were_added_have_no_features_of_the_others(build: Any, stored: Any, caplog: Any) -> None:
    """Where sections have one name, or nothing names them."""
    more = ad.concat([stored, stored], uns_merge="first", index_unique="-")
    assert "was computed of 5 rows, and the table has 10" in Asked(more, build.Pixels(), caplog).said
    with pytest.warns(
        UserWarning, match="was computed of 5 rows, and the table has 10: the others are of another object"
    ):
        given_features(Slide.open(more), KEY)
    a, b = two_sections(build)
    for one in (a, b):
        del one.obs["library_id"]
        sw.pp.embed_images(one, encoder=build.Pixels(), tile_um=UM, tile_px=PX)
    with pytest.raises(ValueError, match="no column of .obs names them"):
        Asked(ad.concat([a, b], uns_merge="first"), build.Pixels(), caplog)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"tile_um": 64}, "holds features of tiles of 32 µm in 16 px, and tiles of 64 µm in 16 px are asked for"),
        ({"tile_um": (32, 64)}, "and tiles of 32 and 64 µm in 16 px are asked for"),
        ({"tile_px": 8}, "and tiles of 32 µm in 8 px are asked for"),
        ({"border": "nan"}, "and tiles of 32 µm in 16 px without those that leave the image are asked for"),
        ({"mpp": 0.51}, "was computed from another image or at another scale than is asked for"),
        ({"image_key": "M"}, "was computed from another image or at another scale than is asked for"),
    ],
)
def test_features_of_another_recipe_are_computed_again_and_this_is_said(
    build: Any, stored: Any, caplog: Any, arguments: Any, said: str
) -> None:
    before = stored.obsm[KEY].copy()
    got = Asked(stored, build.Pixels(), caplog, **arguments)
    assert got.opened == 1
    assert f".obsm['{KEY}'] {said}" in got.said or said in got.said
    assert got.said.endswith("The features are computed again.")
    assert got.features.values.shape[0] == 5
    # they were the package's own, so the new ones take their place once they are put
    assert np.array_equal(stored.obsm[KEY], before)
    assert got.features.result is not None
    Slide.open(stored).put(*got.features.results)
    assert np.array_equal(stored.obsm[KEY], got.features.values, equal_nan=True)
    assert Asked(stored, build.Pixels(), caplog, **arguments).opened == 0


def test_features_of_another_encoder_are_computed_again(build: Any, stored: Any, caplog: Any) -> None:
    got = Asked(stored, another(build), caplog)
    assert got.opened == 1
    assert "holds features of another 'pixels', and those of 'pixels' are asked for" in got.said
    got = Asked(stored, build.Pixels(name="others"), caplog, key=KEY)
    assert got.opened == 1
    assert "holds features of 'pixels', and those of 'others' are asked for" in got.said


def test_features_that_are_not_stored_are_computed_and_no_more_than_the_scale_is_said(
    build: Any, stored: Any, caplog: Any
) -> None:
    got = Asked(stored, build.Pixels(name="others"), caplog)
    assert (got.opened, got.said, len(got.scale)) == (1, "", 1)
    assert got.features.result is not None
    assert got.features.result.key == "X_others"
    assert "X_others" not in stored.obsm


def test_features_of_unknown_origin_are_neither_used_nor_overwritten(build: Any, stored: Any, caplog: Any) -> None:
    computed = stored.obsm[KEY].copy()
    stored.obsm[KEY] = np.zeros((5, 3))
    for wrong in ({}, None, {"recipe": 3}):
        del stored.uns["spatialwhisperer"]
        if wrong is not None:
            record(stored, KEY, wrong)
        else:
            stored.uns["spatialwhisperer"] = {}
        got = Asked(stored, build.Pixels(), caplog)
        assert got.opened == 1
        assert "has no record of how it was made" in got.said
        assert (
            f"what lies there is left as it is. A model of image=sw.tl.ImageFeatures(key='{KEY}') uses it" in got.said
        )
        assert got.features.result is None
        assert np.array_equal(got.features.values, computed)
    assert (stored.obsm[KEY] == 0).all()


def test_features_that_are_named_by_their_key_are_used_as_they_are(stored: Any) -> None:
    mine = np.arange(10.0).reshape(5, 2)
    stored.obsm["X_mine"] = mine

    def never() -> Any:
        raise AssertionError("no encoder is needed")

    got = image_features(Slide.open(stored), FeatureRecipe(None, "X_mine"), never)
    assert np.array_equal(got.values, mine)
    assert got.values.dtype == np.float32
    assert got.result is None
    with pytest.raises(KeyError, match=r"'X_gone' is not in \.obsm \(found: spatial, X_pixels, X_mine\)"):
        image_features(Slide.open(stored), FeatureRecipe(None, "X_gone"), never)


def test_recorded_features_of_a_slide_without_an_image_are_used(build: Any, stored: Any, caplog: Any) -> None:
    del stored.uns["spatial"]
    assert Asked(stored, build.Pixels(), caplog).opened == 0
    del stored.obsm["spatial"]
    assert Asked(stored, build.Pixels(), caplog).opened == 0
    # other ones cannot be had
    with pytest.raises(KeyError, match=r"'spatial' not in \.obsm"):
        Asked(stored, build.Pixels(), caplog, tile_um=64)


def test_recorded_features_are_used_where_the_object_does_not_settle_where_they_are_from(
    build: Any, stored: Any, caplog: Any
) -> None:
    del stored.uns["spatial"]["L"]["scalefactors"]["microns_per_pixel"]
    assert Asked(stored, build.Pixels(), caplog).opened == 0
    # of two libraries without a column that names them
    del stored.obs["library_id"]
    assert Asked(stored, build.Pixels(), caplog).opened == 0
    with pytest.raises(ValueError, match="no column of .obs names them"):
        Asked(stored, build.Pixels(), caplog, image_key="L")


@pytest.mark.parametrize("kind", ["rounded", "exact"])
def test_recorded_features_of_a_part_of_the_rows_are_used(build: Any, caplog: Any, kind: str) -> None:
    """A pitch that is measured on fewer spots differs in its last digits."""
    row, col = (i.ravel() for i in np.mgrid[:14, :14])
    col = 2 * col + row % 2
    xy = 37.3 * np.column_stack([col / 2, row * np.sqrt(3) / 2]) + 30
    adata = build.visium({"L": build.noise()}, {"L": np.rint(xy) if kind == "rounded" else xy})
    adata.obs["array_row"], adata.obs["array_col"] = row, col
    adata.uns["spatial"]["L"]["scalefactors"]["spot_diameter_fullres"] = 20.0
    sw.pp.embed_images(adata, encoder=build.Pixels(), tile_um=UM, tile_px=8)
    for part in (adata[::3].copy(), adata[:40].copy()):
        assert Asked(part, build.Pixels(), caplog, tile_px=8).said == ""
    sw.pp.embed_images(adata, encoder=build.Pixels(), tile_um=UM, tile_px=8, spot_pitch_um=100)
    assert Asked(adata[::2].copy(), build.Pixels(), caplog, tile_px=8).said == ""


# ------------------------------------------------------------------------------------------------- what is asked for


def test_a_named_encoder_is_known_before_it_is_opened() -> None:
    choice = choose_encoder("stain_texture")
    assert choice.identity == EncoderIdentity("stain_texture")
    assert choice.identity.by_name
    assert choice.spec.tile_um == 154.0
    assert choice.open().spec == choice.spec
    with pytest.raises(ValueError, match="no image encoder 'stain_textures'. Did you mean stain_texture"):
        choose_encoder("stain_textures")


def test_a_module_is_told_from_others_by_its_weights() -> None:
    import torch

    torch.manual_seed(0)
    nets = [torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(3, 2)) for _ in "ab"]
    first, second = (choose_encoder(net).identity for net in nets)
    assert first.name == second.name
    assert first.digest != second.digest
    assert choose_encoder(nets[0]).identity == first


def test_sizes_come_from_the_call_then_tiles_then_the_encoder(build: Any, noisy: Any) -> None:
    def recipe(spec: dict[str, Any], **arguments: Any) -> tuple[Any, Any]:
        got = image_recipe(Slide.open(noisy), choose_encoder(build.Pixels(**spec)), **arguments)
        return got.tile_um, got.tile_px

    own = {"tile_um": 100.0, "input_px": 32}
    assert recipe(own) == ((100.0,), 32)
    assert recipe({"input_px": 32, "mpp": 0.25}) == ((8.0,), 32)
    assert recipe({"tile_um": 100.0}) == ((100.0,), 224)
    assert recipe(own, tile_um=(10, 20), tile_px=8) == ((10.0, 20.0), 8)
    with pytest.raises(ValueError, match="encoder 'pixels' names no field of view"):
        recipe({})
    sw.pp.tiles(noisy, tile_um=50, tile_px=40, mpp=0.5)
    assert recipe(own) == ((50.0,), 40)
    assert recipe(own, tile_um=10) == ((10.0,), 40)
    assert recipe(own, tile_px=8) == ((50.0,), 8)
    with pytest.raises(ValueError, match="border must be one of"):
        recipe(own, border="wrap")


def test_a_recipe_names_the_key_of_its_features(build: Any, noisy: Any) -> None:
    slide, choice = Slide.open(noisy), choose_encoder(build.Pixels(name="org/model:v1"))
    recipe = image_recipe(slide, choice, tile_um=10)
    assert recipe.key == "X_org_model_v1"
    assert image_recipe(slide, choice, tile_um=10, key="X_mine").key == "X_mine"
    moved = with_key(recipe, "X_other")
    assert moved.key == "X_other"
    assert moved.same_features(recipe)


def test_features_are_the_same_where_everything_but_their_key_is() -> None:
    recipe = FeatureRecipe(EncoderIdentity("a"), "X_a", (10.0,), 16)
    assert recipe.same_features(replace(recipe, key=None))
    for other in (
        replace(recipe, encoder=EncoderIdentity("b")),
        replace(recipe, encoder=EncoderIdentity("a", revision="1")),
        replace(recipe, encoder=EncoderIdentity("a", digest="1")),
        replace(recipe, tile_um=(10.0, 20.0)),
        replace(recipe, tile_px=32),
        replace(recipe, border="nan"),
        FeatureRecipe(None, "X_a"),
    ):
        assert not recipe.same_features(other)
    # of unknown origin: nobody can say so
    assert not FeatureRecipe(None, "X_a").same_features(FeatureRecipe(None, "X_a"))


def test_records_are_read_back(build: Any, stored: Any) -> None:
    got = recorded_as(stored, KEY, FeatureRecord)
    assert got is not None
    assert got.licence == "BSD-3-Clause"
    assert got.recipe.encoder == choose_encoder(build.Pixels()).identity
    assert got.where.rule == {"L": "microns_per_pixel in the scale factors"}


def test_given_features_may_be_sparse(noisy: Any) -> None:
    import scipy.sparse as sp

    noisy.obsm["X_mine"] = sp.csr_matrix(np.eye(5, 3))
    assert np.array_equal(given_features(Slide.open(noisy), "X_mine"), np.eye(5, 3))
