"""Functions of one number that are given by cases, compared number by number."""

from __future__ import annotations

from flint import fmpq

from ds_jax.verify.math import equality, expressions, regions, units
from ds_jax.verify.math.balls import UndecidedError, Value
from ds_jax.verify.math.equality import Finding
from ds_jax.verify.math.expressions import Node
from ds_jax.verify.math.judge import Judge
from ds_jax.verify.math.structures import Answer, Cases, Quantity, Words

_STAGE = 'function by cases'
_ENOUGH = 6  # numbers at which both functions have values
_SPREAD = (
  fmpq(-501, 7),
  fmpq(-11, 3),
  fmpq(-1, 3),
  fmpq(2, 7),
  fmpq(7, 4),
  fmpq(31, 3),
  fmpq(907, 8),
)
_PARITIES = {'even': 0, 'odd': 1}


class _NoFunctionError(Exception):
  """Not a function of one number whose cases can be told apart."""


def same_function(gold: Answer, answer: Answer, judge: Judge) -> Finding:
  """Whether two functions, one or both of them by cases, agree where their cases may change."""
  try:
    functions = [_Function(side) for side in (gold, answer)]
    names = {name for function in functions for name in function.names}
    if len(names) != 1:
      return Finding(None, _STAGE)
    name = names.pop()
    has_parity = any(function.has_parity for function in functions)
    points = [fmpq(n) for n in range(1, 13)] if has_parity else _points(functions, name, judge)
    num_agreeing = 0
    for x in points:
      nodes = [function.at(name, x, judge) for function in functions]
      if nodes == [None, None]:
        continue
      if None in nodes or not judge.same_expression(*nodes).is_equal:
        return Finding(False, _STAGE)
      num_agreeing += 1
    return Finding(True if num_agreeing >= _ENOUGH else None, _STAGE)
  except (_NoFunctionError, regions.NoRegionError, UndecidedError):
    return Finding(None, _STAGE)


class _Function:
  """Rows of a value and the condition under which it holds; None stands for `otherwise`."""

  def __init__(self, side: Answer):
    rows = side.rows if isinstance(side, Cases) else ((side, None),)
    self._rows: list[tuple[Node, regions.Region | int | None]] = []
    self.names: set[str] = set()
    self.has_parity = False
    for value, condition in rows:
      if not isinstance(value, Quantity) or value.unit != units.NONE:
        raise _NoFunctionError
      self.names.update(expressions.symbols(value.node))
      self._rows.append((value.node, self._condition(condition)))

  def _condition(self, condition: Answer | None) -> regions.Region | int | None:
    if condition is None or condition in (Words(('otherwise',)), Words(('else',))):
      return None
    if isinstance(condition, Words):
      name, *words = condition.words
      if len(words) != 2 or words[0] != 'is' or words[1] not in _PARITIES:
        raise _NoFunctionError
      self.names.add(name)
      self.has_parity = True
      return _PARITIES[words[1]]
    region, name = regions.of(condition)
    self.names.update({name} - {regions.ANY_NAME})
    return region

  def critical(self, name: str, judge: Judge) -> set[fmpq]:
    """Numbers where the function may change its form."""
    found: set[fmpq] = set()
    for node, condition in self._rows:
      for kink, _ in equality.find_kinks(node):
        roots = equality.find_roots(kink, name, {}, judge.work)
        found.update(map(equality.middle, roots))
      if condition is not None and not isinstance(condition, int):
        found.update(regions.ends(condition, judge.work))
    return found

  def at(self, name: str, x: Value, judge: Judge) -> Node | None:
    """The value at x as an expression; None where no case holds. Two cases must not differ."""
    holding = [node for node, c in self._rows if c is not None and _holds(c, x, judge)]
    holding = holding or [node for node, condition in self._rows if condition is None]
    at_x = {('symbol', name): ('number', x)}.get
    values = [expressions.replace(node, at_x) for node in holding]
    if any(not judge.same_expression(values[0], other).is_equal for other in values[1:]):
      raise _NoFunctionError
    return values[0] if values else None


def _holds(condition: regions.Region | int, x: fmpq, judge: Judge) -> bool:
  if isinstance(condition, int):
    return x.q == 1 and int(x.p) % 2 == condition
  return regions.holds(condition, x, judge.work)


def _points(functions: list[_Function], name: str, judge: Judge) -> list[fmpq]:
  critical = sorted(set().union(*(function.critical(name, judge) for function in functions)))
  return [*critical, *equality.between(critical), *_SPREAD]
