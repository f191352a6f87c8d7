r"""Sets of real numbers: intervals, solutions of inequalities, unions, and what is left of them.

Two such sets are compared by membership: at each end of an interval, at each zero and pole of what
an inequality compares, and at a number between any two of them and beyond. Ends of intervals are
exact numbers or narrow balls, so that (0, 1) and (0, 1] differ at 1; zeros are balls of 64 bits,
and there it counts whether the relation holds with equality.
"""

from __future__ import annotations

import dataclasses

from flint import arb, fmpq

from ds_jax.verify.math import equality, expressions, units
from ds_jax.verify.math.balls import UndecidedError, UndefinedError, Value, Work, log2
from ds_jax.verify.math.equality import Finding
from ds_jax.verify.math.expressions import INFINITY, NEGATIVE_INFINITY, Node, subtract
from ds_jax.verify.math.structures import (
  EMPTY_SET,
  ORDER_SIGNS,
  Answer,
  Builder,
  Collection,
  Name,
  Quantity,
  Relation,
  Sequence,
  SetOperation,
  name_of,
)
from ds_jax.verify.math.values import Evaluation

PRECISION = 256  # bits
_NARROW = -40  # log2 of such a ball
_MAX_POINTS = 60
ANY_NAME = ''
_OPERATIONS = {r'\cup': 'or', r'\cap': 'and', r'\setminus': 'minus'}
_REALS = ('symbol', r'\mathbb R')


class NoRegionError(Exception):
  """The answer is no set of real numbers that can be computed with."""


@dataclasses.dataclass(frozen=True)
class Everything:
  """All real numbers."""


@dataclasses.dataclass(frozen=True)
class Nothing:
  """No number."""


@dataclasses.dataclass(frozen=True)
class Comparison:
  """All x where a function of x and 0 are in a relation, e.g. x - 2 <= 0."""

  function: Node
  name: str
  sign: str


@dataclasses.dataclass(frozen=True)
class Combination:
  """Of several sets: and, or, minus."""

  operation: str
  parts: tuple[Region, ...]


Region = Everything | Nothing | Comparison | Combination


def is_region_like(answer: Answer) -> bool:
  """Whether an answer is written as a set of numbers, and cannot be a point or a list."""
  if isinstance(answer, Collection):
    return answer == EMPTY_SET or (
      not answer.is_set and any(isinstance(i, Relation) and is_region_like(i) for i in answer.items)
    )
  if isinstance(answer, Relation):
    return bool(set(answer.signs) & {*ORDER_SIGNS, r'\neq', r'\in'})
  if isinstance(answer, Quantity):
    return answer.node == _REALS
  if isinstance(answer, Sequence):
    return answer.brackets in ('[)', '(]')
  return isinstance(answer, (SetOperation, Builder))


def of(answer: Answer) -> tuple[Region, str]:
  """The set that an answer describes, and the name of its variable ('' if it has none).

  Raises:
    NoRegionError: it describes none that can be computed with.
  """
  if isinstance(answer, Quantity) and answer.node == _REALS and answer.unit == units.NONE:
    return Everything(), ANY_NAME
  if isinstance(answer, Sequence):
    return _interval(answer), ANY_NAME
  if isinstance(answer, SetOperation):
    operation = _OPERATIONS.get(answer.operation)
    if operation is None:
      raise NoRegionError
    return _combined(operation, answer.parts)
  if isinstance(answer, Builder):
    region, name = of(answer.condition)
    if answer.domain != r'\mathbb R' or name not in (ANY_NAME, answer.name):
      raise NoRegionError
    return region, ANY_NAME
  if isinstance(answer, Collection):
    return _of_collection(answer)
  if isinstance(answer, Relation):
    return _of_relation(answer)
  raise NoRegionError


def _combined(operation: str, parts: tuple[Answer, ...]) -> tuple[Region, str]:
  regions, names = zip(*map(of, parts), strict=True)
  named = set(names) - {ANY_NAME}
  if len(named) > 1:
    raise NoRegionError
  return Combination(operation, regions), named.pop() if named else ANY_NAME


def _of_collection(answer: Collection) -> tuple[Region, str]:
  if not answer.items:
    return Nothing(), ANY_NAME
  if answer.is_set:
    points = [_equals(item) for item in answer.items]
    return Combination('or', tuple(points)), ANY_NAME
  if not all(isinstance(item, (Relation, Builder)) for item in answer.items):
    raise NoRegionError
  return _combined('or' if answer.connective == 'or' else 'and', answer.items)


def _equals(item: Answer) -> Region:
  if not isinstance(item, Quantity) or not expressions.is_constant(item.node):
    raise NoRegionError
  return Comparison(subtract(('symbol', ANY_NAME), item.node), ANY_NAME, '=')


def _interval(answer: Sequence) -> Region:
  if len(answer.items) != 2 or not set(answer.brackets) <= set('()[]'):
    raise NoRegionError
  parts: list[Region] = []
  x = ('symbol', ANY_NAME)
  for end, item in enumerate(answer.items):
    if not isinstance(item, Quantity) or item.unit not in (units.NONE, units.DEGREE):
      raise NoRegionError
    if item.node == (NEGATIVE_INFINITY, INFINITY)[end]:
      if answer.brackets[end] in '[]':
        raise NoRegionError
      continue
    if not expressions.is_constant(item.node):
      raise NoRegionError
    sign = {'(': '>', '[': r'\geq', ')': '<', ']': r'\leq'}[answer.brackets[end]]
    parts.append(Comparison(subtract(x, item.node), ANY_NAME, sign))
  if len(parts) == 2 and not _is_ordered(*(item.node for item in answer.items)):
    raise NoRegionError
  return Combination('and', tuple(parts)) if parts else Everything()


def _is_ordered(low: Node, high: Node) -> bool:
  """Whether an interval holds numbers: (2, 2) is a point, and (2, -1) is another."""
  try:
    return Evaluation(Work(5000), PRECISION).value(subtract(high, low)) > 0
  except (UndefinedError, UndecidedError, TypeError):
    return False


def _of_relation(answer: Relation) -> tuple[Region, str]:
  if answer.signs == (r'\in',):
    name = name_of(answer.sides[0])
    if name is None:
      raise NoRegionError
    region, inner = of(answer.sides[1])
    if inner != ANY_NAME:
      raise NoRegionError
    return region, name
  nodes = [_node(side) for side in answer.sides]
  if any(part[0] == 'apply' for node in nodes for part in expressions.walk(node)):
    raise NoRegionError
  names = {name for node in nodes for name in expressions.symbols(node)}
  if len(names) != 1:
    raise NoRegionError
  name = names.pop()
  parts = []
  for left, sign, right in zip(nodes, answer.signs, nodes[1:], strict=False):
    if sign not in (*ORDER_SIGNS, r'\neq', '='):
      raise NoRegionError
    if not expressions.symbols(left, right):
      raise NoRegionError
    parts.append(_comparison(left, sign, right, name))
  region = parts[0] if len(parts) == 1 else Combination('and', tuple(parts))
  return region, '' if name == ANY_NAME else name


def _comparison(left: Node, sign: str, right: Node, name: str) -> Region:
  """Infinite bounds hold nothing back: -\\infty < x."""
  if left == NEGATIVE_INFINITY and sign == '<' or right == INFINITY and sign == '<':
    return Everything()
  if left == INFINITY and sign == '>' or right == NEGATIVE_INFINITY and sign == '>':
    return Everything()
  return Comparison(subtract(left, right), name, sign)


def _node(side: Answer) -> Node:
  if isinstance(side, Name) and not side.text:
    return ('symbol', ANY_NAME)  # `> 4`
  if not isinstance(side, Quantity) or side.unit not in (units.NONE, units.DEGREE):
    raise NoRegionError
  return side.node


def same_region(gold: Region, answer: Region, work: Work) -> Finding:
  """Whether two sets hold the same real numbers."""
  try:
    critical: list[Value] = []
    for region in (gold, answer):
      for comparison in _comparisons(region):
        critical += _critical(comparison, work)
    num_inside = 0
    for x in _test_points(critical):
      is_inside = holds(gold, x, work)
      if is_inside != holds(answer, x, work):
        return Finding(False, 'membership')
      num_inside += is_inside
    if not num_inside and Nothing() not in (gold, answer):
      return Finding(None, 'membership')
  except UndecidedError as error:
    return Finding(None, f'beyond the bounds ({error})')
  return Finding(True, 'membership')


def _comparisons(region: Region) -> list[Comparison]:
  if isinstance(region, Comparison):
    return [region]
  if isinstance(region, Combination):
    return [comparison for part in region.parts for comparison in _comparisons(part)]
  return []


def _critical(comparison: Comparison, work: Work) -> list[Value]:
  """Where a comparison may change: its end x = a, or zeros, poles and kinks of its function."""
  function, name = comparison.function, comparison.name
  _, left, (_, right) = function  # left - right
  for side, other in ((left, right), (right, left)):
    if side == ('symbol', name) and expressions.is_constant(other):
      return [_evaluate(other, work)]
  inner = [function, *(kink for kink, _ in equality.find_kinks(function))]
  inner += [part[2] for part in expressions.walk(function) if part[0] == '/']
  return [root for node in inner for root in equality.find_roots(node, name, {}, work)]


def _evaluate(node: Node, work: Work) -> Value:
  try:
    return Evaluation(work, PRECISION).value(node)
  except UndefinedError as error:
    raise UndecidedError('an undefined end') from error


def _test_points(critical: list[Value]) -> list[Value]:
  """All critical numbers, numbers around and between them, and two more."""
  rationals = sorted({equality.middle(x) for x in critical})
  points = [*critical, *equality.between(rationals), fmpq(0), fmpq(17, 13)]
  return points[:_MAX_POINTS]


def ends(region: Region, work: Work) -> list[fmpq]:
  """Numbers where membership may change."""
  ends_ = [x for comparison in _comparisons(region) for x in _critical(comparison, work)]
  return list(map(equality.middle, ends_))


def holds(region: Region, x: Value, work: Work) -> bool:
  """Whether x belongs to a set."""
  if isinstance(region, Everything):
    return True
  if isinstance(region, Nothing):
    return False
  if isinstance(region, Combination):
    first, *others = (holds(part, x, work) for part in region.parts)
    if region.operation == 'or':
      return first or any(others)
    return first and (not any(others) if region.operation == 'minus' else all(others))
  try:
    evaluation = Evaluation(work, PRECISION, values={region.name: x})
    sign = _sign(evaluation.value(region.function))
  except UndefinedError:
    return False
  except UndecidedError as error:
    if str(error) == 'division':  # a ball around a pole
      return False
    raise
  return {
    '=': sign == 0,
    r'\neq': sign != 0,
    '<': sign < 0,
    '>': sign > 0,
    r'\leq': sign <= 0,
    r'\geq': sign >= 0,
  }[region.sign]


def _sign(value: Value) -> int:
  """-1, 0 or 1; a narrow ball around 0 is the 0 that an end or a zero gives."""
  if isinstance(value, arb) and value.contains(0):
    if log2(value) > _NARROW:
      raise UndecidedError('sign')
    return 0
  return (value > 0) - (value < 0)
