from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch

import spatialwhisperer as sw
from spatialwhisperer.encoders.recipe import FeatureRecipe
from spatialwhisperer.models import Context, get_preset
from spatialwhisperer.models.configuration.model import ContextConfig, Training
from spatialwhisperer.tl._training.fitting import (
    Plan,
    build_model,
    check_folder,
    check_free,
    check_writable,
    fit_model,
    locked,
    run_folder,
)
from spatialwhisperer.tl._training.inputs import Inputs, ModalityInputs
from spatialwhisperer.training.batches import Items
from spatialwhisperer.training.trainer import trainer_options

if TYPE_CHECKING:
    from spatialwhisperer.models import Preset

WIDTHS = {"gene": 5, "text": 4, "image": 6}
BOTH = {("image", "gene"): 1.0, ("gene", "text"): 1.0}


def inputs(n: int = 24, xy: float = 0.0, **changes: dict[str, Any]) -> Inputs:
    """Features of rows that hold all three modalities; ``changes`` are those of the inputs of a modality."""
    rng = np.random.default_rng(0)
    raw = {m: rng.normal(size=(n, d)).astype(np.float32) for m, d in WIDTHS.items()}
    modalities = {}
    for m, d in WIDTHS.items():
        known = (raw[m].mean(axis=0), raw[m].std(axis=0)) if m != "text" else None
        modalities[m] = ModalityInputs(raw[m], FeatureRecipe(None, m), d, "global", known)
        modalities[m] = replace(modalities[m], **changes.get(m, {}))
    at = np.arange(n)
    items = Items(raw, dict.fromkeys(WIDTHS, at), at, np.full(n, "p"))
    rows = pd.DataFrame({"image": at, "gene": at, "x": at + xy, "y": 0.0, "section": "s", "group": "p"})
    return Inputs(items, modalities, ["a", "b"], rows)


def plan(name: str = "spatialwhisperer", schedule: str = "joint", link: str | None = None, **changes: Any) -> Plan:
    preset: Preset = get_preset(name).replace(**changes)
    recipe = preset.joint if schedule == "joint" else preset.sequential
    assert recipe is not None
    training = Training(name, "strict", schedule, link, "LLL", {}, ("p",), (), 0)
    options = trainer_options({"accelerator": "cpu"})
    return Plan(preset, recipe, schedule, link, BOTH, training, 1, 0, options)


# ------------------------------------------------------------------------------------------------- the model


def test_an_untrained_model_is_described_by_inputs_and_recipe() -> None:
    given = inputs()
    model = build_model(given, plan(projection_dim=8))
    assert model.config.projection_dim == 8
    assert model.config.labels == ("a", "b")
    assert {m: c.feature_dim for m, c in model.config.modalities.items()} == WIDTHS
    assert {c.head.kind for c in model.config.modalities.values()} == {"bn_shortcut"}
    assert {c.standardize for c in model.config.modalities.values()} == {"global"}
    for m in ("gene", "image"):
        assert torch.equal(getattr(model, f"{m}_mean"), torch.from_numpy(given.items.inputs[m].mean(axis=0)))
    assert not torch.as_tensor(model.text_mean).any()


def test_the_seed_decides_the_first_weights_and_the_process_keeps_its_own() -> None:
    torch.manual_seed(3)
    state = torch.get_rng_state()
    first, again, other = (build_model(inputs(), replace(plan(), random_state=seed)) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    heads: Any = [model.heads["gene"] for model in (first, again, other)]
    assert torch.equal(heads[0].shortcut.weight, heads[1].shortcut.weight)
    assert not torch.equal(heads[0].shortcut.weight, heads[2].shortcut.weight)


def test_without_a_dimension_the_joint_space_is_that_of_the_bridge() -> None:
    heads = {"gene": "none", "text": "rmlp", "image": "rmlp"}
    model = build_model(inputs(), plan(heads=heads, projection_dim=None))
    assert model.config.projection_dim == WIDTHS["gene"]


def test_a_head_takes_what_its_context_gives() -> None:
    context = ContextConfig("section_mean", {"n_neighbours": 3})
    model = build_model(inputs(image={"context": context}), plan(context=Context("section_mean", ("image",))))
    assert model.config.modalities["image"].head.in_dim == 2 * WIDTHS["image"]
    assert model.config.modalities["image"].feature_dim == WIDTHS["image"]
    assert "image" in model.contexts


def test_only_heads_that_have_dropout_get_it() -> None:
    recipe: dict[str, Any] = {
        "dropout": {"gene": 0.1, "image": 0.5},
        "heads": {"gene": "none", "text": "rmlp", "image": "rmlp"},
    }
    heads = build_model(inputs(), plan(projection_dim=5, **recipe)).config.modalities
    assert {m: c.head.dropout for m, c in heads.items()} == {"gene": 0.0, "text": 0.0, "image": 0.5}


def test_a_decoder_has_as_many_genes_as_are_predicted() -> None:
    model = build_model(inputs(), replace(plan(), decoder_dim=7))
    assert model.config.decoder_dim == 7
    assert model.decoder is not None


# ------------------------------------------------------------------------------------------------- the fit


def test_a_fit_leaves_history_and_penalties(tmp_path: Path) -> None:
    given = inputs()
    model = fit_model(given, given.items, None, plan("whisperer", "sequential", "ridge"), tmp_path)
    assert model.history["phase"].tolist() == ["gene-text", "image-gene"]
    assert model.config.training is not None
    assert set(model.config.training.penalties) == {"ridge_alpha", "caption_penalty", "text_penalty"}
    assert model.config.training.preset == "whisperer"


@pytest.mark.parametrize(("xy", "expected"), [(0.0, True), (np.nan, False)])
def test_neighbours_are_used_where_all_images_have_positions(tmp_path: Path, xy: float, expected: bool) -> None:
    given = inputs(xy=xy)
    model = fit_model(
        given, given.items, None, plan("whisperer", "sequential", "ridge", neighbour_weight=0.5), tmp_path
    )
    assert ("image" in model.contexts) == expected


# ------------------------------------------------------------------------------------------------- folders


def test_a_folder_with_a_run_is_refused_unless_it_is_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_folder(None, resume=False)
    check_folder(tmp_path, resume=False)
    (tmp_path / "phases").mkdir()
    with pytest.raises(FileExistsError, match="holds a run already. Continue it with resume=True"):
        check_folder(tmp_path, resume=False)
    check_folder(tmp_path, resume=True)
    # a process that the first one has started joins its run
    monkeypatch.setenv("LOCAL_RANK", "1")
    check_folder(tmp_path, resume=False)


def test_only_a_run_in_a_folder_can_be_resumed() -> None:
    with pytest.raises(ValueError, match="resume=True needs folder=…"):
        check_folder(None, resume=True)


def test_a_run_has_its_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_folder(tmp_path / "a" / "b").is_dir()
    monkeypatch.setenv("HOME", str(tmp_path))
    assert run_folder("~/mine") == Path(tmp_path, "mine")
    first, second = run_folder(None), run_folder(None)
    assert first != second
    assert first.parent == sw.settings.cache_dir / "runs"


@pytest.mark.parametrize("given", [True, False])
def test_a_folder_that_cannot_be_written_is_refused_with_the_remedy(given: bool, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    folder = tmp_path / "file" / "run" if given else None
    remedy = r"folder=…\.$" if given else r"folder=…, or another cache with sw\.settings\.cache_dir"
    with sw.settings.override(cache_dir=tmp_path / "file" / "cache"):
        for call in (check_writable, run_folder):
            with pytest.raises(OSError, match=rf"Cannot write into {tmp_path}/file/.*{remedy}"):
                call(folder)
    check_writable(tmp_path / "a" / "b")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_cache_that_cannot_be_written_is_noticed_before_objects_are_opened(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with sw.settings.override(cache_dir=tmp_path / "file"), pytest.raises(OSError, match="Cannot write into"):
        sw.tl.train([ad.AnnData(np.ones((3, 2)))])


_KILLED = """
import os, signal
from pathlib import Path
from spatialwhisperer.tl._training.fitting import run_folder
for name in ("phases", "model"):
    where = run_folder(None)
    for part in ("phases", name):
        (where / part).mkdir(exist_ok=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(os.name != "posix", reason="elsewhere nobody can ask whether a process is there")
@pytest.mark.slow
def test_runs_that_were_killed_are_removed_and_others_stay(tmp_path: Path) -> None:
    """A finished model stays, and so does the run of a living process and whatever has another name."""
    with sw.settings.override(cache_dir=tmp_path):
        mine = run_folder(None)
        kept = [mine, *(mine.parent / name for name in ("run-abc", "run-abc-1-12345678", "runs"))]
        for path in kept[1:]:
            path.mkdir()
        environment = os.environ | {"SPATIALWHISPERER_CACHE_DIR": str(tmp_path)}
        killed = subprocess.run([sys.executable, "-c", _KILLED], check=False, env=environment)
        assert killed.returncode == -signal.SIGKILL
        assert len(list(mine.parent.iterdir())) == len(kept) + 2
        new = run_folder(None)
        (finished,) = set(mine.parent.iterdir()) - {*kept, new}
    assert [p.name for p in finished.iterdir()] == ["model"]


_HOLDS = """
import sys
from pathlib import Path
from spatialwhisperer.tl._training.fitting import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.mark.slow
def test_a_folder_in_which_another_process_trains_is_refused_until_that_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = [sys.executable, "-c", _HOLDS, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(FileExistsError, match="Another process trains in .* at this moment. Wait until it ends"):
            check_free(tmp_path)
        with pytest.raises(FileExistsError, match="Another process trains"), locked(tmp_path):
            pass
        # a process that the first one has started joins its run
        monkeypatch.setenv("LOCAL_RANK", "1")
        check_free(tmp_path)
        monkeypatch.delenv("LOCAL_RANK")
        other.kill()
        other.wait()
        check_free(tmp_path)
    check_free(None)
    check_free(tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()
