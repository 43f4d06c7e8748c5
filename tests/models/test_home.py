"""A path that begins with ``~`` lies in the home folder, wherever a model or an encoder is written or opened."""

from __future__ import annotations

from pathlib import Path

import pytest

import spatialwhisperer as sw


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


def test_a_model_is_saved_for_the_hub_in_the_home_folder(home: Path) -> None:
    sw.models.default_model().save_pretrained("~/model")
    assert [path.name for path in home.iterdir()] == ["model"]
    assert not Path("~").exists()
    assert sw.models.load("~/model").labels == sw.models.default_model().labels


def test_a_gene_encoder_is_found_where_it_was_saved(home: Path) -> None:
    cells = sw.datasets.simulate_sections(1, 30, n_genes=40, n_reference_cells=60, random_state=0).reference
    encoder = sw.pp.fit_gene_encoder([cells], "pca", n_latent=3, n_top_genes=None)
    encoder.save("~/genes")
    assert (home / "genes").is_dir()
    sw.pp.embed_genes(cells, "~/genes")
    assert sw.models.load_gene_encoder("~/genes").dim == 3
    with pytest.raises(FileExistsError, match="is there already"):
        encoder.save("~/genes")
