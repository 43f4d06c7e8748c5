"""What every gene encoder can do: encode counts, and be saved and opened."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

from spatialwhisperer._artifact.artifact import Artifact
from spatialwhisperer.encoders.gene.base import KIND
from spatialwhisperer.encoders.gene.pca import PCAEncoder
from spatialwhisperer.encoders.gene.scanvi import SCANVIEncoder
from spatialwhisperer.encoders.gene.scvi import SCVIEncoder
from spatialwhisperer.encoders.resolve import load_gene_encoder, stored_encoder

N, G = 150, 60
GENES = [f"G{i}" for i in range(G)]


@pytest.mark.slow
def test_highly_variable_genes_are_found_per_batch(counts):
    x, _ = counts(n=300, g=200)
    x = x.tolil()
    x[:, 199] = 0
    # genes 10 to 19 differ between batches alone, which batch-aware selection does not count as variation
    batch = np.arange(300) % 2
    x = x.toarray()
    x[:, 10:20] = np.where(batch[:, None] == 1, 30, 0)
    names = [f"G{i}" for i in range(200)]
    chosen = PCAEncoder.fit(x, names, batch=batch, n_latent=3, n_top_genes=40).genes
    assert len(chosen) == 40
    assert not {f"G{i}" for i in range(10, 20)} & set(chosen)
    everything = PCAEncoder.fit(x, names, n_latent=3, n_top_genes=None).genes
    assert len(everything) == 199
    assert "G199" not in everything


def test_rows_without_counts_are_left_out_of_the_fit(counts):
    x, kind = counts()
    filled = sp.vstack([sp.csr_matrix((2, G)), x], format="csr")
    batch = np.r_[["alone"] * 2, np.repeat(["a", "b"], N // 2)]
    classes: list[tuple[Any, dict[str, Any]]] = [
        (PCAEncoder, {}),
        (SCVIEncoder, {"max_epochs": 1, "device": "cpu"}),
        (SCANVIEncoder, {"max_epochs": 1, "device": "cpu", "labels": ["none", "none", *kind]}),
    ]
    for cls, extra in classes:
        fitted = cls.fit(filled, GENES, batch=batch, n_latent=3, **extra)
        assert (fitted.fitted["rows"], fitted.fitted["batches"]) == (N, 2)


@pytest.mark.parametrize("kind", ["pca", "scvi"])
def test_encoding_does_not_depend_on_the_batch_size(kind, pca, scvi_fit, counts):
    encoder = pca if kind == "pca" else scvi_fit[0]
    x = counts(2)[0]
    whole = encoder.encode(x, device="cpu", batch_size=1000)
    assert whole.dtype == np.float32
    np.testing.assert_allclose(encoder.encode(x, device="cpu", batch_size=7), whole, atol=1e-6)
    np.testing.assert_allclose(encoder.encode(x.toarray()[::-1], device="cpu")[::-1], whole, atol=1e-6)


@pytest.mark.parametrize("kind", ["pca", "scvi"])
def test_saving_keeps_every_bit(kind, pca, scvi_fit, tmp_path, counts):
    encoder = pca if kind == "pca" else scvi_fit[0]
    encoder.save(tmp_path / "deep" / "encoder")
    assert sorted(p.name for p in (tmp_path / "deep" / "encoder").iterdir()) == ["config.json", "model.safetensors"]
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["encoder"]
    again = load_gene_encoder(tmp_path / "deep" / "encoder")
    assert type(again) is type(encoder)
    assert again.artifact().config == json.loads(json.dumps(encoder.artifact().config))
    assert again.identity == encoder.identity
    x = counts(3)[0]
    np.testing.assert_array_equal(again.encode(x, device="cpu"), encoder.encode(x, device="cpu"))
    copy = stored_encoder(encoder.artifact(), "gene")
    np.testing.assert_array_equal(copy.encode(x, device="cpu"), encoder.encode(x, device="cpu"))


def test_saving_replaces_only_when_asked_and_only_an_encoder(pca, tmp_path):
    folder = tmp_path / "encoder"
    pca.save(folder)
    with pytest.raises(FileExistsError, match="overwrite=True"):
        pca.save(folder)
    pca.save(folder, overwrite=True)
    assert [p.name for p in tmp_path.iterdir()] == ["encoder"]
    other = tmp_path / "photos"
    other.mkdir()
    (other / "cat.jpg").write_text("meow")
    for overwrite in (True, False):
        with pytest.raises(FileExistsError, match="choose another name|pass overwrite=True"):
            pca.save(other, overwrite=overwrite)
    assert (other / "cat.jpg").read_text() == "meow"


def test_opening_a_place_without_one_says_what_is_there(pca, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere holds no gene encoder: .*no such folder"):
        load_gene_encoder(tmp_path / "nowhere")
    Artifact("model", {}).write(tmp_path / "model")
    with pytest.raises(ValueError, match="model holds a model, not a gene encoder"):
        load_gene_encoder(tmp_path / "model")
    pca.save(tmp_path / "encoder")
    (tmp_path / "encoder" / "model.safetensors").write_bytes(b"\x80\x04not tensors")
    with pytest.raises(ValueError, match="model.safetensors is not the file that was written"):
        load_gene_encoder(tmp_path / "encoder")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "os.system"}, "There is no gene encoder 'os.system'.*Registered: .*pca"),
        ({"name": None}, "This gene encoder does not state the name of the gene encoder that it stores"),
        ({"dim": 7}, r"components: \(60, 5\), expected \(60, 7\)"),
        ({"genes": GENES[:-1]}, r"mean: \(60,\), expected \(59,\)"),
        ({"gene_ids": ["x"]}, "gene_ids has 1 entries for 60 genes"),
        ({"genes": ["A"] * G}, "must be unique"),
    ],
)
def test_a_stored_configuration_that_does_not_fit_is_refused(pca, changes, message):
    artifact = pca.artifact()
    changed = Artifact(KIND, {**artifact.config, **changes}, artifact.tensors)
    with pytest.raises(ValueError, match=message):
        stored_encoder(changed, "gene")


def test_a_stored_configuration_without_genes_is_refused(pca):
    artifact = pca.artifact()
    for name in ("genes", "gene_ids", "dim"):
        rest = {key: value for key, value in artifact.config.items() if key != name}
        with pytest.raises(ValueError, match=f"The configuration of this PCAEncoder lacks {name}"):
            stored_encoder(Artifact(KIND, rest, artifact.tensors), "gene")


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"extra": np.zeros(2)}, "extra: not expected"),
        ({"mean": np.full(G, np.nan)}, "not finite: mean"),
        ({"mean": np.zeros((G, 1))}, r"mean: \(60, 1\), expected \(60,\)"),
    ],
)
def test_stored_arrays_that_do_not_fit_are_refused(pca, tensors, message):
    artifact = pca.artifact()
    with pytest.raises(ValueError, match=message):
        stored_encoder(Artifact(KIND, artifact.config, {**artifact.tensors, **tensors}), "gene")


def test_identity_knows_genes_settings_and_weights(pca, counts):
    import copy

    again = PCAEncoder.fit(counts()[0], GENES, pca.gene_ids, n_latent=5, n_top_genes=None)
    assert again.identity == pca.identity
    assert pca.identity.name == "pca"
    others = [copy.deepcopy(pca) for _ in range(3)]
    others[0].mean[3] += 1
    others[1].genes[0] = "other"
    others[2].fitted["rows"] = 1
    assert len({e.identity.digest for e in (pca, *others)}) == 4


def test_an_encoder_of_ones_own_is_stored_with_its_options(own_registry, tmp_path):  # noqa: ARG001
    from spatialwhisperer.models import EncoderSpec, GeneEncoder, register_encoder

    @register_encoder(EncoderSpec("scaled", "gene", None))
    class Scaled(GeneEncoder):
        fits = False

        def __init__(self, genes, gene_ids=None, *, factor=1.0, fitted=None):
            super().__init__(genes, gene_ids, fitted)
            self.factor = factor

        @property
        def dim(self):
            return len(self.genes)

        def options(self):
            return {"factor": self.factor}

        def encode_counts(self, counts, present, batch_size, device):  # noqa: ARG002
            return self.factor * counts.toarray()

    encoder = Scaled(["A", "B"], factor=np.float32(2.0))
    encoder.save(tmp_path / "encoder")
    again = load_gene_encoder(tmp_path / "encoder")
    assert again.encode([[1, 2]]).tolist() == [[2.0, 4.0]]
    assert again.identity == encoder.identity
    assert repr(again) == "Scaled(2 genes -> 2)"
    with pytest.raises(ValueError, match="'scaled' has no weights to train"):
        again.module()


def test_encoding_refuses_what_is_not_counts(pca, counts):
    x = counts()[0].toarray().astype(float)
    with pytest.raises(ValueError, match="59 columns and the encoder takes 60"):
        pca.encode(x[:, 1:])
    for value, words in ((0.5, "non-integer values such as 0.5"), (-2, "negative values such as -2"), (np.nan, "NaN")):
        bad = x.copy()
        bad[3, 3] = value
        with pytest.raises(ValueError, match=words):
            pca.encode(bad)
    with pytest.raises(ValueError, match="present has shape"):
        pca.encode(x, present=np.ones(3, bool))
    with pytest.raises(ValueError, match="batch_size"):
        pca.encode(x, batch_size=0)
    with pytest.raises(ValueError, match="2 rows with counts are too few"):
        PCAEncoder.fit(x[:2], GENES, n_latent=1)


def test_names_must_be_unique():
    arrays: dict[str, Any] = {"mean": np.zeros(2), "components": np.zeros((2, 1)), "fraction": np.ones(2)}
    with pytest.raises(ValueError, match="unique"):
        PCAEncoder(["A", "A"], **arrays)
    with pytest.raises(ValueError, match="gene_ids has 1"):
        PCAEncoder(["A", "B"], ["x"], **arrays)
