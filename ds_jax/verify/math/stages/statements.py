"""Statements: false ones, values of names, equations, other relations."""

from __future__ import annotations

from flint import fmpq

from ds_jax.verify.math import expressions
from ds_jax.verify.math.enclosures import Finding
from ds_jax.verify.math.expressions import Node
from ds_jax.verify.math.judge import Judge, each_way, pair_off
from ds_jax.verify.math.linear import difference, ratio_sign
from ds_jax.verify.math.structures import (
  OTHER_RELATIONS,
  Answer,
  Assignments,
  Collection,
  Quantity,
  Relation,
  Sequence,
  is_plain_name,
  name_of,
)

_TURNED = {
  r'\supseteq': r'\subseteq',
  r'\supset': r'\subset',
  r'\gg': r'\ll',
  r'\succ': r'\prec',
  r'\succeq': r'\preceq',
  r'\ni': r'\in',
}


def false_statements(gold: Answer, answer: Answer, judge: Judge) -> Finding | None:
  """`6 = 5` is no answer: the last statement counts only if the ones before it hold."""
  del gold
  if not isinstance(answer, Relation):
    return None
  for left, sign, right in zip(answer.sides, answer.signs, answer.sides[1:], strict=False):
    if not (_is_constant(left) and _is_constant(right)):
      continue
    is_false = sign == '=' and judge.is_same(left, right) is False
    if is_false or sign == r'\approx' and not _is_near(left.node, right, judge):
      return Finding(False, 'a false statement')
  return None


def _is_constant(answer: Answer) -> bool:
  return isinstance(answer, Quantity) and expressions.is_constant(answer.node)


def _is_near(exact: Node, rounded: Quantity, judge: Judge) -> bool:
  """Whether the right side is what the left side rounds to, to its own last digit."""
  text = rounded.tokens[0].text if rounded.tokens else ''
  places = len(text.partition('.')[2]) if text.replace('.', '').isdigit() else 0
  half_unit = expressions.number(fmpq(51, 100) / 10**places)  # and a little more, for truncation
  distance = ('call', 'abs', expressions.subtract(exact, rounded.node))
  larger = ('call', 'max', distance, half_unit)
  return judge.same_expression(larger, half_unit).is_equal is True


def assignments(gold: Answer, answer: Answer, judge: Judge) -> Finding | None:
  """Values of several names: by name, or in the order in which the names are given."""
  pair = each_way(gold, answer, Assignments)
  if pair is None:
    return None
  named, other = pair
  if isinstance(other, Assignments):
    return _by_name(gold, answer, judge)
  if not isinstance(other, (Sequence, Collection)) or len(other.items) != len(named.values):
    return Finding(False, 'assignments')
  values = _ordered_values(named, other, is_gold=named is gold)
  if values is None:
    return Finding(False, 'assignments')
  if isinstance(other, Collection) and len({name.partition('_')[0] for name in named.names}) == 1:
    values = Collection(values)  # x_1 = 1, x_2 = 2 are two values of x
    return judge.compare(*((values, other) if named is gold else (other, values)))
  pairs = list(zip(values, other.items, strict=True))
  return judge.all_equal([p if named is gold else p[::-1] for p in pairs], 'assignments')


def _by_name(gold: Assignments, answer: Assignments, judge: Judge) -> Finding:
  if sorted(gold.names) != sorted(answer.names):
    return Finding(False, 'assignments')
  values = dict(zip(answer.names, answer.values, strict=True))
  pairs = [(value, values[name]) for name, value in zip(gold.names, gold.values, strict=True)]
  return judge.all_equal(pairs, 'assignments')


def _ordered_values(
  named: Assignments, other: Sequence | Collection, *, is_gold: bool
) -> tuple[Answer, ...] | None:
  """The values as a point or a list has them; None: the two cannot be compared.

  A tuple of names has its own order. `y = 2, x = 1` is the point (1, 2), as an answer; as a gold it
  is a point only if the names stand in their order. A list has the order of the text.
  """
  if isinstance(other, Collection):
    return None if other.is_set else named.values
  if other.brackets not in ('()', '<>'):
    return None
  is_sorted = named.names == tuple(sorted(named.names))
  if named.is_tuple or (is_gold and not is_sorted):
    return named.values
  order = sorted(range(len(named.values)), key=lambda i: named.names[i])
  return tuple(named.values[i] for i in order)


def other_relations(gold: Answer, answer: Answer, judge: Judge) -> Finding | None:
  """Divisibility, inclusion, convergence and the like: side by side."""
  gold, answer = _turned(gold), _turned(answer)
  signs = [side.signs if isinstance(side, Relation) else () for side in (gold, answer)]
  if not OTHER_RELATIONS & {*signs[0], *signs[1]}:
    return None
  if signs[0] != signs[1]:
    return Finding(False, 'other relations')
  return judge.all_equal(list(zip(gold.sides, answer.sides, strict=True)), 'other relations')


def _turned(side: Answer) -> Answer:
  """`B \\supseteq A` as `A \\subseteq B`."""
  if not isinstance(side, Relation) or len(side.signs) != 1 or side.signs[0] not in _TURNED:
    return side
  return Relation(side.sides[::-1], (_TURNED[side.signs[0]],))


def equations(gold: Answer, answer: Answer, judge: Judge) -> Finding | None:
  """Equations with equations; `name = value` with the value."""
  if _is_equation(gold) and _is_equation(answer):
    return _two_equations(gold, answer, judge)
  if not _is_equation(gold) and not _is_equation(answer):
    return None
  if isinstance(gold, Relation) and isinstance(answer, Relation):
    return Finding(None, 'an equation and another relation')
  if _is_equation(answer):
    return _value_of_equation(gold, answer, judge)
  value = _stated_value(gold, is_gold=True)
  if value is None or _is_zero(value, judge) and not is_plain_name(gold.sides[0]):
    return Finding(None, 'an equation is more than its right side')
  return judge.compare(value, answer)


def _is_equation(side: Answer) -> bool:
  return isinstance(side, Relation) and not set(side.signs) - {'=', r'\approx'}


def _stated_value(equation: Relation, *, is_gold: bool) -> Answer | None:
  """What an equation says of a name, or the result of a calculation."""
  first, last = equation.sides[0], equation.sides[-1]
  if r'\approx' in equation.signs and not is_gold:
    exact = equation.sides[equation.signs.index(r'\approx')]
    last = last if name_of(exact) is not None else exact
  is_calculation = _is_constant(first) and _is_constant(last)
  if name_of(first) is not None or is_calculation:
    return last
  is_reversed = len(equation.sides) == 2 and name_of(last) is not None
  return first if is_reversed else None


def _value_of_equation(gold: Answer, answer: Relation, judge: Judge) -> Finding:
  """For a gold that is a value: `m + n = 371` says 371, but `x^2 - 1 = 0` does not say 0."""
  value = _stated_value(answer, is_gold=False)
  is_zero = _is_zero(answer.sides[-1], judge)
  if is_zero and not is_plain_name(answer.sides[0]) and not _is_constant(answer.sides[0]):
    return Finding(None, 'an equation is more than its right side')
  if value is None:
    if isinstance(gold, Quantity) and not _is_constant(gold):
      return Finding(None, 'an equation is more than its right side')
    is_reversed = _is_constant(answer.sides[0]) and not _is_constant(answer.sides[-1])
    value = answer.sides[0] if is_reversed else answer.sides[-1]
  finding = judge.compare(gold, value)
  if not finding.is_equal and r'\approx' in answer.signs and _is_rounded(gold):
    return judge.compare(gold, answer.sides[-1])
  return finding


def _is_zero(answer: Answer, judge: Judge) -> bool:
  return _is_constant(answer) and judge.is_zero(answer.node)


def _is_rounded(gold: Answer) -> bool:
  """Whether a gold is itself a decimal of three digits or more."""
  text = gold.tokens[0].text if isinstance(gold, Quantity) and gold.tokens else ''
  return '.' in text and len(text) > 3


def _two_equations(gold: Relation, answer: Relation, judge: Judge) -> Finding:
  """Values of one name; else multiples of one another, or one solved for a name."""
  names = [name_of(side.sides[0]) for side in (gold, answer)]
  values = [side.sides[-1] for side in (gold, answer)]
  is_same_name = names[0] == names[1] or _are_y_and_function(gold.sides[0], answer.sides[0])
  has_value = any(name_of(value) is None for value in values)
  if None not in names and is_same_name and has_value:
    return judge.compare(*values)
  if max(len(gold.sides), len(answer.sides)) > 2:
    return Finding(pair_off(gold.sides, answer.sides, judge.is_same), 'equal sides')
  differences = [difference(side) for side in (gold, answer)]
  if None in differences:
    return judge.all_equal(list(zip(gold.sides, answer.sides, strict=True)), 'sides')
  if ratio_sign(*differences, judge):
    return Finding(True, 'proportional equations')
  for explicit, implicit in ((gold, differences[1]), (answer, differences[0])):
    if _solves(explicit, implicit, judge):
      return Finding(True, 'the solved equation')
  return Finding(None, 'equations')


def _are_y_and_function(first: Answer, second: Answer) -> bool:
  """Whether one is y and the other f(x)."""
  nodes = [side.node if isinstance(side, Quantity) else (None,) for side in (first, second)]
  functions = [node for node in nodes if node[0] == 'apply' and node[2][0] == 'symbol']
  return len(functions) == 1 and ('symbol', 'y') in nodes


def _solves(explicit: Relation, implicit: Node, judge: Judge) -> bool:
  """Whether `y = f(x)` is the one solution of an equation F(x, y) = 0 that is linear in y."""
  name, value = name_of(explicit.sides[0]), explicit.sides[1]
  if not isinstance(value, Quantity) or expressions.is_constant(value.node):
    return False
  if name in expressions.symbols(value.node) or name not in expressions.symbols(implicit):
    return False

  def at(shift: int) -> Node:
    y = ('+', value.node, expressions.number(shift))
    return expressions.replace(implicit, {('symbol', name): y}.get)

  # Linear: 3 F(f + 1) + F(f + 5) = 4 F(f + 2), for all x.
  weighted = ('+', ('*', expressions.number(3), at(1)), at(5))
  is_linear = judge.same_expression(weighted, ('*', expressions.number(4), at(2))).is_equal
  return judge.is_zero(at(0)) and is_linear is True
