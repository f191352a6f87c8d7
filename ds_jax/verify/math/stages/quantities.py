"""Expressions with their units, matrices included."""

from __future__ import annotations

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
  factor = answer.unit.factor / gold.unit.factor
  node = answer.node
  if factor != 1 and gold.unit.powers and answer.unit.powers:  # 5 m and 500 cm
    node = ('*', node, expressions.number(factor))
  return _same_value(gold.node, node, judge)


def _with_same_reading(gold: Quantity, answer: Quantity) -> tuple[Quantity, Quantity]:
  """Where one side has a unit in \\text, the other's letters may be a unit too."""
  return _read_like(gold, answer), _read_like(answer, gold)


def _read_like(quantity: Quantity, other: Quantity) -> Quantity:
  """`9.8 m/s^2` with a unit, if that is the other side's."""
  has_letters = bool(quantity.tokens) and bool(expressions.symbols(quantity.node))
  if quantity.unit.powers or not other.unit.powers or not has_letters:
    return quantity
  try:
    reread = read_quantity(quantity.tokens, is_plain_unit=True)
  except UnreadableError:
    return quantity
  return reread if reread.unit.powers == other.unit.powers else quantity


def _compare_units(gold: Quantity, answer: Quantity, judge: Judge) -> Finding | None:
  """Decides where units differ or one is a percentage or an angle; None: the values decide."""
  if answer.unit.unknown != gold.unit.unknown:
    return Finding(False, 'words behind the value')
  powers = [side.unit.powers for side in (gold, answer)]
  nouns = [set(side.unit.nouns) for side in (gold, answer)]
  if all(nouns) and not nouns[0] & nouns[1]:
    return Finding(False, 'what is counted')
  if powers[0] == powers[1]:
    return None
  if all(powers):
    if {*powers} != {units.DEGREE.powers, _RADIAN}:
      return Finding(False, 'units')
    return _same_value(*(_in_radians(side) for side in (gold, answer)), judge)
  if nouns[0] or nouns[1]:
    return Finding(False, 'units')
  plain = _same_value(gold.node, answer.node, judge)
  if plain.is_equal or not {*powers} & {units.PERCENT.powers, units.DEGREE.powers}:
    return plain
  return _same_value(*(_carried_out(side) for side in (gold, answer)), judge)


def _in_radians(quantity: Quantity) -> Node:
  is_degrees = quantity.unit.powers == units.DEGREE.powers
  return ('degree', quantity.node) if is_degrees else quantity.node


def _carried_out(quantity: Quantity) -> Node:
  """28 % as 0.28, 45 degrees as pi / 4."""
  if quantity.unit.powers == units.PERCENT.powers:
    return ('/', quantity.node, expressions.number(100))
  return _in_radians(quantity)


def _same_value(gold: Node, answer: Node, judge: Judge) -> Finding:
  """Two expressions, or two matrices cell by cell."""
  try:
    rows, other_rows = _matrix(gold), _matrix(answer)
  except UnreadableError as error:
    return Finding(None, f'not understood ({error})')
  if rows is None and other_rows is None:
    finding = judge.same_expression(gold, answer)
    return finding if finding.is_equal else _up_to_constant(gold, answer, judge) or finding
  if rows is None or other_rows is None or [*map(len, rows)] != [*map(len, other_rows)]:
    return Finding(False, 'shape of a matrix')
  for row, other_row in zip(rows, other_rows, strict=True):
    for cell, other_cell in zip(row, other_row, strict=True):
      finding = judge.same_expression(cell, other_cell)
      if not finding.is_equal:
        return finding._replace(stage=f'cells: {finding.stage}')
  return Finding(True, 'cells')


def _up_to_constant(gold: Node, answer: Node, judge: Judge) -> Finding | None:
  """`+ c` and `+ C` are one constant of integration."""
  new, old = (_constant_of_integration(node) for node in (gold, answer))
  if new is None or old is None or new == old:
    return None
  if new in expressions.symbols(answer) or old in expressions.symbols(gold):
    return None
  new_name = {('symbol', old): ('symbol', new)}
  return judge.same_expression(gold, expressions.replace(answer, new_name.get))


def _constant_of_integration(node: Node) -> str | None:
  """The one letter of a sum's terms that may be such a constant."""
  terms = node[1:] if node[0] == '+' else ()
  names = [t[1] for t in terms if t[0] == 'symbol' and t[1] in _CONSTANTS_OF_INTEGRATION]
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
  return tuple(tuple((kind, cell, *operands[1:]) for cell in row) for row in rows)


def _sum(matrices: list[Rows | None]) -> Rows:
  if None in matrices or len({tuple(map(len, rows)) for rows in matrices}) != 1:
    raise UnreadableError('matrices')
  return tuple(
    tuple(('+', *cells) for cells in zip(*row, strict=True)) for row in zip(*matrices, strict=True)
  )


def _product(left: Node, right: Node) -> Rows:
  first, second = _matrix(left), _matrix(right)
  if first is None or second is None:
    scalar, rows = (left, second) if first is None else (right, first)
    return tuple(tuple(('*', scalar, cell) for cell in row) for row in rows)
  if len(first[0]) != len(second):
    raise UnreadableError('matrices')
  columns = list(zip(*second, strict=True))
  return tuple(tuple(_dot(row, column) for column in columns) for row in first)


def _dot(row: tuple[Node, ...], column: tuple[Node, ...]) -> Node:
  return ('+', *(('*', a, b) for a, b in zip(row, column, strict=True)))
