from __future__ import annotations

import pytest

from spatialwhisperer.training.text.wordings import place_wordings

CAPTIONS = ["breast carcinoma", "fat tissue", "stroma"]


def test_a_text_is_one_input_and_may_speak_of_several_captions() -> None:
    texts, wordings = place_wordings(
        CAPTIONS, {"breast carcinoma": ["tumour", "lesion"], "fat tissue": ["lesion"]}, {"fat tissue": ["no fat"]}
    )
    assert texts == [*CAPTIONS, "tumour", "lesion", "no fat"]
    assert wordings is not None
    states, negated = wordings.states(len(texts))
    assert states.astype(int).tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 0, 0], [1, 1, 0], [0, 1, 0]]
    assert negated.tolist() == [False] * 5 + [True]
    assert [texts.tolist() for texts in wordings.of_captions()] == [[0, 3, 4], [1, 4], [2]]


def test_captions_alone_have_no_wordings() -> None:
    assert place_wordings(CAPTIONS, {}, {}) == (CAPTIONS, None)
    assert place_wordings(CAPTIONS, {"stroma": ["stroma"]}, {}) == (CAPTIONS, None)


def test_folds_are_parts_of_each_list_in_its_order() -> None:
    names = [f"name {i}" for i in range(10)]
    _, wordings = place_wordings(CAPTIONS, {"stroma": names}, {"stroma": ["no stroma", "without stroma"]})
    assert wordings is not None
    assert wordings.folds().tolist() == [-1, -1, -1, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 0, 2]


@pytest.mark.parametrize(
    ("wordings", "negated", "message"),
    [
        ({"tumor": ["cancer"]}, {}, r"given for 'tumor', which no row has as a caption \(captions: 'breast carcinoma'"),
        ({}, {"fat": ["no fat"]}, "given for 'fat', which no row has"),
        ({"stroma": ["benign"]}, {"breast carcinoma": ["benign"]}, "'benign' cannot say both that a caption is true"),
        ({}, {"breast carcinoma": ["stroma"]}, "'stroma' cannot say both"),
    ],
)
def test_wordings_that_do_not_fit_the_captions_are_refused(
    wordings: dict[str, list[str]], negated: dict[str, list[str]], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        place_wordings(CAPTIONS, wordings, negated)
