r"""Points at which functions are compared.

Two analytic functions that agree at points drawn at random agree everywhere, but for unlucky draws
(for polynomials: Schwartz 1980, Zippel 1979). The points are rational, have both signs and sizes
from a tenth to millions, and are integers where an operation needs them. Where a function has
kinks or jumps, points on both sides of each are added, and points between them.

What is random in them comes from a digest of the functions: the same pair has the same points,
either way round, and another pair has others. Nobody can write an answer that agrees with a gold at
these points only, since a change of the answer moves the points. Their denominators are large
primes, so that nothing with a period (sin(997 pi x)) and no product of short length has them all as
zeros.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from flint import fmpq, fmpz

from ds_jax.verify.math import expressions
from ds_jax.verify.math.balls import UndecidedError, UndefinedError, Value, Work
from ds_jax.verify.math.enclosures import PRECISIONS
from ds_jax.verify.math.expressions import Node, walk
from ds_jax.verify.math.kinks import Kink, Point, around_kinks, find_kinks
from ds_jax.verify.math.values import Evaluation

_SCALES = (1, -1, fmpq(1, 10), 10, -10, fmpq(6, 10), -fmpq(4, 10), 100, -100, 3000, -(10**5), 10**7)
_NUM_ANALYTIC = 7
_MAX_KINK_POINTS = 30
_MAX_SMALL = 13  # of whole numbers that every operation takes
_LARGE = range(211, 1000)  # whole numbers within the terms of a sum, but dear there
_FAR = range(10**5, 10**6)  # whole numbers out of reach of short products
_NUM_FAR = 2
_PRIMES = range(1 << 20, 1 << 21)  # where denominators are taken from
_DIVISIBLE = (17, 30, 60, 97, 210)  # by many small numbers, or by a prime
_MAX_DIVISOR = 10**6
_MAX_DIVISORS = 6
_INTEGER_CALLS = frozenset(('gcd', 'lcm', 'mod'))
_SIGN_WORK = 2000  # steps


class Sample(NamedTuple):
  """A point, and whether a domain that ends there counts against equality."""

  point: Point
  is_generic: bool


class Chance:
  """Numbers that look random, and that some structures determine in whatever order they come."""

  def __init__(self, structures: Iterable[object]):
    texts = sorted(map(ascii, structures))
    self._key = hashlib.blake2b('\n'.join(texts).encode(), digest_size=32).digest()

  def pick(self, label: str, candidates: range) -> int:
    """One of the candidates: the same one for the same label."""
    digest = hashlib.blake2b(label.encode(), key=self._key, digest_size=16).digest()
    return candidates[int.from_bytes(digest, 'big') % len(candidates)]

  def factor(self, label: str) -> fmpq:
    """A fraction between 3/10 and 1 whose denominator is a large prime."""
    # The first prime from an odd number on; its numerator is the share of it, rounded down.
    denominator = fmpz(self.pick(f'{label} below', _PRIMES) | 1)
    while not denominator.is_prime():
      denominator += 2
    share = self.pick(f'{label} above', range(300_000, 996_000))
    return fmpq(denominator * share // 1_000_000, denominator)


class PointSource:
  """Draws points for the comparison of some functions.

  Attributes:
    names: the symbols of the functions, sorted.
    integers: those that only whole numbers can stand for.
  """

  def __init__(self, nodes: Sequence[Node]):
    self._nodes = nodes
    self._chance = Chance(nodes)
    self.names = expressions.symbols(*nodes)
    self.integers = _integer_names(nodes)

  def samples(self, work: Work) -> Iterator[Sample]:
    """All points of a comparison, in the order in which they are asked."""
    kinks: list[Kink] = []
    for node in self._nodes:
      kinks += find_kinks(node)
    # First those that no product reaches, while there is work left.
    for point in self._far_points():
      yield Sample(point, is_generic=False)
    # Points drawn at random. Of factorials only the small ones come out.
    is_analytic = not kinks and not self.integers and not _has_factorial(self._nodes)
    for index in range(_NUM_ANALYTIC if is_analytic else len(_SCALES)):
      yield Sample(self.draw(index), is_generic=True)
    for point in self._whole_points():
      yield Sample(point, is_generic=False)
    if kinks:
      for index in (0, 1):
        for point in self._points_around(kinks, self.draw(index), work):
          yield Sample(point, is_generic=True)

  def draw(self, index: int) -> dict[str, Value]:
    """A random point: the one of that index, which is always the same."""
    if len(self.names) == 1 and not self.integers:
      # All sizes for a single name.
      name = self.names[0]
      return {name: self._fraction(name, index, _SCALES[index])}
    return {name: self._coordinate(name, index) for name in self.names}

  def _coordinate(self, name: str, index: int) -> fmpq:
    """The value of one of several names: of about size 1 at first, then of any size."""
    if name in self.integers:
      # Each small number once, from some number on.
      start = self._chance.pick(f'{name!a} start', range(_MAX_SMALL))
      step = self._chance.pick(f'{name!a} step', range(1, _MAX_SMALL))
      return fmpq((start + step * index) % _MAX_SMALL + 1)
    position = index
    if index >= 2:
      position = self._chance.pick(f'{name!a} {index} scale', range(len(_SCALES)))
    return self._fraction(name, index, _SCALES[position])

  def _fraction(self, name: str, index: int, scale: int | fmpq) -> fmpq:
    return scale * self._chance.factor(f'{name!a} {index}')

  def _whole_points(self) -> Iterator[Point]:
    """Whole numbers, where roundings jump and divisors matter: 17 | n is seen at 17 only."""
    if not self.integers:
      # 4, -7, 10, … and 8, 11, 14, …: different numbers for different names.
      yield {name: fmpq((3 * j + 4) * (-1) ** j) for j, name in enumerate(self.names)}
      yield {name: fmpq(3 * j + 8) for j, name in enumerate(self.names)}
      return
    for n in (*_DIVISIBLE, *_written_integers(self._nodes)):
      for name in sorted(self.integers):
        yield {**self.draw(0), name: fmpq(n)}
    for name in sorted(self.integers):
      large = self._chance.pick(f'{name!a} large', _LARGE)
      yield {**self.draw(0), name: fmpq(large)}

  def _far_points(self) -> Iterator[Point]:
    """Whole numbers so large that no short product has them as zeros; sums end before them."""
    for i in range(_NUM_FAR):
      for name in sorted(self.integers):
        far = self._chance.pick(f'{name!a} far {i}', _FAR)
        yield {**self.draw(0), name: fmpq(far)}

  def _points_around(self, kinks: Sequence[Kink], base: Point, work: Work) -> Iterator[Point]:
    """Points around the kinks along each name, the other names as in `base`."""
    num_points = 0
    for name in self.names:
      if name in self.integers:
        continue
      for x in around_kinks(kinks, name, base, work):
        num_points += 1
        if num_points > _MAX_KINK_POINTS:
          return
        yield {**base, name: x}


def _has_factorial(nodes: Sequence[Node]) -> bool:
  for node in nodes:
    for part in walk(node):
      if part[0] == '!' or part[:2] == ('call', 'binom'):
        return True
  return False


def _written_integers(nodes: Sequence[Node]) -> list[int]:
  """The smallest integers that stand in the functions and may be divisors."""
  integers: set[int] = set()
  for node in nodes:
    for part in walk(node):
      if expressions.is_integer(part) and 2 <= part[1] <= _MAX_DIVISOR:
        integers.add(int(part[1].p))
  return sorted(integers)[:_MAX_DIVISORS]


def _integer_names(nodes: Sequence[Node]) -> frozenset[str]:
  """Symbols that only whole numbers can stand for: (-1)^n, \\gcd(m, n), \\sum_{k=1}^n."""
  names: set[str] = set()
  for node in nodes:
    for part in walk(node):
      if part[0] == '^' and _is_negative_constant(part[1]):
        names.update(expressions.symbols(part[2]))
      elif part[0] == 'call' and part[1] in _INTEGER_CALLS or part[0] == '!!':
        names.update(expressions.symbols(part))
      elif part[0] in ('sum', 'prod'):
        names.update(expressions.symbols(part[2], part[3]))
  return frozenset(names)


def _is_negative_constant(node: Node) -> bool:
  if not expressions.is_constant(node):
    return False
  try:
    value = Evaluation(Work(_SIGN_WORK), PRECISIONS[0]).value(node)
  except (UndefinedError, UndecidedError):
    return False
  return bool(value < 0)
