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

_MORE_THAN_ITS_SIDE = Finding(None, 'an equation is more than its right side')
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
    if not _is_constant(left) or not _is_constant(right):
      continue
    if sign == '=' and judge.is_same(left, right) is False:
      return Finding(False, 'a false statement')
    if sign == r'\approx' and not _is_near(left.node, right, judge):
      return Finding(False, 'a false statement')
  return None


def _is_constant(answer: Answer) -> bool:
  return isinstance(answer, Quantity) and expressions.is_constant(answer.node)


def _is_near(exact: Node, rounded: Quantity, judge: Judge) -> bool:
  """Whether the right side is what the left side rounds to, to its own last digit."""
  places = 0
  text = rounded.tokens[0].text if rounded.tokens else ''
  if text.replace('.', '').isdigit():
    _, _, decimals = text.partition('.')
    places = len(decimals)
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
  if isinstance(other, Collection) and _have_one_letter(named.names):
    several = Collection(values)  # x_1 = 1, x_2 = 2 are two values of x
    if named is gold:
      return judge.compare(several, other)
    return judge.compare(other, several)
  if named is gold:
    pairs = zip(values, other.items, strict=True)
  else:
    pairs = zip(other.items, values, strict=True)
  return judge.all_equal(pairs, 'assignments')


def _have_one_letter(names: tuple[str, ...]) -> bool:
  """Whether names differ in their subscripts only."""
  letters = {name.partition('_')[0] for name in names}
  return len(letters) == 1


def _by_name(gold: Assignments, answer: Assignments, judge: Judge) -> Finding:
  if sorted(gold.names) != sorted(answer.names):
    return Finding(False, 'assignments')
  values = dict(zip(answer.names, answer.values, strict=True))
  pairs = []
  for name, value in zip(gold.names, gold.values, strict=True):
    pairs.append((value, values[name]))
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
  by_name = sorted(zip(named.names, named.values, strict=True), key=lambda pair: pair[0])
  return tuple(value for _, value in by_name)


def other_relations(gold: Answer, answer: Answer, judge: Judge) -> Finding | None:
  """Divisibility, inclusion, convergence and the like: side by side."""
  gold = _turned(gold)
  answer = _turned(answer)
  signs = _signs_of(gold)
  other_signs = _signs_of(answer)
  if OTHER_RELATIONS.isdisjoint(signs + other_signs):
    return None
  if signs != other_signs:
    return Finding(False, 'other relations')
  return judge.all_equal(zip(gold.sides, answer.sides, strict=True), 'other relations')


def _signs_of(side: Answer) -> tuple[str, ...]:
  return side.signs if isinstance(side, Relation) else ()


def _turned(side: Answer) -> Answer:
  """`B \\supseteq A` as `A \\subseteq B`."""
  if not isinstance(side, Relation) or len(side.signs) != 1 or side.signs[0] not in _TURNED:
    return side
  return Relation(side.sides[::-1], (_TURNED[side.signs[0]],))


def equations(gold: Answer, answer: Answer, judge: Judge) -> Finding | None:
  """Equations with equations; `name = value` with the value."""
  if not _is_equation(gold) and not _is_equation(answer):
    return None
  if _is_equation(gold) and _is_equation(answer):
    return _two_equations(gold, answer, judge)
  if isinstance(gold, Relation) and isinstance(answer, Relation):
    return Finding(None, 'an equation and another relation')
  if _is_equation(gold):
    return _value_for_equation(gold, answer, judge)
  return _equation_for_value(gold, answer, judge)


def _is_equation(side: Answer) -> bool:
  return isinstance(side, Relation) and not set(side.signs) - {'=', r'\approx'}


def _stated_value(equation: Relation, *, is_gold: bool) -> Answer | None:
  """What an equation says of a name, or the result of a calculation."""
  first, last = equation.sides[0], equation.sides[-1]
  if r'\approx' in equation.signs and not is_gold:
    exact = equation.sides[equation.signs.index(r'\approx')]
    if name_of(exact) is None:
      last = exact
  is_calculation = _is_constant(first) and _is_constant(last)
  if name_of(first) is not None or is_calculation:
    return last
  is_reversed = len(equation.sides) == 2 and name_of(last) is not None
  return first if is_reversed else None


def _value_for_equation(gold: Relation, answer: Answer, judge: Judge) -> Finding:
  """For an answer that is a value: it must be what the gold says of a name."""
  value = _stated_value(gold, is_gold=True)
  if value is None:
    return _MORE_THAN_ITS_SIDE
  if _is_zero(value, judge) and not is_plain_name(gold.sides[0]):
    return _MORE_THAN_ITS_SIDE
  return judge.compare(value, answer)


def _equation_for_value(gold: Answer, answer: Relation, judge: Judge) -> Finding:
  """For a gold that is a value: `m + n = 371` says 371, but `x^2 - 1 = 0` does not say 0."""
  first, last = answer.sides[0], answer.sides[-1]
  value = _stated_value(answer, is_gold=False)
  is_result = is_plain_name(first) or _is_constant(first)
  if _is_zero(last, judge) and not is_result:
    return _MORE_THAN_ITS_SIDE
  if value is None:
    if isinstance(gold, Quantity) and not _is_constant(gold):
      return _MORE_THAN_ITS_SIDE
    is_reversed = _is_constant(first) and not _is_constant(last)
    value = first if is_reversed else last
  finding = judge.compare(gold, value)
  if not finding.is_equal and r'\approx' in answer.signs and _is_rounded(gold):
    return judge.compare(gold, last)
  return finding


def _is_zero(answer: Answer, judge: Judge) -> bool:
  return _is_constant(answer) and judge.is_zero(answer.node)


def _is_rounded(gold: Answer) -> bool:
  """Whether a gold is itself a decimal of three digits or more."""
  if not isinstance(gold, Quantity) or not gold.tokens:
    return False
  text = gold.tokens[0].text
  return '.' in text and len(text) > 3


def _two_equations(gold: Relation, answer: Relation, judge: Judge) -> Finding:
  """Values of one name; else multiples of one another, or one solved for a name."""
  if _name_the_same(gold.sides[0], answer.sides[0]):
    value, other_value = gold.sides[-1], answer.sides[-1]
    if name_of(value) is None or name_of(other_value) is None:
      return judge.compare(value, other_value)
  if max(len(gold.sides), len(answer.sides)) > 2:
    return Finding(pair_off(gold.sides, answer.sides, judge.is_same), 'equal sides')
  # F = 0 and G = 0, as differences of the sides.
  function = difference(gold)
  other_function = difference(answer)
  if function is None or other_function is None:
    return judge.all_equal(zip(gold.sides, answer.sides, strict=True), 'sides')
  if ratio_sign(function, other_function, judge):
    return Finding(True, 'proportional equations')
  if _solves(gold, other_function, judge) or _solves(answer, function, judge):
    return Finding(True, 'the solved equation')
  return Finding(None, 'equations')


def _name_the_same(first: Answer, second: Answer) -> bool:
  """Whether two left sides are the same name, or one is y and the other f(x)."""
  name = name_of(first)
  other_name = name_of(second)
  if name is None or other_name is None:
    return False
  if name == other_name:
    return True
  return _is_y(first) and _is_function(second) or _is_function(first) and _is_y(second)


def _is_y(side: Answer) -> bool:
  return isinstance(side, Quantity) and side.node == ('symbol', 'y')


def _is_function(side: Answer) -> bool:
  """Whether a side is f(x): some function of a letter."""
  if not isinstance(side, Quantity) or side.node[0] != 'apply':
    return False
  return side.node[2][0] == 'symbol'


def _solves(explicit: Relation, implicit: Node, judge: Judge) -> bool:
  """Whether `y = f(x)` is the one solution of an equation F(x, y) = 0 that is linear in y."""
  name = name_of(explicit.sides[0])
  value = explicit.sides[1]
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
