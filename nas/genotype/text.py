"""Text forms of genotypes: NAS-Bench-201 strings and DARTS `Genotype(...)` texts.

Both are views of `Genotype`, parsed as data and never evaluated.
"""

import ast
import re

from nas.errors import UserError, unknown_name
from nas.genotype import Edge, Genotype
from nas.spaces import darts, nasbench201

_NB201_ITEM = re.compile(r"(?P<operation>\w+)~(?P<source>\d+)")
_DARTS_FIELDS = ("normal", "normal_concat", "reduce", "reduce_concat")


def genotype_text(genotype: Genotype) -> str:
    """The text form of `genotype` that its space is known for, or its choices one by one."""
    if genotype.space == nasbench201.NAME:
        return nasbench201_text(genotype)
    if genotype.space in darts.NAMES:
        return darts_text(genotype)
    return ", ".join(f"{name}={option}" for name, option in genotype.choices.items())


def short_text(genotype: Genotype, length: int = 100) -> str:
    """The text form, cut where it would not fit a line: one of a cell is never."""
    text = genotype_text(genotype)
    if genotype.space in (nasbench201.NAME, *darts.NAMES) or len(text) <= length:
        return text
    shown = text[:length].rpartition(", ")[0]
    return f"{shown}, ... ({len(genotype.choices)} choices)"


def nasbench201_text(genotype: Genotype) -> str:
    """The benchmark's string, such as `|nor_conv_3x3~0|+|none~0|skip_connect~1|+...`."""
    nodes: dict[int, list[str]] = {}
    for edge, operation in genotype.edges(nasbench201.CELL):
        nodes.setdefault(edge.target, []).append(f"{operation}~{edge.source}")
    return "+".join(f"|{'|'.join(items)}|" for items in nodes.values())


def parse_nasbench201(text: str) -> Genotype:
    """Reads a NAS-Bench-201 string of any number of nodes.

    Raises:
        UserError: with the position (counted from 1) of what does not fit.
    """
    choices: dict[str, str] = {}
    position = 1
    for target, node in enumerate(text.split("+"), start=1):
        items = node[1:-1].split("|")
        if len(node) < 2 or node[0] != "|" or node[-1] != "|" or len(items) != target:
            raise UserError(
                f"genotype string, position {position}: node {target} must read "
                f"|operation~0|...|operation~{target - 1}|, got {node!r}"
            )
        position += 1
        for source, item in enumerate(items):
            choices[Edge(nasbench201.CELL, target, source).name] = _nb201_operation(
                item, source, position
            )
            position += len(item) + 1
        position += 1
    return Genotype(nasbench201.NAME, nasbench201.OPERATIONS, choices)


def _nb201_operation(item: str, source: int, position: int) -> str:
    match = _NB201_ITEM.fullmatch(item)
    if match is None or match["source"] != str(source):
        raise UserError(
            f"genotype string, position {position}: expected operation~{source}, got {item!r}"
        )
    if match["operation"] not in nasbench201.OPERATIONS:
        error = unknown_name("operation", match["operation"], nasbench201.OPERATIONS)
        raise UserError(f"genotype string, position {position}: {error}")
    return match["operation"]


def darts_text(genotype: Genotype) -> str:
    """The `Genotype(normal=[...], normal_concat=range(...), ...)` text of the DARTS code.

    A space with a fixed reduction cell has none to print: `reduce=[]`.
    """
    parts = []
    for cell in (darts.NORMAL, darts.REDUCE):
        edges = genotype.edges(cell)
        pairs = ", ".join(f"('{operation}', {edge.source})" for edge, operation in edges)
        stop = max((edge.target for edge, _ in edges), default=darts.INPUTS - 1) + 1
        parts += [f"{cell}=[{pairs}]", f"{cell}_concat=range({darts.INPUTS}, {stop})"]
    return f"Genotype({', '.join(parts)})"


def parse_darts(text: str) -> Genotype:
    """Reads a DARTS `Genotype(...)` text; an empty reduction cell means the space `gdas_frc`.

    Raises:
        UserError: not such a text, or a cell that the space does not hold (two edges from one
            input, a node without two inputs); with the column of what does not fit.
    """
    fields = _call_fields(text)
    choices: dict[str, str] = {}
    for cell in (darts.NORMAL, darts.REDUCE):
        # Some releases write None for the reduction cell that is fixed.
        if cell == darts.NORMAL or _literal(fields[cell]) not in ([], (), None):
            choices |= _darts_cell(cell, fields[cell], fields[f"{cell}_concat"])
        _literal(fields[f"{cell}_concat"])
    frc = not any(name.startswith(darts.REDUCE) for name in choices)
    return Genotype("gdas_frc" if frc else "darts", darts.OPERATIONS, choices)


def _call_fields(text: str) -> dict[str, ast.expr]:
    """The keyword arguments of `Genotype(...)`; nothing is evaluated."""
    try:
        call = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        where = getattr(error, "offset", None)
        raise UserError(f"genotype text, column {where or 1}: not a Genotype(...) text") from None
    names = [keyword.arg for keyword in call.keywords] if isinstance(call, ast.Call) else []
    if (
        not isinstance(call, ast.Call)
        or not isinstance(call.func, ast.Name)
        or call.func.id != "Genotype"
        or call.args
        or sorted(map(str, names)) != sorted(_DARTS_FIELDS)
    ):
        raise UserError(f"genotype text, column 1: expected Genotype({', '.join(_DARTS_FIELDS)})")
    return {str(keyword.arg): keyword.value for keyword in call.keywords}


def _literal(node: ast.expr) -> object:
    """A literal, or `range(a, b)` as a list."""
    try:
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            bounds = [ast.literal_eval(argument) for argument in node.args]
            if node.func.id == "range" and not node.keywords and max(map(abs, bounds)) <= 64:
                return list(range(*bounds))
        return ast.literal_eval(node)
    except (ValueError, TypeError, RecursionError):
        raise _misfit(node, "not a literal") from None


def _misfit(node: ast.expr, what: str) -> UserError:
    """An error with the place of `node`."""
    line = f"line {node.lineno}, " if node.lineno > 1 else ""
    return UserError(f"genotype text, {line}column {node.col_offset + 1}: {what}")


def _darts_cell(cell: str, pairs_node: ast.expr, concat_node: ast.expr) -> dict[str, str]:
    pairs, concat = _literal(pairs_node), _literal(concat_node)
    if (
        not isinstance(pairs, list | tuple)
        or not all(map(_is_pair, pairs))
        or not pairs
        or len(pairs) % 2
    ):
        raise _misfit(pairs_node, f"{cell} must be an even number of ('operation', input) pairs")
    nodes = len(pairs) // darts.INPUTS_KEPT
    expected = list(range(darts.INPUTS, darts.INPUTS + nodes))
    if not isinstance(concat, list | tuple) or list(concat) != expected:
        found = repr(concat)[:80]
        raise _misfit(concat_node, f"{cell}_concat must be all nodes, {expected}, got {found}")
    choices: dict[str, str] = {}
    assert isinstance(pairs_node, ast.List | ast.Tuple)
    for position, (operation, source) in enumerate(pairs):
        node = pairs_node.elts[position]
        target = darts.INPUTS + position // darts.INPUTS_KEPT
        name = Edge(cell, target, source).name
        if operation not in darts.OPERATIONS:
            raise _misfit(node, f"{cell}: {_unknown(operation)}")
        if not 0 <= source < target or name in choices:
            raise _misfit(
                node,
                f"node {target} of {cell} must keep two different inputs from 0 to {target - 1}, "
                f"got input {source}",
            )
        choices[name] = operation
    return choices


def _unknown(operation: str) -> UserError:
    return unknown_name("operation", operation, darts.OPERATIONS)


def _is_pair(value: object) -> bool:
    return (
        isinstance(value, list | tuple)
        and len(value) == 2
        and isinstance(value[0], str)
        and type(value[1]) is int
    )
