"""Parameters that many functions share are described once."""

from __future__ import annotations

import importlib
import inspect

import pytest

from spatialwhisperer._docs import PARAMETERS, shared


def test_marks_become_descriptions_at_their_place() -> None:
    @shared
    def function(data: object, device: str | None = None) -> None:
        """Do it.

        Parameters
        ----------
        %(data)s
        %(device)s

        Raises
        ------
        ValueError
            100 % of the time.
        """

    doc = inspect.cleandoc(function.__doc__ or "").splitlines()
    start = doc.index("data")
    assert doc[start + 1].startswith("    AnnData with")
    assert doc[doc.index("device") + 1] == "    Torch device; ``None`` takes ``settings.device``."
    assert "    100 % of the time." in doc


def test_a_mark_that_stands_for_nothing_is_an_error() -> None:
    def function() -> None:
        """Do it.

        Parameters
        ----------
        %(dat)s
        """

    with pytest.raises(KeyError, match="dat"):
        shared(function)


def test_a_function_without_a_docstring_passes() -> None:
    def function() -> None: ...

    assert shared(function) is function


@pytest.mark.parametrize("namespace", ["pp", "tl", "pl", "models", "datasets"])
def test_no_mark_is_left_in_a_public_docstring(namespace: str) -> None:
    module = importlib.import_module(f"spatialwhisperer.{namespace}")
    for name in module.__all__:
        assert "%(" not in (getattr(module, name).__doc__ or ""), name


def test_a_description_names_its_parameters_and_indents_what_it_says_of_them() -> None:
    for name, text in PARAMETERS.items():
        lines = text.strip("\n").splitlines()
        named = [line.lstrip("*") for line in lines if not line.startswith("    ")]
        assert all(parameter.isidentifier() for parameter in named), name
        assert lines[0].lstrip("*") == named[0]
        assert len(named) > 1 or named == [name]
