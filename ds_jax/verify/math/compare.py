r"""Whether two structured answers are equal, by an ordered list of stages.

`compare` asks the stages of STAGES in order; the first that applies to the two structures decides,
and its name is part of the result. A stage that cannot show equality says so: what is not shown
equal is wrong. Parts (of lists, brackets, cases, relations) go through the same list again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from collections.abc import Sequence as SequenceOf

from flint import fmpq

from ds_jax.verify.math import answers, equality, expressions, piecewise, regions, units
from ds_jax.verify.math.answers import (
  Answer,
  Assignments,
  Builder,
  Cases,
  Collection,
  Congruence,
  Family,
  Numeral,
  Option,
  Quantity,
  Ratio,
  Relation,
  Sequence,
  SetOperation,
  Truth,
  Unread,
  Words,
  name_of,
)
from ds_jax.verify.math.equality import Finding, same_expression
from ds_jax.verify.math.expressions import Node, subtract
from ds_jax.verify.math.tokens import UnreadableError
from ds_jax.verify.math.values import Work

_MAX_PAIRS = 400  # of parts of a list
_FLIPPED = {'<': '>', '>': '<', r'\leq': r'\geq', r'\geq': r'\leq'}

Stage = Callable[[Answer, Answer, Work], Finding | None]


def compare_whole(gold: Answer, answer: Answer, work: Work) -> Finding:
  """Compares two whole answers. What a gold counts (`30 widgets`) may be left out there."""
  if isinstance(gold, Quantity) and isinstance(answer, Quantity) and answer.unit == units.NONE:
    gold = dataclasses.replace(gold, unit=gold.unit._replace(unknown=()))
  return compare(gold, answer, work)


def compare(gold: Answer, answer: Answer, work: Work) -> Finding:
  """Asks the stages in order; the first that applies decides."""
  for stage in STAGES:
    finding = stage(gold, answer, work)
    if finding is not None:
      return finding
  return Finding(False, 'different kinds')


def _each_way(gold: Answer, answer: Answer, kind: type) -> tuple[Answer, Answer] | None:
  """The one of `kind` first."""
  if isinstance(gold, kind):
    return gold, answer
  return (answer, gold) if isinstance(answer, kind) else None


def unread(gold: Answer, answer: Answer, work: Work) -> Finding | None:
  """What is not understood equals its own spelling only, which was compared before."""
  if isinstance(gold, Unread) or isinstance(answer, Unread):
    side, found = ('gold', gold) if isinstance(gold, Unread) else ('answer', answer)
    return Finding(None, f'not understood ({side}: {found.reason})')
  return None


def same_structure(gold: Answer, answer: Answer, work: Work) -> Finding | None:
  """The same statement; numbers are left to their values, which may not exist."""
  is_equal = gold == answer and not isinstance(gold, (Quantity, Sequence, Collection))
  return Finding(True, 'same structure') if is_equal else None


def truth(gold: Answer, answer: Answer, work: Work) -> Finding | None:
  if isinstance(gold, Truth) or isinstance(answer, Truth):
    return Finding(gold == answer, 'truth')
  return None


def options(gold: Answer, answer: Answer, work: Work) -> Finding | None:
  """The letter decides; the content does where the other side has no letter."""
  pair = _each_way(gold, answer, Option)
  if pair is None:
    return None
  option, other = pair
  if isinstance(other, Option):
    contents = option.content, other.content
    is_contradiction = None not in contents and compare(*contents, work).is_equal is False
    return Finding(option.letter == other.letter and not is_contradiction, 'options')
  if isinstance(other, Quantity) and other.node[0] == 'symbol':
    return Finding(other.node[1] == option.letter, 'options')
  if option.content is None or isinstance(other, Collection):
    return Finding(False, 'options')
  return compare(*((option.content, other) if option is gold else (other, option.content)), work)


def words(gold: Answer, answer: Answer, work: Work) -> Finding | None:
  if isinstance(gold, Words) and isinstance(answer, Words):
    return Finding(gold == answer, 'words')
  pair = _each_way(gold, answer, Words)
  if pair is None or isinstance(pair[1], Relation):
    return None
  letters = _letters(pair[1])
  return Finding(bool(letters) and pair[0].words == (letters,), 'words')


def _letters(answer: Answer) -> str:
  """The letters that a product of letters was written with."""
  tokens = answer.tokens if isinstance(answer, Quantity) else ()
  is_run = len(tokens) == 1 and tokens[0].kind == 'letters' and len(tokens[0].text) > 1
  return tokens[0].text.casefold() if is_run else ''


def numerals(gold: Answer, answer: Answer, work: Work) -> Finding | None:
  """Digits with a base; without one, the same digits."""
  pair = _each_way(gold, answer, Numeral)
  if pair is None:
    return None
  numeral, other = pair
  if isinstance(other, Numeral):
    return Finding(numeral == other, 'numeral and base')
  if isinstance(other, Quantity) and len(other.tokens) == 1 and other.unit == units.NONE:
    return Finding(other.tokens[0].text.lstrip('0') == numeral.digits, 'digits without base')
  return Finding(False, 'numeral and base') if not isinstance(other, Relation) else None


def ratios(gold: Answer, answer: Answer, work: Work) -> Finding | None:
  """Times of day part by part; ratios by proportion, two of them also as a fraction."""
  pair = _each_way(gold, answer, Ratio)
  if pair is None or isinstance(pair[1], Relation):
    return None
  ratio, other = pair
  if isinstance(other, Ratio):
    if ratio.is_clock and other.is_clock:
      has_half = bool(ratio.half) == bool(other.half)
      times = [
        _clock(side) if has_half else {_clock(side)[:-1], _clock24(side)} for side in (ratio, other)
      ]
      return Finding(times[0] == times[1] if has_half else bool(times[0] & times[1]), 'times')
    return _proportional(ratio.parts, other.parts, work)
  if ratio.half or len(ratio.parts) != 2 or not isinstance(other, Quantity):
    return Finding(False, 'ratios')
  if other.unit != units.NONE:
    return Finding(False, 'ratios')
  return same_expression(('/', *ratio.parts), other.node, work)._replace(stage='ratios')


def _clock(ratio: Ratio) -> tuple:
  parts = [int(part[1].p) if part[0] == 'number' else part for part in ratio.parts]
  while len(parts) > 2 and parts[-1] == 0:
    parts.pop()
  return (*parts, ratio.half)


def _clock24(ratio: Ratio) -> tuple:
  """A time in 24 hours."""
  hour, *others = _clock(ratio)[:-1]
  if ratio.half and isinstance(hour, int):
    hour = hour % 12 + 12 * (ratio.half == 'pm')
  return (hour, *others)


def _proportional(first: SequenceOf[Node], second: SequenceOf[Node], work: Work) -> Finding:
  if len(first) != len(second):
    return Finding(False, 'ratios')
  for i in range(len(first)):
    for k in range(i):
      products = ('*', first[i], second[k]), ('*', first[k], second[i])
      finding = same_expression(*products, work)
      if not finding.is_equal:
        return finding._replace(stage='ratios')
  zeros = [[_is_zero(part, work) for part in parts] for parts in (first, second)]
  return Finding(zeros[0] == zeros[1] and not all(zeros[0]), 'ratios')


def _is_zero(node: Node, work: Work) -> bool:
  return same_expression(node, expressions.ZERO, work).is_equal is True


def congruences(gold: Answer, answer: Answer, work: Work) -> Finding | None:
  """The same residues to the same modulus."""
  pair = _each_way(gold, answer, Congruence)
  if pair is None:
    return None
  if not isinstance(gold, Congruence) or not isinstance(answer, Congruence):
    return Finding(False, 'residue classes')
  if gold.name and answer.name and gold.name != answer.name:
    return Finding(False, 'residue classes')
  modulus = same_expression(gold.modulus, answer.modulus, work)
  if not modulus.is_equal or len(gold.residues) != len(answer.residues):
    return Finding(False, 'residue classes')

  def is_same(a: Node, b: Node) -> bool:
    if same_expression(a, b, work).is_equal:
      return True
    multiple = ('/', subtract(a, b), gold.modulus)
    return _is_whole(multiple, work)

  unmatched = list(answer.residues)
  for residue in gold.residues:
    match = next((other for other in unmatched if is_same(residue, other)), None)
    if match is None:
      return Finding(False, 'residue classes')
    unmatched.remove(match)
  return Finding(True, 'residue classes')


def _is_whole(node: Node, work: Work) -> bool:
  """Whether a constant is an integer."""
  if not expressions.is_constant(node):
    return False
  rounded = ('call', 'round', node)
  return same_expression(rounded, node, work).is_equal is True


def families(gold: Answer, answer: Answer, work: Work) -> Finding | None:
  """Answers with integer parameters, whatever their names and where they start."""
  if not isinstance(gold, Family) and not isinstance(answer, Family):
    return None
  gold, answer = _as_family(gold), _as_family(answer)
  sides = [_parametric(side, other) for side, other in ((gold, answer), (answer, gold))]
  if None in sides or len(sides[0][1]) != len(sides[1][1]):
    return Finding(False, 'integer parameters')
  (first, names), (second, other_names) = sides
  renaming = {('symbol', old): ('symbol', new) for old, new in zip(other_names, names, strict=True)}
  renamed = _renamed(second, renaming)
  finding = compare(first, renamed, work)
  if finding.is_equal or len(names) != 1:
    return finding
  values = [_progression(side, names[0]) for side in (first, renamed)]
  if None in values:
    return finding
  (start, step), (other_start, other_step) = values
  offset = ('/', subtract(start, other_start), step)
  is_same_step = any(
    same_expression(step, s, work).is_equal for s in (other_step, ('-', other_step))
  )
  return Finding(is_same_step and _is_whole(offset, work), 'integer parameters')


def _as_family(answer: Answer) -> Answer:
  """A residue class as r + m k."""
  if not isinstance(answer, Congruence) or len(answer.residues) != 1:
    return answer
  multiple = ('*', answer.modulus, ('symbol', 'k'))
  return Family(Quantity(('+', answer.residues[0], multiple), units.NONE), ('k',))


def _parametric(side: Answer, other: Answer) -> tuple[Answer, tuple[str, ...]] | None:
  """An answer and its parameters; without a clause, the names of the other side's."""
  if isinstance(side, Family):
    parameters = tuple(p for p in side.parameters if p in _symbols(side.answer))
    return side.answer, parameters
  names = tuple(n for n in other.parameters if n in _symbols(side))
  return (side, names) if len(names) == len(_parametric(other, other)[1]) else None


def _symbols(answer: object) -> set[str]:
  """All symbols in a structure."""
  if isinstance(answer, tuple) and answer and isinstance(answer[0], str):
    return set(expressions.symbols(answer))
  if isinstance(answer, tuple):
    return set().union(*map(_symbols, answer))
  if dataclasses.is_dataclass(answer):
    return set().union(*(_symbols(getattr(answer, f.name)) for f in dataclasses.fields(answer)))
  return set()


def _renamed(answer: object, renaming: dict[Node, Node]) -> object:
  """A structure with symbols exchanged."""
  if isinstance(answer, tuple) and answer and isinstance(answer[0], str):
    return expressions.replace(answer, renaming.get)
  if isinstance(answer, tuple) and not hasattr(answer, '_fields'):
    return tuple(_renamed(part, renaming) for part in answer)
  if isinstance(answer, (Quantity, Relation, Sequence, Collection, Builder, SetOperation)):
    changes = {
      f.name: _renamed(getattr(answer, f.name), renaming) for f in dataclasses.fields(answer)
    }
    return dataclasses.replace(answer, **changes)
  return answer


def _progression(answer: Answer, name: str) -> tuple[Node, Node] | None:
  """a and d of an answer a + d k."""
  if isinstance(answer, Relation) and name_of(answer.sides[0]) is not None:
    answer = answer.sides[-1]
  if not isinstance(answer, Quantity) or expressions.symbols(answer.node) != [name]:
    return None
  at = [
    expressions.replace(answer.node, {('symbol', name): expressions.number(k)}.get)
    for k in (0, 1, 5)
  ]
  step = subtract(at[1], at[0])
  linear = ('+', at[0], ('*', expressions.number(5), step))
  return (at[0], step) if same_expression(linear, at[2], Work()).is_equal else None


def cases(gold: Answer, answer: Answer, work: Work) -> Finding | None:
  """Each case of one side is one of the other, or both are the same function of one number."""
  pair = _each_way(gold, answer, Cases)
  if pair is None or isinstance(pair[1], Relation):
    return None
  if isinstance(pair[1], Quantity):
    return piecewise.same_function(gold, answer, work)
  if not isinstance(pair[1], Cases):
    return Finding(False, 'cases')

  def is_same(row: tuple, other: tuple) -> bool | None:
    if (row[1] is None) != (other[1] is None):
      return False
    if row[1] is not None and not compare(row[1], other[1], work).is_equal:
      return False
    return compare(row[0], other[0], work).is_equal

  if _match(gold.rows, answer.rows, is_same):
    return Finding(True, 'cases')
  return piecewise.same_function(gold, answer, work)


def false_statements(gold: Answer, answer: Answer, work: Work) -> Finding | None:
  """`6 = 5` is no answer: the last statement counts only if the ones before it hold."""
  if not isinstance(answer, Relation):
    return None
  for left, sign, right in zip(answer.sides, answer.signs, answer.sides[1:], strict=False):
    if _is_constant(left) and _is_constant(right):
      if sign == '=' and compare(left, right, work).is_equal is False:
        return Finding(False, 'a false statement')
      if sign == r'\approx' and not _is_near(left.node, right, work):
        return Finding(False, 'a false statement')
  return None


def _is_constant(answer: Answer) -> bool:
  return isinstance(answer, Quantity) and expressions.is_constant(answer.node)


def _is_near(exact: Node, rounded: Quantity, work: Work) -> bool:
  """Whether the right side is what the left side rounds to, to its own last digit."""
  text = rounded.tokens[0].text if rounded.tokens else ''
  places = len(text.partition('.')[2]) if text.replace('.', '').isdigit() else 0
  unit = expressions.number(fmpq(51, 100) / 10**places)
  distance = ('call', 'abs', subtract(exact, rounded.node))
  larger = ('call', 'max', distance, unit)
  return same_expression(larger, unit, work).is_equal is True


def assignments(gold: Answer, answer: Answer, work: Work) -> Finding | None:
  """Values of several names: by name, or in the order in which the names are given."""
  pair = _each_way(gold, answer, Assignments)
  if pair is None:
    return None
  named, other = pair
  stage = 'assignments'
  if isinstance(other, Assignments):
    if sorted(gold.names) != sorted(answer.names):
      return Finding(False, stage)
    values = dict(zip(answer.names, answer.values, strict=True))
    pairs = [(value, values[name]) for name, value in zip(gold.names, gold.values, strict=True)]
    return _all_equal(pairs, stage, work)
  if not isinstance(other, (Sequence, Collection)) or len(other.items) != len(named.values):
    return Finding(False, stage)
  values = named.values
  if isinstance(other, Collection) and len({_base(name) for name in named.names}) == 1:
    return compare(
      *(Collection(values) if side is named else side for side in (gold, answer)), work
    )
  if isinstance(other, Sequence):
    if other.brackets not in ('()', '<>'):
      return Finding(False, stage)
    order = sorted(range(len(values)), key=lambda i: named.names[i])
    is_sorted = named.names == tuple(sorted(named.names))
    is_list = not named.is_tuple and (is_sorted or named is answer)
    values = tuple(values[i] for i in order) if is_list else values
  elif other.is_set:
    return Finding(False, stage)
  pairs = list(zip(values, other.items, strict=True))
  return _all_equal([p if named is gold else p[::-1] for p in pairs], stage, work)


def _base(name: str) -> str:
  return name.partition('_')[0]


def _all_equal(pairs: SequenceOf[tuple[Answer, Answer]], stage: str, work: Work) -> Finding:
  for pair in pairs:
    finding = compare(*pair, work)
    if not finding.is_equal:
      return Finding(finding.is_equal, f'{stage}: {finding.stage}')
  return Finding(True, stage)


def other_relations(gold: Answer, answer: Answer, work: Work) -> Finding | None:
  """Divisibility, inclusion, convergence and the like: side by side."""
  signs = [side.signs if isinstance(side, Relation) else () for side in (gold, answer)]
  if not any(answers.OTHER_RELATIONS & set(s) for s in signs):
    return None
  if signs[0] != signs[1]:
    return Finding(False, 'other relations')
  return _all_equal(list(zip(gold.sides, answer.sides, strict=True)), 'other relations', work)


def equations(gold: Answer, answer: Answer, work: Work) -> Finding | None:
  """Equations with equations; `name = value` with the value."""
  is_equation = [_is_equation(side) for side in (gold, answer)]
  if not any(is_equation):
    return None
  if all(is_equation):
    return _two_equations(gold, answer, work)
  if is_equation[0]:
    if isinstance(answer, Relation):
      return Finding(None, 'an equation and another relation')
    value = _stated_value(gold, is_gold=True)
    if value is None:
      return Finding(None, 'an equation is more than its right side')
    return compare(value, answer, work)
  if isinstance(gold, Relation):
    return Finding(None, 'an equation and another relation')
  return _value_of_equation(gold, answer, work)


def _is_equation(side: Answer) -> bool:
  return isinstance(side, Relation) and not set(side.signs) - {'=', r'\approx'}


def _stated_value(equation: Relation, *, is_gold: bool) -> Answer | None:
  """What an equation says of a name, or the result of a calculation."""
  first, last = equation.sides[0], equation.sides[-1]
  if r'\approx' in equation.signs and not is_gold:
    exact = equation.sides[equation.signs.index(r'\approx')]
    if name_of(exact) is None:
      last = exact
  if name_of(first) is not None or _is_constant(first) and _is_constant(last):
    return last
  if name_of(last) is not None and len(equation.sides) == 2:
    return first
  return None


def _value_of_equation(gold: Answer, answer: Relation, work: Work) -> Finding:
  """For a gold that is a value: `m + n = 371` says 371, but `x^2 - 1 = 0` does not say 0."""
  value = _stated_value(answer, is_gold=False)
  if value is None:
    is_zero = isinstance(gold, Quantity) and _is_constant(gold) and _is_zero(gold.node, work)
    is_function = isinstance(gold, Quantity) and not _is_constant(gold)
    if is_zero or is_function:
      return Finding(None, 'an equation is more than its right side')
    is_reversed = _is_constant(answer.sides[0]) and not _is_constant(answer.sides[-1])
    value = answer.sides[0] if is_reversed else answer.sides[-1]
  finding = compare(gold, value, work)
  if not finding.is_equal and r'\approx' in answer.signs and equality_of_rounded(gold):
    return compare(gold, answer.sides[-1], work)
  return finding


def equality_of_rounded(gold: Answer) -> bool:
  """Whether a gold is itself a decimal of three digits or more."""
  text = gold.tokens[0].text if isinstance(gold, Quantity) and gold.tokens else ''
  return '.' in text and len(text) > 3


def _two_equations(gold: Relation, answer: Relation, work: Work) -> Finding:
  names = [name_of(side.sides[0]) for side in (gold, answer)]
  last = [side.sides[-1] for side in (gold, answer)]
  if None not in names:
    is_same_name = names[0] == names[1] or _are_y_and_function(gold.sides[0], answer.sides[0])
    has_values = any(name_of(side) is None for side in last)
    if is_same_name and has_values:
      return compare(*last, work)
  if max(len(gold.sides), len(answer.sides)) > 2:
    is_same = lambda a, b: compare(a, b, work).is_equal
    return Finding(_match(gold.sides, answer.sides, is_same), 'equal sides')
  differences = [_difference(side) for side in (gold, answer)]
  if None in differences:
    finding = _all_equal(list(zip(gold.sides, answer.sides, strict=True)), 'sides', work)
    return finding
  ratio = _ratio_sign(*differences, work)
  if ratio:
    return Finding(True, 'proportional equations')
  for explicit, difference in ((gold, differences[1]), (answer, differences[0])):
    if _solves(explicit, difference, work):
      return Finding(True, 'the solved equation')
  return Finding(None, 'equations')


def _are_y_and_function(first: Answer, second: Answer) -> bool:
  """Whether one is y and the other f(x)."""
  nodes = [side.node if isinstance(side, Quantity) else (None,) for side in (first, second)]
  functions = [node for node in nodes if node[0] == 'apply' and node[2][0] == 'symbol']
  return len(functions) == 1 and ('symbol', 'y') in nodes


def _difference(equation: Relation) -> Node | None:
  is_plain = all(isinstance(side, Quantity) and side.unit == units.NONE for side in equation.sides)
  nodes = [side.node for side in equation.sides] if is_plain else [None]
  if None in nodes or len(nodes) != 2:
    return None
  if any(
    not expressions.is_constant(n) and expressions.INFINITY in expressions.leaves(n) for n in nodes
  ):
    return None
  return subtract(*nodes)


def _ratio_sign(first: Node, second: Node, work: Work) -> int:
  """The sign of the constant c with second = c first; 0: there is none, or it is not shown."""
  names = sorted({*expressions.symbols(first), *expressions.symbols(second)})
  for index in range(3):
    point = equality._draw(names, index, frozenset())
    at = {('symbol', name): ('number', value) for name, value in point.items()}
    values = [expressions.replace(node, at.get) for node in (first, second)]
    if any(_is_zero(value, work) for value in values) or not names:
      continue
    scaled = ('*', first, values[1]), ('*', second, values[0])
    if not same_expression(*scaled, work).is_equal:
      return 0
    positive = ('call', 'abs', ('/', *values))
    return 1 if same_expression(positive, ('/', *values), work).is_equal else -1
  return 0


def _solves(explicit: Relation, difference: Node, work: Work) -> bool:
  """Whether `y = f(x)` is the one solution of an equation that is linear in y."""
  name = name_of(explicit.sides[0])
  value = explicit.sides[1]
  if name is None or not isinstance(value, Quantity) or name in expressions.symbols(value.node):
    return False
  if name not in expressions.symbols(difference) or expressions.is_constant(value.node):
    return False

  def at(node: Node) -> Node:
    return expressions.replace(difference, {('symbol', name): node}.get)

  if not _is_zero(at(value.node), work):
    return False
  low, middle, high = (at(('+', value.node, expressions.number(k))) for k in (1, 2, 5))
  linear = ('+', ('*', expressions.number(3), low), high), ('*', expressions.number(4), middle)
  return same_expression(*linear, work).is_equal is True


def real_sets(gold: Answer, answer: Answer, work: Work) -> Finding | None:
  """Intervals, unions and inequalities as sets of real numbers."""
  if not regions.is_region_like(gold) and not regions.is_region_like(answer):
    return None
  try:
    (region, name), (other, other_name) = map(regions.of, (gold, answer))
  except regions.NoRegionError:
    return _inequalities(gold, answer, work)
  if name and other_name and name != other_name:
    return Finding(False, 'sets of different names')
  return regions.same_region(region, other, work)


def _inequalities(gold: Answer, answer: Answer, work: Work) -> Finding | None:
  """Inequalities with parameters, link by link; symbolic intervals part by part."""
  if isinstance(gold, SetOperation) and isinstance(answer, SetOperation):
    if gold.operation != answer.operation:
      return Finding(False, 'set operations')
    if gold.operation == r'\setminus':
      return _all_equal(list(zip(gold.parts, answer.parts, strict=False)), 'set operations', work)
    return Finding(
      _match(gold.parts, answer.parts, lambda a, b: compare(a, b, work).is_equal), 'set operations'
    )
  if isinstance(gold, Builder) and isinstance(answer, Builder):
    if gold.domain != answer.domain:
      return Finding(False, 'sets of other things')
    renaming = {('symbol', answer.name): ('symbol', gold.name)}
    return compare(gold.condition, _renamed(answer.condition, renaming), work)
  links = [_links(side) for side in (gold, answer)]
  if None in links:
    return _membership(gold, answer, work)

  def is_same(link: tuple, other: tuple) -> bool:
    sign = _ratio_sign(link[0], other[0], work)
    flipped = _FLIPPED.get(other[1], other[1]) if sign < 0 else other[1]
    return bool(sign) and link[1] == flipped

  return Finding(_match(*links, is_same), 'inequalities')


def _links(answer: Answer) -> list[tuple[Node, str]] | None:
  if not isinstance(answer, Relation) or r'\in' in answer.signs:
    return None
  links = []
  for left, sign, right in zip(answer.sides, answer.signs, answer.sides[1:], strict=False):
    difference = _difference(Relation((left, right), (sign,)))
    if difference is None:
      return None
    links.append((difference, sign))
  return links


def _membership(gold: Answer, answer: Answer, work: Work) -> Finding | None:
  """`x \\in S` and S, where S is no set of real numbers."""
  sets = []
  for side in (gold, answer):
    is_member = isinstance(side, Relation) and side.signs == (r'\in',)
    sets.append(side.sides[1] if is_member else side)
  if sets == [gold, answer]:
    return (
      None
      if not isinstance(gold, Relation) and not isinstance(answer, Relation)
      else Finding(None, 'relations')
    )
  members = [side.sides[0] for side in (gold, answer) if isinstance(side, Relation)]
  if len(members) == 2 and name_of(members[0]) != name_of(members[1]):
    return Finding(False, 'membership')
  return compare(*sets, work)


def sequences(gold: Answer, answer: Answer, work: Work) -> Finding | None:
  """The same brackets, and the same parts in the same order."""
  if not isinstance(gold, Sequence) and not isinstance(answer, Sequence):
    return None
  gold, answer = _without_point_name(gold), _without_point_name(answer)
  if not isinstance(gold, Sequence) or not isinstance(answer, Sequence):
    return (
      None
      if isinstance(gold, Collection) or isinstance(answer, Collection)
      else Finding(False, 'brackets')
    )
  brackets = ['()' if side.brackets == '<>' else side.brackets for side in (gold, answer)]
  is_vector = len(gold.items) > 2 and set(brackets) <= {'()', '[]'}
  if len(gold.items) != len(answer.items) or brackets[0] != brackets[1] and not is_vector:
    return Finding(False, 'brackets')
  return _all_equal(list(zip(gold.items, answer.items, strict=True)), 'in order', work)


def _without_point_name(answer: Answer) -> Answer:
  """`P(3, -4)` as the point."""
  if not isinstance(answer, Quantity) or answer.node[0] != 'apply':
    return answer
  _, name, *items = answer.node
  if len(items) < 2 or not (len(name) == 1 and name.isupper()):
    return answer
  return Sequence('()', tuple(Quantity(item, units.NONE) for item in items))


def collections(gold: Answer, answer: Answer, work: Work) -> Finding | None:
  """The same parts in any order; one part is itself."""
  if not isinstance(gold, Collection) and not isinstance(answer, Collection):
    return None
  items = [
    _distinct(side.items) if isinstance(side, Collection) else (side,) for side in (gold, answer)
  ]
  if len(items[0]) != len(items[1]):
    return Finding(_is_grouped_list(gold, answer), 'number of parts')
  if not (isinstance(gold, Collection) and isinstance(answer, Collection)) and len(items[0]) != 1:
    return Finding(False, 'number of parts')
  is_single = len(items[0]) == 1 and not (
    isinstance(gold, Collection) and isinstance(answer, Collection)
  )
  if is_single and any(_symbols(part) for part in (gold, answer)):
    return Finding(None, 'one element and its set')
  if _connectives_differ(gold, answer):
    return Finding(False, 'and, or')
  if answers.ELLIPSIS in items[0]:
    return _all_equal(list(zip(*items, strict=True)), 'in order', work)
  is_same = lambda a, b: compare(a, b, work).is_equal
  return Finding(_match(*items, is_same), 'in any order')


def _connectives_differ(gold: Answer, answer: Answer) -> bool:
  """Whether one says `red and blue`, the other `red or blue`; of numbers both are a list."""
  sides = gold, answer
  if not all(isinstance(s, Collection) and isinstance(s.items[0], Words) for s in sides):
    return False
  return {side.connective for side in sides} == {'and', 'or'}


def _is_grouped_list(gold: Answer, answer: Answer) -> bool:
  """Whether `5,125` stands for the list 5, 125, which the gold is."""
  tokens = answer.tokens if isinstance(answer, Quantity) else ()
  if len(tokens) != 1 or not tokens[0].is_grouped or not isinstance(gold, Collection):
    return False
  parts = [item.tokens for item in gold.items if isinstance(item, Quantity)]
  texts = [part[0].text for part in parts if len(part) == 1]
  digits = tokens[0].text
  start = len(digits) % 3 or 3
  groups = [digits[:start], *(digits[i : i + 3] for i in range(start, len(digits), 3))]
  return len(texts) == len(gold.items) and sorted(texts) == sorted(groups)


def _distinct(items: tuple[Answer, ...]) -> tuple[Answer, ...]:
  """A point that is named twice is one; a number that is named twice may be a multiple root."""
  if not any(isinstance(item, Sequence) for item in items):
    return items
  return tuple(item for i, item in enumerate(items) if item not in items[:i])


def _match(first: SequenceOf, second: SequenceOf, is_same: Callable) -> bool | None:
  """Pairs the parts off: equal structures first, then what is shown equal."""
  if len(first) != len(second):
    return False
  unmatched = list(second)
  missing = []
  for part in first:
    if part in unmatched:
      unmatched.remove(part)
    else:
      missing.append(part)
  if len(missing) ** 2 > _MAX_PAIRS:
    return None
  is_open = False
  for part in missing:
    for i, other in enumerate(unmatched):
      verdict = is_same(part, other)
      if verdict:
        del unmatched[i]
        break
      is_open |= verdict is None
    else:
      return None if is_open else False
  return True


def quantities(gold: Answer, answer: Answer, work: Work) -> Finding | None:
  """Units first, then the values."""
  if not isinstance(gold, Quantity) or not isinstance(answer, Quantity):
    return None
  gold, answer = _with_same_reading(gold, answer)
  finding = _compare_units(gold, answer, work)
  if finding is not None:
    return finding
  nodes = gold.node, answer.node
  factor = answer.unit.factor / gold.unit.factor
  if factor != 1 and gold.unit.powers and answer.unit.powers:
    nodes = nodes[0], ('*', nodes[1], expressions.number(factor))
  return _same_value(*nodes, work)


def _with_same_reading(gold: Quantity, answer: Quantity) -> tuple[Quantity, Quantity]:
  """Where one side has a unit in \\text, the other's letters may be a unit too."""
  for first, second in ((gold, answer), (answer, gold)):
    if first.unit.powers and not second.unit.powers and expressions.symbols(second.node):
      try:
        reread = answers.read_quantity(second.tokens, is_plain_unit=True)
      except UnreadableError:
        continue
      if reread.unit.powers == first.unit.powers:
        return (first, reread) if first is gold else (reread, first)
  return gold, answer


def _compare_units(gold: Quantity, answer: Quantity, work: Work) -> Finding | None:
  """Decides where units differ or one is a percentage or an angle; None: the values decide."""
  units_ = gold.unit, answer.unit
  if answer.unit.unknown != gold.unit.unknown:
    return Finding(False, 'words behind the value')
  powers = [unit.powers for unit in units_]
  if all(powers):
    if powers[0] == powers[1]:
      return None
    if {*powers} == {units.DEGREE.powers, (('radian', 1),)}:
      nodes = [
        ('degree', q.node) if q.unit.powers == units.DEGREE.powers else q.node
        for q in (gold, answer)
      ]
      return _same_value(*nodes, work)
    return Finding(False, 'units')
  if any(powers) and any(unit.nouns for unit in units_ if not unit.powers):
    return Finding(False, 'units')
  nouns = [set(unit.nouns) for unit in units_]
  if all(nouns) and not nouns[0] & nouns[1]:
    return Finding(False, 'what is counted')
  for special, scale in ((units.PERCENT, '/'), (units.DEGREE, 'degree')):
    if special.powers in powers and powers != [special.powers] * 2:
      plain = _same_value(gold.node, answer.node, work)
      if plain.is_equal:
        return plain
      scaled = [
        _scaled(q.node, scale) if q.unit.powers == special.powers else q.node
        for q in (gold, answer)
      ]
      return _same_value(*scaled, work)
  return None


def _scaled(node: Node, scale: str) -> Node:
  return ('/', node, expressions.number(100)) if scale == '/' else ('degree', node)


def _same_value(gold: Node, answer: Node, work: Work) -> Finding:
  """Two expressions, matrices included."""
  try:
    rows = [_matrix(node) for node in (gold, answer)]
  except UnreadableError as error:
    return Finding(None, f'not understood ({error})')
  if rows == [None, None]:
    finding = same_expression(gold, answer, work)
    return finding if finding.is_equal else _up_to_constant(gold, answer, work) or finding
  if None in rows or [len(r) for r in rows[0]] != [len(r) for r in rows[1]]:
    return Finding(False, 'shape of a matrix')
  for row, other in zip(*rows, strict=True):
    for cell, other_cell in zip(row, other, strict=True):
      finding = same_expression(cell, other_cell, work)
      if not finding.is_equal:
        return finding._replace(stage=f'cells: {finding.stage}')
  return Finding(True, 'cells')


def _up_to_constant(gold: Node, answer: Node, work: Work) -> Finding | None:
  """`+ c` and `+ C` are one constant of integration."""
  constants = [
    [t[1] for t in node[1:] if t[0] == 'symbol' and t[1] in ('c', 'C', 'K', 'k')]
    if node[0] == '+'
    else []
    for node in (gold, answer)
  ]
  if not all(len(c) == 1 for c in constants) or constants[0] == constants[1]:
    return None
  old, new = constants[1][0], constants[0][0]
  if new in expressions.symbols(answer) or old in expressions.symbols(gold):
    return None
  renamed = expressions.replace(answer, {('symbol', old): ('symbol', new)}.get)
  return same_expression(gold, renamed, work)


_Rows = tuple[tuple[Node, ...], ...]


def _matrix(node: Node) -> _Rows | None:
  """The cells of a sum, product or multiple of matrices; None: there is no matrix in it."""
  if all(part[0] != 'matrix' for part in expressions.walk(node)):
    return None
  kind = node[0]
  if kind == 'matrix':
    return node[1]
  if kind in ('-', '/'):
    rows = _matrix(node[1])
    if rows is not None and (kind == '-' or _matrix(node[2]) is None):
      return tuple(tuple((kind, cell, *node[2:]) for cell in row) for row in rows)
  if kind == '+':
    parts = [_matrix(part) for part in node[1:]]
    if None not in parts and len({tuple(map(len, rows)) for rows in parts}) == 1:
      return tuple(
        tuple(('+', *cells) for cells in zip(*row, strict=True)) for row in zip(*parts, strict=True)
      )
  if kind == '*':
    return _matrix_product(node[1], node[2])
  raise UnreadableError('matrices')


def _matrix_product(left: Node, right: Node) -> _Rows:
  first, second = _matrix(left), _matrix(right)
  if first is None or second is None:
    scalar, rows = (left, second) if first is None else (right, first)
    return tuple(tuple(('*', scalar, cell) for cell in row) for row in rows)
  if len(first[0]) != len(second) or len(second) < 1:
    raise UnreadableError('matrices')
  columns = list(zip(*second, strict=True))
  return tuple(
    tuple(('+', *(('*', a, b) for a, b in zip(row, column, strict=True))) for column in columns)
    for row in first
  )


# In this order; the first that is no None decides.
STAGES: tuple[Stage, ...] = (
  unread,
  same_structure,
  truth,
  options,
  families,
  false_statements,
  assignments,
  other_relations,
  equations,
  congruences,
  cases,
  words,
  numerals,
  ratios,
  real_sets,
  sequences,
  collections,
  quantities,
)
