"""Digests change with everything that features depend on, and with nothing else."""

from __future__ import annotations

import copy
import logging
import os
import pickle
import re
import subprocess
import sys
import textwrap
import threading
from collections import defaultdict
from functools import partial
from operator import itemgetter
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from spatialwhisperer.encoders.digests import module_digest, object_digest, unread_part


def network(seed: int = 0, **parts: Any) -> Any:
    torch.manual_seed(seed)
    layers: dict[str, Any] = {
        "conv": nn.Conv2d(3, 4, 3),
        "norm": nn.BatchNorm2d(4),
        "drop": nn.Dropout(0.1),
        "flat": nn.Flatten(),
    }
    net = nn.Sequential()
    for name, layer in (layers | parts).items():
        net.add_module(name, layer)
    return net


def of_code(body: str, **names: Any) -> Any:
    """A module whose ``forward`` is some code, as a notebook defines it again and again under one name."""
    code = "class Net(nn.Module):\n" + textwrap.indent(textwrap.dedent(body), "    ")
    scope: dict[str, Any] = {"nn": nn, "torch": torch, "__name__": "__main__", **names}
    exec(code, scope)
    return scope["Net"]()


FORWARD = """
def forward(self, x):
    return x.mean(dim=(2, 3)) * 2
"""


def test_the_same_weights_have_the_same_digest() -> None:
    first = module_digest(network())
    assert module_digest(network()) == first
    assert module_digest(copy.deepcopy(network())) == first
    assert module_digest(pickle.loads(pickle.dumps(network()))) == first
    assert len(first) == 64


def test_training_mode_gradients_and_use_do_not_matter() -> None:
    net = network()
    first = module_digest(net)
    for changed in (net.eval(), net.train(), net.requires_grad_(False)):
        assert module_digest(changed) == first
    net.eval()(torch.zeros(1, 3, 8, 8))
    assert module_digest(net) == first


def test_other_weights_have_another_digest() -> None:
    digests = {module_digest(network(seed)) for seed in (0, 1)}
    biased, moved, double = network(), network(), network()
    with torch.no_grad():
        biased.conv.bias[0] += 1e-6
    moved.norm.running_mean[0] = 0.5
    double.norm.running_mean = double.norm.running_mean.double()
    digests |= {module_digest(net) for net in (biased, moved, double)}
    digests.add(module_digest(network().half()))
    assert len(digests) == 6


def test_buffers_that_are_not_saved_count_too() -> None:
    def with_buffer(value: float) -> nn.Module:
        net = network()
        net.register_buffer("scale", torch.tensor(value), persistent=False)
        return net

    assert module_digest(with_buffer(1.0)) != module_digest(with_buffer(2.0))


def test_layers_and_their_settings_count() -> None:
    nets = [
        network(),
        network(drop=nn.Dropout(0.2)),
        network(flat=nn.Identity()),
        network(norm=nn.BatchNorm2d(4, eps=1e-3)),
        network(act=nn.ReLU()),
        network(act=nn.GELU()),
        nn.Sequential(network()),
    ]
    assert len({module_digest(net) for net in nets}) == len(nets)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, 2),
        (1, 1.0),
        ("a", "b"),
        ((1, 2), [1, 2]),
        ({"a": 1}, {"a": 2}),
        (np.arange(3), np.arange(3) + 1),
        (torch.zeros(2), torch.ones(2)),
        (torch.zeros(2), torch.zeros(1, 2)),
        ([np.zeros(1)], [np.ones(1)]),
        (np.mean, np.max),
        (None, False),
        (torch.tensor([True, False]), torch.tensor([True, True])),
        (torch.zeros(1, dtype=torch.bfloat16), torch.ones(1, dtype=torch.bfloat16)),
    ],
)
@pytest.mark.parametrize("name", ["value", "_value"])
def test_attributes_count(name: str, one: Any, other: Any) -> None:
    def with_attribute(value: Any) -> nn.Module:
        net = network()
        setattr(net, name, value)
        return net

    assert module_digest(with_attribute(one)) == module_digest(with_attribute(one))
    assert module_digest(with_attribute(one)) != module_digest(with_attribute(other))


@pytest.mark.parametrize(
    "body",
    [
        FORWARD.replace("mean", "amax"),
        FORWARD.replace("2, 3", "3, 2"),
        FORWARD.replace("* 2", "* 3"),
        FORWARD.replace("* 2", "/ 2"),
        FORWARD.replace("return ", "return -").replace("-x", "-x"),
        "factor = 3\n" + FORWARD,
        "def other(self):\n    return 1\n" + FORWARD,
        FORWARD.replace("x.mean", "(lambda y: y + 1)(x).mean"),
        FORWARD.replace("self, x", "self, x, k=1"),
    ],
)
def test_code_counts(body: str) -> None:
    assert module_digest(of_code(FORWARD)) != module_digest(of_code(body))


def test_code_inside_a_lambda_counts() -> None:
    one, other = (FORWARD.replace("x.mean", f"(lambda y: y.{name}())(x).mean") for name in ("abs", "neg"))
    assert module_digest(of_code(one)) != module_digest(of_code(other))


def test_the_place_of_code_in_a_file_does_not_count() -> None:
    assert module_digest(of_code(FORWARD)) == module_digest(of_code("\n\n" + FORWARD))


def test_inherited_code_and_helpers_count() -> None:
    class Base(nn.Module):
        pool: Any

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.pool(x)

    class Mean(Base):
        def pool(self, x: torch.Tensor) -> torch.Tensor:
            return x.mean(dim=(2, 3))

    class Largest(Base):
        def pool(self, x: torch.Tensor) -> torch.Tensor:
            return x.amax(dim=(2, 3))

    Largest.__qualname__ = Mean.__qualname__
    assert module_digest(Mean()) != module_digest(Largest())


def test_what_a_closure_holds_counts() -> None:
    def with_factor(factor: float) -> nn.Module:
        net = network()
        net.last = lambda x: factor * x
        return net

    assert module_digest(with_factor(1.0)) == module_digest(with_factor(1.0))
    assert module_digest(with_factor(1.0)) != module_digest(with_factor(2.0))


@pytest.mark.parametrize(
    "returned",
    [
        "x * factor",
        "[y * factor for y in x]",
        "(lambda y: y * factor)(x)",
        "scaled(x)",
        "Scale()(x)",
        "config.factor * x",
    ],
)
def test_global_variables_that_code_reads_count(returned: str) -> None:
    """Also where a function or a class that it calls reads them, or they stand in a module of the caller's."""

    def with_factor(factor: float) -> nn.Module:
        config = ModuleType("config_of_mine")
        config.factor = factor  # type: ignore[attr-defined]
        scope: dict[str, Any] = {"__name__": "__main__", "factor": factor, "config": config}
        exec("def scaled(x):\n    return x * factor\nclass Scale:\n    __call__ = lambda self, x: scaled(x)", scope)
        return of_code(f"def forward(self, x):\n    return {returned}", **scope)

    assert module_digest(with_factor(1.0)) == module_digest(with_factor(1.0))
    assert module_digest(with_factor(1.0)) != module_digest(with_factor(2.0))


def test_global_variables_that_code_does_not_read_do_not_count() -> None:
    """Attributes are no variables, though both are names."""
    assert module_digest(of_code(FORWARD, mean=1, other=1)) == module_digest(of_code(FORWARD, mean=2, other=2))


def test_compiled_networks_count_with_their_code() -> None:
    def traced(factor: float) -> Any:
        return torch.jit.trace(of_code("def forward(self, x):\n    return x * factor", factor=factor), torch.ones(2))

    assert module_digest(traced(1.0)) == module_digest(traced(1.0))
    assert module_digest(traced(1.0)) != module_digest(traced(2.0))
    net = network()
    assert module_digest(torch.compile(net)) == module_digest(net)  # type: ignore[arg-type]


def test_hooks_count() -> None:
    net = network()
    before = module_digest(net)
    handle = net.register_forward_hook(lambda _m, _i, out: out * 2)
    assert module_digest(net) != before
    handle.remove()
    assert module_digest(net) == before


def test_facts_count() -> None:
    assert module_digest(network(), {"mean": (0.5,)}) != module_digest(network(), {"mean": (0.6,)})
    assert module_digest(network(), {"mean": None}) != module_digest(network())


def test_what_holds_itself_comes_to_an_end() -> None:
    net = network()
    net.things = [1]
    net.things.append(net.things)
    net.parent = [net]

    def again(n: int) -> int:
        return again(n - 1)

    net.again = again
    assert module_digest(net) == module_digest(net)


PROCESS = """
from functools import partial
import numpy as np
import torch
from torch import nn
from spatialwhisperer.encoders.digests import module_digest
torch.manual_seed(0)
net = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
net.names = {"b", "a", "c"}
net.last = lambda x: x in {"one", "two", "three"}
net.kinds = {("one", frozenset({"a", "b", "c"})), ("two", frozenset({"c", "d"}))}
net.size = partial(np.multiply, len({"x", "y"}))
net.row = net.last.__get__(net)
FACTORS = {"he": 1.5}
net.scaled = lambda x: x * FACTORS["he"]
print(module_digest(net))
"""


@pytest.mark.slow
def test_another_process_gives_the_same_digest(capsys: pytest.CaptureFixture) -> None:
    exec(PROCESS, {"__name__": "__main__"})
    here = capsys.readouterr().out
    other = {**os.environ, "PYTHONHASHSEED": "1"}
    done = subprocess.run([sys.executable, "-c", PROCESS], capture_output=True, text=True, check=True, env=other)
    assert done.stdout == here


# ------------------------------------------------------------------------------------------------- objects


class Mean:
    """An encoder that derives from nothing."""

    def __init__(self, factor: float = 1.0, net: nn.Module | None = None) -> None:
        self.factor, self.net = factor, net
        self.inner = Inner(factor)

    def encode(self, tiles: np.ndarray, *, mpp: float) -> np.ndarray:
        return self.factor * tiles.mean(axis=(2, 3)) + mpp


class Inner:
    def __init__(self, factor: float) -> None:
        self.table: Any = [1, factor, 3]


def test_objects_are_told_apart_by_attributes_weights_and_class() -> None:
    things = [Mean(), Mean(2.0), Mean(net=network()), Mean(net=network(1)), type("Child", (Mean,), {})()]
    assert len({object_digest(thing) for thing in things}) == len(things)
    assert object_digest(Mean(net=network())) == object_digest(Mean(net=network()))


def test_the_code_of_the_package_does_not_count() -> None:
    """An encoder of one's own is the same under a new version of the package."""
    from spatialwhisperer.encoders.image.base import ImageEncoder
    from spatialwhisperer.encoders.spec import EncoderSpec

    class Own(ImageEncoder):
        spec = EncoderSpec("own", "image", 3)

        def encode(self, inputs: np.ndarray, **_: Any) -> np.ndarray:
            return inputs.mean(axis=(2, 3))

    before = object_digest(Own())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ImageEncoder, "collate", lambda _, inputs: inputs)
        patch.setattr(EncoderSpec, "new_method", lambda self: self, raising=False)
        assert object_digest(Own()) == before
    Own.spec = EncoderSpec("own", "image", 4)
    assert object_digest(Own()) != before


def test_objects_inside_objects_count() -> None:
    one, other = Mean(), Mean()
    other.inner.table[1] = 5
    assert object_digest(one) != object_digest(other)


class Slotted:
    __slots__ = ("factor",)

    def __init__(self, factor: float) -> None:
        self.factor = factor

    def scaled(self, x: Any) -> Any:
        return x * self.factor


class Derived(dict):
    """A dictionary with an attribute."""


def derived(factor: float) -> Derived:
    out = Derived(a=1)
    out.factor = factor  # type: ignore[attr-defined]
    return out


@pytest.mark.parametrize(
    "make",
    [
        lambda k: Slotted(k).scaled,
        Slotted,
        lambda k: partial(np.multiply, k),
        lambda k: partial(np.multiply, x=k),
        lambda k: lambda x, *, by=k: x * by,
        lambda k: [k].count,
        itemgetter,
        derived,
        lambda k: np.ma.array([1, 2], mask=[k == 1, True]),
        lambda k: np.random.default_rng(int(k)),
        lambda k: re.compile(f"a{k:g}"),
        lambda k: defaultdict(partial(list, [k])),
        lambda k: {Slotted(k), Slotted(0)},
        lambda k: staticmethod(lambda: k),
        lambda k: network(int(k)).conv.forward,
    ],
)
def test_what_an_attribute_holds_counts(make: Any) -> None:
    def digest(factor: float) -> str:
        return object_digest(Mean(factor=make(factor)))

    assert digest(1.0) == digest(1.0)
    assert digest(1.0) != digest(2.0)
    assert not unread_part(digest(1.0))


def test_what_cannot_be_read_equals_nothing() -> None:
    thing, deep = Mean(), Mean()
    thing.inner.table = (i for i in range(3))
    for _ in range(2000):
        deep = Mean(net=deep)  # type: ignore[arg-type]
    assert object_digest(thing) != object_digest(thing)
    assert object_digest(deep) != object_digest(deep)
    assert unread_part(object_digest(thing)) == "its attribute inner.table (of type generator)"
    assert unread_part(object_digest(Mean())) == unread_part(None) == ""


def test_locks_and_loggers_are_no_obstacle() -> None:
    thing = Mean(factor=[threading.Lock(), logging.getLogger("digests")])  # type: ignore[arg-type]
    assert object_digest(thing) == object_digest(copy.copy(thing))
