from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

GENES = 60


@pytest.fixture(scope="session")
def mappings() -> tuple[dict[str, int], dict[str, float], dict[str, str]]:
    """Dictionaries as they are published: token and median by Ensembl id, Ensembl id by symbol; with ties among the medians."""
    rng = np.random.default_rng(0)
    ids = [f"ENSG{i:011d}" for i in rng.permutation(GENES - 1)] + ["ENSGR0000198223"]
    tokens = {"<pad>": 0, "<mask>": 1, **{gene: i + 2 for i, gene in enumerate(ids)}}
    medians = {gene: float(m) for gene, m in zip(ids, rng.choice([0.5, 1.0, 1.5, 2.0, 3.0], GENES), strict=True)}
    symbols = {f"SYM{i}": f"ENSG{i:011d}" for i in range(GENES - 10)}
    return tokens, medians, symbols


@pytest.fixture(scope="session")
def geneformer_folder(tmp_path_factory: pytest.TempPathFactory, mappings: Any) -> Callable[..., Path]:
    """Function that writes a small network and its dictionaries: kind of the weights, and the dictionaries as "tsv" or "json"."""
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")

    def write(weights: str = "safetensors", dictionary: str | None = "tsv", **options: Any) -> Path:
        folder = tmp_path_factory.mktemp("geneformer")
        sizes = {
            "vocab_size": GENES + 2,
            "hidden_size": 32,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "intermediate_size": 48,
            "max_position_embeddings": 40,
            "hidden_act": "relu",
        }
        config = transformers.BertConfig(**sizes | options, output_hidden_states=True)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            network = transformers.BertForMaskedLM(config)
            # the published network is no longer at its small initial values
            for value in network.parameters():
                value.data += 0.2 * torch.randn_like(value)
        if weights == "safetensors":
            network.save_pretrained(folder)
        else:
            config.save_pretrained(folder)
            torch.save(network.state_dict(), folder / "pytorch_model.bin")
        write_dictionary(folder, dictionary, *mappings)
        return folder

    return write


def write_dictionary(folder: Path, kind: str | None, tokens: Any, medians: Any, symbols: Any) -> None:
    if kind == "json":
        content = {"token": tokens, "median": medians, "symbol": symbols}
        (folder / "genes.json").write_text(json.dumps(content))
    elif kind == "tsv":
        named = {gene: symbol for symbol, gene in symbols.items()}
        rows = [f"{g}\t{named.get(g, '')}\t{t}\t{medians[g]!r}" for g, t in tokens.items() if g in medians]
        head = "ensembl_id\tsymbol\ttoken\tmedian"
        (folder / "genes.tsv").write_text("\n".join([head, *rows, "ENSG00000999999\tNONE\t\t"]) + "\n")
