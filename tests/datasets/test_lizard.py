from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from spatialwhisperer.datasets.cells import CellImages
from spatialwhisperer.datasets.lizard import CLASSES, lizard


@pytest.mark.parametrize("nested", [False, True])
def test_lizard_layout(tmp_path, nested, naive_tiles, assert_same, write_lizard) -> None:
    truth = write_lizard(tmp_path, nested=nested)
    images = lizard(data_dir=tmp_path, tile_px=40)
    assert isinstance(images, CellImages)
    assert list(images) == ["crag_11", "glas_2"]
    for name, sdata in images.items():
        instances, classes, pixels = truth[name]
        assert_same(sdata["table"], naive_tiles(instances, lambda i, *_, c=classes: c[i], 7, 40, always=False))
        np.testing.assert_array_equal(np.asarray(sdata[f"{name}_image"]["scale0"]["image"]).transpose(1, 2, 0), pixels)
        table, nuclei = sdata["table"], sdata["nuclei"]
        assert list(table.uns["cell_counts"]["classes"]) == list(CLASSES)
        np.testing.assert_array_equal(table.obsm["spatial"], (table.obs[["x_array", "y_array"]].to_numpy() + 0.5) * 40)
        assert (table.obs["n_cells"] == table.obsm["cell_counts"].sum(axis=1)).all()
        dominant = [CLASSES[c.argmax()] for c in table.obsm["cell_counts"]]
        assert list(table.obs["cell_type"]) == dominant
        assert set(table.obs["section"]) == {name}
        assert json.loads(table.uns["lizard"])["mpp"] == 0.5
        by_id = dict(zip(nuclei.obs["instance"], nuclei.obs["cell_type"], strict=True))
        assert by_id == {i: CLASSES[c] for i, c in classes.items()}
        centroids = sdata[f"{name}_tiles"].geometry.centroid
        np.testing.assert_allclose(np.column_stack([centroids.x, centroids.y]), table.obsm["spatial"])


def test_lizard_images_can_be_chosen(tmp_path, write_lizard) -> None:
    write_lizard(tmp_path)
    assert list(lizard(data_dir=tmp_path, images="glas_2")) == ["glas_2"]
    assert list(lizard(data_dir=tmp_path, split=1)) == ["crag_11"]
    with pytest.raises(ValueError, match="no split 3"):
        lizard(data_dir=tmp_path, split=3)
    with pytest.raises(ValueError, match="no image crag_99"):
        lizard(data_dir=tmp_path, images=["crag_99"])
    with pytest.raises(KeyError, match="no image 'x'"):
        lizard(data_dir=tmp_path)["x"]


def test_lizard_says_what_is_missing(tmp_path, write_lizard) -> None:
    with pytest.raises(FileNotFoundError, match="Lizard_Images1"):
        lizard(data_dir=tmp_path)
    write_lizard(tmp_path)
    next(tmp_path.rglob("glas_2.mat")).unlink()
    with pytest.raises(FileNotFoundError, match="glas_2"):
        lizard(data_dir=tmp_path)


def test_lizard_refuses_masks_of_another_image(tmp_path, write_lizard) -> None:
    write_lizard(tmp_path)
    Image.fromarray(np.zeros((50, 50, 3), np.uint8)).save(tmp_path / "Lizard_Images1" / "crag_11.png")
    images = lizard(data_dir=tmp_path, tile_px=40)
    with pytest.raises(ValueError, match="do not belong together"):
        images["crag_11"]


def test_lizard_refuses_a_nucleus_without_a_class(tmp_path, write_lizard) -> None:
    write_lizard(tmp_path)
    savemat(
        tmp_path / "Lizard_Labels/Labels/crag_11.mat",
        {"inst_map": np.full((120, 150), 7), "id": np.array([[1]]), "class": np.array([[2]])},
    )
    with pytest.raises(ValueError, match="have no class"):
        lizard(data_dir=tmp_path)["crag_11"]


def test_an_image_smaller_than_the_grid_keeps_its_only_tile(tmp_path, write_lizard) -> None:
    truth = write_lizard(tmp_path, names=("crag_11",))
    table = lizard(data_dir=tmp_path, tile_px=150)["crag_11"]["table"]
    assert table.n_obs == 1
    assert table.obs["n_cells"].sum() == len(truth["crag_11"][1])


def test_sizes_are_checked(tmp_path, write_lizard) -> None:
    write_lizard(tmp_path)
    with pytest.raises(ValueError, match="tile_px"):
        lizard(data_dir=tmp_path, tile_px=0)
    with pytest.raises(ValueError, match="mpp"):
        lizard(data_dir=tmp_path, mpp=-1)
    with pytest.raises(FileNotFoundError, match="not a folder"):
        lizard(data_dir=tmp_path / "absent")


@pytest.mark.slow
def test_tiles_can_be_embedded_and_stored(tmp_path, write_lizard) -> None:
    import spatialdata as sd

    import spatialwhisperer as sw

    write_lizard(tmp_path)
    sdata = lizard(data_dir=tmp_path, tile_px=40)["crag_11"]
    sw.pp.embed_images(sdata, tile_um=20, tile_px=40)
    assert sdata["table"].obsm["X_stain_texture"].shape[0] == sdata["table"].n_obs
    sdata.write(tmp_path / "x.zarr")
    again = sd.read_zarr(tmp_path / "x.zarr")["table"]
    np.testing.assert_array_equal(again.obsm["cell_counts"], sdata["table"].obsm["cell_counts"])
