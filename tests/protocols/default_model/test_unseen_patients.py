from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from spatialwhisperer.protocols import captions
from spatialwhisperer.protocols.default_model import unseen_patients
from spatialwhisperer.protocols.default_model.labels import LABELS, TISSUE
from spatialwhisperer.protocols.default_model.unseen_patients import (
    REGION_PROMPTS,
    agreement,
    doubt,
    region_names,
)
from spatialwhisperer.protocols.wordings.generate import Wording


def test_scores_that_agree_with_the_expression_rank_perfectly() -> None:
    gene = np.eye(3)[np.arange(60) % 3]
    assert agreement(2 * gene, gene) == {"kappa": 1.0, "auroc": 1.0}


def test_a_section_is_judged_by_its_image_against_its_expression(monkeypatch: pytest.MonkeyPatch) -> None:
    n, names = 40, list(LABELS)
    rng = np.random.default_rng(0)
    scores = {m: pd.DataFrame(rng.normal(size=(n, len(captions.TARGETS)))) for m in ("image", "gene")}
    scores["image"].iloc[3] = np.nan
    table = SimpleNamespace(
        obs=pd.DataFrame({"pathologist_label": ["invasive cancer", "adipose tissue", "undetermined", None] * 10}),
        obsm={"spatial": np.arange(80).reshape(40, 2)},
    )

    def scored(section: Any, model: Any, prompts: Any, modality: str) -> pd.DataFrame:
        assert (section["table"], model) == (table, "model")
        return scores[modality].iloc[:, : len(prompts)]

    monkeypatch.setattr(unseen_patients, "_scores", scored)
    monkeypatch.setattr(captions, "targets", lambda _: "targets")
    monkeypatch.setattr(unseen_patients, "aurocs", lambda found, truth: (found.shape, truth))
    monkeypatch.setattr(unseen_patients, "few_shot", lambda _section, model: {"words": model})
    doubts = np.arange(n) / n, np.arange(n * len(TISSUE)).reshape(n, -1)
    monkeypatch.setattr(unseen_patients, "doubt", lambda _section, model, named: doubts if named == (model,) else None)
    section: Any = {"table": table}
    found = unseen_patients.score("A1", section, "model", ("model",))  # type: ignore[arg-type]
    image, gene = (scores[m].to_numpy()[:, : len(names)] for m in ("image", "gene"))
    known = (np.arange(n) % 4 < 2) & (np.arange(n) != 3)
    assert np.array_equal(found.scores, image[known][:, : len(TISSUE)])
    assert np.array_equal(found.positions, np.arange(80).reshape(40, 2)[known])
    assert found.correct.sum(axis=1).tolist() == [1] * 20
    assert found.correct[:, list(TISSUE).index("tumour")].tolist() == [True, False] * 10
    assert found.correct[:, list(TISSUE).index("adipose tissue")].tolist() == [False, True] * 10
    assert found.agreement == agreement(image, gene) != agreement(gene, image)
    assert found.auroc == ((n, len(captions.TARGETS)), "targets")
    assert np.array_equal(found.row_agreement, doubts[0][known])
    assert np.array_equal(found.wording_sd, doubts[1][known])
    assert (found.section, found.few_shot) == ("A1", {"words": "model"})


def test_unrelated_scores_agree_by_chance() -> None:
    rng = np.random.default_rng(0)
    found = agreement(rng.random((3000, 3)), rng.random((3000, 3)))
    assert found["kappa"] == pytest.approx(0, abs=0.05)
    assert found["auroc"] == pytest.approx(0.5, abs=0.05)


def test_rows_without_scores_and_labels_of_few_rows_do_not_count() -> None:
    gene = np.eye(3)[np.r_[np.arange(60) % 2, 2, 2]]
    image = gene.copy()
    image[-1] = np.nan
    image[-2] = [0.0, -1.0, -1.0]  # the only row of its label
    found = agreement(image, gene)
    assert found["auroc"] == 1.0
    assert found["kappa"] < 1


def test_names_of_a_region_are_its_prompts_and_the_names_of_its_class() -> None:
    words = [
        Wording("fat", "name", "fat"),
        Wording("H&E image of fat", "template", "fat", ("fat",)),
        Wording("no fat", "negation", "fat", ("fat",)),
    ]
    assert words[0].target == "adipose"
    names = region_names(words)
    assert names["adipose tissue"] == [*REGION_PROMPTS["adipose tissue"], "fat"]
    assert names["tumour"] == REGION_PROMPTS["tumour"]
    assert list(names) == list(TISSUE)


def test_doubt_of_a_section_is_that_of_its_regions(section: Any, model: Any) -> None:
    names = {name: [*prompts, f"a region of {name}"] for name, prompts in REGION_PROMPTS.items()}
    found, sd = doubt(section, model, names)
    table = section["table"]
    assert np.array_equal(found, table.obs["tissue_agreement"])
    assert table.uns["tissue"]["classes"].tolist() == list(TISSUE)
    assert sd.shape == (table.n_obs, len(TISSUE))
    assert np.isfinite(sd).all()
