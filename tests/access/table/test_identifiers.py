from __future__ import annotations

from spatialwhisperer._access.table.identifiers import free_names, other_species

SYMBOLS = [f"SYM{i}" for i in range(40)]
IDS = [f"ENSG{i:011d}" for i in range(40)]


def test_symbols_of_another_species_are_recognised_by_their_case() -> None:
    ours = ["EPCAM", "KRT8", "CD3E", "MS4A1", "COL1A1", "H19", "PTPRC"]
    theirs = [g.capitalize() for g in ours]
    text = other_species(ours, theirs)
    assert "1 names are the same, and 7 when upper and lower case are taken as one (" in text
    assert "one-to-one orthologs" in text
    # a few names differ in case within a species
    assert other_species(ours, [*ours[:5], "h19"]) == ""
    assert other_species(ours, ["X1", "X2"]) == ""


def test_ensembl_ids_name_the_species() -> None:
    mouse = [i.replace("ENSG", "ENSMUSG") for i in IDS]
    text = other_species([*SYMBOLS, *IDS], mouse)
    assert "40 of the table's Ensembl ids start with ENSMUSG, 40 of the model's with ENSG" in text
    assert other_species(IDS, IDS) == ""


def test_a_name_that_is_taken_becomes_the_id_or_gets_a_number() -> None:
    assert free_names(["A", "B", "C"], ["E1", "", "E3"], ["A", "B", "B-1"]) == ["E1", "B-2", "C"]
    assert free_names(["A", "E1"], ["E1", ""], ["A"]) == ["A-1", "E1"]
