"""A new encoder is one class under one decorator, and a new modality one entry: nothing else has to be edited."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from scipy import sparse

import spatialwhisperer as sw

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path


@pytest.fixture(scope="module")
def own_encoders() -> Iterator[None]:
    """One encoder of each modality, registered here and forgotten again."""
    from spatialwhisperer.encoders.registry import ENTRIES

    before = dict(ENTRIES)

    @sw.models.register_encoder(sw.models.EncoderSpec("quadrant_colour", "image", 12, tile_um=80.0, input_px=32))
    class QuadrantColour(sw.models.ImageEncoder):
        """Mean colour of the four quarters of a tile."""

        def encode(self, inputs: np.ndarray, *, mpp: float, device: str | None = None) -> np.ndarray:  # noqa: ARG002
            half = inputs.shape[-1] // 2
            corners = [inputs[:, :, i : i + half, j : j + half] for i in (0, half) for j in (0, half)]
            return np.concatenate([c.mean(axis=(2, 3)) for c in corners], axis=1).astype(np.float32)

    @sw.models.register_encoder(sw.models.EncoderSpec("log_counts", "gene", None))
    class LogCounts(sw.models.GeneEncoder):
        """Logarithm of the counts of the genes that vary most."""

        @classmethod
        def fit(
            cls, counts: Any, genes: Sequence[str], gene_ids: Sequence[str] | None = None, *, n_latent: int = 20
        ) -> LogCounts:
            logged = np.log1p(sparse.csr_matrix(counts).toarray())
            keep = np.sort(np.argsort(-logged.var(axis=0), kind="stable")[:n_latent])
            return cls([genes[i] for i in keep], None if gene_ids is None else [gene_ids[i] for i in keep])

        @property
        def dim(self) -> int:
            return len(self.genes)

        def encode_counts(
            self,
            counts: Any,
            present: np.ndarray | None,  # noqa: ARG002
            batch_size: int,  # noqa: ARG002
            device: str | None,  # noqa: ARG002
        ) -> np.ndarray:
            return np.log1p(counts.toarray()).astype(np.float32)

    @sw.models.register_encoder(sw.models.EncoderSpec("letters", "text", 26))
    class Letters(sw.models.TextEncoder):
        """How often each letter stands in a text."""

        def encode(
            self,
            inputs: Sequence[str],
            *,
            batch_size: int | None = None,  # noqa: ARG002
            device: str | None = None,  # noqa: ARG002
        ) -> np.ndarray:
            alphabet = "abcdefghijklmnopqrstuvwxyz"
            return np.array([[t.lower().count(a) for a in alphabet] for t in inputs], np.float32)

    yield
    ENTRIES.clear()
    ENTRIES.update(before)


@pytest.mark.usefixtures("own_encoders")
def test_encoders_of_ones_own_train_save_load_and_annotate(
    simulated: Any, labels: dict[str, str], section: Any, tmp_path: Path
) -> None:
    model = sw.tl.train(
        [simulated.sections["P1"], simulated.reference],
        image="quadrant_colour",
        gene="log_counts",
        text="letters",
        folder=tmp_path / "run",
        max_epochs=2,
    )
    names = {name: one.features.name for name, one in model.config.modalities.items()}
    assert names == {"gene": "log_counts", "image": "quadrant_colour", "text": "letters"}
    opened = sw.models.Whisperer.load(model.save(tmp_path / "model"))
    expected = sw.tl.zero_shot_annotate(section, labels, model=model, inplace=False)
    sw.tl.zero_shot_annotate(section, labels, model=opened)
    table = section["table"]
    assert "X_quadrant_colour" in table.obsm
    np.testing.assert_array_equal(table.obsm["sw_label_scores"], expected)
    genes: Any = sw.tl.embed(section, model=opened, modality="gene", inplace=False)
    assert np.isfinite(genes).all()


@pytest.mark.usefixtures("own_encoders")
def test_encoders_of_ones_own_are_listed_and_suggested() -> None:
    assert {"quadrant_colour", "log_counts", "letters"} <= set(sw.models.list_encoders().index)
    with pytest.raises(ValueError, match="Did you mean quadrant_colour"):
        sw.models.get_spec("quadrant_color", "image")


@pytest.fixture
def protein() -> Iterator[str]:
    """A fourth modality: protein intensities in ``.obsm``."""
    from spatialwhisperer._modalities import MODALITIES

    sw.models.register_modality(sw.models.Modality("protein", reads="matrix", key="protein"))
    yield "protein"
    del MODALITIES["protein"]


def with_protein(table: Any, seed: int) -> None:
    """Intensities of one protein for each cell type, noisy."""
    codes = table.obs["cell_type"].cat.codes.to_numpy()
    rng = np.random.default_rng(seed)
    table.obsm["protein"] = (
        np.eye(codes.max() + 1)[codes] * 3 + rng.normal(0, 0.3, (len(codes), codes.max() + 1))
    ).astype(np.float32)


@pytest.mark.parametrize(("schedule", "at_least"), [("joint", 0.6), ("sequential", 0.75)])
@pytest.mark.slow
def test_text_reaches_images_through_a_fourth_modality(
    protein: str, labels: dict[str, str], schedule: str, at_least: float
) -> None:
    """The idea holds wherever two kinds of data are linked by a shared third: image–protein and protein–text."""
    sections, reference = sw.datasets.simulate_sections(2, 150, n_genes=40, n_reference_cells=250, random_state=1)
    for i, table in enumerate((sections["P1"]["table"], sections["P2"]["table"], reference)):
        with_protein(table, i)
    preset = sw.models.get_preset("spatialwhisperer").replace(
        pairs={("image", protein): 1.0, (protein, "text"): 1.0},
        heads={"image": "linear_norm", "text": "linear_norm", protein: "linear_norm"},
        standardize={"image": "section", protein: "global", "text": "none"},
        schedule=schedule,
        projection_dim=16,
    )
    assert preset.bridge == protein
    tiles = sw.tl.ImageFeatures(tile_um=80, tile_px=64)
    model = sw.tl.train([sections["P1"], reference], preset=preset, image=tiles, max_epochs=40)
    assert set(model.modalities) == {"image", protein, "text"}
    held_out = sections["P2"]
    sw.tl.embed(held_out, model=model, modality=protein)
    assert held_out["table"].obsm["X_sw_protein"].shape == (150, 16)
    sw.tl.zero_shot_annotate(held_out, labels, model=model, normalize="centre")
    macro = sw.tl.evaluate_annotation(held_out, "cell_type")["auroc"]["macro"]
    assert macro > at_least
    assert model.reference is not None
    assert {"pair_bridge", "mean_protein"} <= set(model.reference.arrays)
