"""The genes that Geneformer knows, from tables, JSON and the published pickles."""

from __future__ import annotations

import collections
import gzip
import json
import os
import pickle
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from spatialwhisperer._storage.pickles import UnsafePickle
from spatialwhisperer.encoders.gene._geneformer.dictionaries import check_published, read_gene_tokens
from tests.encoders.gene.geneformer.conftest import GENES, write_dictionary

if TYPE_CHECKING:
    from pathlib import Path


def test_all_forms_say_the_same(mappings: Any, tmp_path: Path) -> None:
    for kind in ("tsv", "json"):
        write_dictionary(tmp_path, kind, *mappings)
    (tmp_path / "genes.tsv.gz").write_bytes(gzip.compress((tmp_path / "genes.tsv").read_bytes()))
    (tmp_path / "genes.csv").write_text((tmp_path / "genes.tsv").read_text().replace("\t", ","))
    files = []
    for name, content in zip(("tokens", "medians", "symbols"), mappings, strict=True):
        for protocol in (2, 4):
            (tmp_path / f"{name}_{protocol}.pkl").write_bytes(pickle.dumps(content, protocol=protocol))
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
        files.append(name)
    (tmp_path / "marked.tsv").write_bytes(b"\xef\xbb\xbf" + (tmp_path / "genes.tsv").read_bytes())
    names = ("genes.tsv", "genes.tsv.gz", "genes.csv", "genes.json", "marked.tsv")
    read = [read_gene_tokens(tmp_path / name) for name in names]
    read += [read_gene_tokens([tmp_path / f"{n}{end}" for n in files]) for end in ("_2.pkl", "_4.pkl", ".json")]
    assert all(one == read[0] for one in read)
    first = read[0]
    assert first.vocabulary == GENES + 2
    # a gene of another numbering has a token, and is never counted
    assert len(first.ids) == GENES - 1
    assert list(first.tokens) == sorted(first.tokens)
    tokens, medians, symbols = mappings
    assert [(tokens[g], medians[g]) for g in first.ids] == list(zip(first.tokens, first.medians, strict=True))
    assert all(symbols.get(s, g) == g for s, g in zip(first.symbols, first.ids, strict=True))


def test_numbers_of_numpy_and_ordered_dictionaries_are_read(mappings: Any, tmp_path: Path) -> None:
    tokens, medians, _ = mappings
    (tmp_path / "t.pkl").write_bytes(pickle.dumps(collections.OrderedDict(tokens)))
    for protocol in (2, 3, 4, 5):
        content = {gene: np.float64(m) for gene, m in medians.items()}
        (tmp_path / "m.pkl").write_bytes(pickle.dumps(content, protocol=protocol))
        read = read_gene_tokens([tmp_path / "t.pkl", tmp_path / "m.pkl"])
        assert [medians[gene] for gene in read.ids] == list(read.medians)
        assert set(map(type, read.medians)) == {float}


class _Attack:
    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.place}",)


def test_a_dictionary_that_asks_for_code_is_refused_and_nothing_runs(mappings: Any, tmp_path: Path) -> None:
    (tmp_path / "t.pkl").write_bytes(pickle.dumps({**mappings[0], "x": _Attack(tmp_path / "ran")}))
    (tmp_path / "m.pkl").write_bytes(pickle.dumps(mappings[1]))
    with pytest.raises(UnsafePickle, match="system.*nothing of it was run"):
        read_gene_tokens([tmp_path / "t.pkl", tmp_path / "m.pkl"])
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t, m: (m, t), "token of 'ENSG.*not a whole number"),
        (lambda t, _: (t, {}), "No gene has a token and a median"),
        (lambda t, m: (t, dict(list(m.items())[:20])), "do not belong together: 39 genes"),
        (lambda t, m: (t | {"ENSG00000000001": 5}, m), "Two genes have the same token"),
        (lambda t, m: (t | {"ENSG00000000001": 0}, m), "stands for the padding"),
        (lambda t, m: (t, m | {"ENSG00000000001": 0.0}), "not a positive number"),
        (lambda t, m: (t, m | {"ENSG00000000001": float("nan")}), "not a positive number"),
        (lambda t, m: (list(t), m), "holds a list, not a mapping"),
    ],
)
def test_dictionaries_that_do_not_fit_are_refused(change: Any, message: str, mappings: Any, tmp_path: Path) -> None:
    files = [tmp_path / "t.pkl", tmp_path / "m.pkl"]
    for path, content in zip(files, change(mappings[0], mappings[1]), strict=True):
        path.write_bytes(pickle.dumps(content))
    with pytest.raises(ValueError, match=message):
        read_gene_tokens(files)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("gene\ttoken\n", "lacks the column ensembl_id, median"),
        ("ensembl_id\ttoken\tmedian\nENSG0\t2\n", "another number of columns"),
        ("ensembl_id\ttoken\tmedian\nENSG0\ttwo\t1\n", "no number"),
        ("ensembl_id\ttoken\tmedian\nENSG0\t2\t1\nENSG0\t3\t1\n", "lists a gene twice"),
        ("", "lacks the column"),
    ],
)
def test_tables_that_are_none_are_refused(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "genes.tsv").write_text(content)
    with pytest.raises(ValueError, match=message):
        read_gene_tokens(tmp_path / "genes.tsv")


def test_files_of_other_kinds_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no dictionary of Geneformer"):
        read_gene_tokens([tmp_path / "a.pkl", tmp_path / "b.pkl"])
    (tmp_path / "a.npy").write_bytes(b"")
    with pytest.raises(ValueError, match=r"must be a .json or a .pkl"):
        read_gene_tokens(tmp_path / "a.npy")
    (tmp_path / "a.tsv.gz").write_bytes(b"no gzip")
    with pytest.raises(ValueError, match="not a table that can be read"):
        read_gene_tokens(tmp_path / "a.tsv.gz")


def test_the_published_genes_are_recognised(data_folder: Path, mappings: Any, tmp_path: Path) -> None:
    genes = read_gene_tokens(data_folder / "genes" / "genes.tsv.gz")
    assert (len(genes.ids), genes.vocabulary) == (25_405, 25_426)
    check_published(genes)
    write_dictionary(tmp_path, "tsv", *mappings)
    with pytest.raises(ValueError, match="not the gene tokens of Geneformer-12L-30M"):
        check_published(read_gene_tokens(tmp_path / "genes.tsv"))
