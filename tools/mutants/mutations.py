"""The faults that can be seeded in a source file: small changes of one place, found in its syntax tree."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from typing import TypeAlias

COMPARISONS: dict[type[ast.cmpop], tuple[str, ...]] = {
    ast.Lt: ("<=", ">"),
    ast.LtE: ("<", ">"),
    ast.Gt: (">=", "<"),
    ast.GtE: (">", "<"),
    ast.Eq: ("!=",),
    ast.NotEq: ("==",),
    ast.Is: ("is not",),
    ast.IsNot: ("is",),
    ast.In: ("not in",),
    ast.NotIn: ("in",),
}
ARITHMETIC: dict[type[ast.operator], str] = {
    ast.Add: "-",
    ast.Sub: "+",
    ast.Mult: "/",
    ast.Div: "*",
    ast.FloorDiv: "*",
    ast.Mod: "//",
    ast.Pow: "*",
    ast.BitAnd: "|",
    ast.BitOr: "&",
}
# Their arguments can be exchanged without effect, or fail at once
SYMMETRIC = frozenset(
    "isinstance issubclass getattr hasattr setattr super zip min max minimum maximum hypot logaddexp add multiply "
    "array_equal allclose isclose intersect1d union1d cast".split()
)
# Arguments that change how a picture looks, how fast something runs, or which line a warning names
COSMETIC = frozenset(
    "figsize alpha linewidth linewidths lw s fontsize size zorder pad labelpad dpi markersize markerscale frameon ncols "
    "borderpad handlelength rotation cache nogil fastmath parallel stacklevel indent frozen slots repr".split()
)
SAID = frozenset({"warn", "inform", "progress"})


@dataclass(frozen=True)
class Mutation:
    """One change: the bytes from ``start`` to ``stop`` of a file become ``text``."""

    file: str
    kind: str
    line: int
    start: int
    stop: int
    text: str
    function: tuple[int, int] | None
    """First and last line of the function's body that it lies in; ``None`` is for what runs at import."""

    def applied(self, source: bytes) -> bytes:
        """The source with the fault."""
        return source[: self.start] + self.text.encode() + source[self.stop :]

    def lines(self, source: bytes) -> tuple[str, str]:
        """The lines that change, before and after, without white space at their ends."""
        first = source.rfind(b"\n", 0, self.start) + 1
        last = source.find(b"\n", self.stop)
        last = len(source) if last < 0 else last
        after = source[first : self.start] + self.text.encode() + source[self.stop : last]
        return _joined(source[first:last]), _joined(after)


def _joined(text: bytes) -> str:
    return " ".join(text.decode().split())


def mutations(file: str, source: bytes) -> list[Mutation]:
    """All faults that can be seeded in a file, in the order of its lines."""
    finder = _Finder(file, source)
    finder.visit(ast.parse(source))
    return sorted(finder.found, key=lambda m: (m.start, m.stop, m.kind, m.text))


Positioned: TypeAlias = ast.expr | ast.stmt


class _Finder(ast.NodeVisitor):
    """Walks a syntax tree and collects faults; annotations, messages and pictures' looks are left out."""

    def __init__(self, file: str, source: bytes) -> None:
        self.file, self.source = file, source
        self.starts = [0]
        for line in source.splitlines(keepends=True):
            self.starts.append(self.starts[-1] + len(line))
        self.function: tuple[int, int] | None = None
        self.found: list[Mutation] = []

    # --- positions ---------------------------------------------------------------------------------------------------
    def span(self, node: Positioned) -> tuple[int, int]:
        stop_line, stop_column = node.end_lineno or node.lineno, node.end_col_offset or 0
        return self.starts[node.lineno - 1] + node.col_offset, self.starts[stop_line - 1] + stop_column

    def code(self, node: Positioned) -> str:
        start, stop = self.span(node)
        return self.source[start:stop].decode()

    def add(self, kind: str, start: int, stop: int, text: str, line: int) -> None:
        self.found.append(Mutation(self.file, kind, line, start, stop, text, self.function))

    def replace(self, kind: str, node: Positioned, text: str) -> None:
        self.add(kind, *self.span(node), text, node.lineno)

    def between(self, kind: str, left: ast.expr, right: ast.expr, old: str, new: str) -> None:
        """Exchange the operator between two operands, wherever brackets and blanks lie."""
        start, stop = self.span(left)[1], self.span(right)[0]
        gap = self.source[start:stop]
        if gap.count(old.encode()) == 1 and b"#" not in gap:
            at = start + gap.index(old.encode())
            self.add(kind, at, at + len(old.encode()), new, left.end_lineno or left.lineno)

    # --- what is walked through --------------------------------------------------------------------------------------
    def _function(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        for part in [*node.decorator_list, *node.args.defaults, *filter(None, node.args.kw_defaults)]:
            self.visit(part)
        outer = self.function
        self.function = (node.body[0].lineno, node.end_lineno or node.lineno)
        for statement in node.body:
            self.visit(statement)
        self.function = outer

    visit_FunctionDef = visit_AsyncFunctionDef = _function

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self._dropped_attribute(node, [node.target])
            self.visit(node.value)

    def visit_Raise(self, node: ast.Raise) -> None:
        """The words of an error are not changed."""

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        """Positions inside of formatted strings are right from Python 3.12 on only, and most are messages."""

    def visit_Assign(self, node: ast.Assign) -> None:
        self._dropped_attribute(node, node.targets)
        self.visit(node.value)

    def _dropped_attribute(self, node: ast.stmt, targets: list[ast.expr]) -> None:
        if any(isinstance(target, ast.Attribute) for target in targets):
            self.replace("dropped statement", node, "pass")

    # --- faults ------------------------------------------------------------------------------------------------------
    def visit_Expr(self, node: ast.Expr) -> None:
        if isinstance(node.value, ast.Call):
            self.replace("dropped statement", node, "pass")
        self.visit(node.value)

    def visit_Compare(self, node: ast.Compare) -> None:
        operands = [node.left, *node.comparators]
        for left, operator, right in zip(operands[:-1], node.ops, operands[1:], strict=True):
            for new in COMPARISONS[type(operator)]:
                self.between("comparison", left, right, _symbol(operator), new)
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        text = any(isinstance(n, ast.JoinedStr) or _is_text(n) for n in (node.left, node.right))
        types = isinstance(node.op, ast.BitOr) and self.function is None
        if type(node.op) in ARITHMETIC and not text and not types:
            self.between("arithmetic", node.left, node.right, _symbol(node.op), ARITHMETIC[type(node.op)])
        self.generic_visit(node)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        if type(node.op) in ARITHMETIC and not isinstance(node.value, ast.JoinedStr) and not _is_text(node.value):
            new = ARITHMETIC[type(node.op)] + "="
            self.between("arithmetic", node.target, node.value, _symbol(node.op) + "=", new)
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        old, new = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
        for left, right in zip(node.values[:-1], node.values[1:], strict=True):
            self.between("and, or", left, right, old, new)
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        if isinstance(node.op, ast.Not):
            self.replace("not", node, f"({self.code(node.operand)})")
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, bool):
            self.replace("constant", node, str(not node.value))
        elif isinstance(node.value, int):
            for new in (node.value + 1, max(round(node.value * 1.2), node.value + 2)):
                self.replace("constant", node, str(new))
        elif isinstance(node.value, float):
            self.replace("constant", node, repr(node.value * 1.2) if node.value else "1.0")

    def visit_Call(self, node: ast.Call) -> None:
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        if name in SAID or name in ("isinstance", "issubclass"):
            return
        two = node.args[:2]
        if len(two) == 2 and name not in SYMMETRIC and not any(isinstance(a, ast.Starred) for a in two):
            self._swapped(*two)
        self.generic_visit(node)

    def _swapped(self, first: ast.expr, second: ast.expr) -> None:
        one, other = self.code(first), self.code(second)
        between = self.source[self.span(first)[1] : self.span(second)[0]].decode()
        if one != other and "#" not in between and "for" not in between:
            stop = self.span(second)[1]
            self.add("swapped arguments", self.span(first)[0], stop, f"{other}{between}{one}", first.lineno)

    def visit_keyword(self, node: ast.keyword) -> None:
        if node.arg not in COSMETIC:
            self.visit(node.value)

    def _condition(self, node: ast.If | ast.While | ast.IfExp) -> None:
        if "TYPE_CHECKING" in self.code(node.test) or "__main__" in self.code(node.test):
            return
        self.replace("negated condition", node.test, f"not ({self.code(node.test)})")
        self.generic_visit(node)

    visit_If = visit_While = visit_IfExp = _condition

    def visit_comprehension(self, node: ast.comprehension) -> None:
        for test in node.ifs:
            self.replace("negated condition", test, f"not ({self.code(test)})")
        self.generic_visit(node)


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _symbol(operator: ast.cmpop | ast.operator) -> str:
    """An operator as it is written."""
    a, b = ast.Name("a"), ast.Name("b")
    both = ast.Compare(a, [operator], [b]) if isinstance(operator, ast.cmpop) else ast.BinOp(a, operator, b)
    return ast.unparse(both)[1:-1].strip()
