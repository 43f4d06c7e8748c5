from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import anndata as ad
import numpy as np
import pytest
import torch

import spatialwhisperer as sw
from spatialwhisperer._messages import SpatialWhispererWarning
from spatialwhisperer.encoders.gene.expression import ExpressionEncoder
from spatialwhisperer.models import Preset, get_preset
from spatialwhisperer.tl._training import checks
from spatialwhisperer.tl._training.options import ExpressionOptions
from spatialwhisperer.training.batches import Items

GENE, IMAGE, TEXT = sw.tl.GeneFeatures, sw.tl.ImageFeatures, sw.tl.TextFeatures
BOTH = {("image", "gene"): 1.0, ("gene", "text"): 1.0}


def preset(name: str = "spatialwhisperer", **changes: Any) -> Preset:
    return get_preset(name).replace(**changes)


def source(has: str, *groups: str, name: str = "object 0") -> Any:
    """What the checks read of an object."""
    table = ad.AnnData(np.zeros((max(len(groups), 1), 1)))
    return SimpleNamespace(name=name, has=frozenset(has.split()), group=np.array(groups, object), table=table)


def items(n_image: int, n_text: int, group: Any = None) -> Items:
    """Items with image and gene, then items with gene and text."""
    n = n_image + n_text
    at = np.arange(n)
    index = {"image": np.where(at < n_image, at, -1), "gene": at, "text": np.where(at < n_image, -1, at)}
    return Items({}, index, at, np.full(n, "a") if group is None else np.asarray(group))


# ------------------------------------------------------------------------------------------------- objects


def test_one_object_a_sequence_and_a_mapping_become_a_list() -> None:
    a, b = ad.AnnData(np.zeros((1, 1))), ad.AnnData(np.zeros((2, 1)))
    assert checks.objects(a) == [a]
    assert checks.objects((a, b)) == [a, b]
    assert checks.objects({"x": b, "y": a}) == [b, a]


def test_a_spatialdata_is_one_object_although_it_has_items(simulated: Any) -> None:
    section = simulated.sections["P1"]
    assert checks.objects(section) == [section]


@pytest.mark.parametrize("nothing", [[], (), {}])
def test_no_object_is_refused(nothing: Any) -> None:
    with pytest.raises(ValueError, match="No data to train on"):
        checks.objects(nothing)


# ------------------------------------------------------------------------------------------------- requests


def test_what_the_caller_leaves_open_is_that_of_the_preset() -> None:
    asked = checks.requests(preset("whisperer"), None, None, None)
    assert list(asked) == ["gene", "text", "image"]
    assert asked["gene"] == GENE("auto")
    assert asked["text"] == TEXT("minilm")
    assert asked["image"] == IMAGE("stain_texture", tile_um=(100.0, 154.0, 300.0, 600.0))


def test_what_the_caller_names_comes_first() -> None:
    module = torch.nn.Identity()
    asked: Any = checks.requests(preset("whisperer"), IMAGE(module, tile_um=50), "scvi", TEXT(key=("a", "b")))
    assert asked["image"].encoder is module
    assert asked["image"].tile_um == 50
    assert asked["gene"].encoder == "scvi"
    assert (asked["text"].encoder, asked["text"].key) == ("minilm", ("a", "b"))


def test_named_features_need_no_encoder() -> None:
    asked: Any = checks.requests(preset(), IMAGE(key="X_i"), GENE(key="X_g"), None)
    assert (asked["image"].encoder, asked["image"].key) == (None, "X_i")
    assert (asked["gene"].encoder, asked["gene"].key) == (None, "X_g")


def test_options_of_the_gene_encoder_of_a_preset_can_be_overridden() -> None:
    scvi = "tpirbae-scvi-clip"
    asked: Any = [checks.requests(preset(scvi), None, gene, None)["gene"] for gene in (None, "scvi", "pca")]
    assert [dict(a.options) for a in asked] == [{"n_latent": 10}, {"n_latent": 10}, {}]
    own: Any = checks.requests(preset(scvi), None, GENE("scvi", options={"n_latent": 3}), None)["gene"]
    assert dict(own.options) == {"n_latent": 3}


def test_only_modalities_of_the_pairs_are_asked_for() -> None:
    assert list(checks.requests(preset("bleep"), None, None, None)) == ["gene", "image"]
    assert list(checks.requests(preset(pairs=[("gene", "text")]), None, None, None)) == ["gene", "text"]


def test_a_gene_encoder_that_learns_from_labels_needs_their_column() -> None:
    scanvi = preset("tpirbae-scanvi-clip")
    with pytest.raises(ValueError, match=r"gene=sw\.tl\.GeneFeatures\(labels_key=…\)"):
        checks.requests(scanvi, None, None, None)
    named: Any = checks.requests(scanvi, None, GENE(labels_key="cell_type"), None)["gene"]
    assert (named.encoder, named.labels_key) == ("scanvi", "cell_type")
    assert "gene" in checks.requests(scanvi, None, GENE(key="X_scanvi"), None)


def test_text_of_another_type_is_refused() -> None:
    with pytest.raises(TypeError, match="text must be a name, an encoder or a set of options, not int"):
        checks.requests(preset(), None, None, 3)


def test_columns_of_captions_and_layer_of_counts() -> None:
    asked = checks.requests(preset(), None, GENE(layer="raw"), TEXT(key=("a", "b")))
    assert checks.text_keys(asked) == ["a", "b"]
    assert checks.counts_layer(asked) == "raw"
    assert checks.text_keys(checks.requests(preset(), None, None, None)) == ["text"]
    assert checks.text_keys({}) == []
    assert checks.counts_layer({}) is None


def test_the_identity_reads_the_genes_that_are_predicted() -> None:
    asked = checks.requests(preset("bleep"), None, None, None)
    found: Any = checks.with_identity(asked, preset("bleep"), ["A", "B"], ["", "ENSG1"])["gene"]
    assert isinstance(found.encoder, ExpressionEncoder)
    assert list(found.encoder.genes) == ["A", "B"]
    with pytest.raises(ValueError, match=r"'identity' reads the genes that the model predicts"):
        checks.with_identity(asked, preset("bleep"), [], [])
    other = checks.requests(preset(), None, None, None)
    assert checks.with_identity(other, preset(), [], []) == other


# ------------------------------------------------------------------------------------------------- pairs


def test_the_pairs_that_some_object_holds_are_trained() -> None:
    held = checks.choose_pairs(preset(), [source("image gene"), source("gene")])
    assert held == {("image", "gene"): 1.0}
    assert checks.choose_pairs(preset(), [source("image gene text")]) == BOTH


def test_pairs_of_different_objects_do_not_make_a_pair() -> None:
    with pytest.raises(ValueError, match=r"No object holds image–gene, gene–text pairs.*object 1 \(1 rows\): gene"):
        checks.choose_pairs(preset(), [source("image"), source("gene", name="object 1"), source("text")])


def test_a_pair_of_the_callers_own_must_be_there() -> None:
    own = preset(pairs={("image", "gene"): 2.0, ("gene", "text"): 1.0})
    with pytest.raises(ValueError, match="No object holds gene–text pairs"):
        checks.choose_pairs(own, [source("image gene")])
    without = preset(pairs={("image", "gene"): 2.0, ("gene", "text"): 0.0})
    assert checks.choose_pairs(without, [source("image gene")]) == {("image", "gene"): 2.0}


@pytest.mark.parametrize("epochs", [0, -1, float("nan"), "8", [1], True, 1.5])
def test_what_is_no_number_of_epochs_is_refused(epochs: Any) -> None:
    with pytest.raises(ValueError, match="max_epochs must be a positive whole number"):
        checks.check_epochs(epochs)
    checks.check_epochs(1)
    checks.check_epochs(None)


# ------------------------------------------------------------------------------------------------- validation

SOURCES = [source("image gene", "P1", "P1", "P2"), source("gene text", "R1", "R2")]


GROUPS = ["P1", "P2", "R1", "R2"]


def test_groups_are_held_out_by_name() -> None:
    assert checks.validation_groups(None, GROUPS, 0) == set()
    assert checks.validation_groups("P2", GROUPS, 0) == {"P2"}
    assert checks.validation_groups(["P1", "R2"], GROUPS, 0) == {"P1", "R2"}
    assert checks.validation_groups([3], ["3", "4"], 0) == {"3"}  # type: ignore[list-item]
    assert checks.validation_groups([3.0], ["3", "4"], 0) == {"3"}  # type: ignore[list-item]


def test_a_fraction_of_the_groups_is_drawn_by_the_seed() -> None:
    drawn = {frozenset(checks.validation_groups(0.5, GROUPS, seed)) for seed in range(20)}
    assert {len(groups) for groups in drawn} == {2}
    assert len(drawn) > 1
    assert checks.validation_groups(0.5, GROUPS, 3) == checks.validation_groups(0.5, GROUPS, 3)
    assert len(checks.validation_groups(0.01, GROUPS, 0)) == 1


@pytest.mark.parametrize(
    ("validation", "message"),
    [
        ("P9", "groups that are not there: P9 .found: P1, P2, R1, R2"),
        (["P1", "P2", "R1", "R2"], "names every group"),
        (1.5, "a fraction between 0 and 1 or names of groups; found 1.5"),
        (0, "a fraction between 0 and 1"),
        (0.9, "leaves none to train on"),
    ],
)
def test_groups_that_cannot_be_held_out_are_refused(validation: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        checks.validation_groups(validation, GROUPS, 0)


def test_items_are_split_by_group() -> None:
    given = items(3, 3, ["a", "b", "a", "a", "b", "c"])
    training, held_out = checks.split(given, {"b"})
    assert held_out is not None
    assert (training.row.tolist(), held_out.row.tolist()) == ([0, 2, 3, 5], [1, 4])
    assert checks.split(given, set()) == (given, None)


def test_held_out_groups_without_pairs_are_named(recwarn: pytest.WarningsRecorder) -> None:
    checks.warn_of_unmeasured(None, set(), BOTH)
    checks.warn_of_unmeasured(items(2, 0), {"b"}, BOTH)
    checks.warn_of_unmeasured(items(1, 2), {"b"}, BOTH)
    assert not len(recwarn)
    message = r"No validation loss: .*\(b, c\) hold fewer than two pairs of each kind \(image–gene, gene–text\)"
    with pytest.warns(SpatialWhispererWarning, match=message):
        checks.warn_of_unmeasured(items(1, 1), {"c", "b"}, BOTH)


def test_two_pairs_of_each_kind_must_be_left() -> None:
    checks.check_left(items(2, 2), BOTH)
    with pytest.raises(ValueError, match="Too few pairs to train on: 1 image–gene, 0 gene–text"):
        checks.check_left(items(1, 0), BOTH)


# ------------------------------------------------------------------------------------------------- schedule


def test_few_pairs_with_an_image_are_trained_sequentially(capsys: pytest.CaptureFixture[str]) -> None:
    assert checks.choose_schedule(preset(), BOTH, items(5, 5)) == "sequential"
    assert "5 image–gene pairs: training gene and text first" in capsys.readouterr().err


def test_many_pairs_are_trained_jointly(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(checks, "FEW_PAIRS", 5)
    assert checks.choose_schedule(preset(), BOTH, items(5, 5)) == "joint"
    assert checks.choose_schedule(preset(schedule="sequential"), BOTH, items(5, 5)) == "sequential"
    assert checks.choose_schedule(preset(image_link="ridge"), BOTH, items(5, 5)) == "sequential"
    assert capsys.readouterr().err == ""


def test_a_closed_form_that_is_refined_stays_sequential_with_many_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "FEW_PAIRS", 5)
    whisperer = preset("whisperer")
    assert checks.choose_schedule(whisperer, BOTH, items(5, 5)) == "sequential"
    for changes in ({"refine": "never"}, {"locking": "LLU"}, {"schedule": "joint"}):
        assert checks.choose_schedule(whisperer.replace(**changes), BOTH, items(5, 5)) == "joint"
    assert checks.choose_schedule(whisperer, {("image", "gene"): 1.0}, items(5, 0)) == "joint"


def test_pairs_without_a_bridge_are_trained_jointly() -> None:
    for pairs in ({("gene", "text"): 1.0}, {("image", "gene"): 1.0}, {**BOTH, ("image", "text"): 1.0}):
        assert checks.choose_schedule(preset(), pairs, items(3, 3)) == "joint"
    assert checks.choose_schedule(preset("bleep"), {("image", "gene"): 1.0}, items(3, 0)) == "joint"


def test_a_schedule_that_the_pairs_do_not_allow_is_refused() -> None:
    one = {("image", "gene"): 1.0}
    checks.check_schedule(preset(schedule="sequential"), BOTH)
    checks.check_schedule(preset(), one)
    with pytest.raises(ValueError, match="no image–text pairs; there are image–gene. Use schedule='joint'"):
        checks.check_schedule(preset(schedule="sequential"), one)
    with pytest.raises(ValueError, match="image_link applies to schedule='sequential', which these pairs"):
        checks.check_schedule(preset(image_link="contrastive"), one)


@pytest.mark.parametrize(
    ("changes", "trained", "decodes", "expected"),
    [
        ({}, {}, False, "ridge"),
        ({}, {"gene": "U"}, False, "ridge"),
        ({}, {"image": "U"}, False, "contrastive"),
        ({}, {}, True, "contrastive"),
        ({"image_link": "contrastive"}, {}, False, "contrastive"),
    ],
)
def test_the_image_link(changes: Any, trained: Any, decodes: bool, expected: str) -> None:
    assert checks.choose_link(preset(**changes), "sequential", trained=trained, decodes=decodes) == expected
    assert checks.choose_link(preset(**changes), "joint", trained=trained, decodes=decodes) is None


def test_a_ridge_link_trains_no_decoder() -> None:
    with pytest.raises(ValueError, match="trains no decoder .*; use image_link='contrastive'"):
        checks.choose_link(preset(image_link="ridge"), "sequential", trained={}, decodes=True)


# ------------------------------------------------------------------------------------------------- expression


def test_the_preset_says_whether_expression_is_predicted() -> None:
    assert checks.expression_options(None, preset(), BOTH) is None
    assert checks.expression_options(None, preset("bleep"), BOTH) == ExpressionOptions()
    assert checks.expression_options(None, preset("bleep"), {("gene", "text"): 1.0}) is None


def test_the_caller_says_whether_expression_is_predicted() -> None:
    own = ExpressionOptions(genes=["A"])
    assert checks.expression_options(own, preset(), BOTH) is own
    assert checks.expression_options(True, preset(), BOTH) == ExpressionOptions()
    assert checks.expression_options(False, preset("whisperer"), BOTH) is None


@pytest.mark.parametrize("asked", [True, ExpressionOptions()])
def test_expression_needs_images_with_counts(asked: Any) -> None:
    with pytest.raises(ValueError, match="needs image–gene pairs and a preset that predicts expression"):
        checks.expression_options(asked, preset(), {("gene", "text"): 1.0})
    with pytest.raises(ValueError, match="here: 'spatialwhisperer'"):
        checks.expression_options(asked, preset(expression=None), BOTH)


# ------------------------------------------------------------------------------------------------- what changes nothing


def test_what_shapes_no_closed_form_is_named_where_it_was_changed() -> None:
    changed = preset("whisperer", learning_rate=0.5, select="best", neighbour_weight=0.25)
    with pytest.warns(SpatialWhispererWarning, match=r"learning_rate=0\.5, select='best' changed nothing"):
        checks.warn_of_unused(changed)


@pytest.mark.parametrize("protocol", ["strict", "peer"])
def test_a_preset_as_it_is_warns_of_nothing(protocol: str, recwarn: pytest.WarningsRecorder) -> None:
    for name in sw.models.presets().index:
        checks.warn_of_unused(get_preset(name, protocol))
    checks.warn_of_unused(get_preset("whisperer", protocol).replace(refine="never", neighbour_weight=0.1))
    assert not recwarn.list
