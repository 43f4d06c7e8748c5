from __future__ import annotations

from itertools import product

from spatialwhisperer._access.records import TilesRecord, Where, agreed, places_of
from spatialwhisperer._storage.schema import from_plain, to_plain


def test_a_record_holds_what_is_asked_for_and_perhaps_more() -> None:
    here = Where(mpp={"a": 0.5, "b": 0.25}, image={"a": "he", "b": "he"})
    assert here.differs(Where()) == ""
    assert here.differs(Where(mpp={"a": 0.5}, image={"a": "he"})) == ""
    assert here.differs(Where(image={"a": "he"})) == ""
    assert here.differs(Where(mpp={"a": 0.5 * (1 + 1e-9)}, image={"a": "he"})) == ""
    assert "another image or at another scale" in here.differs(Where(mpp={"a": 0.51}))
    assert "another image or at another scale" in here.differs(Where(image={"a": "other"}))


def test_a_section_that_is_not_recorded_differs() -> None:
    """As of a table that was concatenated with one whose record was left out."""
    here = Where(mpp={"a": 0.5}, image={"a": "he"})
    assert (
        here.differs(Where(mpp={"a": 0.5, "b": 0.5}, image={"a": "he", "b": "he"}))
        == "was computed without section 'b'"
    )
    assert Where().differs(here) == "was computed without section 'a'"


def test_the_rule_of_a_scale_does_not_have_to_agree() -> None:
    assert Where(mpp={"a": 0.5}, rule={"a": "mpp=…"}).differs(Where(mpp={"a": 0.5}, rule={"a": "microns"})) == ""


def test_a_pitch_that_was_measured_on_other_rows_agrees() -> None:
    rules = ("spot_pitch_um=100", "the 100 µm pitch of the Visium array")
    for rule, its in product(rules, rules):
        here = Where(mpp={"a": 0.5}, rule={"a": rule})
        assert not here.differs(Where(mpp={"a": 0.504}, rule={"a": its}))
        assert here.differs(Where(mpp={"a": 0.51}, rule={"a": its}))
        assert here.differs(Where(mpp={"a": 0.504}, rule={"a": "mpp=…"}))
    stated = Where(mpp={"a": 0.5}, rule={"a": "mpp=…"})
    assert stated.differs(Where(mpp={"a": 0.504}, rule={"a": "mpp=…"}))


def test_records_go_to_plain_values_and_back() -> None:
    where = Where(mpp={"a": 0.5}, rule={"a": "mpp=…"}, image={"a": "he"}, library_key="part")
    tiles = TilesRecord(56.0, None, "grid", "nan", "allow", where, stride_um=28.0, tissue="auto", min_tissue=0.5)
    assert from_plain(TilesRecord, to_plain(tiles), "a record") == tiles


def test_several_records_say_together_what_none_says_otherwise() -> None:
    measured = {"a": "spot_pitch_um=100"}
    first = Where(mpp={"a": 0.5, "b": 0.25}, rule=measured, image={"a": "he", "b": "he"}, library_key="part")
    second = Where(mpp={"a": 0.504, "b": 0.3, "c": 1.0}, rule=measured, image={"a": "he", "b": "other"})
    together = agreed([first, second, Where()])
    assert dict(together.mpp) == {"a": 0.5, "c": 1.0}
    assert dict(together.image) == {"a": "he"}
    assert together.library_key == "part"
    assert agreed([]) == Where()
    assert agreed([first, Where(library_key="other")]).library_key is None


def test_records_without_a_place_and_of_another_version_have_none() -> None:
    where = Where(mpp={"a": 0.5})
    records = [None, {"text": "fat"}, {"where": {"scale": 0.5}}, {"where": to_plain(where), "licence": "BSD"}]
    assert places_of(records) == (where,)
