from __future__ import annotations

import functools
import gzip
import http.server
import json
import subprocess
import threading
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from PIL import Image

import spatialwhisperer as sw
from spatialwhisperer._messages import SpatialWhispererWarning
from spatialwhisperer._settings import settings
from spatialwhisperer.datasets._files.download import git_blob_sha1

MODULE = import_module("spatialwhisperer.datasets.her2st")
PITCH_PX = 50.0  # 200 um, so 4 um per pixel


def write_upstream(root: Path, name: str, genes: list[str], *, labels: bool = False, seed: int = 0) -> pd.DataFrame:
    """One section in the layout of the authors' repository, with the quirks that theirs has."""
    rng = np.random.default_rng(seed)
    x, y = (a.ravel() for a in np.meshgrid(np.arange(3, 8), np.arange(2, 6)))
    spots = pd.DataFrame({"x": x, "y": y})
    for axis in "xy":
        spots[f"new_{axis}"] = (spots[axis] + rng.uniform(-0.1, 0.1, len(spots))).round(3)
        spots[f"pixel_{axis}"] = (spots[f"new_{axis}"] * PITCH_PX - 40).round(2)
    spots["selected"] = 1
    spots.loc[spots.index[-1], "selected"] = 0
    folders = {k: root / "data" / k for k in ("ST-cnts", "ST-spotfiles", "ST-pat/lbl")}
    folders["image"] = root / "data" / "ST-imgs" / name[0] / name
    for folder in folders.values():
        folder.mkdir(parents=True, exist_ok=True)
    spots.to_csv(folders["ST-spotfiles"] / f"{name}_selection.tsv", sep="\t", index=False)
    # counts in another order, without the third spot, with one spot beside the tissue
    ids = [f"{a}x{b}" for a, b in zip(x, y, strict=True)]
    order = [i for i in rng.permutation(len(ids)) if i != 2]
    counts = pd.DataFrame(
        rng.poisson(2.0, (len(order) + 1, len(genes))), index=[ids[i] for i in order] + ["30x30"], columns=genes
    )
    with gzip.open(folders["ST-cnts"] / f"{name}.tsv.gz", "wt") as stream:
        counts.to_csv(stream, sep="\t")
    if labels:
        table = pd.DataFrame(
            {"Row.names": ids, "x": spots["new_x"], "y": spots["new_y"], "pixel_x": 0.0, "pixel_y": 0.0}
        )
        table["label"] = np.where(x < 5, "invasive cancer", "adipose tissue")
        table.loc[0, ["x", "y"]] = np.nan
        table.sample(frac=1, random_state=0).to_csv(
            folders["ST-pat/lbl"] / f"{name}_labeled_coordinates.tsv", sep="\t", index=False
        )
    pixels = rng.integers(0, 256, (300, 400, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((400, 300)).save(folders["image"] / f"slide_HE_{name}.jpg", quality=95)
    return counts


@pytest.fixture
def clone(tmp_path) -> tuple[Path, dict[str, pd.DataFrame]]:
    root = tmp_path / "her2st"
    counts = {
        "A1": write_upstream(root, "A1", ["ERBB2", "CD3E", "ACTB"], labels=True, seed=1),
        "A2": write_upstream(root, "A2", ["ACTB", "COL1A1"], seed=2),
    }
    return root, counts


@pytest.fixture
def server(tmp_path, monkeypatch):
    """The same files behind a local web server, named by their hashes as the authors' are."""
    root = tmp_path / "served"
    write_upstream(root, "A1", ["ERBB2", "ACTB"], labels=True)
    paths = [p for p in root.rglob("*") if p.is_file()]
    files = {p.relative_to(root).as_posix(): git_blob_sha1(p) for p in paths}
    monkeypatch.setattr(MODULE, "_registry", lambda: files)
    seen = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_) -> None:
            pass

        def do_GET(self) -> None:
            seen.append(self.path)
            super().do_GET()

    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(root)))
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    with settings.override(cache_dir=tmp_path / "cache", offline=False):
        yield root, f"http://127.0.0.1:{httpd.server_port}", seen
    httpd.shutdown()
    httpd.server_close()


def cached(tmp_path: Path) -> list[str]:
    folder = tmp_path / "cache" / "her2st"
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def test_upstream_layout(clone):
    root, counts = clone
    sdata = sw.datasets.her2st(["A1", "A2"], data_dir=root)
    assert set(sdata.images) == {"A1_image", "A2_image"}
    assert set(sdata.shapes) == {"A1_spots", "A2_spots"}
    assert set(sdata.coordinate_systems) == {"A1", "A2", "microns"}
    table = sdata["table"]
    assert list(table.var_names) == ["ERBB2", "CD3E", "ACTB", "COL1A1"]
    assert sp.isspmatrix_csr(table.X)
    assert table.X.dtype == np.int32
    assert table.n_obs == 2 * 18  # 20 spots, one not selected, one without counts
    for name in ("A1", "A2"):
        part = table[table.obs["section"] == name]
        spots = [n.removeprefix(f"{name}_") for n in part.obs_names]
        expected = counts[name].loc[spots].reindex(columns=table.var_names, fill_value=0)
        np.testing.assert_array_equal(part.X.toarray(), expected.to_numpy())
        assert set(part.obs["region"]) == {f"{name}_spots"}
        assert set(part.obs["patient"]) == {"A"}
        assert (part.obs["array_col"].astype(str) + "x" + part.obs["array_row"].astype(str)).to_list() == spots
        np.testing.assert_allclose(
            part.obsm["spatial"],
            part.obs[["array_col_adj", "array_row_adj"]].to_numpy() * PITCH_PX - 40,
            atol=0.01,
        )
        np.testing.assert_allclose(sdata[f"{name}_spots"]["radius"], 50.0 / 4.0, rtol=1e-3)
        assert list(sdata[f"{name}_spots"].index) == list(part.obs["instance_id"])
    labels = table.obs["pathologist_label"]
    assert labels[table.obs["section"] == "A2"].isna().all()
    first = table.obs[table.obs["section"] == "A1"]
    unlabelled = first["pathologist_label"].isna()
    assert list(first.index[unlabelled]) == ["A1_3x2"]
    truth = np.where(first["array_col"] < 5, "invasive cancer", "adipose tissue")
    assert (first["pathologist_label"].astype(object)[~unlabelled] == truth[~unlabelled]).all()


def test_image_is_the_file_in_place(clone):
    from spatialdata.transformations import get_transformation

    root, _ = clone
    sdata = sw.datasets.her2st("A1", data_dir=root)
    element = sdata["A1_image"]
    file = next((root / "data/ST-imgs/A/A1").glob("*.jpg"))
    np.testing.assert_array_equal(
        np.asarray(element["scale0"]["image"]).transpose(1, 2, 0), np.asarray(Image.open(file).convert("RGB"))
    )
    assert "scale1" in element
    scale = get_transformation(element, "microns").to_affine_matrix(("x", "y"), ("x", "y"))
    np.testing.assert_allclose(scale, np.diag([4.0, 4.0, 1.0]), rtol=1e-3)
    assert Image.MAX_IMAGE_PIXELS is not None


def test_without_images(clone):
    root, _ = clone
    for file in (root / "data/ST-imgs").rglob("*.jpg"):
        file.unlink()
    sdata = sw.datasets.her2st("A1", data_dir=root, with_image=False)
    assert not sdata.images
    assert set(sdata.coordinate_systems) == {"A1", "microns"}
    with pytest.raises(FileNotFoundError, match="with_image=False"):
        sw.datasets.her2st("A1", data_dir=root)


def test_folder_may_be_given_at_any_level(clone):
    root, _ = clone
    whole = sw.datasets.her2st("A1", data_dir=root, with_image=False)["table"]
    for folder in (root.parent, root / "data", str(root)):
        again = sw.datasets.her2st("A1", data_dir=folder, with_image=False)["table"]
        assert (whole.X != again.X).nnz == 0


@pytest.mark.slow
def test_survives_zarr(clone, tmp_path):
    import spatialdata as sd

    root, _ = clone
    sdata = sw.datasets.her2st(["A2", "A1"], data_dir=root)
    sdata.write(tmp_path / "x.zarr")
    back = sd.read_zarr(tmp_path / "x.zarr")
    assert (back["table"].X != sdata["table"].X).nnz == 0
    pd.testing.assert_series_equal(
        back["table"].obs["pathologist_label"].astype(object),
        sdata["table"].obs["pathologist_label"].astype(object),
        check_dtype=False,
    )
    assert json.loads(str(back["table"].uns["her2st"]["A1"]))["license"] == "CC BY 4.0"
    alone = sw.datasets.her2st("A2", data_dir=root)
    alone.write(tmp_path / "y.zarr")  # no label at all
    assert sd.read_zarr(tmp_path / "y.zarr")["table"].obs["pathologist_label"].isna().all()


def test_wrong_requests_say_what_is_there(clone, tmp_path):
    root, _ = clone
    with pytest.raises(ValueError, match="No such section: Z9.*A1, A2"):
        sw.datasets.her2st(["A1", "Z9"], data_dir=root)
    with pytest.raises(ValueError, match="once"):
        sw.datasets.her2st(["A1", "A1"], data_dir=root)
    with pytest.raises(ValueError, match="No such section"):
        sw.datasets.her2st([], data_dir=root)
    with pytest.raises(TypeError, match="sections must be"):
        sw.datasets.her2st(3, data_dir=root)  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError, match="is not a folder"):
        sw.datasets.her2st("A1", data_dir=tmp_path / "nowhere")
    (tmp_path / "other").mkdir()
    with pytest.raises(FileNotFoundError, match="neither"):
        sw.datasets.her2st("A1", data_dir=tmp_path / "other")
    with pytest.raises(FileNotFoundError, match="B1.tsv"):
        sw.datasets.her2st("B1", data_dir=root)


def test_an_image_that_does_not_fit_the_spots_is_refused(clone):
    root, _ = clone
    file = next((root / "data/ST-imgs/A/A1").glob("*.jpg"))
    Image.new("RGB", (100, 100)).save(file)
    with pytest.raises(ValueError, match="lie outside"):
        sw.datasets.her2st("A1", data_dir=root)
    file.write_bytes(b"nothing")
    with pytest.raises(ValueError, match="not an image"):
        sw.datasets.her2st("A1", data_dir=root)


def test_git_blob_hash(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"hello\n")
    assert (
        git_blob_sha1(file) == "ce013625030ba8dba906f756967f9e9ca394464a"
    )  # printf 'hello\n' | git hash-object --stdin


def test_download_is_verified_and_kept(server, tmp_path):
    root, url, seen = server
    sdata = sw.datasets.her2st("A1", base_url=url)
    assert set(sdata.images) == {"A1_image"}
    assert cached(tmp_path) == sorted(p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file())
    assert len(seen) == 4
    with settings.override(offline=True):
        again = sw.datasets.her2st("A1", base_url=url)
    assert len(seen) == 4
    assert (again["table"].X != sdata["table"].X).nnz == 0
    # a damaged cache is mended
    damaged = tmp_path / "cache/her2st/data/ST-cnts/A1.tsv.gz"
    damaged.write_bytes(b"damaged")
    sw.datasets.her2st("A1", base_url=url)
    assert len(seen) == 5
    assert damaged.read_bytes() == (root / "data/ST-cnts/A1.tsv.gz").read_bytes()


def test_without_image_downloads_no_image(server, tmp_path):
    _, url, _ = server
    sw.datasets.her2st("A1", base_url=url, with_image=False)
    assert not [p for p in cached(tmp_path) if p.endswith(".jpg")]


def test_a_corrupted_download_is_refused_and_not_kept(server, tmp_path):
    root, url, _ = server
    (root / "data/ST-spotfiles/A1_selection.tsv").write_text("x\ty\n")
    with pytest.raises(ValueError, match="git blob SHA-1"):
        sw.datasets.her2st("A1", base_url=url)
    assert not [p for p in cached(tmp_path) if "spotfiles" in p]


def test_server_without_the_file(server):
    root, url, _ = server
    (root / "data/ST-spotfiles/A1_selection.tsv").unlink()
    with pytest.raises(ConnectionError, match="A1_selection.tsv"):
        sw.datasets.her2st("A1", base_url=url)


def test_offline_names_file_and_folder(server, tmp_path):
    _, url, seen = server
    with settings.override(offline=True), pytest.raises(FileNotFoundError, match=r"A1\.tsv\.gz.*her2st"):
        sw.datasets.her2st("A1", base_url=url)
    assert not seen
    assert not (tmp_path / "cache").exists()


def test_registry_covers_all_sections():
    MODULE._registry.cache_clear()
    registry = MODULE._registry()
    names = sorted(Path(p).name[:2] for p in registry if p.startswith("data/ST-cnts/"))
    assert len(names) == 36
    for name in names:
        wanted = MODULE._wanted(name, with_image=True)
        assert sum(p.endswith(".jpg") for p in wanted) == 1
        assert sum(p.startswith("data/ST-spotfiles/") for p in wanted) == 1
    assert sum(p.startswith("data/ST-pat/") for p in registry) == 8
    assert all(len(sha1) == 40 for sha1 in registry.values())


def test_real_sections(data_folder):
    import anndata as ad

    names = ["C2", "A1", "B1"]
    with pytest.warns(SpatialWhispererWarning, match="No image of B1"):
        sdata = sw.datasets.her2st(names, data_dir=data_folder)
    assert set(sdata.images) == {"C2_image", "A1_image"}
    table = sdata["table"]
    for name in names:
        source: Any = ad.read_h5ad(data_folder / "her2st" / name / "counts.h5ad")
        meta = json.loads((data_folder / "her2st" / name / "meta.json").read_text())
        part = table[table.obs["section"] == name]
        assert list(part.obs_names) == list(source.obs_names)
        assert (part[:, source.var_names].X != source.X).nnz == 0
        assert part.X.sum() == source.X.sum()
        np.testing.assert_array_equal(part.obsm["spatial"], source.obsm["spatial"])
        np.testing.assert_array_equal(part.obsm["deconv_major"], source.obsm["deconv_major"].to_numpy())
        assert list(table.uns["deconv_major"]["classes"]) == list(source.obsm["deconv_major"].columns)
        for column in ("pathologist_label", "cluster_annotation", "deconv_major_top"):
            assert (
                part.obs[column].astype(object).fillna("").to_list()
                == source.obs[column].astype(object).fillna("").to_list()
            )
        mpp = meta["um_per_px"] or meta["um_per_px_orig_image"]
        np.testing.assert_allclose(sdata[f"{name}_spots"]["radius"] * mpp, 50.0)
    again = sw.datasets.her2st("C2", data_dir=data_folder / "her2st", with_image=False)["table"]
    assert again.n_obs == 187
    with pytest.raises(FileNotFoundError, match="no section A2"):
        sw.datasets.her2st("A2", data_dir=data_folder)


def test_real_image_is_the_published_one(data_folder):
    registry = {p.split("/")[-2]: sha1 for p, sha1 in MODULE._registry().items() if p.startswith("data/ST-imgs/")}
    assert git_blob_sha1(data_folder / "her2st/C2/image.jpg") == registry["C2"]


def test_import_stays_light():
    code = "import sys, spatialwhisperer.datasets; print(sorted({'torch', 'spatialdata', 'anndata', 'numba'} & set(sys.modules)))"
    import sys

    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
