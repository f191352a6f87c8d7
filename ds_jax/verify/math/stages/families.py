"""Answers with parameters: residue classes, families over the integers, functions by cases."""

from __future__ import annotations

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
  is_same_name = gold.name == answer.name or not (gold.name and answer.name)
  is_same_modulus = judge.same_expression(gold.modulus, answer.modulus).is_equal

  def is_same_class(a: Node, b: Node) -> bool:
    multiple = ('/', subtract(a, b), gold.modulus)
    return judge.same_expression(a, b).is_equal is True or judge.is_whole(multiple)

  is_equal = (
    is_same_name
    and is_same_modulus is True
    and pair_off(gold.residues, answer.residues, is_same_class)
  )
  return Finding(is_equal, 'residue classes')


def families(gold: Answer, answer: Answer, judge: Judge) -> Finding | None:
  """Answers with integer parameters, whatever their names and where they start."""
  if not isinstance(gold, Family) and not isinstance(answer, Family):
    return None
  gold, answer = _as_family(gold), _as_family(answer)
  sides = [_parametric(side, other) for side, other in ((gold, answer), (answer, gold))]
  if None in sides or len(sides[0][1]) != len(sides[1][1]):
    return Finding(False, 'integer parameters')
  (first, names), (second, other_names) = sides
  new_names = {
    ('symbol', old): ('symbol', new) for old, new in zip(other_names, names, strict=True)
  }
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
  progressions = [_progression(side, name, judge) for side in (first, second)]
  if None in progressions:
    return None
  (start, step), (other_start, other_step) = progressions
  is_same_step = any(
    judge.same_expression(step, signed).is_equal for signed in (other_step, ('-', other_step))
  )
  offset = ('/', subtract(start, other_start), step)
  return Finding(is_same_step and judge.is_whole(offset), 'integer parameters')


def _progression(answer: Answer, name: str, judge: Judge) -> tuple[Node, Node] | None:
  """a and d of an answer a + d k."""
  if isinstance(answer, Relation) and name_of(answer.sides[0]) is not None:
    answer = answer.sides[-1]
  if not isinstance(answer, Quantity) or expressions.symbols(answer.node) != [name]:
    return None
  start, next_term, sixth = (
    expressions.replace(answer.node, {('symbol', name): expressions.number(k)}.get)
    for k in (0, 1, 5)
  )
  step = subtract(next_term, start)
  linear = ('+', start, ('*', expressions.number(5), step))
  return (start, step) if judge.same_expression(linear, sixth).is_equal else None


def cases(gold: Answer, answer: Answer, judge: Judge) -> Finding | None:
  """Each case of one side is one of the other, or both are the same function of one number."""
  pair = each_way(gold, answer, Cases)
  if pair is None or isinstance(pair[1], Relation):
    return None
  if not isinstance(pair[1], (Cases, Quantity)):
    return Finding(False, 'cases')
  if isinstance(gold, Cases) and isinstance(answer, Cases):
    if pair_off(gold.rows, answer.rows, lambda row, other: _same_case(row, other, judge)):
      return Finding(True, 'cases')
  return piecewise.same_function(gold, answer, judge)


def _same_case(row: tuple, other: tuple, judge: Judge) -> bool | None:
  """Whether two rows have the same condition and the same value."""
  (value, condition), (other_value, other_condition) = row, other
  if (condition is None) != (other_condition is None):
    return False
  if condition is not None and not judge.is_same(condition, other_condition):
    return False
  return judge.is_same(value, other_value)
