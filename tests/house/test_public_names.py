"""What a user sees: the names behind a tab, and signatures that a person can take in."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

import spatialwhisperer as sw

NAMESPACES = ("datasets", "io", "models", "pl", "pp", "tl")
MOST_PARAMETERS = 21


def public() -> list[tuple[str, Any]]:
    """Name and function of everything that can be called under ``sw.io``, ``sw.pp``, ``sw.tl`` and ``sw.pl``."""
    out = []
    for namespace in ("io", "pp", "tl", "pl"):
        module = getattr(sw, namespace)
        out += [(f"{namespace}.{name}", getattr(module, name)) for name in module.__all__]
    return [(name, value) for name, value in out if inspect.isfunction(value)]


def test_the_package_shows_its_namespaces_alone() -> None:
    assert dir(sw) == ["__version__", *sorted([*NAMESPACES, "settings"])]


@pytest.mark.parametrize("namespace", NAMESPACES)
def test_a_namespace_shows_its_public_names_alone(namespace: str) -> None:
    module = getattr(sw, namespace)
    assert dir(module) == list(module.__all__)
    assert not [name for name in dir(module) if inspect.ismodule(getattr(module, name))]


def test_training_takes_about_sixteen_parameters() -> None:
    assert len(inspect.signature(sw.tl.train).parameters) <= 16


@pytest.mark.parametrize(("name", "function"), public(), ids=[name for name, _ in public()])
def test_no_function_takes_many_more(name: str, function: Any) -> None:
    assert len(inspect.signature(function).parameters) <= MOST_PARAMETERS, name


@pytest.mark.parametrize(("name", "function"), public(), ids=[name for name, _ in public()])
def test_every_parameter_is_described(name: str, function: Any) -> None:
    """Each parameter heads a description of its own or shares one, and no mark of a shared description is left."""
    text = inspect.getdoc(function) or ""
    assert "%(" not in text, name
    section = text.partition("Parameters\n----------")[2].partition("\n\nReturns")[0]
    headings = [line for line in section.splitlines() if line and not line.startswith(" ")]
    described = {part.strip().lstrip("*") for line in headings for part in line.split(",")}
    assert set(inspect.signature(function).parameters) <= described, name


@pytest.mark.parametrize(("name", "function"), public(), ids=[name for name, _ in public()])
def test_data_has_a_type(name: str, function: Any) -> None:
    parameters = inspect.signature(function).parameters
    assert "Any" not in {str(p.annotation) for n, p in parameters.items() if n in ("data", "train", "prediction")}, name


def test_a_misspelt_argument_of_opening_is_refused_with_the_one_that_was_meant(section: Any) -> None:
    with pytest.raises(TypeError, match="no argument 'table_kye'. Did you mean table_key"):
        sw.tl.zero_shot_annotate(section, table_kye="table")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="no argument 'mppp'"):
        sw.pp.embed_images(section, mppp=0.5)  # type: ignore[call-arg]
