r"""Whether two expressions are equal: shown by exact numbers, enclosures, or points far apart.

Constants. Two rationals are compared exactly. Other constants are enclosed in balls at growing
precision, until the balls tell (`enclosures`).

Functions are compared at points (`function_equality`).

A decimal of at least six significant digits is also equal to what rounds to it, if that is neither
an integer nor written with such a decimal itself: 3.14159 is pi, and 3.14158 is not.
"""

from __future__ import annotations

from collections.abc import Sequence

from flint import arb, fmpq

from ds_jax.verify.math import expressions
from ds_jax.verify.math.balls import (
  UndecidedError,
  UndefinedError,
  Work,
  ball,
  is_whole,
  precision,
)
from ds_jax.verify.math.enclosures import (
  PRECISIONS,
  Finding,
  compare_values,
  has_long_decimal,
)
from ds_jax.verify.math.expressions import IMAGINARY, INFINITY, Node, leaves, walk
from ds_jax.verify.math.function_equality import same_function
from ds_jax.verify.math.values import Evaluation, check_size

_MAX_LIMIT_HEIGHT = 100  # bits of numbers beside a limit, whose step is 2^-80
_MAX_LIMIT_DIFFERENCE = arb(2) ** -60
_MAX_SHORT = 12  # nodes
_SHORT_WORK = 1000  # steps, for a tree of that size
_MAX_FOLDED = 4000  # bits
_RATIONAL_KINDS = frozenset(('number', 'decimal', '+', '-', '*', '/'))
_FOLDED_KINDS = frozenset(('+', '-', '*', '/', '^', '!'))


def same_expression(gold: Node, answer: Node, work: Work) -> Finding:
  """Whether two expressions agree, as numbers or as functions of their symbols."""
  try:
    check_size(gold)
    check_size(answer)
    # Infinities first: they have no value.
    if INFINITY in leaves(gold) | leaves(answer):
      return _same_infinity(gold, answer)
    if expressions.is_constant(gold) and expressions.is_constant(answer):
      return _same_constant(gold, answer, work)
    return same_function(gold, answer, work)
  except UndecidedError as error:
    return Finding(None, f'beyond the bounds ({error})')


def rational_value(node: Node) -> fmpq | None:
  """The value of a short tree of numbers; None of another one."""
  parts = walk(node)
  if len(parts) > _MAX_SHORT:
    return None
  if any(part[0] not in _RATIONAL_KINDS for part in parts):
    return None
  try:
    value = Evaluation(Work(_SHORT_WORK), PRECISIONS[0]).value(node)
  except (UndefinedError, UndecidedError):
    return None
  return value if isinstance(value, fmpq) else None


def _same_infinity(gold: Node, answer: Node) -> Finding:
  sign = _sign_of_infinity(gold)
  is_equal = sign != 0 and sign == _sign_of_infinity(answer)
  return Finding(is_equal, 'infinity')


def _sign_of_infinity(node: Node) -> int:
  """1 or -1 of a plain infinity, 0 of anything else: nothing is computed with infinities."""
  if node[0] == '-':
    return -_sign_of_infinity(node[1])
  return int(node == INFINITY)


# Constants.


def _same_constant(gold: Node, answer: Node, work: Work) -> Finding:
  finding = _compare_exactly(gold, answer, work)
  # Numbers that are too large to compute may still be written in the same way.
  if finding.is_equal is None and finding.stage != 'undefined':
    if _folded(gold, work) == _folded(answer, work):
      return Finding(True, 'same tree')
  # A decimal is compared with what it rounds, but not with another decimal.
  if finding.is_equal or has_long_decimal(gold) == has_long_decimal(answer):
    return finding
  return _compare_rounded(gold, answer, work) or finding


def _compare_exactly(gold: Node, answer: Node, work: Work) -> Finding:
  """Encloses both at growing precision until the balls tell them apart, or are narrow enough."""
  stage = 'enclosures'
  has_limit = any(part[0] == 'lim' for part in (*walk(gold), *walk(answer)))
  for bits in PRECISIONS:
    # One for each side, as each has its own height.
    evaluations = [_evaluation((gold, answer), work, bits) for _ in range(2)]
    try:
      u = evaluations[0].value(gold)
      v = evaluations[1].value(answer)
    except UndefinedError:
      return Finding(None, 'undefined')
    except UndecidedError as error:
      stage = f'beyond the bounds ({error})'
      continue
    if isinstance(u, fmpq) and isinstance(v, fmpq):
      return Finding(u == v, 'exact numbers')
    height = max(evaluation.height for evaluation in evaluations)
    with precision(bits):
      is_equal = compare_values(u, v, height)
      difference = arb(abs(ball(u) - ball(v)).abs_upper())
    if is_equal is not None:
      return Finding(is_equal, 'enclosures')
    # The ball of a limit never gets narrower than the distance at which it is taken.
    if has_limit and bits > PRECISIONS[0]:
      is_near = height < _MAX_LIMIT_HEIGHT and bool(difference < _MAX_LIMIT_DIFFERENCE)
      return Finding(is_near or None, 'limits')
  return Finding(None, stage)


def _evaluation(
  nodes: Sequence[Node], work: Work, bits: int, *, is_rounded: bool = False
) -> Evaluation:
  """An evaluation of constants, for which complex values are allowed."""
  is_principal = any(IMAGINARY in leaves(node) for node in nodes)
  return Evaluation(work, bits, is_complex=True, is_principal=is_principal, is_rounded=is_rounded)


def _folded(node: Node, work: Work) -> Node:
  """A tree with what is rational and short computed: 10^(10^10) is 10^10000000000."""
  operands = []
  for operand in node[1:]:
    operands.append(_folded(operand, work) if expressions.is_node(operand) else operand)
  folded = (node[0], *operands)
  if node[0] not in _FOLDED_KINDS or any(operand[0] != 'number' for operand in operands):
    return folded
  try:
    value = Evaluation(work, PRECISIONS[0]).value(folded)
  except (UndefinedError, UndecidedError):
    return folded
  if isinstance(value, fmpq) and value.height_bits() < _MAX_FOLDED:
    return ('number', value)
  return folded


def _compare_rounded(gold: Node, answer: Node, work: Work) -> Finding | None:
  """Whether the one side with long decimals may be rounded from the other side."""
  exact = answer if has_long_decimal(gold) else gold
  bits = PRECISIONS[0]
  try:
    # What is a whole number is not rounded: 7.999999 is not 8.
    if is_whole(_evaluation((exact,), work, bits).value(exact)):
      return None
    # A rounded decimal is the ball of all numbers that round to it.
    u, v = (
      _evaluation((gold, answer), work, bits, is_rounded=True).value(node)
      for node in (gold, answer)
    )
  except (UndefinedError, UndecidedError):
    return None
  with precision(bits):
    difference = u - v
  if isinstance(difference, fmpq) or not difference.contains(0):
    return None
  return Finding(True, 'rounding')
