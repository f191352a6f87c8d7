r"""Sets of real numbers: intervals, solutions of inequalities, unions, and what is left of them.

Two such sets are compared by membership: at each end of an interval, at each zero, pole and kink of
what an inequality compares, and at a number between any two of them and beyond. Between two such
numbers a continuous function keeps its sign, and so the membership stays as it is. Ends of
intervals are exact numbers or narrow balls, so that (0, 1) and (0, 1] differ at 1; zeros are balls
of 64 bits, and there it counts whether the relation holds with equality.
"""

from __future__ import annotations

import dataclasses

from flint import arb, fmpq

from ds_jax.verify.math import expressions, kinks, units
from ds_jax.verify.math.balls import UndecidedError, UndefinedError, Value, Work, log2
from ds_jax.verify.math.enclosures import Finding
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
_ORDER_WORK = 5000  # steps for the order of two ends
ANY_NAME = ''
_OPERATIONS = {r'\cup': 'or', r'\cap': 'and', r'\setminus': 'minus'}
_REALS = ('symbol', r'\mathbb R')
_SIGN_OF_BRACKET = {'(': '>', '[': r'\geq', ')': '<', ']': r'\leq'}
_REGION_SIGNS = frozenset((*ORDER_SIGNS, r'\neq', r'\in'))
_COMPARISON_SIGNS = frozenset((*ORDER_SIGNS, r'\neq', '='))
_ELSEWHERE = (fmpq(0), fmpq(17, 13))  # numbers that are asked in any case


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
      not answer.is_set and any(map(_is_region_relation, answer.items))
    )
  if isinstance(answer, Relation):
    return not _REGION_SIGNS.isdisjoint(answer.signs)
  if isinstance(answer, Quantity):
    return answer.node == _REALS
  if isinstance(answer, Sequence):
    return answer.brackets in ('[)', '(]')
  return isinstance(answer, (SetOperation, Builder))


def _is_region_relation(item: Answer) -> bool:
  return isinstance(item, Relation) and is_region_like(item)


# From an answer to a set.


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
    return _of_builder(answer), ANY_NAME
  if isinstance(answer, Collection):
    return _of_collection(answer)
  if isinstance(answer, Relation):
    return _of_relation(answer)
  raise NoRegionError


def _combined(operation: str, parts: tuple[Answer, ...]) -> tuple[Region, str]:
  """Several sets as one; all that have a variable have the same one."""
  regions: list[Region] = []
  names: set[str] = set()
  # An interval has no variable, and goes with any.
  for part in parts:
    region, name = of(part)
    regions.append(region)
    names.add(name)
  names.discard(ANY_NAME)
  if len(names) > 1:
    raise NoRegionError
  name = names.pop() if names else ANY_NAME
  return Combination(operation, tuple(regions)), name


def _of_builder(answer: Builder) -> Region:
  """`{x in R | condition}`."""
  region, name = of(answer.condition)
  if answer.domain != r'\mathbb R' or name not in (ANY_NAME, answer.name):
    raise NoRegionError
  return region


def _of_collection(answer: Collection) -> tuple[Region, str]:
  """Numbers in braces, or several relations."""
  if not answer.items:
    return Nothing(), ANY_NAME
  if answer.is_set:
    points = tuple(map(_equals, answer.items))
    return Combination('or', points), ANY_NAME
  if not all(isinstance(item, (Relation, Builder)) for item in answer.items):
    raise NoRegionError
  return _combined('or' if answer.connective == 'or' else 'and', answer.items)


def _equals(item: Answer) -> Region:
  """The set of one number."""
  if not isinstance(item, Quantity) or not expressions.is_constant(item.node):
    raise NoRegionError
  difference = subtract(('symbol', ANY_NAME), item.node)
  return Comparison(difference, ANY_NAME, '=')


def _interval(answer: Sequence) -> Region:
  """`(a, b]` as x > a and x <= b; infinite ends hold nothing back."""
  if len(answer.items) != 2 or not set(answer.brackets) <= set('()[]'):
    raise NoRegionError
  bounds: list[Region] = []
  infinities = (NEGATIVE_INFINITY, INFINITY)
  for item, bracket, infinity in zip(answer.items, answer.brackets, infinities, strict=True):
    if not isinstance(item, Quantity) or item.unit not in (units.NONE, units.DEGREE):
      raise NoRegionError
    # An infinite end is open, and bounds nothing.
    if item.node == infinity:
      if bracket in '[]':
        raise NoRegionError
      continue
    if not expressions.is_constant(item.node):
      raise NoRegionError
    difference = subtract(('symbol', ANY_NAME), item.node)
    bounds.append(Comparison(difference, ANY_NAME, _SIGN_OF_BRACKET[bracket]))
  # An interval that holds no number is a point, or a slip.
  low, high = answer.items
  if len(bounds) == 2 and not _is_ordered(low.node, high.node):
    raise NoRegionError
  return Combination('and', tuple(bounds)) if bounds else Everything()


def _is_ordered(low: Node, high: Node) -> bool:
  """Whether an interval holds numbers: (2, 2) is a point, and (2, -1) is another."""
  try:
    return Evaluation(Work(_ORDER_WORK), PRECISION).value(subtract(high, low)) > 0
  except (UndefinedError, UndecidedError, TypeError):
    return False


def _of_relation(answer: Relation) -> tuple[Region, str]:
  """A chain of comparisons of functions of one symbol, or `x in` a set."""
  if answer.signs == (r'\in',):
    return _of_membership(answer)
  nodes = [_node(side) for side in answer.sides]
  name = _only_symbol(nodes)
  links: list[Region] = []
  for left, sign, right in zip(nodes, answer.signs, nodes[1:], strict=False):
    if sign not in _COMPARISON_SIGNS:
      raise NoRegionError
    # A link between two numbers says nothing of x.
    if not expressions.symbols(left, right):
      raise NoRegionError
    links.append(_comparison(left, sign, right, name))
  region = links[0] if len(links) == 1 else Combination('and', tuple(links))
  return region, name


def _of_membership(answer: Relation) -> tuple[Region, str]:
  name = name_of(answer.sides[0])
  if name is None:
    raise NoRegionError
  # `x in y > 3` is no membership.
  region, inner_name = of(answer.sides[1])
  if inner_name != ANY_NAME:
    raise NoRegionError
  return region, name


def _only_symbol(nodes: list[Node]) -> str:
  """The one symbol of some functions, all of whose operations are known."""
  # A function that nobody knows has no sign.
  for node in nodes:
    if any(part[0] == 'apply' for part in expressions.walk(node)):
      raise NoRegionError
  names = expressions.symbols(*nodes)
  if len(names) != 1:
    raise NoRegionError
  return names[0]


def _comparison(left: Node, sign: str, right: Node, name: str) -> Region:
  """Infinite bounds hold nothing back: -\\infty < x."""
  if sign == '<' and (left == NEGATIVE_INFINITY or right == INFINITY):
    return Everything()
  if sign == '>' and (left == INFINITY or right == NEGATIVE_INFINITY):
    return Everything()
  return Comparison(subtract(left, right), name, sign)


def _node(side: Answer) -> Node:
  """The expression on one side of a relation."""
  if isinstance(side, Name) and not side.text:
    return ('symbol', ANY_NAME)  # `> 4`
  if not isinstance(side, Quantity) or side.unit not in (units.NONE, units.DEGREE):
    raise NoRegionError
  return side.node


# Comparison of two sets.


def same_region(gold: Region, answer: Region, work: Work) -> Finding:
  """Whether two sets hold the same real numbers."""
  try:
    return Finding(_hold_the_same(gold, answer, work), 'membership')
  except UndecidedError as error:
    return Finding(None, f'beyond the bounds ({error})')


def _hold_the_same(gold: Region, answer: Region, work: Work) -> bool | None:
  # All numbers where one of the two may change.
  critical: list[Value] = []
  for comparison in (*_comparisons(gold), *_comparisons(answer)):
    critical += _critical(comparison, work)
  # Both hold the same of them, and of the numbers around and between them.
  num_inside = 0
  for x in _test_points(critical):
    is_inside = holds(gold, x, work)
    if is_inside != holds(answer, x, work):
      return False
    num_inside += is_inside
  # Two sets without a number are equal only if one of them is meant to be empty.
  if not num_inside and Nothing() not in (gold, answer):
    return None
  return True


def _comparisons(region: Region) -> list[Comparison]:
  """All comparisons that a set is made of."""
  if isinstance(region, Comparison):
    return [region]
  comparisons: list[Comparison] = []
  if isinstance(region, Combination):
    for part in region.parts:
      comparisons += _comparisons(part)
  return comparisons


def _critical(comparison: Comparison, work: Work) -> list[Value]:
  """Where a comparison may change: its end x = a, or zeros, poles and kinks of its function."""
  function, name = comparison.function, comparison.name
  # An end: x - a, or a - x.
  _, left, (_, right) = function
  for side, other in ((left, right), (right, left)):
    if side == ('symbol', name) and expressions.is_constant(other):
      return [_evaluate(other, work)]
  # Zeros of the function, of what makes kinks, and of denominators.
  inner = [function]
  inner += [kink.inner for kink in kinks.find_kinks(function)]
  inner += [part[2] for part in expressions.walk(function) if part[0] == '/']
  roots: list[Value] = []
  for node in inner:
    roots += kinks.find_roots(node, name, {}, work)
  return roots


def _evaluate(node: Node, work: Work) -> Value:
  """The value of an end; an end without a value leaves all open."""
  try:
    return Evaluation(work, PRECISION).value(node)
  except UndefinedError as error:
    raise UndecidedError('an undefined end') from error


def _test_points(critical: list[Value]) -> list[Value]:
  """All critical numbers, numbers around and between them, and two more."""
  # Balls by their middles: what lies beside a middle by 2^-40 lies outside a ball of 64 bits.
  rationals = sorted({kinks.middle(x) for x in critical})
  points = [*critical, *kinks.between(rationals), *_ELSEWHERE]
  return points[:_MAX_POINTS]


def ends(region: Region, work: Work) -> list[fmpq]:
  """Numbers where membership may change."""
  numbers: list[fmpq] = []
  for comparison in _comparisons(region):
    numbers += map(kinks.middle, _critical(comparison, work))
  return numbers


def holds(region: Region, x: Value, work: Work) -> bool:
  """Whether x belongs to a set."""
  if isinstance(region, Everything):
    return True
  if isinstance(region, Nothing):
    return False
  if isinstance(region, Combination):
    return _combination_holds(region, x, work)
  return _comparison_holds(region, x, work)


def _combination_holds(region: Combination, x: Value, work: Work) -> bool:
  first = holds(region.parts[0], x, work)
  others = (holds(part, x, work) for part in region.parts[1:])  # asked only where they count
  if region.operation == 'or':
    return first or any(others)
  if region.operation == 'and':
    return first and all(others)
  return first and not any(others)


def _comparison_holds(comparison: Comparison, x: Value, work: Work) -> bool:
  """Whether the relation holds at x; where its function has no value, it does not."""
  # The relation is one between the function and 0.
  evaluation = Evaluation(work, PRECISION, values={comparison.name: x})
  try:
    sign = _sign(evaluation.value(comparison.function))
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
  }[comparison.sign]


def _sign(value: Value) -> int:
  """-1, 0 or 1; a narrow ball around 0 is the 0 that an end or a zero gives."""
  # A wide ball around 0 tells nothing; a narrow one stands for an end or a zero.
  if isinstance(value, arb) and value.contains(0):
    if log2(value) > _NARROW:
      raise UndecidedError('sign')
    return 0
  # The bounds of a ball away from 0 have one sign.
  return (value > 0) - (value < 0)
