"""What answers are made of, once they are read.

A structure keeps all that was written: units, words, brackets, names, relations, bases, parameters.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from ds_jax.verify.math import expressions, units
from ds_jax.verify.math.expressions import IMAGINARY, NODE_KINDS, Node
from ds_jax.verify.math.tokens import Token
from ds_jax.verify.math.units import Unit

Tokens = tuple[Token, ...]


@dataclasses.dataclass(frozen=True)
class Unread:
  """Text that is no answer of the grammar, and why."""

  reason: str


@dataclasses.dataclass(frozen=True)
class Truth:
  """Yes or no, true or false."""

  is_true: bool


@dataclasses.dataclass(frozen=True)
class Words:
  """Words and numbers that name something: `Player 2`, `does not exist`, `March 14`."""

  words: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Option:
  """One choice of several, with what is written behind it: `(B) 12`."""

  letter: str
  content: Answer | None


@dataclasses.dataclass(frozen=True)
class Quantity:
  """An expression with its unit."""

  node: Node
  unit: Unit
  tokens: Tokens = dataclasses.field(default=(), compare=False, repr=False)


@dataclasses.dataclass(frozen=True)
class Name:
  """What stands before `=` and is no expression: `\\min f`, `E[X]`, `\\text{Area}`."""

  text: str


@dataclasses.dataclass(frozen=True)
class Sequence:
  """Several answers in round, square, mixed or angle brackets: a point, an interval, a vector."""

  brackets: str
  items: tuple[Answer, ...]


@dataclasses.dataclass(frozen=True)
class Collection:
  """Several answers whose order does not count: between commas, in braces, with and/or."""

  items: tuple[Answer, ...]
  connective: str = ','  # or 'and', 'or'
  is_set: bool = False  # written in braces


@dataclasses.dataclass(frozen=True)
class Relation:
  """A chain of relations: `0 < x \\leq 1`, `m + n = 300 + 71 = 371`, `x \\in [0, 1]`."""

  sides: tuple[Answer, ...]
  signs: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Assignments:
  """Values of several names: `x = 1, y = 2`, `(x, y) = (1, 2)`; in the order of the text."""

  names: tuple[str, ...]
  values: tuple[Answer, ...]
  is_tuple: bool = False  # the order is that of a tuple of names


@dataclasses.dataclass(frozen=True)
class SetOperation:
  """`\\cup`, `\\cap` or `\\setminus` between sets, `\\lor` or `\\land` between statements."""

  operation: str
  parts: tuple[Answer, ...]


@dataclasses.dataclass(frozen=True)
class Builder:
  """`\\{x \\in domain \\mid condition\\}`."""

  name: str
  domain: str
  condition: Answer


@dataclasses.dataclass(frozen=True)
class Cases:
  """A function by cases: values with their conditions."""

  rows: tuple[tuple[Answer, Answer | None], ...]


@dataclasses.dataclass(frozen=True)
class Congruence:
  """Residue classes: `x \\equiv 3 \\pmod 7`."""

  name: str
  residues: tuple[Node, ...]
  modulus: Node


@dataclasses.dataclass(frozen=True)
class Family:
  """An answer with integer parameters: `\\frac{\\pi}{4} + k\\pi, k \\in \\mathbb{Z}`."""

  answer: Answer
  parameters: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Ratio:
  """`1:2:3`, or a time of day `3:30` with its half."""

  parts: tuple[Node, ...]
  half: str = ''  # am, pm
  is_clock: bool = False  # written with two digits behind the colon


@dataclasses.dataclass(frozen=True)
class Numeral:
  """Digits with a base: `1011_2`."""

  digits: str
  base: int


Answer = (
  Unread | Truth | Words | Option | Quantity | Name | Sequence | Collection | Relation
  | Assignments | SetOperation | Builder | Cases | Congruence | Family | Ratio | Numeral
)  # fmt: skip


EMPTY_SET = Collection((), is_set=True)


ELLIPSIS = Name('…')


ORDER_SIGNS = ('<', '>', r'\leq', r'\geq')


# Relations whose sides are compared one by one.
OTHER_RELATIONS = frozenset(
  r'\sim \subset \subseteq \supset \supseteq \perp \parallel \cong \Rightarrow \Leftrightarrow \to '
  r'\mapsto \mid \nmid \notin \propto \models \ll \gg \succeq \preceq \prec \succ \lhd'.split()
)


@dataclasses.dataclass(frozen=True)
class Reading:
  """What was read of a text: its structure, and a key that equal spellings share."""

  answer: Answer
  key: str

  def __str__(self) -> str:
    return describe(self.answer)


def name_of(answer: Answer) -> str | None:
  """The name that a side of an equation is, if it is one."""
  if isinstance(answer, Name):
    return answer.text
  if isinstance(answer, Ratio) and all(part[0] == 'symbol' for part in answer.parts):
    return ':'.join(part[1] for part in answer.parts)
  if not isinstance(answer, Quantity) or answer.unit != units.NONE:
    return None
  node = answer.node
  if node[0] == 'symbol':
    return node[1]
  if node in (IMAGINARY, expressions.EULER):
    return node[1]
  if not expressions.symbols(node) and node[0] not in ('apply', 'lim', 'int', 'sum', 'prod'):
    return None
  if node[0] == 'apply':
    return f'{node[1]}({",".join(map(str, node[2:]))})'
  if node[0] in ('lim', 'int', 'sum', 'prod') or node[0] == 'call' and expressions.symbols(node):
    return str(node)
  text = ''.join(t.text for t in answer.tokens if t.text not in ('{', '}'))
  is_name = re.fullmatch(
    r'(\\Delta)?([A-Z]{1,4}|[A-Za-z]|\\[A-Za-z]+)(_\w+)?(\([^()]*\)|\[[^\[\]]*\])?'
    r'|\|[A-Za-z]+\||m\\angle.*|\\frac(d\^?\d?|\\partial)[a-z]d[a-z](\^\d)?',
    text,
  )
  return text if is_name else None


def is_plain_name(answer: Answer) -> bool:
  """Whether it is a name beyond doubt, and no expression that was not understood."""
  if isinstance(answer, Name):
    return not re.search(r'[-+/^]', answer.text)
  return name_of(answer) is not None


def describe(answer: Answer | None) -> str:
  """What was read, for people: expressions in prefix notation, kinds by name."""
  if answer is None:
    return ''
  if isinstance(answer, Quantity):
    return f'{formula(answer.node)} {_describe_unit(answer.unit)}'.strip()
  if isinstance(answer, (Sequence, Collection)):
    brackets = answer.brackets if isinstance(answer, Sequence) else '{}'
    items = ', '.join(map(describe, answer.items))
    return f'{brackets[0]}{items}{brackets[1:]}'
  if isinstance(answer, Relation):
    sides = [describe(side) for side in answer.sides]
    text = sides[0]
    for sign, side in zip(answer.signs, sides[1:], strict=True):
      text += f' {sign} {side}'
    return text
  if isinstance(answer, Assignments):
    pairs = zip(answer.names, answer.values, strict=True)
    return ', '.join(f'{name} = {describe(value)}' for name, value in pairs)
  if isinstance(answer, Words):
    return ' '.join(answer.words)
  if isinstance(answer, Name):
    return answer.text
  fields = [getattr(answer, field.name) for field in dataclasses.fields(answer)]
  return f'{type(answer).__name__.lower()}({", ".join(map(_describe_part, fields))})'


def _describe_part(part: object) -> str:
  if isinstance(part, tuple) and not _is_node(part):
    return '[' + ', '.join(map(_describe_part, part)) + ']'
  return describe(part) if dataclasses.is_dataclass(part) else formula(part)


def _describe_unit(unit: Unit) -> str:
  """`1/1000 m` of a millimetre; what is counted as it stands."""
  words = [f'{base}^{power}' if power != 1 else base for base, power in unit.powers]
  if unit.factor != 1:
    words.insert(0, str(unit.factor))
  return ' '.join([*words, *unit.nouns, *unit.unknown])


def formula(node: object) -> str:
  """A tree in prefix notation."""
  if not isinstance(node, tuple) or not node:
    return str(node)
  if node[0] in ('number', 'decimal', 'symbol', 'constant'):
    return str(node[1])
  return f'({" ".join(map(formula, node))})'


def symbols_of(structure: object) -> set[str]:
  """All symbols in an answer."""
  if _is_node(structure):
    return set(expressions.symbols(structure))
  parts = structure if _is_plain_tuple(structure) else ()
  if dataclasses.is_dataclass(structure):
    parts = [getattr(structure, field.name) for field in dataclasses.fields(structure)]
  return set().union(*map(symbols_of, parts))


def renamed(structure: Any, new_names: Mapping[Node, Node]) -> Any:
  """An answer with some of its symbols exchanged."""
  if _is_node(structure):
    return expressions.replace(structure, new_names.get)
  if _is_plain_tuple(structure):
    return tuple(renamed(part, new_names) for part in structure)
  if not dataclasses.is_dataclass(structure):
    return structure
  changes = {
    field.name: renamed(getattr(structure, field.name), new_names)
    for field in dataclasses.fields(structure)
  }
  return dataclasses.replace(structure, **changes)


def _is_plain_tuple(structure: object) -> bool:
  """Whether it is a tuple of parts, and no token or unit."""
  return isinstance(structure, tuple) and not hasattr(structure, '_fields')


def _is_node(structure: object) -> bool:
  is_tuple = _is_plain_tuple(structure) and bool(structure)
  return is_tuple and isinstance(structure[0], str) and structure[0] in NODE_KINDS
