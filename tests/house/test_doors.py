"""Public functions check their arguments at the door; the campaigns of tests/torture try what happens behind it."""

from __future__ import annotations

import inspect

import spatialwhisperer as sw

# they take no argument, or are meant for whoever extends the package
_WITHOUT = ("compare_protocols", "default_model", "presets", "register_encoder", "register_modality")


def test_every_public_function_checks_its_arguments_at_the_door() -> None:
    unchecked = []
    for module in (sw.pp, sw.tl, sw.pl, sw.models, sw.datasets):
        for name in module.__all__:
            function = getattr(module, name)
            if inspect.isfunction(function) and name not in _WITHOUT and not hasattr(function, "__wrapped__"):
                unchecked.append(f"{module.__name__}.{name}")
    assert unchecked == []


def test_every_group_of_options_checks_its_fields() -> None:
    options = (sw.tl.ExpressionOptions, sw.tl.GeneFeatures, sw.tl.Hierarchy, sw.tl.ImageFeatures, sw.tl.TextFeatures)
    for kind in (*options, sw.pp.CorpusSource, sw.models.EncoderSpec, sw.models.Recipe, sw.models.PairLoss):
        assert hasattr(kind.__init__, "__wrapped__"), kind.__name__
