"""Counts, names, columns and matrices of a table that are odd or damaged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp

from tests.torture.damage.kinds import Damage
from tests.torture.objects import COUNTS, GRID, SDATA, VISIUM, folder, replace_table, table_of

if TYPE_CHECKING:
    from collections.abc import Callable

EVERY = (SDATA, VISIUM, GRID, COUNTS)
COUNTED = (SDATA, VISIUM, COUNTS)
PLAIN = (VISIUM, COUNTS)
COLUMNS = ("truth", "batch", "patient", "sw_label")
MATRICES = ("spatial", "X_sw_image", "X_pca", "X_stain_texture", "sw_label_scores")


def on_table(change: Callable[[ad.AnnData], None]) -> Callable[[Any], None]:
    return lambda data: change(table_of(data))


# ------------------------------------------------------------------------------------------------- counts


def counts(made: Callable[[np.ndarray], Any]) -> Callable[[Any], None]:
    def change(table: Any) -> None:
        dense = np.asarray(table.X.toarray(), float)
        # what anndata itself refuses cannot be met
        table.X = made(dense)
        table.layers["counts"] = made(dense)

    return on_table(change)


def with_value(value: float) -> Callable[[np.ndarray], np.ndarray]:
    def made(dense: np.ndarray) -> np.ndarray:
        out = dense.copy()
        out[3, 5] = value
        return out

    return made


def _masked(dense: np.ndarray) -> Any:
    return np.ma.masked_array(dense, mask=dense > 3)


COUNT_DAMAGES = [
    Damage("counts: NaN", counts(with_value(np.nan)), COUNTED),
    Damage("counts: infinite", counts(with_value(np.inf)), COUNTED),
    Damage("counts: negative", counts(with_value(-1)), COUNTED),
    Damage("counts: a fraction", counts(with_value(0.5)), COUNTED),
    Damage("counts: huge", counts(with_value(1e300)), COUNTED),
    Damage("counts: beyond int64", counts(with_value(1e19)), COUNTED),
    Damage("counts: all zero", counts(np.zeros_like), COUNTED),
    Damage("counts: an empty row", counts(lambda x: np.where(np.arange(len(x))[:, None] == 2, 0, x)), COUNTED),
    Damage("counts: an empty gene", counts(lambda x: np.where(np.arange(x.shape[1]) == 2, 0, x)), COUNTED),
    Damage("counts: logarithms", counts(np.log1p), COUNTED),
    Damage("counts: text", counts(lambda x: x.astype(str)), COUNTED),
    Damage("counts: objects", counts(lambda x: x.astype(object)), COUNTED),
    Damage("counts: complex", counts(lambda x: x.astype(complex)), COUNTED),
    Damage("counts: Boolean", counts(lambda x: x > 0), COUNTED),
    Damage("counts: float16", counts(lambda x: x.astype(np.float16)), COUNTED),
    Damage("counts: int8", counts(lambda x: x.astype(np.int8)), COUNTED),
    Damage("counts: masked", counts(_masked), COUNTED),
    Damage("counts: column-sparse", counts(lambda x: sp.csc_matrix(x)), COUNTED, harmless=True),
    Damage("counts: sparse array", counts(lambda x: sp.csr_array(x)), COUNTED, harmless=True),
    Damage("counts: dense", counts(lambda x: x), COUNTED, harmless=True),
    Damage("counts: column-major", counts(np.asfortranarray), COUNTED, harmless=True),
    Damage("counts: big-endian", counts(lambda x: x.astype(">f8")), COUNTED),
    Damage("counts: stored zeros", counts(lambda x: _stored_zeros(x)), COUNTED, harmless=True),
    Damage("counts: unsorted indices", counts(lambda x: _unsorted(x)), COUNTED, harmless=True),
    Damage("counts: duplicate entries", counts(lambda x: _halves(x)), COUNTED, harmless=True),
    Damage("counts: sparse NaN", counts(lambda x: sp.csr_matrix(with_value(np.nan)(x))), COUNTED),
    Damage("counts: lazy", counts(lambda x: _dask(x)), COUNTED),
]


def _stored_zeros(x: np.ndarray) -> Any:
    n, genes = x.shape
    return sp.csr_matrix((x.ravel(), np.tile(np.arange(genes), n), np.arange(n + 1) * genes), x.shape)


def _unsorted(x: np.ndarray) -> Any:
    out = sp.csr_matrix(x)
    for first, last in zip(out.indptr[:-1], out.indptr[1:], strict=True):
        out.indices[first:last] = out.indices[first:last][::-1].copy()
        out.data[first:last] = out.data[first:last][::-1].copy()
    out.has_sorted_indices = False
    return out


def _halves(x: np.ndarray) -> Any:
    rows, columns = np.nonzero(x)
    values = x[rows, columns]
    one, two = np.ones_like(values), values - 1
    both = sp.coo_matrix((np.concatenate([one, two]), (np.tile(rows, 2), np.tile(columns, 2))), x.shape)
    # without summing what is stated twice
    order = np.lexsort((both.col, both.row))
    indptr = np.searchsorted(both.row[order], np.arange(len(x) + 1))
    return sp.csr_matrix((both.data[order], both.col[order], indptr), x.shape)


def _dask(x: np.ndarray) -> Any:
    import dask.array as da

    return da.from_array(x, chunks=(10, 60))


# ------------------------------------------------------------------------------------------------- rows and names


def rows(chosen: Any) -> Callable[[Any], None]:
    return lambda data: replace_table(data, table_of(data)[chosen].copy())


def row_names(made: Callable[[int], list[str]]) -> Callable[[Any], None]:
    def change(table: ad.AnnData) -> None:
        table.obs_names = made(table.n_obs)

    return on_table(change)


def gene_names(made: Callable[[list[str]], list[str]]) -> Callable[[Any], None]:
    def change(table: ad.AnnData) -> None:
        table.var_names = made(list(table.var_names))

    return on_table(change)


def _view(data: Any) -> Any:
    return data[:] if isinstance(data, ad.AnnData) else None


def _backed(data: ad.AnnData) -> ad.AnnData:
    path = folder() / "backed.h5ad"
    data.write_h5ad(path)
    return ad.read_h5ad(path, backed="r")


def _raw(table: ad.AnnData) -> None:
    table.raw = table.copy()


ROW_DAMAGES = [
    Damage("rows: none", rows(slice(0)), PLAIN),
    Damage("rows: one", rows(slice(1)), EVERY),
    Damage("rows: two", rows(slice(2)), EVERY),
    Damage("rows: twice the same", rows(np.array([0, 0, 1, 1, 2, 2, 3, 3, 4, 4])), EVERY),
    Damage("rows: names repeated", row_names(lambda n: ["x"] * n), EVERY),
    Damage("rows: names empty", row_names(lambda n: [""] * n), EVERY),
    Damage("rows: names with signs", row_names(lambda n: [f"a/b\n{i}" for i in range(n)]), EVERY, harmless=True),
    Damage("rows: names are numbers", row_names(lambda n: [str(i) for i in range(n)]), EVERY, harmless=True),
    Damage("genes: none", lambda d: replace_table(d, table_of(d)[:, :0].copy()), COUNTED),
    Damage("genes: one", lambda d: replace_table(d, table_of(d)[:, :1].copy()), COUNTED),
    Damage("genes: names repeated", gene_names(lambda g: ["x"] * len(g)), COUNTED),
    Damage("genes: two of one name", gene_names(lambda g: [g[1], *g[1:]]), COUNTED),
    Damage("genes: names empty", gene_names(lambda g: ["", *g[1:]]), COUNTED),
    Damage("genes: names in small letters", gene_names(lambda g: [n.lower() for n in g]), COUNTED),
    Damage("a view", _view, PLAIN, harmless=True),
    Damage("a view of some rows", lambda d: d[::2], PLAIN),
    Damage("on disk", _backed, PLAIN),
    Damage("raw counts beside", on_table(_raw), PLAIN, harmless=True),
]


# ------------------------------------------------------------------------------------------------- columns


def columns(made: Callable[[pd.Series], Any]) -> Callable[[Any], None]:
    def change(table: ad.AnnData) -> None:
        for key in COLUMNS:
            if key in table.obs:
                table.obs[key] = pd.Series(made(pd.Series(table.obs[key])), index=table.obs_names)

    return on_table(change)


def filled(value: Any) -> Callable[[pd.Series], Any]:
    def made(old: pd.Series) -> Any:
        out = np.empty(len(old), object)
        out[:] = [value] * len(old)
        return out

    return made


def _some_missing(old: pd.Series) -> Any:
    return old.where(np.arange(len(old)) % 4 > 0)


def _mixed(old: pd.Series) -> Any:
    out = old.astype(object).to_numpy().copy()
    out[::5] = 7
    return out


def _coded(old: pd.Series) -> Any:
    return pd.Categorical(old.cat.codes)


def _reversed(old: pd.Series) -> Any:
    return old.cat.reorder_categories(list(old.cat.categories[::-1]))


def _two_of_one_name(table: Any) -> None:
    table._obs = pd.concat([table.obs, table.obs[["truth"]]], axis=1)


def _odd_column(name: Any, value: Any = 1) -> Callable[[Any], None]:
    def change(table: ad.AnnData) -> None:
        table.obs[name] = value

    return on_table(change)


COLUMN_DAMAGES = [
    Damage("columns: lists", columns(filled([1, 2])), EVERY),
    Damage("columns: dictionaries", columns(filled({"a": 1})), EVERY),
    Damage("columns: missing", columns(filled(None)), EVERY),
    Damage("columns: NaN", columns(lambda old: np.full(len(old), np.nan)), EVERY),
    Damage("columns: one value", columns(filled("same")), EVERY),
    Damage("columns: one for each row", columns(lambda old: [f"l{i}" for i in range(len(old))]), EVERY),
    Damage("columns: empty text", columns(filled("")), EVERY),
    Damage("columns: mixed types", columns(_mixed), EVERY),
    Damage("columns: some missing", columns(_some_missing), EVERY),
    Damage("columns: missing as text", columns(lambda old: old.astype(str).where(_every(old), "nan")), EVERY),
    Damage("columns: numbers", columns(lambda old: old.cat.codes.to_numpy()), EVERY),
    Damage("columns: categories of numbers", columns(_coded), EVERY),
    Damage("columns: intervals", columns(lambda old: pd.cut(old.cat.codes, 2)), EVERY),
    Damage("columns: complex", columns(lambda old: old.cat.codes.to_numpy() + 1j), EVERY),
    Damage("columns: dates", columns(lambda old: pd.date_range("2024", periods=len(old))), EVERY),
    Damage("columns: durations", columns(lambda old: pd.to_timedelta(np.arange(len(old)), "D")), EVERY),
    Damage("columns: Boolean", columns(lambda old: old.cat.codes.to_numpy() > 0), EVERY),
    Damage("columns: nullable Boolean", columns(lambda old: pd.array([True, None] * (len(old) // 2))), EVERY),
    Damage("columns: nullable whole", columns(lambda old: pd.array([1, None] * (len(old) // 2))), EVERY),
    Damage("columns: bytes", columns(lambda old: [str(v).encode() for v in old]), EVERY),
    Damage("columns: long names", columns(lambda old: old.astype(str) + "x" * 5000), EVERY),
    Damage("columns: signs", columns(lambda old: old.astype(str) + "$\\frac{\n{}%s"), EVERY),
    Damage("columns: text", columns(lambda old: old.astype(str).astype(object)), EVERY, harmless=True),
    Damage("columns: string type", columns(lambda old: old.astype(str).astype("string")), EVERY, harmless=True),
    Damage("columns: unused category", columns(lambda old: old.cat.add_categories(["none"])), EVERY),
    Damage("columns: other order of categories", columns(_reversed), EVERY),
    Damage("columns: ordered", columns(lambda old: old.cat.as_ordered()), EVERY, harmless=True),
    Damage("columns: a name twice", on_table(_two_of_one_name), EVERY),
    Damage("columns: a number as name", _odd_column(0), EVERY),
    Damage("columns: a tuple as name", _odd_column(("a", 1)), EVERY),
    Damage(
        "columns: a stray one of lists",
        lambda d: _odd_column("stray", filled([1])(pd.Series(table_of(d).obs_names)))(d),
        EVERY,
    ),
    Damage(
        "columns: none",
        on_table(lambda t: setattr(t, "obs", t.obs[[c for c in t.obs if c in ("region", "instance_id")]])),
        EVERY,
    ),
]


def _every(old: pd.Series) -> Any:
    return np.arange(len(old)) % 4 > 0


# ------------------------------------------------------------------------------------------------- matrices


def matrices(made: Callable[[np.ndarray, ad.AnnData], Any]) -> Callable[[Any], None]:
    def change(table: ad.AnnData) -> None:
        for key in MATRICES:
            if key in table.obsm:
                table.obsm[key] = made(np.asarray(table.obsm[key]), table)

    return on_table(change)


def _frame(x: np.ndarray, table: ad.AnnData) -> pd.DataFrame:
    return pd.DataFrame(x, index=table.obs_names, columns=[f"c{i}" for i in range(x.shape[1])])


def _gone(name: str) -> Callable[[Any], None]:
    def change(table: ad.AnnData) -> None:
        part = getattr(table, name)
        for key in [k for k in part if k not in ("spatialdata_attrs", "spatial") or name == "obsm"]:
            del part[key]

    return on_table(change)


def _strays(table: ad.AnnData) -> None:
    n = table.n_obs
    table.obsm["stray"] = np.array([["a"]] * n)
    table.obsm["cube"] = np.zeros((n, 2, 2))
    table.obsp["connectivities"] = sp.csr_matrix((n, n))
    table.obsp["spatial_connectivities"] = np.full((n, n), np.nan)
    table.layers["stray"] = np.full(table.shape, np.nan)


MATRIX_DAMAGES = [
    Damage("matrices: a table", matrices(_frame), EVERY),
    Damage("matrices: sparse", matrices(lambda x, _: sp.csr_matrix(x)), EVERY),
    Damage("matrices: three dimensions", matrices(lambda x, _: np.stack([x, x], 2)), EVERY),
    Damage("matrices: words", matrices(lambda x, _: np.full(x.shape, "a", object)), EVERY),
    Damage("matrices: numbers as text", matrices(lambda x, _: x.astype(str)), EVERY),
    Damage("matrices: no column", matrices(lambda x, _: x[:, :0]), EVERY),
    Damage("matrices: one column", matrices(lambda x, _: x[:, :1]), EVERY),
    Damage("matrices: one column more", matrices(lambda x, _: np.hstack([x, x[:, :1]])), EVERY),
    Damage("matrices: NaN", matrices(lambda x, _: np.full(x.shape, np.nan)), EVERY),
    Damage(
        "matrices: a row of NaN", matrices(lambda x, _: np.where(np.arange(len(x))[:, None] == 3, np.nan, x)), EVERY
    ),
    Damage("matrices: infinite", matrices(lambda x, _: np.where(np.arange(len(x))[:, None] == 3, np.inf, x)), EVERY),
    Damage("matrices: complex", matrices(lambda x, _: x.astype(complex)), EVERY),
    Damage("matrices: constant", matrices(lambda x, _: np.ones_like(x)), EVERY),
    Damage("matrices: huge", matrices(lambda x, _: x.astype(float) * 1e300), EVERY),
    Damage("matrices: tiny", matrices(lambda x, _: x.astype(float) * 1e-300), EVERY),
    Damage("matrices: Boolean", matrices(lambda x, _: x > 0), EVERY),
    Damage("matrices: whole numbers", matrices(lambda x, _: np.nan_to_num(x).astype(np.int64)), EVERY),
    Damage("matrices: dates", matrices(lambda x, _: np.full(x.shape, np.datetime64("2024-01-01"))), EVERY),
    Damage("matrices: masked", matrices(lambda x, _: np.ma.masked_array(x, x > 0)), EVERY),
    Damage("matrices: float16", matrices(lambda x, _: x.astype(np.float16)), EVERY),
    Damage("matrices: big-endian", matrices(lambda x, _: x.astype(x.dtype.newbyteorder(">"))), EVERY, harmless=True),
    Damage("matrices: column-major", matrices(lambda x, _: np.asfortranarray(x)), EVERY, harmless=True),
    Damage("matrices: objects", matrices(lambda x, _: x.astype(object)), EVERY),
    Damage("matrices: none", _gone("obsm"), EVERY),
    Damage("uns: empty", _gone("uns"), EVERY),
    Damage("strays beside", on_table(_strays), EVERY, harmless=True),
]

DAMAGES = [*COUNT_DAMAGES, *ROW_DAMAGES, *COLUMN_DAMAGES, *MATRIX_DAMAGES]
