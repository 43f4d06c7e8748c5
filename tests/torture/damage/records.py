"""Links between table and elements, and records of earlier results, that are broken."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from tests.torture.damage.kinds import Damage
from tests.torture.objects import COUNTS, GRID, SDATA, VISIUM, table_of

if TYPE_CHECKING:
    from collections.abc import Callable

EVERY = (SDATA, VISIUM, GRID, COUNTS)
LINKED = (SDATA, GRID)


def attribute(name: str, value: Any) -> Callable[[Any], None]:
    def change(data: Any) -> None:
        table_of(data).uns["spatialdata_attrs"][name] = value

    return change


def attributes(value: Any) -> Callable[[Any], None]:
    def change(data: Any) -> None:
        table_of(data).uns["spatialdata_attrs"] = value

    return change


def without(name: str) -> Callable[[Any], None]:
    def change(data: Any) -> None:
        del table_of(data).uns["spatialdata_attrs"][name]

    return change


def link_column(which: str, made: Callable[[pd.Series], Any]) -> Callable[[Any], None]:
    """Change a column that the link names, by the name of the attribute."""

    def change(data: Any) -> None:
        table = table_of(data)
        name = table.uns["spatialdata_attrs"][which]
        table.obs[name] = pd.Series(made(pd.Series(table.obs[name])), index=table.obs_names)

    return change


def _no_link(data: Any) -> None:
    del table_of(data).uns["spatialdata_attrs"]


LINK_DAMAGES = [
    Damage("link: region_key misspelt", attribute("region_key", "nope"), LINKED),
    Damage("link: region_key None", attribute("region_key", None), LINKED),
    Damage("link: region_key a list", attribute("region_key", ["region"]), LINKED),
    Damage("link: no region_key", without("region_key"), LINKED),
    Damage("link: instance_key a number", attribute("instance_key", 7), LINKED),
    Damage("link: instance_key misspelt", attribute("instance_key", "nope"), LINKED),
    Damage("link: no instance_key", without("instance_key"), LINKED),
    Damage("link: region None", attribute("region", None), LINKED),
    Damage("link: region a number", attribute("region", 7), LINKED),
    Damage("link: region empty", attribute("region", []), LINKED),
    Damage("link: region another", attribute("region", ["elsewhere"]), LINKED),
    Damage("link: region a matrix", attribute("region", np.array([["a"]])), LINKED),
    Damage("link: no region", without("region"), LINKED),
    Damage("link: text", attributes("x"), LINKED),
    Damage("link: None", attributes(None), LINKED),
    Damage("link: a list", attributes(["region"]), LINKED),
    Damage("link: empty", attributes({}), LINKED),
    Damage("link: none", _no_link, LINKED),
    Damage(
        "link: on a plain table", attributes({"region": "a", "region_key": "b", "instance_key": "c"}), (VISIUM, COUNTS)
    ),
    Damage(
        "regions: NaN", link_column("region_key", lambda old: old.astype(object).where(np.arange(len(old)) > 2)), LINKED
    ),
    Damage("regions: elsewhere", link_column("region_key", lambda old: ["elsewhere"] * len(old)), LINKED),
    Damage("regions: numbers", link_column("region_key", lambda old: [1] * len(old)), LINKED),
    Damage(
        "regions: text", link_column("region_key", lambda old: old.astype(str).astype(object)), LINKED, harmless=True
    ),
    Damage(
        "regions: unused category",
        link_column("region_key", lambda old: old.cat.add_categories("other")),
        LINKED,
        harmless=True,
    ),
    Damage("instances: text", link_column("instance_key", lambda old: old.astype(str)), LINKED),
    Damage("instances: fractions", link_column("instance_key", lambda old: np.arange(len(old)) + 0.5), LINKED),
    Damage("instances: NaN", link_column("instance_key", lambda old: np.full(len(old), np.nan)), LINKED),
    Damage("instances: repeated", link_column("instance_key", lambda old: old.iloc[[0] * len(old)].to_numpy()), LINKED),
    Damage("instances: elsewhere", link_column("instance_key", lambda old: np.arange(len(old)) + 10**6), LINKED),
    Damage(
        "instances: nullable",
        link_column("instance_key", lambda old: pd.array([None] * len(old), dtype="Int64")),
        LINKED,
    ),
    Damage("instances: lists", link_column("instance_key", lambda old: pd.Series([[1]] * len(old)).to_numpy()), LINKED),
]


# ------------------------------------------------------------------------------------------------- records


def provenance(value: Any) -> Callable[[Any], None]:
    def change(data: Any) -> None:
        table_of(data).uns["spatialwhisperer"] = value

    return change


def parameters(made: Callable[[Any], Any]) -> Callable[[Any], None]:
    """Change the record of each result."""

    def change(data: Any) -> None:
        records = table_of(data).uns["spatialwhisperer"]
        for name, entry in list(records.items()):
            changed = made(json.loads(entry["parameters"]))
            records[name] = {**entry, "parameters": changed if isinstance(changed, str) else json.dumps(changed)}

    return change


def entries(value: Any) -> Callable[[Any], None]:
    def change(data: Any) -> None:
        for name in list(table_of(data).uns["spatialwhisperer"]):
            table_of(data).uns["spatialwhisperer"][name] = value

    return change


def _of_every(value: Any, seen: Any) -> Any:
    """The same structure with one value in all places."""
    return {key: _of_every(value, one) for key, one in seen.items()} if isinstance(seen, dict) else value


def label_classes(value: Any) -> Callable[[Any], None]:
    def change(data: Any) -> None:
        table_of(data).uns["sw_label"] = value

    return change


def _versions(data: Any) -> None:
    for entry in table_of(data).uns["spatialwhisperer"].values():
        entry["version"] = "99.0"


RECORD_DAMAGES = [
    Damage("records: text", provenance("x"), EVERY),
    Damage("records: None", provenance(None), EVERY),
    Damage("records: a list", provenance([1]), EVERY),
    Damage("records: an array", provenance(np.array(["x"])), EVERY),
    Damage("records: keys that are numbers", provenance({7: {"parameters": "{}"}}), EVERY),
    Damage("record: text", entries("x"), EVERY),
    Damage("record: None", entries(None), EVERY),
    Damage("record: no JSON", entries({"version": "0", "parameters": "{bad"}), EVERY),
    Damage("record: a number", entries({"version": "0", "parameters": 7}), EVERY),
    Damage("record: a list", entries({"version": "0", "parameters": "[1, 2]"}), EVERY),
    Damage("record: deep", entries({"version": "0", "parameters": "[" * 100000}), EVERY),
    Damage("record: empty", parameters(lambda _: {}), EVERY),
    Damage("record: NaN", parameters(lambda p: _of_every(float("nan"), p)), EVERY),
    Damage("record: None in all places", parameters(lambda p: _of_every(None, p)), EVERY),
    Damage("record: text in all places", parameters(lambda p: _of_every("x", p)), EVERY),
    Damage("record: lists in all places", parameters(lambda p: _of_every([1], p)), EVERY),
    Damage("record: -1 in all places", parameters(lambda p: _of_every(-1, p)), EVERY),
    Damage("record: every part text", parameters(lambda p: dict.fromkeys(p, "x")), EVERY),
    Damage("record: every part a list", parameters(lambda p: dict.fromkeys(p, [{}])), EVERY),
    Damage("record: further parts", parameters(lambda p: {**p, "later": {"a": 1}}), EVERY),
    Damage("record: of a later version", _versions, EVERY, harmless=True),
    Damage("classes: text", label_classes("x"), EVERY),
    Damage("classes: one of two", label_classes({"classes": ["fat"]}), EVERY),
    Damage("classes: too many", label_classes({"classes": ["fat", "tumour", "third"]}), EVERY),
    Damage("classes: numbers", label_classes({"classes": [1, 2]}), EVERY),
    Damage("classes: twice the same", label_classes({"classes": ["fat", "fat"]}), EVERY),
    Damage("classes: a number", label_classes({"classes": 7}), EVERY),
    Damage("classes: None", label_classes({"classes": None}), EVERY),
    Damage("classes: nothing", label_classes({}), EVERY),
]


def colours(value: Any) -> Callable[[Any], None]:
    def change(data: Any) -> None:
        for key in ("truth", "sw_label", "sw_domain"):
            table_of(data).uns[f"{key}_colors"] = value

    return change


COLOUR_DAMAGES = [
    Damage("colours: no colours", colours(["nope", "nada"]), EVERY),
    Damage("colours: numbers", colours([1, 2]), EVERY),
    Damage("colours: a number", colours(7), EVERY),
    Damage("colours: text", colours("re"), EVERY),
    Damage("colours: None", colours(None), EVERY),
    Damage("colours: too many", colours(["red", "green", "blue"]), EVERY),
    Damage("colours: numbers of red, green and blue", colours(np.array([[1.0, 0, 0], [0, 1, 0]])), EVERY),
]

DAMAGES = [*LINK_DAMAGES, *RECORD_DAMAGES, *COLOUR_DAMAGES]
