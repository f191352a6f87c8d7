"""Expressions with their units, matrices included."""

from __future__ import annotations

from collections.abc import Callable

from ds_jax.verify.math import expressions, units
from ds_jax.verify.math.enclosures import Finding
from ds_jax.verify.math.expressions import Node
from ds_jax.verify.math.judge import Judge
from ds_jax.verify.math.quantity_reader import read_quantity
from ds_jax.verify.math.structures import Answer, Quantity
from ds_jax.verify.math.tokens import UnreadableError

_RADIAN = (('radian', 1),)
_CONSTANTS_OF_INTEGRATION = ('c', 'C', 'k', 'K')

Rows = tuple[tuple[Node, ...], ...]


def quantities(gold: Answer, answer: Answer, judge: Judge) -> Finding | None:
  """Units first, then the values."""
  if not isinstance(gold, Quantity) or not isinstance(answer, Quantity):
    return None
  gold, answer = _with_same_reading(gold, answer)
  finding = _compare_units(gold, answer, judge)
  if finding is not None:
    return finding
  node = answer.node
  if gold.unit.powers and answer.unit.powers:
    factor = answer.unit.factor / gold.unit.factor
    if factor != 1:  # 5 m and 500 cm
      node = ('*', node, expressions.number(factor))
  return _same_value(gold.node, node, judge)


def _with_same_reading(gold: Quantity, answer: Quantity) -> tuple[Quantity, Quantity]:
  """Where one side has a unit in \\text, the other's letters may be a unit too."""
  return _read_like(gold, answer), _read_like(answer, gold)


def _read_like(quantity: Quantity, other: Quantity) -> Quantity:
  """`9.8 m/s^2` with a unit, if that is the other side's."""
  if quantity.unit.powers or not other.unit.powers:
    return quantity
  if not quantity.tokens or not expressions.symbols(quantity.node):
    return quantity
  try:
    reread = read_quantity(quantity.tokens, is_plain_unit=True)
  except UnreadableError:
    return quantity
  return reread if reread.unit.powers == other.unit.powers else quantity


def _compare_units(gold: Quantity, answer: Quantity, judge: Judge) -> Finding | None:
  """Decides where units differ or one is a percentage or an angle; None: the values decide."""
  first, second = gold.unit, answer.unit
  if first.unknown != second.unknown:
    return Finding(False, 'words behind the value')
  if first.nouns and second.nouns and not set(first.nouns) & set(second.nouns):
    return Finding(False, 'what is counted')
  if first.powers == second.powers:
    return None
  # Two units: degrees and radians are the only ones that are converted.
  powers = {first.powers, second.powers}
  if first.powers and second.powers:
    if powers != {units.DEGREE.powers, _RADIAN}:
      return Finding(False, 'units')
    return _same_value(_in_radians(gold), _in_radians(answer), judge)
  # One unit, which may be left out; a percentage or an angle may be carried out instead.
  if first.nouns or second.nouns:
    return Finding(False, 'units')
  plain = _same_value(gold.node, answer.node, judge)
  if plain.is_equal or not powers & {units.PERCENT.powers, units.DEGREE.powers}:
    return plain
  return _same_value(_carried_out(gold), _carried_out(answer), judge)


def _in_radians(quantity: Quantity) -> Node:
  if quantity.unit.powers == units.DEGREE.powers:
    return ('degree', quantity.node)
  return quantity.node


def _carried_out(quantity: Quantity) -> Node:
  """28 % as 0.28, 45 degrees as pi / 4."""
  if quantity.unit.powers == units.PERCENT.powers:
    return ('/', quantity.node, expressions.number(100))
  return _in_radians(quantity)


def _same_value(gold: Node, answer: Node, judge: Judge) -> Finding:
  """Two expressions, or two matrices cell by cell."""
  try:
    rows = _matrix(gold)
    other_rows = _matrix(answer)
  except UnreadableError as error:
    return Finding(None, f'not understood ({error})')
  if rows is None and other_rows is None:
    finding = judge.same_expression(gold, answer)
    if finding.is_equal:
      return finding
    return _up_to_constant(gold, answer, judge) or finding
  if rows is None or other_rows is None or _shape(rows) != _shape(other_rows):
    return Finding(False, 'shape of a matrix')
  for row, other_row in zip(rows, other_rows, strict=True):
    for cell, other_cell in zip(row, other_row, strict=True):
      finding = judge.same_expression(cell, other_cell)
      if not finding.is_equal:
        return finding._replace(stage=f'cells: {finding.stage}')
  return Finding(True, 'cells')


def _up_to_constant(gold: Node, answer: Node, judge: Judge) -> Finding | None:
  """`+ c` and `+ C` are one constant of integration."""
  new = _constant_of_integration(gold)
  old = _constant_of_integration(answer)
  if new is None or old is None or new == old:
    return None
  if new in expressions.symbols(answer) or old in expressions.symbols(gold):
    return None
  new_name = {('symbol', old): ('symbol', new)}
  return judge.same_expression(gold, expressions.replace(answer, new_name.get))


def _constant_of_integration(node: Node) -> str | None:
  """The one letter of a sum's terms that may be such a constant."""
  if node[0] != '+':
    return None
  names: list[str] = []
  for term in node[1:]:
    if term[0] == 'symbol' and term[1] in _CONSTANTS_OF_INTEGRATION:
      names.append(term[1])
  return names[0] if len(names) == 1 else None


def _matrix(node: Node) -> Rows | None:
  """The cells of a sum, product or multiple of matrices; None: there is no matrix in it."""
  if all(part[0] != 'matrix' for part in expressions.walk(node)):
    return None
  kind, *operands = node
  if kind == 'matrix':
    return operands[0]
  if kind == '*':
    return _product(*operands)
  if kind == '+':
    return _sum([_matrix(operand) for operand in operands])
  rows = _matrix(operands[0])
  is_scaled = kind == '-' or kind == '/' and _matrix(operands[1]) is None
  if rows is None or not is_scaled:
    raise UnreadableError('matrices')
  return _each_cell(rows, lambda cell: (kind, cell, *operands[1:]))


def _shape(rows: Rows) -> list[int]:
  """The lengths of the rows."""
  return [len(row) for row in rows]


def _each_cell(rows: Rows, change: Callable[[Node], Node]) -> Rows:
  """A matrix with each cell changed."""
  return tuple(tuple(map(change, row)) for row in rows)


def _sum(matrices: list[Rows | None]) -> Rows:
  """The sum, cell by cell."""
  if None in matrices:
    raise UnreadableError('matrices')
  first, *others = matrices
  if any(_shape(other) != _shape(first) for other in others):
    raise UnreadableError('matrices')
  total = []
  for rows in zip(*matrices, strict=True):
    cells = zip(*rows, strict=True)
    total.append(tuple(('+', *terms) for terms in cells))
  return tuple(total)


def _product(left: Node, right: Node) -> Rows:
  """The product of two matrices, or of a number and a matrix: one of the two has rows."""
  first = _matrix(left)
  second = _matrix(right)
  if first is None:
    return _each_cell(second, lambda cell: ('*', left, cell))
  if second is None:
    return _each_cell(first, lambda cell: ('*', right, cell))
  if len(first[0]) != len(second):
    raise UnreadableError('matrices')
  columns = list(zip(*second, strict=True))
  product = []
  for row in first:
    product.append(tuple(_dot(row, column) for column in columns))
  return tuple(product)


def _dot(row: tuple[Node, ...], column: tuple[Node, ...]) -> Node:
  """The product of a row and a column."""
  terms = [('*', a, b) for a, b in zip(row, column, strict=True)]
  return ('+', *terms)
