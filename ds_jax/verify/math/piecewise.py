r"""Functions of one number that are given by cases, compared number by number.

A function may change its form at the ends of the conditions of its cases, and at the kinks of its
values. Between such numbers it is analytic. So both functions are asked at each of them, close to
each on both sides, between any two, and at numbers spread over the line, which no answer can be
made for (`points.Chance`).
"""

from __future__ import annotations

from collections.abc import Sequence

from flint import fmpq

from ds_jax.verify.math import expressions, kinks, regions, units
from ds_jax.verify.math.balls import UndecidedError, Value
from ds_jax.verify.math.enclosures import Finding
from ds_jax.verify.math.expressions import Node
from ds_jax.verify.math.judge import Judge
from ds_jax.verify.math.points import Chance
from ds_jax.verify.math.structures import Answer, Cases, Quantity, Words

_STAGE = 'function by cases'
_MIN_AGREEING = 6  # numbers at which both functions have values
_SPREAD = (
  fmpq(-501, 7),
  fmpq(-11, 3),
  fmpq(-1, 3),
  fmpq(2, 7),
  fmpq(7, 4),
  fmpq(31, 3),
  fmpq(907, 8),
)
_WHOLE = [fmpq(n) for n in range(1, 13)]  # where cases are for even and odd numbers
_FAR = range(10**5, 10**6)  # halves of numbers out of reach of short products
_NUM_FAR = 2
_PARITIES = {'even': 0, 'odd': 1}
_OTHERWISE = (None, Words(('otherwise',)), Words(('else',)))

Condition = regions.Region | int | None  # a set, a parity, or `otherwise`


class _NoFunctionError(Exception):
  """Not a function of one number whose cases can be told apart."""


def same_function(gold: Answer, answer: Answer, judge: Judge) -> Finding:
  """Whether two functions, one or both of them by cases, agree where their cases may change."""
  try:
    return Finding(_agree(_Function(gold), _Function(answer), judge), _STAGE)
  except (_NoFunctionError, regions.NoRegionError, UndecidedError):
    return Finding(None, _STAGE)


def _agree(gold: _Function, answer: _Function, judge: Judge) -> bool | None:
  """Whether two functions have the same values; None: too few are known."""
  names = gold.names | answer.names
  if len(names) != 1:
    return None
  name = names.pop()
  # Points that hang on both functions.
  chance = Chance((gold.side, answer.side))
  num_agreeing = 0
  for x in _points((gold, answer), name, chance, judge):
    value = gold.at(name, x, judge)
    other_value = answer.at(name, x, judge)
    if value is None and other_value is None:
      continue
    # A number that only one of the two takes makes them different.
    if value is None or other_value is None:
      return False
    if not judge.same_expression(value, other_value).is_equal:
      return False
    num_agreeing += 1
  return True if num_agreeing >= _MIN_AGREEING else None


def _points(
  functions: Sequence[_Function], name: str, chance: Chance, judge: Judge
) -> Sequence[fmpq]:
  """Numbers at which functions are compared."""
  if any(function.has_parity for function in functions):
    return [*_WHOLE, *(fmpq(2 * chance.pick(str(i), _FAR) + i % 2) for i in range(_NUM_FAR))]
  critical: set[fmpq] = set()
  for function in functions:
    critical |= function.critical(name, judge)
  # At critical numbers, around them, and spread: each number of the spread is moved outwards by up
  # to an eighth of itself.
  ordered = sorted(critical)
  points = [*ordered, *kinks.between(ordered)]
  for x in _SPREAD:
    points.append(x * (1 + chance.factor(str(x)) / 8))
  return points


class _Function:
  """Rows of a value and the condition under which it holds.

  Attributes:
    side: the answer that it was read from.
    names: the symbols in values and conditions.
    has_parity: some condition is `n is even` or `n is odd`.
  """

  def __init__(self, side: Answer):
    self.side = side
    self._rows: list[tuple[Node, Condition]] = []
    self.names: set[str] = set()
    self.has_parity = False
    rows = side.rows if isinstance(side, Cases) else ((side, None),)
    for value, condition in rows:
      if not isinstance(value, Quantity) or value.unit != units.NONE:
        raise _NoFunctionError
      self.names.update(expressions.symbols(value.node))
      self._rows.append((value.node, self._condition(condition)))

  def _condition(self, condition: Answer | None) -> Condition:
    """Reads a condition, and notes its symbol."""
    if condition in _OTHERWISE:
      return None
    if isinstance(condition, Words):
      return self._parity(condition)
    region, name = regions.of(condition)
    if name != regions.ANY_NAME:
      self.names.add(name)
    return region

  def _parity(self, condition: Words) -> int:
    """The remainder by 2 of `n is even`, `n is odd`."""
    name, *words = condition.words
    if len(words) != 2 or words[0] != 'is' or words[1] not in _PARITIES:
      raise _NoFunctionError
    self.names.add(name)
    self.has_parity = True
    return _PARITIES[words[1]]

  def critical(self, name: str, judge: Judge) -> set[fmpq]:
    """Numbers where the function may change its form."""
    numbers: set[fmpq] = set()
    for node, condition in self._rows:
      # Kinks of the value itself: |x - 1| within a case.
      for kink in kinks.find_kinks(node):
        roots = kinks.find_roots(kink.inner, name, {}, judge.work)
        numbers.update(map(kinks.middle, roots))
      # Ends of the set in which it holds.
      if condition is not None and not isinstance(condition, int):
        numbers.update(regions.ends(condition, judge.work))
    return numbers

  def at(self, name: str, x: Value, judge: Judge) -> Node | None:
    """The value at x as an expression; None where no case holds. Two cases must not differ."""
    # The cases whose condition holds; the others only where there is none.
    holding: list[Node] = []
    otherwise: list[Node] = []
    for node, condition in self._rows:
      if condition is None:
        otherwise.append(node)
      elif _holds(condition, x, judge):
        holding.append(node)
    at_x = {('symbol', name): ('number', x)}
    # Cases that overlap must say the same there.
    values = [expressions.replace(node, at_x.get) for node in holding or otherwise]
    if not values:
      return None
    for other in values[1:]:
      if not judge.same_expression(values[0], other).is_equal:
        raise _NoFunctionError
    return values[0]


def _holds(condition: regions.Region | int, x: fmpq, judge: Judge) -> bool:
  if isinstance(condition, int):
    return x.q == 1 and int(x.p) % 2 == condition
  return regions.holds(condition, x, judge.work)
