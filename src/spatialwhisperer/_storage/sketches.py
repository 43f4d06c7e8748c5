"""Networks that have shapes and no memory, to be compared with stored weights before they are made."""

from __future__ import annotations

from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

from spatialwhisperer._storage.untrusted import REMEDY, opening

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager

    import torch

_FILLS = {"normal_", "uniform_", "random_", "bernoulli_", "exponential_", "erfinv_"}
_MAKES = {"rand", "randn"}


@contextmanager
def without_memory() -> Iterator[None]:
    """Build networks on torch's meta device. No random number is drawn."""
    import torch

    with torch.device("meta"), _no_values()():
        yield


@cache
def _no_values() -> type[Any]:
    """Mode in which initial values are not computed: on the meta device there are none, and torch takes a second to find that out."""
    import torch
    from torch.overrides import TorchFunctionMode

    class NoValues(TorchFunctionMode):
        def __torch_function__(self, func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
            kwargs, name = kwargs or {}, getattr(func, "__name__", "")
            if args and (getattr(func, "__module__", None) == "torch.nn.init" or name in _FILLS):
                return args[0]
            if "tensor" in kwargs and getattr(func, "__module__", None) == "torch.nn.init":
                return kwargs["tensor"]
            return (torch.empty if name in _MAKES else func)(*args, **kwargs)

    return NoValues


def compare_shapes(
    make: Callable[[], torch.nn.Module | None],
    stored: Mapping[str, tuple[int, ...]],
    what: str,
    limit: AbstractContextManager[None],
) -> None:
    """Compare a network with its stored weights before it is made: on torch's meta device it has shapes, and takes no memory.

    Parameters
    ----------
    make
        Builds the network; ``None`` is not compared.
    stored
        Shapes of its weights, as their file states them.
    what
        What is built, for the message.
    limit
        See `networks_within`: a network of a billion layers takes memory without any weights.

    Raises
    ------
    ValueError
        If a weight is missing, not expected or of another shape.
    """
    try:
        with (
            opening(f"The architecture of {what}", own=(NotImplementedError, RuntimeError)),
            limit,
            without_memory(),
        ):
            network = make()
    except (NotImplementedError, RuntimeError) as error:
        if "meta" not in str(error):
            raise ValueError(f"The architecture of {what} cannot be opened ({error}). {REMEDY}") from error
        # a network that reads its values while it is built; the limit holds for it too
        return
    if network is None:
        return
    expected = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    wrong = sorted(name for name in expected.keys() | stored.keys() if expected.get(name) != stored.get(name))
    if wrong:
        names = ", ".join(wrong[:4]) + (f", … ({len(wrong)} in all)" if len(wrong) > 4 else "")
        raise ValueError(f"The weights of {what} do not fit its configuration: check {names}.")
