from __future__ import annotations

import functools
import gzip
import hashlib
import http.server
import json
import threading
from importlib import import_module

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import spatialwhisperer as sw
from spatialwhisperer._messages import SpatialWhispererWarning
from spatialwhisperer._settings import settings

MODULE = import_module("spatialwhisperer.datasets.olfactory_bulb")
TREE = "tare/Splotch/0/tutorials/olfactory_bulb_st"
LAYERS = [
    "Olfactory nerve layer",
    "Glomerular layer",
    "Outer Plexiform Layer",
    "Mitral Cell Layer",
    "Granular Cell Layer",
]


def write_layers(root, names=("10", "11"), *, counts=("11",)) -> None:
    """Sections in the layout of Splotch: ten pixels per pitch, one spot without a layer and one with two."""
    for folder in ("images", "annotations"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        rng = np.random.default_rng(number)
        pixels = rng.integers(0, 256, (340, 320, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / "images" / f"{name}.jpg")
        spots = [(x, y) for x in range(5, 12) for y in range(6, 9)]
        labels = np.zeros((5, len(spots)), int)
        labels[np.arange(len(spots)) % 5, np.arange(len(spots))] = 1
        labels[:, 0], labels[:2, 1] = 0, 1
        table = pd.DataFrame(labels, index=LAYERS, columns=[f"{x}_{y}" for x, y in spots])
        table.to_csv(root / "annotations" / f"{name}_01.tsv", sep="\t")
        if name in counts:
            values = rng.poisson(2, (len(spots), 3))
            order = rng.permutation(len(spots))
            index = [f"X{spots[i][0] + 0.08:.2f}x{spots[i][1] - 0.1:.2f}" for i in order]
            with gzip.open(root / f"counts_{name}.tsv.gz", "wt") as stream:
                pd.DataFrame(values[order], index=index, columns=["Nrf1", "Sox2", "Pcp4"]).to_csv(stream, sep="\t")
    animals = [(int(n), "AAAABCCDDEEE"[int(n) - 1]) for n in names]
    pd.DataFrame(animals, columns=["sample_number", "level_1"]).to_csv(root / "metadata.tsv", sep="\t", index=False)


def write_genes(root, name="MOB1") -> None:
    """A section in the layout of STUtility: 48 pixels for two steps."""
    root.mkdir(parents=True, exist_ok=True)
    x, y = (a.ravel() for a in np.meshgrid(np.arange(2, 8, 2), np.arange(2, 10, 2)))
    spots = pd.DataFrame(
        {"x": x, "y": y, "new_x": x, "new_y": y, "pixel_x": 21.6 * x, "pixel_y": 24.0 * y, "selected": 1}
    )
    spots.loc[0, "selected"] = 0
    spots.to_csv(root / f"alignment_table_{name}.tsv", sep="\t", index=False)
    values = np.random.default_rng(0).poisson(3, (len(x), 2))
    index = [f"{a}x{b}" for a, b in zip(x, y, strict=True)]
    pd.DataFrame(values, index=index, columns=["ENSMUSG01.1", "ENSMUSG02.3"]).to_csv(root / f"{name}.tsv", sep="\t")
    Image.new("RGB", (200, 240), (200, 150, 190)).save(root / f"{name}.jpg")


@pytest.fixture
def folder(tmp_path):
    write_layers(tmp_path / "bulb")
    return tmp_path / "bulb"


@pytest.fixture
def server(tmp_path, monkeypatch):
    """The same files behind a local web server, with their checksums."""
    root = tmp_path / "served"
    write_layers(root / TREE)
    counts = root / "almaan/sepal/0/data/real/mob.tsv.gz"
    counts.parent.mkdir(parents=True)
    (root / TREE / "counts_11.tsv.gz").rename(counts)
    paths = [p for p in root.rglob("*") if p.is_file()]
    known = {p.relative_to(root).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in paths}
    monkeypatch.setattr(MODULE, "_registry", lambda: known)
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


def test_a_section_has_its_layers_positions_animal_and_counts(folder):
    sdata = sw.datasets.olfactory_bulb("11", data_dir=folder)
    table = sdata["table"]
    assert set(sdata.images) == {"11_image"}
    assert set(sdata.coordinate_systems) == {"11", "microns"}
    assert list(table.var_names) == ["Nrf1", "Sox2", "Pcp4"]
    assert list(table.obs["layer"].cat.categories) == [name.lower() for name in LAYERS]
    assert list(table.obs_names[table.obs["layer"].isna()]) == ["11_5x6", "11_5x7"]
    assert table.obs["layer"].iloc[2] == "outer plexiform layer"
    assert set(table.obs["patient"]) == {"E"}
    at = (table.obs[["array_col", "array_row"]].to_numpy() - 1) * 10
    np.testing.assert_allclose(table.obsm["spatial"], at)
    np.testing.assert_allclose(sdata["11_spots"]["radius"], 50 / 20)
    source = pd.read_csv(folder / "counts_11.tsv.gz", sep="\t", index_col=0)
    np.testing.assert_array_equal(table["11_7x8"].X.toarray()[0], source.loc["X7.08x7.90"])
    np.testing.assert_array_equal(table.obs["total_counts"], np.asarray(table.X.sum(axis=1)).ravel())
    assert json.loads(table.uns["olfactory_bulb"]["11"])["license"] == "BSD-3-Clause"


def test_counts_are_left_out_beside_a_section_without_them(folder):
    with pytest.warns(SpatialWhispererWarning, match="counts of 11 are left out"):
        table = sw.datasets.olfactory_bulb(["10", "11"], data_dir=folder)["table"]
    assert table.shape == (42, 0)
    assert "total_counts" not in table.obs


def test_sections_of_a_thousand_genes_keep_the_selected_spots(tmp_path):
    write_genes(tmp_path / "mob")
    sdata = sw.datasets.olfactory_bulb("MOB1", data_dir=tmp_path)
    table = sdata["table"]
    assert table.shape == (11, 2)
    assert list(table.var_names) == ["ENSMUSG01", "ENSMUSG02"]
    assert set(table.obs["patient"]) == {"MOB-1"}
    assert table.obs["layer"].isna().all()
    np.testing.assert_allclose(sdata["MOB1_spots"]["radius"], 12.0, rtol=1e-5)


def test_without_image(folder):
    assert not sw.datasets.olfactory_bulb("10", data_dir=folder, with_image=False).images


def test_survives_zarr(folder, tmp_path):
    import spatialdata as sd

    sw.datasets.olfactory_bulb("10", data_dir=folder).write(tmp_path / "x.zarr")
    back = sd.read_zarr(tmp_path / "x.zarr")["table"]
    assert back.shape == (21, 0)
    assert back.obs["layer"].isna().sum() == 2


def test_wrong_requests_say_what_is_there(folder, tmp_path):
    with pytest.raises(ValueError, match="No such section: 02.*MOB4"):
        sw.datasets.olfactory_bulb("02", data_dir=folder)
    with pytest.raises(ValueError, match="once"):
        sw.datasets.olfactory_bulb(["11", "11"], data_dir=folder)
    with pytest.raises(TypeError, match="sections must be"):
        sw.datasets.olfactory_bulb(11, data_dir=folder)  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError, match="is not a folder"):
        sw.datasets.olfactory_bulb("11", data_dir=tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="09_01.tsv.*data_dir=None"):
        sw.datasets.olfactory_bulb("09", data_dir=folder)
    with pytest.raises(FileNotFoundError, match="STUtility"):
        sw.datasets.olfactory_bulb("MOB1", data_dir=folder)
    with pytest.raises(ValueError, match="STUtility"):
        sw.datasets.olfactory_bulb("MOB1")


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("images/11.jpg", b"nothing", "not an image"),
        ("annotations/11_01.tsv", b"\t5_5\nSkin\t1\n", "one row of 0 and 1 per layer"),
        ("annotations/11_01.tsv", b"", "cannot be read"),
        ("annotations/11_01.tsv", b"\t99_5\nGlomerular layer\t1\n", "missing: 99_5"),
        ("metadata.tsv", b"sample_number\tlevel_1\n3\tA\n", "one line for sample 11"),
        ("metadata.tsv", b"a\tb\n", "no column sample_number"),
        ("counts_11.tsv.gz", b"nothing", "cannot be read"),
    ],
)
def test_a_damaged_file_is_named(folder, file, content, message):
    (folder / file).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        sw.datasets.olfactory_bulb("11", data_dir=folder)


def test_a_missing_image_is_named(folder):
    (folder / "images/11.jpg").unlink()
    with pytest.raises(FileNotFoundError, match="11.jpg is missing"):
        sw.datasets.olfactory_bulb("11", data_dir=folder)


def test_counts_cut_short_are_refused(folder):
    whole = (folder / "counts_11.tsv.gz").read_bytes()
    (folder / "counts_11.tsv.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="cannot be read"):
        sw.datasets.olfactory_bulb("11", data_dir=folder)


def test_download_is_verified_and_kept(server, tmp_path):
    _, url, seen = server
    table = sw.datasets.olfactory_bulb("11", base_url=url)["table"]
    assert table.shape == (21, 3)
    assert len(seen) == 4
    with settings.override(offline=True):
        sw.datasets.olfactory_bulb("11", base_url=url)
    (tmp_path / "cache/olfactory_bulb" / TREE / "metadata.tsv").write_text("damaged")
    sw.datasets.olfactory_bulb("11", base_url=url)
    assert len(seen) == 5


def test_a_wrong_checksum_is_refused_and_not_kept(server, tmp_path):
    root, url, _ = server
    (root / TREE / "annotations/11_01.tsv").write_text("another")
    with pytest.raises(ValueError, match="its SHA-256 is"):
        sw.datasets.olfactory_bulb("11", base_url=url)
    assert not list((tmp_path / "cache").rglob("11_01.tsv"))


def test_offline_names_file_and_folder(server):
    _, url, seen = server
    with settings.override(offline=True), pytest.raises(FileNotFoundError, match="10.jpg.*olfactory_bulb"):
        sw.datasets.olfactory_bulb("10", base_url=url)
    assert not seen


def test_server_without_the_file(server):
    root, url, _ = server
    (root / TREE / "metadata.tsv").unlink()
    with pytest.raises(ConnectionError, match="metadata.tsv"):
        sw.datasets.olfactory_bulb("10", base_url=url)


def test_registry_covers_all_sections():
    MODULE._registry.cache_clear()
    for name in MODULE.WITH_LAYERS:
        assert len(MODULE._wanted([name])) == (4 if name == "11" else 3)
    assert all(len(sha256) == 64 for sha256 in MODULE._registry().values())


@pytest.mark.slow
def test_real_sections(data_folder):
    if not (data_folder / "mob_regions").is_dir():
        pytest.skip("needs mob_regions/")
    table = sw.datasets.olfactory_bulb("11", data_dir=data_folder)["table"]
    assert table.shape == (262, 16218)
    assert table.obs["layer"].notna().all()
    both = sw.datasets.olfactory_bulb(["01", "05"], data_dir=data_folder)["table"]
    assert both.shape == (534, 0)
    assert set(both.obs["patient"]) == {"A", "B"}
    genes = sw.datasets.olfactory_bulb(["MOB1", "MOB3"], data_dir=data_folder)["table"]
    assert genes.shape == (379 + 438, 1000)
    for path, sha256 in MODULE._registry().items():
        local = "counts_11.tsv.gz" if path.endswith(".gz") else path.split("olfactory_bulb_st/")[1]
        assert hashlib.sha256((data_folder / "mob_regions" / local).read_bytes()).hexdigest() == sha256
