from __future__ import annotations

from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import spatialwhisperer as sw
from spatialwhisperer.protocols.her2st.folds import FOLDS, LABELS
from spatialwhisperer.protocols.her2st.frozen_features import (
    BASELINES,
    EMBEDDING,
    Task,
    choose_genes,
    lists_origin,
    run_task,
)


def counts(name: str, genes: list[str], seed: int) -> ad.AnnData:
    rng = np.random.default_rng(seed)
    x = rng.poisson(np.linspace(0.02, 3, len(genes)), (60, len(genes))).astype(np.float32)
    obs = pd.DataFrame({"section": name}, index=[f"{name}{i}" for i in range(60)])
    return ad.AnnData(x, obs=obs, var=pd.DataFrame(index=genes))


@pytest.fixture
def sections() -> tuple[list[ad.AnnData], list[ad.AnnData]]:
    """Two training sections, and a test section that lacks two genes."""
    genes = [f"G{i}" for i in range(40)]
    return [counts("A", genes, 0), counts("B", genes, 1)], [counts("C", genes[2:], 2)]


def test_the_name_of_a_run_is_a_name_of_a_file() -> None:
    patient = next(f for f in FOLDS if f.split == "patient")
    task = Task(BASELINES, "strict", patient, "stain_texture", 0)
    assert task.key == "baselines-strict-patient-C-A-stain_texture-0"


def test_strict_genes_are_the_same_for_every_preset_and_are_in_all_sections(sections) -> None:
    train, test = sections
    bleep, heclip = (choose_genes(sw.models.get_preset(n), "strict", train, test) for n in ("bleep", "heclip-heg"))
    assert bleep == heclip
    assert set(bleep) <= set(test[0].var_names)
    # a tenth of the training spots must have the gene
    spots = sum((t[:, bleep].X > 0).sum(axis=0) for t in train)
    assert (spots >= 12).all()


def test_peer_genes_follow_the_rule_of_the_preset(sections) -> None:
    train, test = sections
    strict, peer = sw.models.get_preset("heclip-heg"), sw.models.get_preset("heclip-heg", "peer")
    assert lists_origin(strict) == "training"
    assert lists_origin(peer) == "test"
    assert set(choose_genes(peer, "peer", train, test)) <= set(test[0].var_names)


class _Folder:
    """Sections that lie in memory in the place of a folder of data."""

    smoke = True

    def __init__(self, tables: dict[str, ad.AnnData]) -> None:
        self.tables = tables

    def table(self, name: str) -> ad.AnnData:
        return self.tables[name]

    def features(self, *_: Any, **__: Any) -> str:
        return "X_mine"


def test_classes_are_read_from_the_embedding_of_the_model_of_the_run() -> None:
    fold = next(f for f in FOLDS if f.split == "patient")
    rng, genes, tables = np.random.default_rng(0), [f"G{i}" for i in range(40)], {}
    for seed, name in enumerate([*fold.train, *fold.test]):
        table = counts(name, genes, seed)
        table.obs[LABELS] = pd.Categorical(["invasive cancer", "connective tissue"] * 30)
        table.obsm["X_mine"] = rng.normal(size=(60, 8)).astype(np.float32)
        table.obsm["spatial"] = rng.uniform(0, 100, (60, 2))
        table.obsm[EMBEDDING] = np.zeros((60, 3), np.float32)  # of an earlier run
        tables[name] = table
    rows = run_task(Task("heclip-heg", "strict", fold, "mine", 0), _Folder(tables))  # type: ignore[arg-type]
    assert {"macro_f1", "balanced_accuracy"} <= set(rows["metric"])
    for table in tables.values():
        assert np.allclose(np.linalg.norm(table.obsm[EMBEDDING], axis=1), 1, atol=1e-5)
