"""Answers with parameters: residue classes, families over the integers, functions by cases."""

from __future__ import annotations

import functools

from ds_jax.verify.math import expressions, piecewise, units
from ds_jax.verify.math.enclosures import Finding
from ds_jax.verify.math.expressions import Node, subtract
from ds_jax.verify.math.judge import Judge, each_way, pair_off
from ds_jax.verify.math.structures import (
  Answer,
  Cases,
  Congruence,
  Family,
  Quantity,
  Relation,
  name_of,
  renamed,
  symbols_of,
)


def congruences(gold: Answer, answer: Answer, judge: Judge) -> Finding | None:
  """The same residues to the same modulus."""
  if not isinstance(gold, Congruence) and not isinstance(answer, Congruence):
    return None
  if not isinstance(gold, Congruence) or not isinstance(answer, Congruence):
    return Finding(False, 'residue classes')
  if gold.name and answer.name and gold.name != answer.name:
    return Finding(False, 'residue classes')
  if not judge.same_expression(gold.modulus, answer.modulus).is_equal:
    return Finding(False, 'residue classes')

  def is_same_class(a: Node, b: Node) -> bool:
    """Whether the difference is a multiple of the modulus."""
    if judge.same_expression(a, b).is_equal:
      return True
    return judge.is_whole(('/', subtract(a, b), gold.modulus))

  return Finding(pair_off(gold.residues, answer.residues, is_same_class), 'residue classes')


def families(gold: Answer, answer: Answer, judge: Judge) -> Finding | None:
  """Answers with integer parameters, whatever their names and where they start."""
  if not isinstance(gold, Family) and not isinstance(answer, Family):
    return None
  gold = _as_family(gold)
  answer = _as_family(answer)
  gold_side = _parametric(gold, answer)
  answer_side = _parametric(answer, gold)
  if gold_side is None or answer_side is None:
    return Finding(False, 'integer parameters')
  first, names = gold_side
  second, other_names = answer_side
  if len(names) != len(other_names):
    return Finding(False, 'integer parameters')
  # With the same names for the parameters of both.
  new_names = {}
  for old, new in zip(other_names, names, strict=True):
    new_names['symbol', old] = ('symbol', new)
  second = renamed(second, new_names)
  finding = judge.compare(first, second)
  if finding.is_equal or len(names) != 1:
    return finding
  return _same_progression(first, second, names[0], judge) or finding


def _as_family(answer: Answer) -> Answer:
  """A residue class as r + m k."""
  if not isinstance(answer, Congruence) or len(answer.residues) != 1:
    return answer
  multiple = ('*', answer.modulus, ('symbol', 'k'))
  return Family(Quantity(('+', answer.residues[0], multiple), units.NONE), ('k',))


def _parametric(side: Answer, other: Answer) -> tuple[Answer, tuple[str, ...]] | None:
  """An answer and its parameters; without a clause, those that the other side declares."""
  if isinstance(side, Family):
    return side.answer, _used_parameters(side, side.answer)
  names = _used_parameters(other, side)
  is_complete = len(names) == len(_used_parameters(other, other.answer))
  return (side, names) if is_complete else None


def _used_parameters(family: Family, answer: Answer) -> tuple[str, ...]:
  return tuple(name for name in family.parameters if name in symbols_of(answer))


def _same_progression(first: Answer, second: Answer, name: str, judge: Judge) -> Finding | None:
  """Whether a + d k and b + e k are the same numbers: d = e or -e, and (a - b) / d is whole."""
  progression = _progression(first, name, judge)
  other_progression = _progression(second, name, judge)
  if progression is None or other_progression is None:
    return None
  start, step = progression
  other_start, other_step = other_progression
  is_same_step = (
    judge.same_expression(step, other_step).is_equal
    or judge.same_expression(step, ('-', other_step)).is_equal
  )
  if not is_same_step:
    return Finding(False, 'integer parameters')
  offset = ('/', subtract(start, other_start), step)
  return Finding(judge.is_whole(offset), 'integer parameters')


def _progression(answer: Answer, name: str, judge: Judge) -> tuple[Node, Node] | None:
  """a and d of an answer a + d k."""
  if isinstance(answer, Relation) and name_of(answer.sides[0]) is not None:
    answer = answer.sides[-1]
  if not isinstance(answer, Quantity) or expressions.symbols(answer.node) != [name]:
    return None

  def term(k: int) -> Node:
    return expressions.replace(answer.node, {('symbol', name): expressions.number(k)}.get)

  # a = f(0) and d = f(1) - f(0), if f(5) = a + 5 d as well.
  start = term(0)
  step = subtract(term(1), start)
  sixth = ('+', start, ('*', expressions.number(5), step))
  if not judge.same_expression(sixth, term(5)).is_equal:
    return None
  return start, step


def cases(gold: Answer, answer: Answer, judge: Judge) -> Finding | None:
  """Each case of one side is one of the other, or both are the same function of one number."""
  pair = each_way(gold, answer, Cases)
  if pair is None or isinstance(pair[1], Relation):
    return None
  if not isinstance(pair[1], (Cases, Quantity)):
    return Finding(False, 'cases')
  if isinstance(gold, Cases) and isinstance(answer, Cases):
    is_same = functools.partial(_same_case, judge=judge)
    if pair_off(gold.rows, answer.rows, is_same):
      return Finding(True, 'cases')
  return piecewise.same_function(gold, answer, judge)


def _same_case(row: tuple, other: tuple, judge: Judge) -> bool | None:
  """Whether two rows have the same condition and the same value."""
  value, condition = row
  other_value, other_condition = other
  if (condition is None) != (other_condition is None):
    return False
  if condition is not None and not judge.is_same(condition, other_condition):
    return False
  return judge.is_same(value, other_value)
