from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

import spatialwhisperer as sw


def test_a_link_in_closed_form_has_no_panel_beside_a_phase_with_steps(model: Any) -> None:
    (ax,) = sw.pl.training(model)
    assert ax.get_title() == "gene-text"
    assert ax.get_xlabel() == "step"
    import matplotlib.pyplot as plt

    _, own = plt.subplots()
    assert sw.pl.training(model, axes=own) == [own]
    opened = sw.models.Whisperer.load(model.folder)
    with pytest.raises(ValueError, match="no training history"):
        sw.pl.training(opened)


def test_training_draws_each_loss_once(simulated: Any) -> None:
    model = sw.tl.train(
        [*simulated.sections.values(), simulated.reference],
        preset=sw.models.get_preset("spatialwhisperer").replace(schedule="joint"),
        image=sw.tl.ImageFeatures(tile_um=80, tile_px=64),
        max_epochs=2,
        validation=["P3", "R2"],
    )
    ax: Any
    (ax,) = sw.pl.training(model)
    names = [t.get_text() for t in ax.get_legend().get_texts()]
    assert len(names) == len(set(names))
    assert len(ax.lines) == len(names)
    assert any(line.get_linestyle() == "--" for line in ax.lines)


@pytest.mark.slow
def test_of_a_refinement_the_agreement_is_drawn() -> None:
    sections, reference = sw.datasets.simulate_sections(3, 60, n_genes=60, n_reference_cells=120, random_state=0)
    tiles = sw.tl.ImageFeatures(tile_um=80, tile_px=32)
    model = sw.tl.train([*sections.values(), reference], image=tiles, expression=False)
    ax: Any
    (ax,) = sw.pl.training(model)
    part = model.history.query("phase == 'refinement'")
    assert ax.get_title() == "refinement"
    assert ax.lines[0].get_ydata() == pytest.approx(part["agreement"])
    assert ax.lines[0].get_xdata() == pytest.approx(part["step"])


@pytest.mark.parametrize("limit", [{"max_epochs": 1}, {"max_epochs": 3, "trainer": {"max_steps": 1}}])
def test_of_one_epoch_the_loss_is_a_point(limit: dict[str, Any]) -> None:
    sections = sw.datasets.simulate_sections(2, 40, n_genes=40, n_reference_cells=40, random_state=0).sections
    tiles = sw.tl.ImageFeatures(tile_um=80, tile_px=32)
    preset = sw.models.get_preset("spatialwhisperer").replace(
        schedule="joint", pairs={("image", "gene"): 1.0}, gene_encoder="pca"
    )
    model = sw.tl.train(
        list(sections.values()), preset=preset, image=tiles, expression=False, validation="P2", random_state=0, **limit
    )
    ax: Any
    (ax,) = sw.pl.training(model)
    assert (ax.get_title(), ax.get_xlabel(), ax.get_ylabel()) == ("joint", "step", "loss")
    drawn = {line.get_label(): (line.get_marker(), *line.get_ydata()) for line in ax.lines}
    row = model.history.iloc[0]
    assert drawn == {"image–gene": ("o", row["loss"]), "image–gene, held out": ("s", row["val_loss"])}
    assert all(tick == int(tick) for tick in ax.get_xticks())


@pytest.mark.parametrize(("known", "marker"), [([1, 3], "None"), ([3], "s")])
def test_a_held_out_loss_of_every_other_epoch_is_one_line(known: list[int], marker: str) -> None:
    losses = np.full(5, np.nan)
    losses[known] = [2.0, 1.0][-len(known) :]
    history = pd.DataFrame({"phase": "joint", "step": [10, 20, 30, 40, 50], "loss": 3.0, "val_loss": losses})
    model = SimpleNamespace(history=history)
    ax: Any
    (ax,) = sw.pl.training(model)  # type: ignore[arg-type]
    trained, held_out = ax.lines
    assert trained.get_xdata().tolist() == [10, 20, 30, 40, 50]
    assert held_out.get_xdata().tolist() == [10 * (epoch + 1) for epoch in known]
    assert held_out.get_ydata().tolist() == losses[known].tolist()
    assert (trained.get_marker(), held_out.get_marker()) == ("None", marker)


def closed_form(**training: Any) -> Any:
    sections, reference = sw.datasets.simulate_sections(2, 60, n_genes=60, n_reference_cells=120, random_state=0)
    tiles = sw.tl.ImageFeatures(tile_um=80, tile_px=32)
    return sw.tl.train([*sections.values(), reference], image=tiles, expression=False, **training)


def test_of_a_closed_form_the_errors_are_drawn() -> None:
    model = closed_form()
    ax: Any
    (ax,) = sw.pl.training(model)
    assert ax.get_title() == "closed form"
    assert [t.get_text() for t in ax.get_yticklabels()] == list(model.history["phase"])
    assert [bar.get_width() for bar in ax.patches] == pytest.approx(model.history["loss"])
    assert ax.get_legend() is None


def test_of_a_closed_form_held_out_errors_are_drawn_where_they_were_measured() -> None:
    model = closed_form(validation=["P2"])
    ax: Any
    (ax,) = sw.pl.training(model)
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["training", "held out"]
    first, second = (bars.datavalues for bars in ax.containers)
    assert first == pytest.approx(model.history["loss"])
    # the captions are those of cells, and none of them was held out
    assert second == pytest.approx(model.history["val_loss"].iloc[1:])
    assert [t.get_text() for t in ax.get_yticklabels()] == list(model.history["phase"])
