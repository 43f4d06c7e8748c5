from __future__ import annotations

from typing import Any

import matplotlib as mpl
import numpy as np
import pytest

import spatialwhisperer as sw
from spatialwhisperer.pl.agreement import agreement


def test_answers_and_doubt_stand_side_by_side(section: Any, model: Any, labels: Any) -> None:
    with pytest.raises(KeyError, match=r"sw_label_agreement.*sw_label_gene.* not in \.obs"):
        agreement(section)
    sw.tl.zero_shot_annotate(section, labels, model=model, modality="image", unknown="label")
    sw.tl.agreement(section, model=model)
    axes = agreement(section, alpha=1.0)
    assert [ax.get_title() for ax in axes] == ["P3_spots: sw_label", "P3_spots: sw_label_gene", "agreement"]
    values = section["table"].obs["sw_label_agreement"].to_numpy()
    norm = mpl.colors.Normalize(*np.percentile(values, [2, 98]))
    expected = mpl.colormaps["viridis"](norm(values))
    drawn = axes[2].collections[0].get_facecolor()
    assert np.allclose(np.asarray(drawn)[:, :3], expected[:, :3])
    # a label has one colour in both panels
    of = [{t.get_text(): h.get_facecolor() for t, h in _entries(ax)} for ax in axes[:2]]
    common = (set(of[0]) & set(of[1])) - {"no label"}
    assert common
    assert all(of[0][name] == of[1][name] for name in common)


def _entries(ax: Any) -> Any:
    legend = ax.get_legend()
    return zip(legend.get_texts(), legend.get_patches(), strict=True)


def test_stored_colours_hold_where_the_genes_give_other_labels_too(section: Any, model: Any, labels: Any) -> None:
    sw.tl.zero_shot_annotate(section, labels, model=model, modality="image", unknown="label")
    sw.tl.agreement(section, model=model)
    table = section["table"]
    rare = table.obs["sw_label"].cat.categories[0]
    table.obs["sw_label"] = table.obs["sw_label"].cat.remove_categories(rare)
    assert rare in table.obs["sw_label_gene"].cat.categories
    palette = dict(
        zip(table.obs["sw_label"].cat.categories, ["#010203", "#040506", "#070809", "#0a0b0c"], strict=False)
    )
    sw.pl.annotation(section, with_image=False, palette=palette)
    for ax in agreement(section)[:2]:
        shown = {t.get_text(): mpl.colors.to_hex(h.get_facecolor()) for t, h in _entries(ax)}
        assert {name: colour for name, colour in shown.items() if name in palette} == {
            name: colour for name, colour in palette.items() if name in shown
        }
        assert len(set(shown.values())) == len(shown)


def test_wording_is_drawn_where_labels_have_several_sentences(section: Any, model: Any, labels: Any) -> None:
    several = {name: [text, f"many {text}"] for name, text in labels.items()}
    sw.tl.zero_shot_annotate(section, several, model=model, modality="image", unknown="label")
    sw.tl.agreement(section, model=model)
    assert [ax.get_title() for ax in agreement(section)][-1] == "wording sd"
