"""The weights that the package ships."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest

import spatialwhisperer as sw
from spatialwhisperer.models import default
from spatialwhisperer.protocols.default_labels import LABELS, REGIONS

if TYPE_CHECKING:
    from pathlib import Path

FOLDER = default.weights_folder()


def test_it_is_there_and_small() -> None:
    files = [p for p in FOLDER.rglob("*") if p.is_file()]
    assert {p.suffix for p in files} <= {".json", ".safetensors"}
    assert sum(p.stat().st_size for p in files) <= 8_000_000


def test_it_says_what_it_is() -> None:
    model = sw.models.default_model()
    card = model.config["card"]
    assert card["patients"] == list("ABCDEFGH")
    assert set(card["sections_with_image"]) == {"A1", "C2", "C3", "C4", "C5"}
    assert "Not for diagnosis" in card["use"]
    assert set(card["held_out_macro_auroc"]) == set(card["sections_with_image"])
    assert model.config["annotation"]["temperature"] > 0
    assert model.labels == list(LABELS)
    assert {label for right in REGIONS.values() for label in right} <= set(LABELS)


def test_the_vocabulary_names_the_cell_ontology() -> None:
    vocabulary = sw.models.default_model().vocabulary
    for name, label in LABELS.items():
        assert vocabulary.ontology.find(name) == label["cl"]
    assert "leukocyte" in {vocabulary.ontology.name(a) for a in vocabulary.ontology.ancestors("CL:0000084")}


def test_a_simulated_slide_needs_no_argument_and_no_text_encoder() -> None:
    """In a process that has neither network nor transformers."""
    code = """
import sys, json, warnings
warnings.simplefilter("ignore")
sys.modules["transformers"] = None
import spatialwhisperer as sw
sw.settings.offline = True
sections, _ = sw.datasets.simulate_sections(1, 60, n_genes=50, n_reference_cells=50, random_state=0)
sdata = sections["P1"]
sw.tl.zero_shot_annotate(sdata)
obs = sdata["table"].obs
print(json.dumps([list(obs["sw_label"].cat.categories), float(obs["sw_label_confidence"].max()), str(obs["sw_label_cl"].dtype)]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    categories, confidence, dtype = json.loads(done.stdout.splitlines()[-1])
    assert categories == [name for name in LABELS if name in categories]
    assert len(categories) > 1
    assert 0 < confidence <= 1
    assert dtype == "category"
    assert "her2st-mini" in done.stderr
    assert "not for diagnosis" in done.stderr


@pytest.mark.slow
def test_a_real_section_is_annotated(data_folder: Path) -> None:
    """C3 is one of its training sections, so this shows that it works, not how well."""
    sdata = sw.datasets.her2st("C3", data_dir=data_folder)
    sw.tl.zero_shot_annotate(sdata)
    result = sw.tl.evaluate_annotation(
        sdata, "pathologist_label", mapping={r: ls[0] for r, ls in REGIONS.items() if len(ls) == 1}, min_rows=5
    )
    assert result.loc["macro", "auroc"] > 0.7
    scores = sdata["table"].obsm["sw_label_scores"]
    assert scores.shape == (sdata["table"].n_obs, len(LABELS))
    assert np.isfinite(scores).any()


@pytest.mark.slow
def test_the_script_trains_such_a_model(data_folder: Path, tmp_path: Path) -> None:
    from spatialwhisperer.protocols.train_default import main

    out = tmp_path / "mini"
    assert main(["--data", str(data_folder), "--out", str(out), "--gene-encoder", "pca", "--smoke"]) == 0
    model = sw.models.Whisperer.load(out)
    assert model.labels == list(LABELS)
    assert set(model.config["card"]["held_out_macro_auroc"]) == {"A1", "C3"}
    assert 0 <= model.config["annotation"]["ece"] <= 1
