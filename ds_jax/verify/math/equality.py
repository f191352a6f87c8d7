r"""Whether two expressions are equal: shown by exact numbers, enclosures, or points far apart.

Constants. Two rationals are compared exactly. Other constants are enclosed in balls at growing
precision: disjoint balls are different numbers, which is a proof. Balls that still overlap when
they are smaller than 2^-(2h + 100) of the numbers are taken for equal, where 2^h and 2^-h are the
largest and smallest number met on the way. That is no proof: it says that a difference, if there is
one, is far smaller than anything that was written down (for sums of a few roots of small numbers
the known separation bounds are met; for arbitrary ones they are not).

Functions. Two analytic functions that agree at points drawn at random agree everywhere, but for
unlucky draws (Schwartz 1980, for polynomials). The points are rational, have both signs and sizes
from a tenth to millions, and are integers where an operation needs them. Where a function has
kinks or jumps (absolute values, roundings, roots, maxima, logarithms, inverse functions), points on
both sides of each are added, and points between them.

A decimal of at least six significant digits is also equal to what rounds to it, if that is neither
an integer nor written with such a decimal itself: 3.14159 is pi, and 3.14158 is not.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from flint import arb, fmpq

from ds_jax.verify.math import expressions
from ds_jax.verify.math.balls import (
  MARGIN,
  UndecidedError,
  UndefinedError,
  Value,
  Work,
  log2,
  precision,
)
from ds_jax.verify.math.expressions import IMAGINARY, INFINITY, Node, leaves, subtract, walk
from ds_jax.verify.math.values import Evaluation, check_size

PRECISIONS = (128, 640, 3200, 16_000)  # bits
_MAX_KINK_POINTS = 30
_DIVISIBLE = (17, 30, 60, 97, 210)
_MAX_DIVISOR, _MAX_DIVISORS = 10**6, 6
_MAX_LIMIT_HEIGHT = 100  # bits of numbers beside a limit, whose step is 2^-80
_MAX_SHORT = 12  # nodes
_FLOAT = 2 * 10**13  # of a number of 14 digits and half a unit of its last one
_MAX_SHIFT = 5000  # bits
_MAX_HALVINGS = 200
_RATIONAL_KINDS = frozenset(('number', 'decimal', '+', '-', '*', '/'))

Point = Mapping[str, Value]


class Finding(NamedTuple):
  """A decision and the stage that reached it; `is_equal` is None where nothing is shown."""

  is_equal: bool | None
  stage: str


def same_expression(gold: Node, answer: Node, work: Work) -> Finding:
  """Whether two expressions agree, as numbers or as functions of their symbols."""
  try:
    check_size(gold)
    check_size(answer)
    if INFINITY in leaves(gold) | leaves(answer):
      return _same_infinity(gold, answer)
    if expressions.is_constant(gold) and expressions.is_constant(answer):
      return _same_constant(gold, answer, work)
    return _same_function(gold, answer, work)
  except UndecidedError as error:
    return Finding(None, f'beyond the bounds ({error})')


def _same_infinity(gold: Node, answer: Node) -> Finding:
  signs = [_sign_of_infinity(node) for node in (gold, answer)]
  return Finding(signs[0] == signs[1] and signs[0] != 0, 'infinity')


def _sign_of_infinity(node: Node) -> int:
  if node[0] == '-':
    return -_sign_of_infinity(node[1])
  return int(node == INFINITY)


def has_long_decimal(node: Node) -> bool:
  return any(part[0] == 'decimal' for part in walk(node))


def _same_constant(gold: Node, answer: Node, work: Work) -> Finding:
  finding = _compare_exactly(gold, answer, work)
  if finding.is_equal is None and finding.stage != 'undefined':
    if _folded(gold, work) == _folded(answer, work):
      return Finding(True, 'same tree')
  if finding.is_equal or has_long_decimal(gold) == has_long_decimal(answer):
    return finding
  return _compare_rounded(gold, answer, work) or finding


def _compare_exactly(gold: Node, answer: Node, work: Work) -> Finding:
  stage = 'enclosures'
  has_limit = any(part[0] == 'lim' for node in (gold, answer) for part in walk(node))
  for bits in PRECISIONS:  # each five times the one before, until the balls tell
    evaluations = [_evaluation((gold, answer), work, bits) for _ in range(2)]
    try:
      u, v = evaluations[0].value(gold), evaluations[1].value(answer)
    except UndefinedError:
      return Finding(None, 'undefined')
    except UndecidedError as error:
      stage = f'beyond the bounds ({error})'
      continue
    if isinstance(u, fmpq) and isinstance(v, fmpq):
      return Finding(u == v, 'exact numbers')
    height = max(evaluation.height for evaluation in evaluations)
    with precision(bits):
      decision = _compare_values(u, v, height)
      difference = arb(abs(_ball(u) - _ball(v)).abs_upper())
    if decision is None and has_limit and bits > PRECISIONS[0]:
      is_near = height < _MAX_LIMIT_HEIGHT and bool(difference < arb(2) ** -60)
      return Finding(is_near or None, 'limits')
    if decision is not None:
      return Finding(decision, 'enclosures')
  return Finding(None, stage)


def _ball(x: Value) -> Value:
  return arb(x) if isinstance(x, fmpq) else x


def rational_value(node: Node) -> fmpq | None:
  """The value of a short tree of numbers; None of another one."""
  nodes = walk(node)
  if len(nodes) > _MAX_SHORT or any(part[0] not in _RATIONAL_KINDS for part in nodes):
    return None
  try:
    value = Evaluation(Work(1000), PRECISIONS[0]).value(node)
  except (UndefinedError, UndecidedError):
    return None
  return value if isinstance(value, fmpq) else None


def _folded(node: Node, work: Work) -> Node:
  """A tree with what is rational and short computed: 10^(10^10) is 10^10000000000."""
  folded = (node[0], *(_folded(x, work) if _is_node(x) else x for x in node[1:]))
  if node[0] in ('+', '-', '*', '/', '^', '!') and all(x[0] == 'number' for x in folded[1:]):
    try:
      value = Evaluation(work, PRECISIONS[0]).value(folded)
    except (UndefinedError, UndecidedError):
      return folded
    if isinstance(value, fmpq) and value.height_bits() < 4000:
      return ('number', value)
  return folded


def _is_node(operand: object) -> bool:
  return isinstance(operand, tuple) and bool(operand) and isinstance(operand[0], str)


def _evaluation(nodes: Sequence[Node], work: Work, bits: int, **settings: bool) -> Evaluation:
  """For constants: complex values are allowed."""
  is_principal = any(IMAGINARY in leaves(node) for node in nodes)
  return Evaluation(work, bits, is_complex=True, is_principal=is_principal, **settings)


def _compare_values(u: Value, v: Value, height: int) -> bool | None:
  """Of two balls: False if disjoint, True if both are the same as far as `height` asks."""
  difference = u - v
  if isinstance(difference, fmpq):
    return not difference
  if not difference.contains(0):
    return False
  if not difference.is_finite():
    return None
  bound = arb(difference.abs_upper())
  if bound == 0:
    return True
  scale = max((log2(x) for x in (u, v) if not _holds_zero(x)), default=-height)
  return True if log2(bound) <= scale - 2 * height - MARGIN else None


def _holds_zero(x: Value) -> bool:
  return not x if isinstance(x, fmpq) else x.contains(0)


def _compare_rounded(gold: Node, answer: Node, work: Work) -> Finding | None:
  """Whether the one side with long decimals may be rounded from the other side."""
  exact = answer if has_long_decimal(gold) else gold
  try:
    # What is a whole number is not rounded: 7.999999 is not 8.
    value = _evaluation((exact,), work, PRECISIONS[0]).value(exact)
    if isinstance(value, fmpq) and value.q == 1:
      return None
    u, v = (
      _evaluation((gold, answer), work, PRECISIONS[0], is_rounded=True).value(node)
      for node in (gold, answer)
    )
  except (UndefinedError, UndecidedError):
    return None
  with precision(PRECISIONS[0]):
    difference = u - v
  is_near = not isinstance(difference, fmpq) and difference.contains(0)
  return Finding(True, 'rounding') if is_near else None


# Functions.

_SCALES = (1, -1, fmpq(1, 10), 10, -10, fmpq(6, 10), -fmpq(4, 10), 100, -100, 3000, -(10**5), 10**7)
_NUM_ANALYTIC = 7
_ENOUGH = 4  # points where both have values
_STEPPED = frozenset(('floor', 'ceil', 'round', 'mod'))
_INTEGER_CALLS = frozenset(('gcd', 'lcm', 'mod'))
_POSITIVE_GRID = (
  '1/1000003 1/97 1/9 4/11 5/7 13/11 16/9 23/9 17/5 51/11 31/5 83/9 41/3 23 67/2 113/2 95 230 711 '
  '5003 100003 10000019'
).split()
_POSITIVE = [fmpq(*map(int, number.split('/'))) for number in _POSITIVE_GRID]
_GRID = sorted([fmpq(0), *_POSITIVE, *(-x for x in _POSITIVE)])


def _same_function(gold: Node, answer: Node, work: Work) -> Finding:
  names = expressions.symbols(gold, answer)
  nodes = (gold, answer)
  is_rounded = has_long_decimal(gold) != has_long_decimal(answer) or _are_floats(nodes)
  num_agreeing, was_open = 0, ''
  for point, is_generic in _points(nodes, names, work):
    finding = _compare_at(nodes, point, work, is_rounded)
    if finding.is_equal is False:
      return finding
    num_agreeing += finding.is_equal is True
    if finding.stage == 'domain' and is_generic:
      return finding
    was_open = was_open if finding.is_equal else finding.stage
  if num_agreeing >= _ENOUGH:
    return Finding(True, 'points')
  return Finding(True, 'same tree') if gold == answer else Finding(None, was_open or 'points')


def _are_floats(nodes: Sequence[Node]) -> bool:
  """Whether all long decimals have the digits of floating-point numbers, which are rounded."""
  decimals = [part for node in nodes for part in walk(node) if part[0] == 'decimal']
  return bool(decimals) and all(abs(value) >= _FLOAT * half for _, value, half in decimals)


def _compare_at(nodes: Sequence[Node], point: Point, work: Work, is_rounded: bool) -> Finding:
  """Compares two functions at one point."""
  has_i = any(IMAGINARY in leaves(node) for node in nodes)
  for bits in PRECISIONS[:3]:
    values: list[Value | None] = []
    height = 0
    try:
      for node in nodes:
        evaluation = Evaluation(
          work,
          bits,
          values=point,
          is_complex=has_i,
          is_principal=has_i,
          is_rounded=is_rounded,
        )
        try:
          values.append(evaluation.value(node))
        except UndefinedError:
          values.append(None)
        height = max(height, evaluation.height)
    except UndecidedError as error:
      if str(error) in ('work', 'magnitude'):
        return Finding(None, f'beyond the bounds ({error})')
      continue
    if None in values:
      return Finding(None, 'undefined' if values == [None, None] else 'domain')
    u, v = values
    with precision(bits):
      if is_rounded and not (isinstance(u, fmpq) and isinstance(v, fmpq)):
        return Finding(bool((u - v).contains(0)), 'rounding')
      decision = _compare_values(u, v, height)
    if decision is not None:
      return Finding(decision, 'points')
  return Finding(None, 'beyond the bounds (precision)')


def _points(
  nodes: Sequence[Node], names: Sequence[str], work: Work
) -> Iterator[tuple[Point, bool]]:
  """Points to compare at, and whether a domain that ends there counts against equality."""
  integers = _integer_names(nodes)
  kinks = [kink for node in nodes for kink in find_kinks(node)]
  has_factorial = any(
    part[0] == '!' or part[:2] == ('call', 'binom') for node in nodes for part in walk(node)
  )
  # Of factorials only small points come out.
  num_points = len(_SCALES) if kinks or integers or has_factorial else _NUM_ANALYTIC
  for i in range(num_points):
    yield draw(names, i, integers), True
  for point in _whole_points(nodes, names, integers):
    yield point, False
  if kinks:
    real_names = [name for name in names if name not in integers]
    yield from _kink_points(kinks, real_names, draw(names, 0, integers), work)
    yield from _kink_points(kinks, real_names, draw(names, 1, integers), work)


def _whole_points(
  nodes: Sequence[Node], names: Sequence[str], integers: frozenset[str]
) -> Iterator[Point]:
  """Whole numbers, where roundings jump and divisors matter: 17 | n is seen at 17 only."""
  if not integers:
    for i in (1, 2):
      yield {name: fmpq((3 * j + 4 * i) * (-1) ** (i * j)) for j, name in enumerate(names)}
    return
  constants = {
    int(part[1].p)
    for node in nodes
    for part in walk(node)
    if expressions.is_integer(part) and 2 <= part[1] <= _MAX_DIVISOR
  }
  for n in (*_DIVISIBLE, *sorted(constants)[:_MAX_DIVISORS]):
    for name in integers:
      yield {**draw(names, 0, integers), name: fmpq(n)}


def _kink_points(
  kinks: Sequence[tuple[Node, bool]], names: Sequence[str], base: Point, work: Work
) -> Iterator[tuple[Point, bool]]:
  """Points around the kinks along each name, the other names as in `base`."""
  num_points = 0
  for name in names:
    for x in _around_kinks(kinks, name, base, work):
      num_points += 1
      if num_points > _MAX_KINK_POINTS:
        return
      yield {**base, name: x}, True


@functools.lru_cache(4096)
def _drawn(name: str, index: int, is_integer: bool) -> fmpq:
  """The coordinate of a name in point `index`: always the same one."""
  rng = random.Random(f'{name!a} {index}')
  if is_integer:
    pool = list(range(1, 14))
    random.Random(ascii(name)).shuffle(pool)
    return fmpq(pool[index % len(pool)])
  shift = 0 if index < 2 else rng.randrange(len(_SCALES))
  return _SCALES[(index + shift) % len(_SCALES)] * fmpq(rng.randint(300, 996), 997)


def draw(names: Sequence[str], index: int, integers: frozenset[str]) -> dict[str, Value]:
  """Values of names at point `index`; of some, whole numbers."""
  if len(names) == 1 and names[0] not in integers:  # all sizes for a single name
    return {names[0]: _SCALES[index % len(_SCALES)] * abs(_drawn(names[0], 0, False))}
  return {name: _drawn(name, index, name in integers) for name in names}


def _integer_names(nodes: Sequence[Node]) -> frozenset[str]:
  """Symbols that only whole numbers can stand for: (-1)^n, \\gcd(m, n), \\sum_{k=1}^n."""
  found: set[str] = set()
  for node in nodes:
    for part in walk(node):
      if part[0] == '^' and _is_negative_constant(part[1]):
        found.update(expressions.symbols(part[2]))
      elif part[0] == 'call' and part[1] in _INTEGER_CALLS or part[0] == '!!':
        found.update(expressions.symbols(part))
      elif part[0] in ('sum', 'prod'):
        found.update(expressions.symbols(part[2], part[3]))
  return frozenset(found)


def _is_negative_constant(node: Node) -> bool:
  if not expressions.is_constant(node):
    return False
  try:
    value = Evaluation(Work(2000), PRECISIONS[0]).value(node)
  except (UndefinedError, UndecidedError):
    return False
  return bool(value < 0)


def find_kinks(node: Node) -> list[tuple[Node, bool]]:
  """Inner expressions where something breaks: at their zeros, or (True) at their integers."""
  kinks = []
  for part in walk(node):
    kind = part[0]
    if kind == 'call':
      name, *operands = part[1:]
      if name in _STEPPED:
        kinks.append((operands[0], True))
      elif name in ('abs', 'sgn', 'ln', 'atan2') or name.startswith('arc'):
        kinks += [(operand, False) for operand in operands]
      elif name in ('max', 'min'):
        kinks += [(subtract(operands[0], other), False) for other in operands[1:]]
    elif kind == '^' and not expressions.is_integer(part[2]):
      kinks.append((part[1], False))
  return [kink for kink in kinks if expressions.symbols(kink[0])]


def _around_kinks(
  kinks: Sequence[tuple[Node, bool]], name: str, base: Point, work: Work
) -> list[fmpq]:
  """Coordinates close to each kink on both sides, and between and beyond the kinks."""
  roots: set[fmpq] = set()
  for inner, is_stepped in kinks:
    for target in (fmpq(0), fmpq(1), fmpq(-3)) if is_stepped else (fmpq(0),):
      node = subtract(inner, ('number', target))
      roots.update(map(middle, find_roots(node, name, base, work)))
  return between(sorted(roots))


def middle(x: Value) -> fmpq:
  """A rational number in a real ball."""
  if isinstance(x, fmpq):
    return x
  mantissa, exponent = x.mid().man_exp()
  if abs(int(exponent)) > _MAX_SHIFT:
    raise UndecidedError('magnitude')
  return fmpq(mantissa) * fmpq(2) ** int(exponent)


def between(roots: Sequence[fmpq]) -> list[fmpq]:
  """For each of some sorted numbers a neighbour on each side, and numbers between and beyond."""
  if not roots:
    return []
  points = [roots[0] - 1 - abs(roots[0]) / 3, roots[-1] + 1 + abs(roots[-1]) / 3]
  for left, right in zip(roots, roots[1:], strict=False):
    points.append(left + (right - left) * fmpq(5, 11))
  for root in roots:
    step = (1 + abs(root)) / 2**40
    points += [root - step, root + step]
  return points


def find_roots(node: Node, name: str, base: Point, work: Work) -> list[Value]:
  """Real zeros of a function of `name`: exact, or balls around changes of sign on a wide grid."""
  if name not in expressions.symbols(node):
    return []

  def value(x: fmpq) -> Value | None:
    try:
      return _real_value(node, {**base, name: x}, work)
    except UndefinedError:
      return None
    except UndecidedError as error:
      if str(error) == 'work':
        raise
      return None

  linear = _linear_root(value)
  if linear is not None:
    return [linear]
  roots = []
  grid = [(x, value(x)) for x in _GRID]
  for (x, fx), (y, fy) in zip(grid, grid[1:], strict=False):
    if fx is not None and fy is not None and bool(fx < 0) != bool(fy < 0):
      roots.append(_bisect(value, x, y, bool(fx < 0)))
  return roots


def _real_value(node: Node, point: Point, work: Work) -> Value:
  return Evaluation(work, PRECISIONS[0], values=point).value(node)


def _linear_root(value) -> fmpq | None:
  """The zero of a function that is linear with rational coefficients."""
  points = [fmpq(x) for x in (0, 1, 3, -1_000_003, 100_000_007)]
  at = [value(x) for x in points]
  if not all(isinstance(y, fmpq) for y in at):
    return None
  # f(x) = f(0) + x (f(1) - f(0)), as far points confirm: no kink turns the line on the way.
  slope = at[1] - at[0]
  if not slope or any(y - at[0] != x * slope for x, y in zip(points, at, strict=True)):
    return None
  return -at[0] / slope


def _bisect(value, low: fmpq, high: fmpq, is_negative_below: bool) -> Value:
  """Halves an interval with a change of sign until it is narrow for its place."""
  for _ in range(_MAX_HALVINGS):
    center = (low + high) / 2
    if high - low < abs(center) / 2**64:
      break
    fx = value(center)
    if fx is None:
      break
    if fx == 0:
      return center
    if bool(fx < 0) == is_negative_below:
      low = center
    else:
      high = center
  return arb(arb((low + high) / 2), arb(high - low))
