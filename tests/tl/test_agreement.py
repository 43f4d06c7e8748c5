"""Whether image and genes give the same answer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon

import spatialwhisperer as sw
from spatialwhisperer.tl.agreement import agreement


@pytest.fixture
def annotated(section: Any, model: Any, labels: Any) -> Any:
    sw.tl.zero_shot_annotate(section, labels, model=model, modality="image", unknown="label")
    return section


def probabilities(section: Any, model: Any, labels: Any, modality: str) -> np.ndarray:
    """Softmax of the centred cosines, by the annotation itself."""
    scores = sw.tl.zero_shot_annotate(
        section, labels, model=model, modality=modality, normalize="centre", background="section", inplace=False
    )
    assert scores is not None
    logits = scores.to_numpy(np.float64) * model.scale
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    return p / p.sum(axis=1, keepdims=True)


def test_values_are_those_of_the_scores_of_both_modalities(annotated: Any, model: Any, labels: Any, keys: Any) -> None:
    table = annotated["table"]
    before = keys.of(table)
    agreement(annotated, model=model)
    assert keys.added(before, table)["obs"] == {"sw_label_agreement", "sw_label_gene"}
    image, gene = (probabilities(annotated, model, labels, m) for m in ("image", "gene"))
    expected = 1 - jensenshannon(image, gene, base=2, axis=1) ** 2
    assert np.allclose(table.obs["sw_label_agreement"], expected, atol=1e-4)
    assert table.obs["sw_label_agreement"].dtype == np.float32
    assert table.obs["sw_label_gene"].tolist() == [list(labels)[i] for i in gene.argmax(axis=1)]
    used = table.obs["sw_label_gene"].cat.categories
    assert used.tolist() == [name for name in labels if name in set(used)]
    assert len(table.uns["sw_label_gene_colors"]) == len(used)


def test_shuffled_counts_agree_less(annotated: Any, model: Any) -> None:
    found = agreement(annotated, model=model, inplace=False)
    assert found is not None
    table = annotated["table"]
    assert "sw_label_agreement" not in table.obs
    table.X = table.X[np.random.default_rng(0).permutation(table.n_obs)]
    shuffled = agreement(annotated, model=model, inplace=False)
    assert shuffled is not None
    assert shuffled["agreement"].mean() < found["agreement"].mean() - 0.02
    assert found.index.tolist() == table.obs_names.tolist()


def test_a_row_without_counts_has_no_agreement(annotated: Any, model: Any) -> None:
    counts = annotated["table"].X.tolil()
    counts[3] = 0
    annotated["table"].X = counts.tocsr()
    agreement(annotated, model=model)
    obs = annotated["table"].obs
    assert obs["sw_label_agreement"].isna().tolist() == obs["sw_label_gene"].isna().tolist()
    assert np.flatnonzero(obs["sw_label_agreement"].isna()).tolist() == [3]


def test_training_tissue_as_background_does_not_look_at_other_rows(adata: Any, model: Any, labels: Any) -> None:
    part = adata[:30].copy()
    found = {}
    for name, table in (("whole", adata), ("part", part)):
        sw.tl.zero_shot_annotate(table, labels, model=model, modality="gene")
        for background in ("section", "training"):
            answer = agreement(table, model=model, background=background, inplace=False)
            assert answer is not None
            found[name, background] = answer["gene"].tolist()[:30]
    assert found["part", "training"] == found["whole", "training"]
    assert found["part", "section"] != found["whole", "section"]


def test_another_annotation_removes_it(annotated: Any, model: Any, labels: Any) -> None:
    agreement(annotated, model=model)
    sw.tl.zero_shot_annotate(annotated, list(labels)[:2], model=model, modality="image", unknown="label")
    table = annotated["table"]
    assert not {"sw_label_agreement", "sw_label_gene"} & set(table.obs)
    assert "sw_label_gene_colors" not in table.uns


def test_a_column_of_the_caller_is_not_replaced(section: Any, model: Any, labels: Any, keys: Any) -> None:
    sw.tl.zero_shot_annotate(section, labels, model=model, modality="image", unknown="label", key_added="type")
    table = section["table"]
    table.obs["type_gene"] = "mine"
    before = keys.of(table)
    expected = (
        r"^A part of the labels 'type' would replace \.obs\['type_gene'\].*Annotate under another name "
        r"\(sw\.tl\.zero_shot_annotate\(.*key_added=.*\)\), or drop the column first: del adata\.obs\['type_gene'\]\.$"
    )
    with pytest.raises(ValueError, match=expected):
        agreement(section, key="type", model=model)
    assert keys.of(table) == before
    assert set(table.obs["type_gene"]) == {"mine"}
    del table.obs["type_gene"]
    sw.tl.query(section, "T cell", model=model, modality="image", key_added="type_gene")
    with pytest.raises(
        ValueError, match=r"^A part of the labels 'type' .* is a result of an earlier call\. Annotate under"
    ):
        agreement(section, key="type", model=model)


def test_what_is_lacking_is_named_and_nothing_is_written(section: Any, model: Any, labels: Any, keys: Any) -> None:
    table = section["table"]
    before = keys.of(table)
    with pytest.raises(KeyError, match=r"There is no annotation 'sw_label'.*Run sw\.tl\.zero_shot_annotate"):
        agreement(section, model=model)
    with pytest.raises(ValueError, match="background must be one of 'section', 'training'"):
        agreement(section, model=model, background="none")  # type: ignore[arg-type]
    assert keys.of(table) == before
    sw.tl.zero_shot_annotate(section, labels, model=model, modality="gene")
    without = section["table"].copy()
    del without.uns["spatialdata_attrs"], without.obsm["X_stain_texture"]
    before = keys.of(without)
    with pytest.raises(KeyError, match="The data hold no image that the model reads"):
        agreement(without, model=model)
    assert keys.of(without) == before
