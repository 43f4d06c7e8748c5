from __future__ import annotations

import numpy as np
import pytest

from spatialwhisperer._compute import blocks
from spatialwhisperer.encoders.catalogue import get_spec, open_encoder
from spatialwhisperer.encoders.image.nuclei import NucleiEncoder, fit_words
from spatialwhisperer.encoders.image.stain import REFERENCE_STAINS, SlideStain
from tests.encoders.image.drawn_nuclei import EDGE, MPP, lattice, tile


@pytest.fixture(scope="module")
def encoder() -> NucleiEncoder:
    return NucleiEncoder()


@pytest.fixture(scope="module")
def regular() -> np.ndarray:
    """Discs of 7 µm, one in each square of 18 µm."""
    return tile(lattice(18))


def value(encoder: NucleiEncoder, features: np.ndarray, name: str) -> float:
    return float(features[encoder.feature_names().index(name)])


def test_number_area_and_stain_of_drawn_nuclei(encoder, regular):
    found = encoder.encode(regular[None], mpp=MPP)[0]
    # centres of discs are 9 µm from the centre of the tile, then 27, 45, …
    for um, n in ((100, 6**2), (154, 8**2), (300, 16**2)):
        density = n / (um / 1000) ** 2
        assert value(encoder, found, f"log_nuclei_per_mm2_{um}um") == pytest.approx(np.log1p(density), rel=1e-4)
        # the mask reaches half a micron beyond dark discs of 38.5 µm²
        assert np.exp(value(encoder, found, f"log_median_area_um2_{um}um")) == pytest.approx(np.pi * 4**2, rel=0.1)
        assert value(encoder, found, f"lymphocyte_like_fraction_{um}um") == 1
        assert value(encoder, found, f"mean_h_{um}um") == pytest.approx(0.9 * (3.5 / 4) ** 2, rel=0.1)
        assert value(encoder, found, f"mean_e_{um}um") == pytest.approx(0.3, rel=0.1)
        assert value(encoder, found, f"mean_ring_e_{um}um") == pytest.approx(0.3, rel=0.1)
        assert abs(value(encoder, found, f"mean_ring_h_{um}um")) < 0.05
        area = value(encoder, found, f"nuclear_area_fraction_{um}um")
        assert area == pytest.approx(density * np.pi * 4e-3**2, rel=0.1)


def test_columns_are_what_people_read(encoder, regular):
    sparse = tile(np.array([[300, 300], [340, 340]]))
    features = np.concatenate(
        [encoder.encode(np.stack([regular, sparse]), mpp=MPP), np.full((1, encoder.spec.dim), np.nan, np.float32)]
    )
    got = encoder.columns(features)
    assert {c.dtype for c in got.values()} == {np.dtype(np.float32)}
    np.testing.assert_allclose(got["sw_nuclei_per_mm2"], [3600, 200, np.nan], rtol=1e-4)
    area, lymphocytes = got["sw_nucleus_median_area_um2"], got["sw_lymphocyte_like_fraction"]
    assert area[0] == pytest.approx(np.pi * 3.5**2, rel=0.05)
    assert lymphocytes[0] == 1
    assert np.isnan([area[1:], lymphocytes[1:]]).all()


@pytest.mark.parametrize("radius_um", [2.6, 3.0, 4.0, 5.5])
def test_the_area_that_people_read_is_that_of_the_nuclei(encoder, radius_um):
    got = encoder.columns(encoder.encode(tile(lattice(20), radius_um)[None], mpp=MPP))
    assert got["sw_nucleus_median_area_um2"][0] == pytest.approx(np.pi * radius_um**2, rel=0.1)


def test_nuclei_without_an_area_have_none_to_read(encoder):
    features = encoder.encode(tile(lattice(20))[None], mpp=MPP)
    features[:, encoder.feature_names().index("log_median_area_um2_100um")] = np.log(0.5)
    assert encoder.columns(features)["sw_nucleus_median_area_um2"][0] == 0


def test_evenly_dark_nuclei_count_once_up_to_11_um(encoder):
    """A known limit: the response to blobs has several maxima in larger ones."""
    centres = lattice(24)
    once, several = (len(encoder.measure(tile(centres, r)[None], mpp=MPP)[0].places) for r in (5.5, 7.0))
    assert once == len(centres)
    assert 3 * len(centres) < several < 4 * len(centres)


def test_large_nuclei_are_larger_and_not_lymphocyte_like(encoder):
    found = encoder.encode(tile(lattice(25), 5.5)[None], mpp=MPP)
    got = encoder.columns(found)
    assert got["sw_nucleus_median_area_um2"][0] == pytest.approx(np.pi * 5.5**2, rel=0.05)
    assert got["sw_lymphocyte_like_fraction"][0] == 0


def test_two_nuclei_that_touch_are_counted_as_two(encoder):
    pairs = lattice(40)
    centres = np.concatenate([pairs - [7, 0], pairs + [7, 0]])
    (found,) = encoder.measure(tile(centres, 4.0)[None], mpp=MPP)
    inner = np.abs(centres - (EDGE - 1) / 2).max(axis=1) < 280
    away = np.linalg.norm(found.places[None, :, :2] - centres[inner, None], axis=2)
    assert (away.min(axis=1) < 3).mean() > 0.95


def test_features_do_not_depend_on_where_nuclei_lie_in_the_windows(encoder, regular):
    names = encoder.feature_names()
    moved = tile(lattice(18, shift=(3, -2)))
    a, b = encoder.encode(np.stack([regular, moved]), mpp=MPP)
    keep = [k for k, name in enumerate(names) if name.startswith(("log_nuclei", "log_median", "mean_", "lymphocyte"))]
    np.testing.assert_allclose(a[keep], b[keep], atol=0.03)


def test_rows_depend_on_their_own_tile_alone_whatever_the_number_of_threads(encoder, monkeypatch):
    rng = np.random.default_rng(0)
    tiles = np.stack([tile(rng.uniform(0, EDGE, (n, 2)), rng.uniform(2, 6, n)) for n in (10, 200, 500)])
    together = encoder.encode(tiles, mpp=MPP)
    for cores in (1, 3):
        monkeypatch.setattr(blocks, "cores", lambda cores=cores: cores)
        np.testing.assert_array_equal(encoder.encode(tiles, mpp=MPP), together)
    apart = np.concatenate([encoder.encode(t[None], mpp=MPP) for t in tiles[::-1]])[::-1]
    np.testing.assert_array_equal(apart, together)
    assert encoder.encode(tiles[:0], mpp=MPP).shape == (0, together.shape[1])


def test_a_tile_without_nuclei_has_the_training_median_and_no_density(encoder):
    names = encoder.feature_names()
    blank = [np.full((3, EDGE, EDGE), v, np.uint8) for v in (255, 0, 200)]
    for row in encoder.encode(np.stack(blank), mpp=MPP):
        for k, name in enumerate(names):
            counted = name.startswith(("log_nuclei", "nuclear_area")) or "_density" in name
            assert row[k] == (0 if counted else encoder.words.medians[k])


def test_masked_background_counts_as_white(encoder, regular):
    white, black = regular.copy(), regular.copy()
    white[..., :250], black[..., :250] = 255, 12
    np.testing.assert_array_equal(*encoder.encode(np.stack([white, black]), mpp=MPP))


@pytest.mark.parametrize("noise", [0, 1])
def test_every_tile_gives_finite_numbers(encoder, noise):
    rng = np.random.default_rng(noise)
    tiles = rng.integers(0, 256, (2, 3, 620, 620), dtype=np.uint8)
    tiles[1] = np.where(tiles[1] > 127, 255, 0)
    assert np.isfinite(encoder.encode(tiles, mpp=MPP)).all()
    assert np.isfinite(encoder.encode(tiles[..., :420, :420], mpp=0.74)).all()


def test_the_stain_of_the_image_does_not_change_what_is_found(encoder):
    rng = np.random.default_rng(0)
    centres = lattice(16) + rng.uniform(-4, 4, (len(lattice(16)), 2))
    reference = tile(centres, rng.uniform(2.5, 4.5, len(centres)))
    # stronger stains, on a bluer white
    density = -np.log10((reference.astype(float) + 1) / 256)
    other = np.clip(np.array([235, 240, 252])[:, None, None] * 10 ** (-1.3 * density), 0, 255).round().astype(np.uint8)
    known = SlideStain.reference()
    first, second = known.strengths
    stains = [known, SlideStain((235.0, 240.0, 252.0), known.stains, (1.3 * first, 1.3 * second))]
    a, b = (
        NucleiEncoder(encoder.words, stain).encode(image[None], mpp=MPP)[0]
        for image, stain in zip((reference, other), stains, strict=True)
    )
    raw = encoder.encode(other[None], mpp=MPP)[0]
    keep = [k for k, name in enumerate(encoder.feature_names()) if name.startswith(("log_", "mean_", "nuclear"))]
    np.testing.assert_allclose(a[keep], b[keep], atol=0.02)
    assert np.abs(a - raw)[keep].max() > 5 * np.abs(a - b)[keep].max()


def test_a_look_at_the_image_estimates_its_stains(encoder, regular):
    assert encoder.looks_at_image
    seen = encoder.on_image(regular[None], mpp=MPP)
    assert seen.stain == SlideStain.estimate(regular[None], mpp=MPP)
    assert seen.identity == encoder.identity
    np.testing.assert_allclose(
        encoder.stain.stains[0], np.array(REFERENCE_STAINS[0]) / np.linalg.norm(REFERENCE_STAINS[0])
    )


def test_names_match_columns_and_the_registry(encoder, regular):
    names = encoder.feature_names()
    spec = get_spec("nuclei")
    assert encoder.encode(regular[None], mpp=MPP).dtype == np.float32
    assert len(set(names)) == len(names) == spec.dim == len(encoder.words.medians)
    assert (spec.tile_um, spec.input_px, spec.windows_um, spec.coarsest_mpp) == (320, 640, (100, 154, 300), 0.75)
    assert isinstance(open_encoder("nuclei", "image"), NucleiEncoder)


def test_bad_input_is_named(encoder, regular):
    with pytest.raises(TypeError, match="uint8"):
        encoder.encode(regular[None] / 255, mpp=MPP)
    with pytest.raises(ValueError, match=r"at least 300 µm at 0.75 µm per pixel or finer; these have 320 µm at 3.2"):
        encoder.encode(regular[None, :, :100, :100], mpp=3.2)
    with pytest.raises(ValueError, match=r"these have 200 µm at 0.5"):
        encoder.encode(regular[None, :, :400, :400], mpp=0.5)
    with pytest.raises(ValueError, match="'nuclei' has no weights to train"):
        encoder.module()


def test_identity_tells_the_words(encoder):
    assert encoder.identity.by_name
    assert encoder.identity == NucleiEncoder.identify("nuclei")
    assert encoder.identity.revision == encoder.words.digest[:12]
    other = fit_words([encoder.measure(tiles, mpp=MPP) for tiles in _kinds()], pitch_um=200, source="drawn", n_words=2)
    assert NucleiEncoder(other).identity.digest == other.digest

    class Derived(NucleiEncoder):
        pass

    assert not Derived().identity.by_name


def test_words_of_two_kinds_of_nuclei_tell_them_apart(encoder):
    small, large = (encoder.measure(tiles, mpp=MPP) for tiles in _kinds())
    words = fit_words([small, large], pitch_um=200, source="drawn", n_words=2)
    again = fit_words([small, large], pitch_um=200, source="drawn", n_words=2)
    assert words.digest == again.digest
    of_small, of_large = (words.resemblance(np.concatenate([n.measures for n in kind])) for kind in (small, large))
    word = int(of_small.mean(axis=0).argmax())
    assert of_small[:, word].mean() > 0.9
    assert of_large[:, word].mean() < 0.1
    np.testing.assert_allclose(of_small.sum(axis=1), 1, rtol=1e-5)


def _kinds() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    centres = lattice(25) + rng.uniform(-3, 3, (len(lattice(25)), 2))
    return tile(centres, 2.8)[None], tile(centres, 6.0, h=0.7)[None]
