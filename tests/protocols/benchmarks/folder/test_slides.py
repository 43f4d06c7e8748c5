from __future__ import annotations

from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import spatialwhisperer as sw
from spatialwhisperer.protocols.__main__ import main
from spatialwhisperer.protocols.benchmarks.folder.reading import read_folder
from spatialwhisperer.protocols.benchmarks.folder.sections import FolderOptions, even_rows
from spatialwhisperer.protocols.benchmarks.folder.slides import her2st_names
from spatialwhisperer.protocols.her2st.folds import with_rows


def test_sections_of_her2st_are_read_at_the_resolution_of_the_coarsest(data_folder):
    options = FolderOptions(only=("A1", "C2", "B1"), rows=40)
    found: Any = read_folder(data_folder, options)
    a1, c2, b1 = found
    assert (a1.patient, c2.patient, b1.patient) == ("A", "C", "B")
    assert b1.pixels is None
    # 112 µm at 3.19 µm per pixel
    assert a1.pixels.tile_px == c2.pixels.tile_px == 35
    assert c2.table.n_obs == 40
    for section in (a1, c2, b1):
        assert section.pitch * section.mpp == pytest.approx(200, rel=0.03)
    alone: Any = read_folder(data_folder, FolderOptions(only=("C2",)))[0]
    assert alone.pixels.tile_px == 162
    with pytest.raises(ValueError, match="'nuclei' needs 0.75 µm per pixel or finer, and A1.* has 3.19.*--sections"):
        a1.pixels.features(sw.models.image_encoder("nuclei"))


def test_names_are_those_of_either_layout(data_folder, tmp_path):
    assert her2st_names(data_folder)[:2] == ["A1", "A3"]
    assert her2st_names(data_folder / "her2st") == her2st_names(data_folder)
    assert her2st_names(tmp_path) == []
    clone = tmp_path / "data" / "ST-cnts"
    clone.mkdir(parents=True)
    for name in ("B2.tsv.gz", "A1.tsv"):
        (clone / name).touch()
    assert her2st_names(tmp_path) == ["A1", "B2"]
    with pytest.raises(FileNotFoundError, match="no section Z9; it has A1, A3"):
        read_folder(data_folder, FolderOptions(only=("Z9",)))
    with pytest.raises(ValueError, match="--where reads the metadata of HEST"):
        read_folder(data_folder, FolderOptions(where=(("organ", "Breast"),)))


@pytest.mark.slow
def test_a_section_gives_the_same_figures_in_either_layout(
    data_folder, tmp_path, corner_colour, write, metadata, patches
):
    """Real sections, read from their images and as patches of HEST, by an encoder that sees tiles alone."""
    names, folder = ["A1", "C2"], tmp_path / "hest"
    for name in names:
        section = sw.datasets.her2st(name, data_dir=data_folder)
        section = with_rows(section, even_rows(section["table"].n_obs, 40))
        table = section["table"]
        bare = ad.AnnData(table.X.copy(), var=pd.DataFrame(index=table.var_names))
        bare.obs_names = table.obs_names
        bare.obsm["spatial"] = np.asarray(table.obsm["spatial"])
        # 35 pixels are the resolution of A1
        write(folder, name, bare, patches(section, 112.0, 35))
    metadata(folder, {name: name[0] for name in names})
    tables = []
    for data, out in ((data_folder, "direct"), (folder, "patches")):
        arguments = ["hest-bench", "--data", str(data), "--out", str(tmp_path / out), "--sections", *names]
        main([*arguments, "--rows", "40", "--encoders", corner_colour, "--rank", "variance"])
        tables.append(pd.read_csv(Path(tmp_path, out, "hest_bench.csv")))
        text = (tmp_path / out / "hest_bench.md").read_text()
        assert text.startswith("### Patients left out\n\n2 sections of 2 patients, 80 rows, at most 40 of each section")
    direct, by_patches = tables
    assert direct[["section", "predictor", "metric"]].equals(by_patches[["section", "predictor", "metric"]])
    np.testing.assert_allclose(by_patches["value"], direct["value"], atol=1e-5)
