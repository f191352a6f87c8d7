r"""The value of an expression at a point: an exact rational, or a ball that is sure to hold it.

What is rational stays exact (fmpq). Everything else is a ball (`balls`). Letters are real, and so
is every step unless `i` is written; odd roots of negative numbers are the real ones.

Every step counts towards a `Work`, and numbers beyond the bounds are not computed: hostile answers
end here, as UndecidedError.

The rules stand by what they compute: `arithmetic`, `functions`, `series`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from ds_jax.verify.math import arithmetic, functions, series
from ds_jax.verify.math.balls import UndecidedError
from ds_jax.verify.math.evaluation import Context, Rule
from ds_jax.verify.math.expressions import Node, walk

_MAX_NODES = 400


class Evaluation(Context):
  """An evaluation with a rule for each kind of node that has a value."""

  rules: ClassVar[Mapping[str, Rule]] = {
    'decimal': arithmetic.decimal,
    'constant': arithmetic.constant,
    'symbol': arithmetic.symbol,
    '+': arithmetic.add,
    '-': arithmetic.negate,
    '*': arithmetic.multiply,
    '/': arithmetic.divide,
    '^': arithmetic.power,
    '!': arithmetic.factorial,
    '!!': arithmetic.double_factorial,
    'degree': arithmetic.degrees,
    'call': functions.call,
    'apply': functions.unknown,
    'sum': series.total,
    'prod': series.product,
    'lim': series.limit,
    'int': series.integral,
  }


def check_size(node: Node) -> None:
  """Raises UndecidedError if a tree is too large to evaluate."""
  if len(walk(node)) > _MAX_NODES:
    raise UndecidedError('size')
