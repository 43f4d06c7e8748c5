from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING, Any

import pytest

from spatialwhisperer.models.ontology import Ontology, Term

if TYPE_CHECKING:
    from pathlib import Path

OBO = r"""format-version: 1.4
ontology: cl

[Term]
id: CL:0000000
name: cell
def: "A \"whole\" unit,\nof life." [GOC:tfm, http://en.wikipedia.org/wiki/Cell] {source="x"}

[Term]
id: CL:0000542
name: lymphocyte
is_a: CL:0000000 {is_inferred="true"} ! cell
is_a: UBERON:0000061 ! anatomical structure

[Term]
id: CL:0000084
name: T cell
synonym: "T lymphocyte" EXACT []
synonym: "T-cell" EXACT MADE_UP [GOC:x]
synonym: "thymocyte" RELATED []
is_a: CL:0000542 ! lymphocyte

[Term]
id: CL:0000625
name: CD8-positive, alpha-beta T cell
is_a: CL:0000084 ! T cell
is_a: CL:0000542 ! lymphocyte

[Term]
id: CL:0000003
name: obsolete native cell
is_obsolete: true

[Term]
id: CL:0000999

[Typedef]
id: part_of
name: part of
"""

HEADER = "cl_id\tname\tdefinition\texact_synonyms\tparents\tsubsets"
TSV = f"""{HEADER}
CL:0000000\tcell\tA "whole" unit.\t\t\tslim
CL:0000542\tlymphocyte\t\tlymph cell\tCL:0000000\t
CL:0000084\tT cell\t\tT-cell|T lymphocyte\tCL:0000542|UBERON:0000061\t
"""


def write(path: Path, text: str) -> Path:
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


@pytest.fixture
def obo(tmp_path: Path) -> Ontology:
    return Ontology.read(write(tmp_path / "cl.obo", OBO))


# ------------------------------------------------------------------------------------------------- reading


def test_obo(obo: Ontology) -> None:
    assert list(obo.terms) == ["CL:0000000", "CL:0000542", "CL:0000084", "CL:0000625", "CL:0000999"]
    assert obo.terms["CL:0000084"] == Term("CL:0000084", "T cell", ("T lymphocyte", "T-cell"), ("CL:0000542",))
    assert obo.terms["CL:0000000"].definition == 'A "whole" unit,\nof life.'
    assert obo.terms["CL:0000542"].parents == ("CL:0000000", "UBERON:0000061")
    # a term of another ontology may be mentioned without a name
    assert obo.name("CL:0000999") == "CL:0000999"


@pytest.mark.parametrize("name", ["cl.obo", "cl.OBO", "cl.obo.gz", "cl.tsv", "cl.tsv.gz"])
def test_every_kind_of_file(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, OBO if "obo" in name.lower() else TSV)
    for source in (path, str(path)):
        ontology = Ontology.read(source)
        assert ontology.find("T lymphocytes") == "CL:0000084"
        assert ontology.ancestors("CL:0000084") == ["CL:0000542", "CL:0000000"]
    assert Ontology.read(write(tmp_path / "windows.obo", OBO.replace("\n", "\r\n"))).terms.keys() >= {"CL:0000084"}


def test_tsv(tmp_path: Path) -> None:
    ontology = Ontology.read(write(tmp_path / "cl.tsv", TSV))
    assert ontology.terms["CL:0000000"] == Term("CL:0000000", "cell", definition='A "whole" unit.')
    assert ontology.terms["CL:0000084"].synonyms == ("T-cell", "T lymphocyte")
    assert ontology.terms["CL:0000084"].parents == ("CL:0000542", "UBERON:0000061")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("cl.owl", OBO, r"cl\.owl is not a file of a known kind \(\.obo, .*\.obo too"),
        ("cl.obo", "<html><body>404</body></html>", "holds no term; the file starts with '<html><body>404"),
        ("cl.obo", "", "holds no term; the file starts with 'nothing'"),
        ("cl.tsv", "", r"lacks the columns cl_id, name, .*\(found: none\)"),
        ("cl.tsv", "id\tname\nCL:1\tcell\n", r"lacks the columns cl_id, .*\(found: id, name\)"),
        ("cl.tsv", HEADER + "\n", "holds no term; the file starts with 'cl_id"),
        ("cl.tsv", TSV + "CL:1\tcut", "has 2 columns in line 5, and 6 in its first line"),
        ("cl.tsv", TSV + TSV.splitlines()[1], "is not one ontology: CL:0000000 is there twice: 'cell' and 'cell'"),
        ("cl.tsv", HEADER + "\n" + "\t" * 5, "has no id"),
    ],
)
def test_files_that_cannot_be_read(tmp_path: Path, name: str, content: str, message: str) -> None:
    if message == "has no id":
        content = content.replace("\t\t\t\t\t", "\tcell\t\t\t\t")
    with pytest.raises(ValueError, match=message):
        Ontology.read(write(tmp_path / name, content))


def test_broken_bytes(tmp_path: Path) -> None:
    whole = gzip.compress(OBO.encode())
    for content in (whole[:-20], b"not gzip", whole[:40] + b"\0\0\0\0" + whole[44:]):
        (tmp_path / "cl.obo.gz").write_bytes(content)
        with pytest.raises(ValueError, match=r"cl\.obo\.gz is not a whole gzip file .*Download it again"):
            Ontology.read(tmp_path / "cl.obo.gz")
    (tmp_path / "cl.obo").write_bytes(whole)
    with pytest.raises(ValueError, match="not UTF-8 text"):
        Ontology.read(tmp_path / "cl.obo")
    for path in (tmp_path / "none.obo", tmp_path):
        with pytest.raises(FileNotFoundError, match="There is no file"):
            Ontology.read(path)


# ------------------------------------------------------------------------------------------------- finding


@pytest.mark.parametrize(
    "label",
    ["CL:0000084", "cl:0000084", "CL_0000084", "T cell", "t CELLS", "T-cell", "T_cells", " T  lymphocytes ", "T‑cell"],
)
def test_labels_that_are_found(obo: Ontology, label: str) -> None:
    assert obo.find(label) == "CL:0000084"


@pytest.mark.parametrize("label", ["", "  ", "thymocyte", "T", "cell of a kind", "CL:1", "native cell"])
def test_labels_that_are_not(obo: Ontology, label: str) -> None:
    assert obo.find(label) is None


def test_plurals() -> None:
    names = ["macrophage", "biliary body", "basis", "plasma cell of glands", "mucus", "mass", "B cell"]
    ontology = Ontology(Term(f"X:{i}", name) for i, name in enumerate(names))
    for label, i in {
        "Macrophages": 0,
        "biliary bodies": 1,
        "basis": 2,
        "plasma cells of gland": 3,
        "Mucus": 4,
        "mass": 5,
    }.items():
        assert ontology.find(label) == f"X:{i}"
    assert ontology.find("ma") is None


def test_names_come_before_synonyms_and_a_shared_word_is_no_guess() -> None:
    ontology = Ontology(
        [Term("X:1", "islet cell", ("D cell", "odd")), Term("X:2", "D cell"), Term("X:3", "z", ("odd", "zed", "zeds"))]
    )
    assert ontology.find("d cells") == "X:2"
    assert ontology.find("odd") is None
    assert ontology.find("zed") == "X:3"


def test_ancestors_nearest_first(obo: Ontology) -> None:
    # two ways up: the shorter one counts
    assert obo.ancestors("CL:0000625") == ["CL:0000084", "CL:0000542", "CL:0000000"]
    assert obo.ancestors("CL:0000000") == []
    assert obo.is_a("CL:0000625", "CL:0000000")
    assert obo.is_a("CL:0000084", "CL:0000084")
    assert not obo.is_a("CL:0000000", "CL:0000084")


def test_a_circle_ends() -> None:
    ontology = Ontology([Term("X:1", "a", parents=("X:2",)), Term("X:2", "b", parents=("X:1", "X:2"))])
    assert ontology.ancestors("X:1") == ["X:2"]


def test_unknown_ids(obo: Ontology) -> None:
    calls: list[Any] = [obo.name, obo.ancestors, lambda i: obo.is_a(i, "CL:0000000"), lambda i: obo.subset([i])]
    for call in [*calls, lambda i: obo.is_a("CL:0000000", i)]:
        with pytest.raises(KeyError, match="'T cell' is not an id of this ontology of 5 terms .*find"):
            call("T cell")


def test_a_part_has_all_ancestors(obo: Ontology) -> None:
    part = obo.subset(["CL:0000084"])
    assert list(part.terms) == ["CL:0000000", "CL:0000542", "CL:0000084"]
    assert part.ancestors("CL:0000084") == obo.ancestors("CL:0000084")
    assert part.find("CD8-positive, alpha-beta T cell") is None
    assert len(obo.subset([])) == 0
    assert "CL:0000084" in part
    assert "3 terms: cell, lymphocyte, T cell" in repr(part)


def test_json_and_back(obo: Ontology) -> None:
    again = Ontology.from_json(json.loads(json.dumps(obo.to_json())))
    assert again.terms == obo.terms
    numbered: dict[str, Any] = {"id": 1, "name": "a", "synonyms": [], "parents": [], "definition": ""}
    wrongs: list[Any] = [{}, {"terms": [{"id": "X:1"}]}, {"terms": 3}, {"terms": [numbered]}, None]
    for wrong in wrongs:
        with pytest.raises(ValueError, match="do not describe an ontology"):
            Ontology.from_json(wrong)


def test_repeated_ids() -> None:
    with pytest.raises(ValueError, match="X:1 is there twice: 'a' and 'b'"):
        Ontology([Term("X:1", "a"), Term("X:1", "b")])


def test_the_real_cell_ontology(data_folder: Path) -> None:
    path = data_folder / "text" / "cell_ontology_2022-09-15.tsv.gz"
    if not path.is_file():
        pytest.skip("the folder holds no text/cell_ontology_2022-09-15.tsv.gz")
    ontology = Ontology.read(path)
    assert len(ontology) == 2526
    expected = {
        "T-cells": "T cell",
        "B lymphocytes": "B cell",
        "Macrophages": "macrophage",
        "NK cells": "natural killer cell",
        "adipocytes": "fat cell",
    }
    assert {label: ontology.name(ontology.find(label) or "") for label in expected} == expected
    assert [ontology.name(i) for i in ontology.ancestors("CL:0000084")][:2] == ["lymphocyte", "leukocyte"]
    assert ontology.is_a("CL:0000625", "CL:0000542")
    # every name leads back to its own term
    assert [i for i, t in ontology.terms.items() if ontology.find(t.name) != i] == []
    part = ontology.subset(["CL:0000084", "CL:0000136"])
    assert len(part) < 20
    assert part.ancestors("CL:0000136") == ontology.ancestors("CL:0000136")


def test_parents_may_be_added() -> None:
    terms = [Term("r", "cell"), Term("e", "epithelial cell", (), ("r",)), Term("m", "mammary cell", (), ("r",))]
    more = Ontology(terms).with_parents({"m": ["e"]})
    assert more.ancestors("m") == ["r", "e"]
    assert more.terms["m"].parents == ("r", "e")
    assert Ontology(terms).ancestors("m") == ["r"]
    with pytest.raises(ValueError, match="'mammary cell' is a kind of 'epithelial cell', and cannot be above it"):
        more.with_parents({"e": ["m"]})
    with pytest.raises(KeyError, match="'x' is not an id"):
        more.with_parents({"m": ["x"]})
    with pytest.raises(KeyError, match="'x' is not an id"):
        more.with_parents({"x": []})


def test_parents_that_are_added_together_make_no_cycle() -> None:
    ontology = Ontology([Term("a", "A"), Term("b", "B"), Term("c", "C")])
    for cycle in ({"a": ["b"], "b": ["a"]}, {"a": ["b"], "b": ["c"], "c": ["a"]}, {"a": ["c", "b"], "c": ["a"]}):
        with pytest.raises(ValueError, match="'A' is a kind of '[BC]', and cannot be above it"):
            ontology.with_parents(cycle)
    assert all(not term.parents for term in ontology.terms.values())
    assert ontology.with_parents({"a": ["b"], "b": ["c"]}).ancestors("a") == ["b", "c"]


def test_the_genus_of_a_logical_definition_is_a_parent(tmp_path: Path) -> None:
    path = tmp_path / "small.obo"
    path.write_text(
        "[Term]\nid: CL:0000066\nname: epithelial cell\n\n"
        "[Term]\nid: CL:0002327\nname: mammary gland epithelial cell\nis_a: CL:0002371 ! somatic cell\n"
        "intersection_of: CL:0000066 ! epithelial cell\nintersection_of: part_of UBERON:0001911 ! mammary gland\n"
    )
    ontology = Ontology.read(path)
    assert ontology.terms["CL:0002327"].parents == ("CL:0002371", "CL:0000066")
    assert ontology.is_a("CL:0002327", "CL:0000066")


def test_the_labels_of_the_embedded_model_have_reasoned_parents(data_folder: Path) -> None:
    from spatialwhisperer.protocols.default_model.labels import REASONED_PARENTS
    from spatialwhisperer.protocols.train_default import ONTOLOGY

    asserted = Ontology.read(data_folder / "text" / ONTOLOGY)
    assert not asserted.is_a("CL:0002327", "CL:0000066")
    part = asserted.with_parents(REASONED_PARENTS).subset(["CL:0002327", "CL:0000057"])
    assert part.is_a("CL:0002327", "CL:0000066")
    assert part.name("CL:0000066") == "epithelial cell"
