from __future__ import annotations

from spatialwhisperer.protocols.annotation.low_data.measure import BRIDGING, JOINT
from spatialwhisperer.protocols.annotation.methods import METHODS, NULLS, TRAINED


def test_every_method_has_a_name_in_tables() -> None:
    assert {*TRAINED, *NULLS, *NULLS.values()} <= set(METHODS)


def test_what_is_solved_in_closed_form_has_no_seed() -> None:
    assert {name for name, method in TRAINED.items() if not method.has_seed} == {
        "whisperer",
        "whisperer, one size",
        "whisperer, one caption",
    }
    assert not BRIDGING.has_seed
    assert JOINT.has_seed


def test_the_joint_space_of_what_is_trained_has_64_dimensions() -> None:
    for method in TRAINED.values():
        if method.has_seed:
            assert method.preset.joint.projection_dim == 64
    linear = TRAINED["joint linear"].preset.joint
    assert linear.head("image") == "linear_norm"
    assert (linear.dropout["image"], linear.weight_decay) == (0.8, 1.0)


def test_features_that_are_standardised_are_taken_as_they_are() -> None:
    for method in (BRIDGING, JOINT):
        assert dict(method.preset.standardize) == {"image": "none", "gene": "global", "text": "none"}
