"""Networks that OpenVINO computes on a CPU, where ``settings.backend`` asks for it."""

from __future__ import annotations

import sys
import warnings
from threading import Lock
from typing import TYPE_CHECKING, Any, cast
from weakref import WeakKeyDictionary

from spatialwhisperer._compute.precision import computes_in_bfloat16
from spatialwhisperer._messages import require

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

_LEAST_COSINE = 0.999
_CONVERTED: WeakKeyDictionary[torch.nn.Module, tuple[tuple[Any, ...], Any]] = WeakKeyDictionary()
_ONE_AT_A_TIME = Lock()


def computed_by_openvino(network: torch.nn.Module, name: str) -> Callable[[torch.Tensor], torch.Tensor]:
    """The network as OpenVINO computes it on the CPU, in bfloat16 where torch would.

    It is converted when it first computes, and again where its weights, the shape of its inputs or the precision change. A converted
    network is compared with the network, because what depends on the batch may have been converted as a constant.

    Parameters
    ----------
    network
        Takes float32 (k, …), returns (k, d). Row i of the result depends on row i alone.
    name
        What errors call it.

    Raises
    ------
    ImportError
        If OpenVINO is not installed.
    RuntimeError
        When it first computes, if it cannot be converted.
    """
    openvino = _openvino()

    def compute(batch: torch.Tensor) -> torch.Tensor:
        import torch

        low = computes_in_bfloat16(batch.device)
        state = (tuple(batch.shape[1:]), low, torch.get_num_threads(), _weights(network))
        with _ONE_AT_A_TIME:
            before, converted = _CONVERTED.get(network, (None, None))
            if before != state:
                converted = _convert(openvino, network, batch, low, name)
                _CONVERTED[network] = state, converted
        return _run(converted, batch)

    return compute


def _openvino() -> Any:
    """OpenVINO, which would report every conversion to its makers where it can import ``openvino_telemetry``."""
    if "openvino" not in sys.modules:
        # with this entry the import fails, and OpenVINO takes stand-ins that send nothing
        sys.modules["openvino_telemetry"] = cast("Any", None)
    return require("openvino", extra="openvino")


def _weights(network: torch.nn.Module) -> tuple[Any, ...]:
    """Another value where a weight is changed or replaced."""
    tensors = [*network.parameters(), *network.buffers()]
    return tuple((t.data_ptr(), None if t.is_inference() else t._version) for t in tensors)


def _convert(openvino: Any, network: torch.nn.Module, batch: torch.Tensor, low: bool, name: str) -> Any:
    import torch

    options = {
        "INFERENCE_PRECISION_HINT": "bf16" if low else "f32",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
    }
    # tracing keeps no tensors of inference mode, and warns of what it takes for a constant
    with torch.inference_mode(False), torch.no_grad(), torch.autocast("cpu", enabled=False), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        inputs = torch.rand(3, *batch.shape[1:], generator=torch.Generator().manual_seed(0))
        expected = network(inputs)
        try:
            model = openvino.convert_model(network, example_input=inputs[:2], input=[-1, *batch.shape[1:]])
            converted = openvino.Core().compile_model(model, "CPU", options)
            found = _run(converted, inputs)
        except Exception as error:
            raise _refusal(name, str(error).strip().partition("\n")[0]) from error
        if found.shape != expected.shape:
            raise _refusal(name, f"it returns the shape {tuple(found.shape)} for {tuple(expected.shape)}.")
        cosine = float(torch.nn.functional.cosine_similarity(found, expected.float()).min())
        if not cosine >= _LEAST_COSINE:
            raise _refusal(name, f"the cosine of its features to those of torch is {cosine:.4f}.")
    return converted


def _run(converted: Any, batch: torch.Tensor) -> torch.Tensor:
    import torch

    # a request of its own, so that several threads can compute
    request = converted.create_infer_request()
    request.infer([batch.contiguous().numpy()])
    return torch.from_numpy(request.get_output_tensor(0).data.copy())


def _refusal(name: str, reason: str) -> RuntimeError:
    return RuntimeError(
        f'{name} cannot be computed by OpenVINO: {reason} sw.settings.backend = "torch" computes without.'
    )
