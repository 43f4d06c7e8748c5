from __future__ import annotations

import pandas as pd
import pytest

from spatialwhisperer.training.fitted import Fitted, one_step


def test_a_solution_in_closed_form_has_one_row_for_each_phase() -> None:
    history = one_step({"gene-text": 0.5, "image-gene": 2})
    expected = {"phase": ["gene-text", "image-gene"], "epoch": [0, 0], "step": [0, 0], "loss": [0.5, 2.0]}
    pd.testing.assert_frame_equal(history, pd.DataFrame(expected))


def test_an_error_on_held_out_items_stands_beside_that_of_training() -> None:
    history = one_step({"gene-text": 0.5, "image-gene": 2}, {"image-gene": 3})
    assert history["val_loss"].isna().tolist() == [True, False]
    assert history["val_loss"].iloc[1] == 3
    assert "val_loss" not in one_step({"gene-text": 0.5}, {})


def test_two_fits_follow_each_other() -> None:
    trained = pd.DataFrame(
        {"phase": ["p", "p"], "epoch": [0, 1], "step": [4, 8], "loss": [2.0, 1.0], "scale": [14.0, 15.0]}
    )
    both = Fitted(trained, {"a": 1.0, "b": 2.0}).then(Fitted(one_step({"q": 0.5}), {"b": 3.0}))
    assert both.history["phase"].tolist() == ["p", "p", "q"]
    assert both.history["loss"].tolist() == [2, 1, 0.5]
    assert both.history["scale"].isna().tolist() == [False, False, True]
    assert both.history.index.tolist() == [0, 1, 2]
    assert both.penalties == {"a": 1.0, "b": 3.0}


def test_a_fit_without_penalties_has_none() -> None:
    fitted = Fitted(one_step({}))
    assert len(fitted.penalties) == 0
    with pytest.raises(TypeError):
        fitted.penalties["a"] = 1.0  # type: ignore[index]
