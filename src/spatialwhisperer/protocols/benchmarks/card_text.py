"""The card of a folder in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from spatialwhisperer.protocols.output import markdown

if TYPE_CHECKING:
    from collections.abc import Mapping

_COLUMNS = {
    "patient": "patient",
    "organ": "organ",
    "st_technology": "technology",
    "rows": "rows",
    "rows_without_tile": "without tile",
    "genes_counted": "genes",
    "median_total_count": "median count",
    "um_per_px": "µm/px",
    "measured_pitch_um": "pitch, µm",
    "inter_spot_dist": "stated pitch, µm",
    "tile": "tile",
}


def card_text(card: Mapping[str, Any]) -> str:
    """The card as Markdown."""
    some = (
        "" if card["rows_per_section"] is None else f" (at most {card['rows_per_section']} of each section were read)"
    )
    lines = [
        f"# Card of a folder in the layout of {card['layout']}",
        "",
        f"{card['n_sections']} sections of {card['n_patients']} patients, {card['n_rows']} rows{some}, {card['n_common_genes']} genes that all "
        "sections have.",
        "",
        "## Patients",
        "",
        *(f"- {patient}: {', '.join(names)}" for patient, names in card["patients"].items()),
    ]
    if card["patient_not_stated"]:
        lines += ["", f"Their patient is not stated, and they count as one: {', '.join(card['patient_not_stated'])}."]
    lines += ["", "## Sections", "", markdown(_sections(card)), "", "## Near-identical sections", ""]
    pairs = card["duplicates"]["pairs"]
    lines += [f"- {p['one']} and {p['other']} (difference index {p['index']:.3f})" for p in pairs] or [
        "None was found."
    ]
    lines += ["", card["duplicates"]["convention"], "", *_splits(card["splits"]), "", *_floors(card["floors"]), ""]
    lines += _ceiling(card["noise_ceiling"])
    return "\n".join(lines) + "\n"


def _sections(card: Mapping[str, Any]) -> pd.DataFrame:
    rows = {s["name"]: {label: _cell(s.get(key)) for key, label in _COLUMNS.items()} for s in card["sections"]}
    ceilings = card["noise_ceiling"]["sections"]
    frame = pd.DataFrame.from_dict(rows, orient="index")
    frame["ceiling"] = [_cell(ceilings[name]["ceiling"]) for name in frame.index]
    frame.index.name = "section"
    return frame


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, dict):
        return f"{value['um']:g} µm, {value['px']} px"
    return (
        f"{value:.3g}"
        if isinstance(value, float) and value < 1000
        else f"{value:.0f}"
        if isinstance(value, float)
        else str(value)
    )


def _splits(splits: Mapping[str, Any]) -> list[str]:
    lines = [f"## Splits by {splits['left_out']}", ""]
    if splits["refused"]:
        return [*lines, splits["refused"]]
    return [*lines, *(f"- {f['name']} is left out: {', '.join(f['test'])}" for f in splits["folds"])]


def _floors(floors: Mapping[str, Any]) -> list[str]:
    lines = [f"## Floors ({floors['left_out']}s left out, sections with an image)", ""]
    if floors["refused"]:
        return [*lines, floors["refused"]]
    frame = pd.DataFrame({"r": {name: _cell(value) for name, value in floors["pearson"].items()}})
    frame.index.name = f"predictor (ridge on {floors['encoder']})"
    return [*lines, markdown(frame)]


def _ceiling(ceiling: Mapping[str, Any]) -> list[str]:
    return [
        "## Ceiling of counting noise",
        "",
        f"Mean over sections {_cell(ceiling['mean_ceiling'])}, for {ceiling['genes']}. {ceiling['formula']}",
    ]
