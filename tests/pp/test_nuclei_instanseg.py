from __future__ import annotations

import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import spatialwhisperer as sw
from spatialwhisperer.pp._nuclei import finding
from tests.pp.nuclei_slides import draw, found_at, slide_of

if TYPE_CHECKING:
    from pathlib import Path

NEEDS = pytest.mark.skipif(find_spec("instanseg") is None, reason="needs pip install 'spatialwhisperer[nuclei]'")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that takes dark pixels for nuclei, stored as those of InstanSeg are."""
    import torch

    class Dark(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pixel_size = 0.5
            self.cells_and_nuclei = False

        def forward(self, x: torch.Tensor, target_segmentation: torch.Tensor) -> torch.Tensor:
            mask = (x[:, 0:1] < 0.6).to(torch.float32)
            height, width = mask.shape[2], mask.shape[3]
            labels = torch.arange(1, height * width + 1, dtype=torch.float32).reshape(1, 1, height, width) * mask
            for _ in range(40):
                labels = torch.nn.functional.max_pool2d(labels, 3, 1, 1) * mask
            return labels * target_segmentation.max()

    path = tmp_path_factory.mktemp("instanseg") / "instanseg.pt"
    with pytest.warns(FutureWarning, match="torch.jit.script"):
        torch.jit.script(Dark()).save(str(path))
    return path


@NEEDS
@pytest.mark.filterwarnings("ignore:CUDA is not available")
def test_the_network_finds_nuclei_once_whatever_the_parts(weights: Path, monkeypatch: Any) -> None:
    drawn = draw(300, 400, noise=1)
    slide = slide_of(drawn.image)
    sw.pp.nuclei(slide, method="instanseg", weights=weights, device="cpu")
    at = found_at(slide["nuclei"], drawn.centres)
    assert sorted(at) == list(range(len(drawn.centres)))
    assert len(slide["nuclei"]) == len(drawn.centres)
    area = slide["nuclei_table"].obs["area_um2"].to_numpy()[at]
    assert abs(np.median(area / drawn.area_um2) - 1) < 0.15
    monkeypatch.setattr(finding, "CORE_PX", 90)
    parts = sw.pp.nuclei(slide, method="instanseg", weights=weights, inplace=False)
    assert parts is not None
    assert len(parts) == len(drawn.centres)


@NEEDS
def test_files_that_are_no_model_are_refused(tmp_path: Path, build: Any) -> None:
    import torch

    slide = slide_of(draw(100, 100).image)
    before = build.state(slide)
    with pytest.raises(FileNotFoundError, match="There is no file"):
        sw.pp.nuclei(slide, method="instanseg", weights=tmp_path / "none.pt")
    other = tmp_path / "other.pt"
    other.write_text("no weights")
    with pytest.raises(ValueError, match="not a TorchScript file"):
        sw.pp.nuclei(slide, method="instanseg", weights=other)
    with pytest.warns(FutureWarning):
        torch.jit.script(torch.nn.Identity()).save(str(other))
    with pytest.raises(ValueError, match="not a model of InstanSeg: it lacks pixel_size and cells_and_nuclei"):
        sw.pp.nuclei(slide, method="instanseg", weights=other)
    assert build.state(slide) == before


@NEEDS
def test_weights_that_cannot_be_downloaded_are_named_with_a_remedy(tmp_path: Path, monkeypatch: Any) -> None:
    import requests

    def unreachable(*_: Any, **__: Any) -> None:
        raise requests.exceptions.ConnectionError

    monkeypatch.setenv("INSTANSEG_BIOIMAGEIO_PATH", str(tmp_path))
    monkeypatch.setattr(requests, "get", unreachable)
    slide = slide_of(draw(100, 100).image)
    with pytest.raises(FileNotFoundError, match=r"ConnectionError.*pass the file instanseg.pt in it: weights="):
        sw.pp.nuclei(slide, method="instanseg")
    with sw.settings.override(offline=True), pytest.raises(FileNotFoundError, match="settings.offline is set"):
        sw.pp.nuclei(slide, method="instanseg")


def test_a_missing_package_is_named_with_the_command(monkeypatch: Any) -> None:
    monkeypatch.setitem(sys.modules, "instanseg", None)
    slide = slide_of(draw(100, 100).image)
    with pytest.raises(ImportError, match=r"pip install 'spatialwhisperer\[nuclei\]'"):
        sw.pp.nuclei(slide, method="instanseg")
    assert not slide.shapes
