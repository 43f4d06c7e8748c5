from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import spatialwhisperer as sw
from spatialwhisperer._access.slide import Slide
from spatialwhisperer.protocols.nested.bridge import train_bridge
from spatialwhisperer.protocols.nested.candidates import Candidate

FEW, ALL = Candidate("few", 0.0), Candidate("all", 0.5)


@pytest.fixture(scope="module")
def data(simulated: Any) -> tuple[list[Any], Any, list[Any]]:
    """Two sections that train and one that does not, with features of two widths, and a reference with captions."""
    tables = []
    for name in ("P1", "P2", "P3"):
        table = simulated.sections[name]["table"].copy()
        table.uns.pop("spatialdata_attrs")
        x = np.asarray(table.obsm["X_stain_texture"])
        table.obsm["all"] = ((x - x.mean(axis=0)) / x.std(axis=0).clip(min=1e-6)).astype(np.float32)
        table.obsm["few"] = table.obsm["all"][:, :40]
        tables.append(table)
    reference = simulated.reference.copy()
    reference.obs["caption_reference"] = reference.obs["text"].astype(str)
    return tables[:2], tables[2], [reference]


def test_a_link_that_is_solved_again_is_that_of_a_model_trained_anew(data: tuple[list[Any], Any, list[Any]]) -> None:
    train, test, texts = data
    encoder = sw.pp.fit_gene_encoder(texts, "pca", n_latent=8)
    few, anew = (train_bridge(train, texts, encoder, c) for c in (FEW, ALL))
    again = few.scores(few.link("all"), test, ALL).to_numpy()
    z = anew.model.project("image", test.obsm["all"], positions=Slide.open(test).positions())
    np.testing.assert_allclose(again, z @ anew.text.T, atol=1e-3)
    # shuffled pairs have another link, the same one for the same seed
    null = few.scores(few.shuffled("all", 0), test, ALL).to_numpy()
    assert np.abs(null - again).max() > 0.05
    np.testing.assert_array_equal(null, few.scores(few.shuffled("all", 0), test, ALL).to_numpy())
