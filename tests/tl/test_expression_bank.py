"""Which training observations a row may retrieve: none of its own section, nor of a patient that is left out."""

from __future__ import annotations

import copy
import dataclasses
import warnings
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

import spatialwhisperer as sw
from spatialwhisperer._messages import SpatialWhispererWarning
from spatialwhisperer._provenance import recorded
from spatialwhisperer.models.expression.predictor import ExpressionPredictor
from tests.tl.small_models import TILES, alone, few, predict

KEY, STD = "sw_expression", "sw_expression_std"


@pytest.fixture(scope="module")
def marked(training: list[Any], genes: list[str]) -> Any:
    """Two sections of two patients, each with a gene that no other has; and a model of them."""
    tables = []
    for number, s in enumerate(training):
        table = alone(s["table"])
        x = table.X.toarray()
        x[:, :2] = 0
        x[:, number] = 50
        table.X = sp.csr_matrix(x)
        tables.append(table)
    expression = sw.tl.ExpressionOptions(genes=genes, cross_validate=False)
    return tables, sw.tl.train(tables, preset=few("bleep"), image=TILES, expression=expression, max_epochs=2)


def test_a_training_section_never_retrieves_itself(marked: Any) -> None:
    tables, model = marked
    for own, table in enumerate(tables):
        with pytest.warns(SpatialWhispererWarning, match="trained on .* says nothing about new tissue"):
            out = predict(model, table, method="retrieval")
        # a row at the rim has no tissue
        shown = np.isfinite(out.X).all(axis=1)
        assert shown.sum() >= 119
        assert (out.X[shown, own] == 0).all()
        assert (out.X[shown, 1 - own] > 0).all()
        # whatever the order of its rows
        with pytest.warns(SpatialWhispererWarning, match="trained on"):
            turned = predict(model, table[::-1].copy(), method="retrieval").X[::-1]
        assert (turned[shown, own] == 0).all()
    renamed = tables[0].copy()
    renamed.obs_names = [f"new_{i}" for i in range(renamed.n_obs)]
    with warnings.catch_warnings():
        warnings.simplefilter("error", SpatialWhispererWarning)
        assert (predict(model, renamed, method="retrieval").X[:, 0] > 0).any()


def test_a_regression_needs_no_neighbours(marked: Any, section: Any) -> None:
    """Half of the bank is of the section of a row: no standard deviation is known of more neighbours than the rest."""
    (one, _), model = marked
    with pytest.warns(SpatialWhispererWarning, match="trained on"):
        own = predict(model, one, method="regression", k=120)
    with pytest.warns(SpatialWhispererWarning, match="trained on"):
        out = predict(model, one, method="regression", k=121)
    assert own.obs[STD].notna().all()
    assert np.array_equal(out.X, own.X)
    assert out.obs[STD].isna().all()
    with pytest.raises(ValueError, match=r"k = 241 .*240 usable rows"):
        predict(model, alone(section["table"]), method="regression", k=241)


def test_a_part_of_a_training_section_never_retrieves_itself(marked: Any) -> None:
    (one, _), model = marked
    message = r"trained on (these|\d+ of these \d+) rows"
    for table in (one[1:].copy(), one[40:60].copy()):
        with pytest.warns(SpatialWhispererWarning, match=message):
            out = predict(model, table, method="retrieval")
        assert (out.X[:, 0] == 0).all()
        assert (out.X[:, 1] > 0).all()
    # a row that was left out of the training is of the same tissue
    more = one.copy()
    more.obs_names = ["new", *one.obs_names[1:]]
    with pytest.warns(SpatialWhispererWarning, match="trained on 119 of these 120 rows"):
        assert (predict(model, more, method="retrieval").X[:, 0] == 0).all()


def test_a_recognised_row_has_the_patient_of_its_training(marked: Any) -> None:
    """Its own section stays left out, whatever the column of patients says."""
    (one, _), model = marked
    again = one.copy()
    again.obs["donor"] = "D7"
    with pytest.warns(SpatialWhispererWarning, match="trained on"):
        out = predict(model, again, method="retrieval", bank_scope="other_groups", group_key="donor")
    assert (out.X[:, 0] == 0).all()
    assert (out.X[:, 1] > 0).all()
    record: Any = recorded(out, KEY)
    assert record["group_key"] == "donor"


def test_the_patient_is_read_from_the_column_of_the_training(marked: Any) -> None:
    """Patient 1 of the training is 1.0 in a column with missing values, and a row without a patient leaves nothing out."""
    (one, _), model = marked
    model = copy.deepcopy(model)
    model.update(training=dataclasses.replace(model.config.training, group_key="pid"))
    config = dataclasses.replace(model.expression.config, groups=("1", "2"))
    model.expression = ExpressionPredictor(config, model.expression.values, model.expression.arrays)
    again = one.copy()
    again.obs_names = [f"second_{i}" for i in range(again.n_obs)]
    with pytest.raises(KeyError, match="group_key='pid' not in .obs"):
        predict(model, again, bank_scope="other_groups")
    again.obs["pid"] = [float("nan")] * 2 + [1.0] * 118
    out = predict(model, again, method="retrieval", bank_scope="other_groups")
    assert (out.X[2:, 0] == 0).all()
    model.update(training=dataclasses.replace(model.config.training, group_key=None))
    with pytest.raises(ValueError, match="trained without a column of patients"):
        predict(model, again, bank_scope="other_groups", group_key="pid")


def test_observations_of_the_same_group_may_be_left_out(marked: Any) -> None:
    tables, model = marked
    again = tables[0].copy()
    again.obs_names = [f"second_{i}" for i in range(again.n_obs)]
    out = predict(model, again, method="retrieval", bank_scope="other_groups")
    assert (out.X[:, 0] == 0).all()
    record: Any = recorded(out, KEY)
    assert record["bank_scope"] == "other_groups"
    again.obs["donor"] = "P2"
    out = predict(model, again, method="retrieval", bank_scope="other_groups", group_key="donor")
    assert (out.X[:, 0] > 0).all()
    assert (out.X[:, 1] == 0).all()
    again.obs["donor"] = ["P1"] * 60 + ["P2"] * 60
    out = predict(model, again, method="retrieval", bank_scope="other_groups", group_key="donor")
    assert (out.X[:60, 0] == 0).all()
    assert (out.X[60:, 1] == 0).all()


def test_a_validation_patient_is_not_training_tissue(training: list[Any], genes: list[str], section: Any) -> None:
    expression = sw.tl.ExpressionOptions(genes=genes, cross_validate=False)
    model: Any = sw.tl.train(
        [*training, section], preset=few("bleep"), image=TILES, expression=expression, validation="P3", max_epochs=2
    )
    assert model.expression.values.shape[0] == 240
    assert sorted(model.expression.config.groups) == ["P1", "P2"]
    with warnings.catch_warnings():
        warnings.simplefilter("error", SpatialWhispererWarning)
        predict(model, section)
