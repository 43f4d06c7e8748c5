from __future__ import annotations

from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from spatialwhisperer._access.table.counts import counts_matrix
from spatialwhisperer.protocols.benchmarks.folder.hest import read_hest
from spatialwhisperer.protocols.benchmarks.folder.reading import layout_of, read_folder, with_pixels
from spatialwhisperer.protocols.benchmarks.folder.sections import FolderOptions


def table(n: int = 12, seed: int = 0) -> Any:
    out = ad.AnnData(np.random.default_rng(seed).poisson(5, (n, 6)).astype(np.float32))
    out.obs_names = [f"BC{i}" for i in range(n)]
    out.var_names = [f"G{i}" for i in range(6)]
    out.obsm["spatial"] = np.stack([np.arange(n) % 4, np.arange(n) // 4], axis=1) * 50.0
    return out


def pixels(n: int) -> np.ndarray:
    """Patch i has the value i everywhere."""
    return np.broadcast_to(np.arange(n, dtype=np.uint8)[:, None, None, None], (n, 3, 16, 16))


def test_rows_follow_the_patches_by_their_barcodes(tmp_path, write, metadata):
    order = [7, 2, 11, 0]
    own = table()
    write(tmp_path, "A", own, pixels(5), [*own.obs_names[order], "UNKNOWN"])
    metadata(tmp_path, {"A": "P1"}, pixel_size_um_estimated=2.0)
    (found,) = read_hest(tmp_path, FolderOptions())
    assert list(found.table.obs_names) == [f"A:BC{i}" for i in order]
    np.testing.assert_array_equal(counts_matrix(found.table).toarray(), own.X[order])
    np.testing.assert_array_equal(found.table.obsm["spatial"], own.obsm["spatial"][order])
    assert found.without_tile == 8
    # of all twelve rows, not of the four that have a patch
    assert found.pitch == 50.0
    assert (found.table.obs["section"] == "A").all()
    assert (found.table.obs["patient"] == "P1").all()
    few: Any = read_hest(tmp_path, FolderOptions(rows=2))[0]
    assert list(few.table.obs_names) == ["A:BC7", "A:BC0"]
    blocks = np.concatenate(list(few.pixels.tiles(1, "")))
    assert blocks[:, 0, 0, 0].tolist() == [0, 3]


def test_sections_are_those_that_are_there_and_asked_for(hest):
    assert [s.name for s in read_hest(hest, FolderOptions())] == ["SIMP1", "SIMP2", "SIMP3"]
    breast = read_hest(hest, FolderOptions(where=(("organ", "Breast"),)))
    assert [s.name for s in breast] == ["SIMP1", "SIMP2"]
    assert [s.name for s in read_hest(hest, FolderOptions(only=("SIMP3",)))] == ["SIMP3"]
    with pytest.raises(FileNotFoundError, match="no section NOT_HERE"):
        read_hest(hest, FolderOptions(only=("NOT_HERE",)))
    with pytest.raises(ValueError, match="no column 'tissues'"):
        read_hest(hest, FolderOptions(where=(("tissues", "Breast"),)))
    one: Any = read_hest(hest, FolderOptions(only=("SIMP3",)))[0]
    assert one.facts == {"organ": "Lung", "inter_spot_dist": 100.0}
    assert one.pitch * one.mpp == pytest.approx(100.0, rel=0.02)


def test_sections_without_a_stated_patient_count_as_one(tmp_path, write, metadata):
    for i, name in enumerate("ABCD"):
        write(tmp_path, name, table(seed=i), pixels(12))
    metadata(tmp_path, {"A": None, "B": " ", "C": "P1", "D": None}, dataset_title=["one", "one", "one", "two"])
    found = {s.name: s.patient for s in read_hest(tmp_path, FolderOptions())}
    assert found == {"A": "not stated (one)", "B": "not stated (one)", "C": "P1", "D": "not stated (two)"}


def test_a_section_without_patches_has_no_image(tmp_path, write, metadata, capsys):
    write(tmp_path, "A", table(), None)
    write(tmp_path, "B", table(), pixels(12))
    metadata(tmp_path, {"A": "P1", "B": "P2"})
    assert [s.name for s in with_pixels(read_folder(tmp_path, FolderOptions()))] == ["B"]
    assert "left out: A" in capsys.readouterr().err
    with pytest.raises(ValueError, match="No section has an image"):
        with_pixels(read_folder(tmp_path, FolderOptions(only=("A",))))


def test_metadata_that_do_not_fit_are_refused(tmp_path, write, metadata):
    write(tmp_path, "A", table(), pixels(12))
    with pytest.raises(FileNotFoundError, match="one table of metadata"):
        read_hest(tmp_path, FolderOptions())
    metadata(tmp_path, {"B": "P1"})
    with pytest.raises(ValueError, match="no row for A"):
        read_hest(tmp_path, FolderOptions())
    twice = pd.DataFrame({"id": ["A", "A"], "patient": ["P1", "P2"]})
    twice.to_csv(tmp_path / "HEST_v1_1_0.csv", index=False)
    with pytest.raises(ValueError, match="name each section once; A"):
        read_hest(tmp_path, FolderOptions())
    twice[:1].to_csv(tmp_path / "HEST_v1_1_0.csv", index=False)
    twice[:1].to_csv(tmp_path / "other.csv", index=False)
    with pytest.raises(FileNotFoundError, match=r"found HEST_v1_1_0.csv, other.csv"):
        read_hest(tmp_path, FolderOptions())
    assert len(read_hest(tmp_path, FolderOptions(metadata="other.csv"))) == 1


@pytest.mark.parametrize(
    ("images", "barcodes", "message"),
    [
        (np.zeros((12, 3, 16, 16), np.float32), None, "uint8"),
        (np.zeros((12, 3, 16, 8), np.uint8), None, "square RGB"),
        (pixels(12), ["X"] * 12, "Barcodes repeat"),
        (pixels(12), [f"X{i}" for i in range(12)], "No barcode of"),
        (pixels(12), ["BC0", "BC1"], "a barcode for each"),
    ],
)
def test_patches_that_do_not_fit_are_refused(tmp_path, write, metadata, images: Any, barcodes: Any, message: str):
    write(tmp_path, "A", table(), images, barcodes)
    metadata(tmp_path, {"A": "P1"})
    with pytest.raises(ValueError, match=message):
        read_hest(tmp_path, FolderOptions())


def test_damaged_files_are_refused(tmp_path, write, metadata):
    write(tmp_path, "A", table(), pixels(12))
    metadata(tmp_path, {"A": "P1"})
    (tmp_path / "patches" / "A.h5").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="could not be read as patches"):
        read_hest(tmp_path, FolderOptions())
    (tmp_path / "st" / "A.h5ad").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="cannot be opened"):
        read_hest(tmp_path, FolderOptions())
    own = table()
    del own.obsm["spatial"]
    own.write_h5ad(tmp_path / "st" / "A.h5ad")
    with pytest.raises(ValueError, match="no positions"):
        read_hest(tmp_path, FolderOptions())


def test_a_folder_of_another_layout_is_refused(tmp_path, hest, data_folder):
    assert layout_of(hest) == "HEST"
    assert layout_of(data_folder) == "her2st"
    (tmp_path / "slides").mkdir()
    with pytest.raises(FileNotFoundError, match=r"no layout that is known \(found: slides\)"):
        layout_of(tmp_path)
    with pytest.raises(FileNotFoundError, match="no such folder"):
        layout_of(tmp_path / "absent")
