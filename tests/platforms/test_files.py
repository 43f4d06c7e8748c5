"""The pages of platforms on files of older versions and on real ones, where each label lies, and the messages that one page explains."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

import spatialwhisperer as sw
from tests.platforms import files

if TYPE_CHECKING:
    from collections.abc import Callable

mpl.use("agg")

PAGES = Path(__file__).parents[2] / "docs" / "platforms"


@pytest.fixture(autouse=True)
def _close() -> Any:
    import matplotlib.pyplot as plt

    yield
    plt.close("all")


@pytest.fixture(autouse=True)
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(page: str) -> dict[str, Any]:
    """What the code of a page leaves behind."""
    text = (PAGES / f"{page}.md").read_text(encoding="utf-8")
    if "spatialdata_io" in text:
        pytest.importorskip("spatialdata_io")
    namespace: dict[str, Any] = {}
    for block in re.findall(r"^```python\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE):
        exec(block, namespace)
    return namespace


@pytest.mark.slow
def test_cells_of_xenium_are_labelled_where_they_lie_on_the_image() -> None:
    cells = files.xenium("xenium")
    sdata = run("xenium")["sdata"]
    sw.pp.tiles(sdata, tile_um=40, at="cells", image_key="he")
    np.testing.assert_allclose(sdata["table"].obsm["sw_tiles"], cells, atol=1)
    assert np.isfinite(sdata["table"].obsm["sw_label_scores"]).all()


@pytest.mark.slow
def test_a_folder_of_space_ranger_1_is_labelled_as_one_of_space_ranger_2(room: Path) -> None:
    scores = []
    for version in (1, 2):
        folder = room / str(version)
        folder.mkdir()
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            files.space_ranger("outs", version=version)
            namespace = run("visium")
        tables = namespace["adata"], namespace["sdata"]["table"]
        scores.append([table.obsm["sw_label_scores"] for table in tables])
    np.testing.assert_array_equal(scores[0], scores[1])


# ---------------------------------------------------------------------------------------------------- real files


@pytest.mark.slow
def test_a_real_section_of_spatial_transcriptomics_gets_labels(data_folder: Path) -> None:
    """Breast cancer, of which the embedded model knows this section."""
    import anndata as ad
    from PIL import Image

    folder = data_folder / "her2st" / "C3"
    adata = ad.read_h5ad(folder / "counts.h5ad")[:, :50]
    adata.obs_names = [f"{x}x{y}" for x, y in zip(adata.obs["array_col"], adata.obs["array_row"], strict=True)]
    adata.to_df().astype(int).to_csv("counts.tsv", sep="\t")
    where = {"x": adata.obs["array_col"], "y": adata.obs["array_row"]}
    pixels = adata.obsm["spatial"] / 3
    pd.DataFrame({**where, "pixel_x": pixels[:, 0], "pixel_y": pixels[:, 1]}).to_csv("spots.tsv", sep="\t", index=False)
    image = Image.open(folder / "image.jpg")
    files.image_file("HE.tif", mpp=None, pixels=np.asarray(image.reduce(3)))
    table = run("st")["adata"]
    # some rows stay below the confidence that the model asks for, none is foreign to it
    assert set(table.obs["sw_label_reason"].dropna()) <= {"below min_confidence"}
    assert table.obs["sw_label"].notna().mean() > 0.3
    assert "malignant cell" in set(table.obs["sw_label"])


@pytest.mark.slow
def test_a_real_olfactory_bulb_gets_no_label(data_folder: Path) -> None:
    from PIL import Image

    folder = data_folder / "mob"
    spots = pd.read_csv(folder / "alignment_table_MOB2.tsv", sep="\t").query("selected == 1")
    spots.to_csv("spots.tsv", sep="\t", index=False)
    counts = pd.read_csv(folder / "MOB2.tsv.gz", sep="\t", index_col=0)
    names = spots["x"].astype(str) + "x" + spots["y"].astype(str)
    counts.loc[counts.index.intersection(list(names))].to_csv("counts.tsv", sep="\t")
    files.image_file("HE.tif", mpp=None, pixels=np.asarray(Image.open(folder / "MOB2.jpg").convert("RGB")))
    table = run("st")["adata"]
    assert table.n_obs > 300
    assert table.obs["sw_label"].isna().all()


@pytest.mark.slow
def test_a_real_eosin_image_of_cytassist_gets_no_label(data_folder: Path) -> None:
    import gzip
    import shutil

    import scipy.io
    from PIL import Image

    real = data_folder / "visium_cytassist"
    shutil.copytree(real / "spatial", "outs/spatial")
    lines = {
        name: gzip.open(real / "filtered_feature_bc_matrix" / f"{name}.tsv.gz", "rt").read().splitlines()
        for name in ("barcodes", "features")
    }
    counts = scipy.io.mmread(real / "filtered_feature_bc_matrix" / "matrix.mtx.gz")
    genes = [line.split("\t")[1] for line in lines["features"]]
    files.matrix_file(Path("outs/filtered_feature_bc_matrix.h5"), lines["barcodes"], genes, counts)
    # the run has the lowres image alone, at 0.2 of the full resolution
    image = Image.open("outs/spatial/tissue_lowres_image.png").convert("RGB")
    image.resize((image.width * 5, image.height * 5)).save("tissue.tif")
    image.resize((image.width * 10 // 3, image.height * 10 // 3)).save("outs/spatial/tissue_hires_image.png")
    namespace = run("visium")
    for table in (namespace["adata"], namespace["sdata"]["table"]):
        assert table.n_obs == len(lines["barcodes"])
        assert table.obs["sw_label"].isna().all()


@pytest.mark.slow
def test_real_cells_of_xenium_are_found_on_their_image(data_folder: Path) -> None:
    """Lung, which the model does not know. Scale and outlines of the cells are not published, and made up."""
    import anndata as ad
    from PIL import Image

    folder = data_folder / "xenium_lung_ncbi858"
    # its x is the row
    cells = ad.read_h5ad(folder / "NCBI858.h5ad").obs
    xy = np.column_stack([cells["y_pixel"], cells["x_pixel"]]).astype(float)
    files.xenium("xenium", pixels=np.asarray(Image.open(folder / "NCBI858.jpg").convert("RGB")), xy_px=xy)
    sdata = run("xenium")["sdata"]
    assert sdata["table"].obs["sw_label_reason"].notna().sum() == sdata["table"].obs["sw_label"].isna().sum()
    sw.pp.tiles(sdata, tile_um=40, at="cells", image_key="he", off_slide="nan")
    # made-up outlines of neighbours overlap, which moves a few centroids
    assert np.median(np.abs(sdata["table"].obsm["sw_tiles"] - xy)) < 1


# ------------------------------------------------------------------------------------------------------ messages


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Messages of the mistakes that the page explains."""
    import spatialdata as sd

    path = tmp_path_factory.mktemp("faq") / "a.tif"
    files.image_file(path, mpp=None)
    slide, stated = sw.io.read_slide(path), sw.io.read_slide(path, mpp=0.5)
    grid: Any = sw.pp.tiles(stated, tile_um=100, at="grid", tissue=None, inplace=False)
    twice = sd.SpatialData(images={"a": stated["a"]}, tables={"t1": grid.copy(), "t2": grid.copy()})
    section = sw.datasets.simulate_sections(1, 40, n_genes=20, n_reference_cells=20, random_state=0).sections["P1"]
    section.images["copy"] = section["P1_image"]
    mistakes: list[Callable[[], Any]] = [
        lambda: sw.tl.zero_shot_annotate(slide),
        lambda: sw.tl.zero_shot_annotate(stated, mpp=0.6),
        lambda: sw.pp.tiles(stated, tile_um=5000, at="grid"),
        lambda: sw.pp.tiles(stated, tile_um=290, at="grid", min_tissue=1),
        lambda: sw.tl.zero_shot_annotate(section),
        lambda: sw.tl.zero_shot_annotate(twice),
        lambda: sw.tl.zero_shot_annotate(_off_image(), mpp=0.5),
        lambda: sw.tl.zero_shot_annotate(_of_mouse(), modality="gene"),
        lambda: sw.tl.zero_shot_annotate("a.tif"),
        lambda: sw.tl.zero_shot_annotate(stated, model="someone/model"),
    ]
    with sw.settings.override(offline=True):
        return [_message(mistake) for mistake in mistakes]


def _message(mistake: Callable[[], Any]) -> str:
    try:
        mistake()
    except (KeyError, OSError, TypeError, ValueError) as error:
        return str(error)
    raise AssertionError("this was no mistake")


def _off_image() -> Any:
    import anndata as ad

    adata = ad.AnnData(np.zeros((3, 0), np.float32))
    adata.obsm["spatial"] = np.array([[9.0, 9], [50, 50], [5000, 5]])
    pixels = np.full((200, 200, 3), 200, np.uint8)
    adata.uns["spatial"] = {"S": {"images": {"fullres": pixels}, "scalefactors": {}}}
    return adata


def _of_mouse() -> Any:
    import anndata as ad

    genes = list(sw.models.default_model().encoders["gene"].genes)[:400]  # type: ignore[attr-defined]
    return ad.AnnData(np.ones((3, 400), np.float32), var=pd.DataFrame(index=[name.capitalize() for name in genes]))


def test_messages_of_the_faq_are_those_of_the_package(said: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    headings = re.findall(r"^## (.*)$", (PAGES / "faq.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    quoted = [text for heading in headings for text in re.findall(r'"([^"]+)"', heading)]
    assert len(quoted) == 11
    files.image_file("b.tif")
    sw.tl.zero_shot_annotate(sw.io.read_slide("b.tif"))
    messages = [*said, capsys.readouterr().err]
    for text in quoted:
        pattern = ".*".join(re.escape(part) for part in text.split("…"))
        assert any(re.search(pattern, message) for message in messages), text
