from __future__ import annotations

from spatialwhisperer import _keys


def test_keys_hold_no_character_that_storage_refuses() -> None:
    assert _keys.features("hf-hub:MahmoodLab/UNI 2") == "X_hf-hub_MahmoodLab_UNI_2"
    assert (_keys.confidence("a"), _keys.scores("a")) == ("a_confidence", "a_scores")


def test_every_key_beside_a_label_is_listed() -> None:
    assert set(_keys.beside_labels("a")) == {
        *(f"a_{part}" for part in ("confidence", "scores", "wording_sd", "agreement", "gene", "probability", "margin")),
        *("a_reason", "a_cl", "a_colors", "a_gene_colors"),
    }
