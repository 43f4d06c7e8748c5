from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from spatialwhisperer.datasets.papers.visium import counts_of_h5, counts_of_triplet, positions_of, read_visium
from tests.datasets.papers import files

if TYPE_CHECKING:
    from pathlib import Path


def test_both_formats_of_counts_hold_the_same(tmp_path: Path) -> None:
    barcodes = ["AA-1", "CC-1", "GG-1"]
    counts = files.counts_of(barcodes, 0)
    triplet = counts_of_triplet(*files.write_triplet(tmp_path, "x", barcodes, counts))
    files.write_h5(tmp_path / "x.h5", barcodes, counts)
    for matrix, names, genes in (triplet, counts_of_h5(tmp_path / "x.h5")):
        np.testing.assert_array_equal(matrix.toarray(), counts)
        assert matrix.dtype == np.int32
        assert list(names) == barcodes
        assert genes["ensembl_id"].to_dict() == {
            "ALB": "ENSG01",
            "SNAP25": "ENSG02",
            "DUP": "ENSG03",
            "DUP-1": "ENSG04",
        }


def test_antibodies_are_no_genes_and_a_gene_may_be_called_na(tmp_path: Path) -> None:
    barcodes = ["AA-1", "CC-1"]
    matrix, names, features = files.write_triplet(tmp_path, "x", barcodes, files.counts_of(barcodes, 0))
    rows = [line.split("\t") for line in features.read_text().splitlines()]
    rows[0][1], rows[1][2] = "NA", "Antibody Capture"
    features.write_text("\n".join("\t".join(row) for row in rows))
    counts, _, genes = counts_of_triplet(matrix, names, features)
    assert list(genes.index) == ["NA", "DUP", "DUP-1"]
    np.testing.assert_array_equal(counts.toarray(), files.counts_of(barcodes, 0)[:, [0, 2, 3]])


def test_files_of_two_matrices_are_refused(tmp_path: Path) -> None:
    paths = files.write_triplet(tmp_path, "x", ["AA-1", "CC-1"], files.counts_of("ab", 0))
    paths[1].write_text("AA-1\n")
    with pytest.raises(ValueError, match="not of one section"):
        counts_of_triplet(*paths)
    paths[0].write_text("nonsense")
    with pytest.raises(ValueError, match="cannot be opened"):
        counts_of_triplet(*paths)


def test_positions_with_and_without_a_header(tmp_path: Path) -> None:
    body = "AA-1,1,0,0,15,20\nCC-1,0,1,1,32,30\n"
    (tmp_path / "a.csv").write_text(body)
    (tmp_path / "b.csv").write_text(
        "barcode,in_tissue,array_row,array_col,pxl_row_in_fullres,pxl_col_in_fullres\n" + body
    )
    one, other = positions_of(tmp_path / "a.csv"), positions_of(tmp_path / "b.csv")
    assert one.equals(other)
    assert one.loc["CC-1"].to_dict() == {"in_tissue": 0, "array_row": 1, "array_col": 1, "y_px": 32, "x_px": 30}
    (tmp_path / "c.csv").write_text("AA-1,1,0\n")
    with pytest.raises(ValueError, match="six columns"):
        positions_of(tmp_path / "c.csv")


def test_spots_on_another_lattice_state_no_scale(tmp_path: Path) -> None:
    spots = files.hexagonal(0)
    spots["y"] = spots["y"] * 2
    spots.to_csv(tmp_path / "p.csv", header=False, index=False)
    under = spots[spots["in_tissue"] == 1]
    files.write_h5(tmp_path / "x.h5", under["barcode"], files.counts_of(under, 0))
    with pytest.raises(ValueError, match="array of Visium"):
        read_visium("S", "P", counts_of_h5(tmp_path / "x.h5"), tmp_path / "p.csv", None, meta={})
