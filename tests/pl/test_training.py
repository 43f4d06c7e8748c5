from __future__ import annotations

from typing import Any

import pytest

import spatialwhisperer as sw


def test_a_phase_of_one_epoch_has_no_panel(model: Any) -> None:
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


def test_of_a_closed_form_the_errors_are_drawn() -> None:
    sections, reference = sw.datasets.simulate_sections(1, 60, n_genes=60, n_reference_cells=120, random_state=0)
    tiles = sw.tl.ImageFeatures(tile_um=80, tile_px=32)
    model = sw.tl.train([sections["P1"], reference], image=tiles, expression=False)
    ax: Any
    (ax,) = sw.pl.training(model)
    assert ax.get_title() == "closed form"
    assert [t.get_text() for t in ax.get_yticklabels()] == list(model.history["phase"])
    assert [bar.get_width() for bar in ax.patches] == pytest.approx(model.history["loss"])
