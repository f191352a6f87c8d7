r"""Trees of expressions: their nodes, and how to walk through them and change them.

A node is a tuple (kind, operands …):

  ('number', q)                an exact rational
  ('decimal', q, half)         a decimal of six digits or more, and half a unit of its last digit
  ('constant', name)           pi, e, i, infinity
  ('symbol', name)             a letter with its subscript, primes and accents
  ('+', …) ('*', …) ('-', a) ('/', a, b) ('^', a, b) ('!', a) ('!!', a)
  ('degree', a)                a degrees; minutes and seconds of arc are in a
  ('pm', n, a) ('mp', n, a)    the n-th \pm or \mp: a or -a
  ('call', function, …)        a function that `functions` knows
  ('apply', name, …)           a function that nobody knows: f(x), \phi(n), …
  ('sum', variable, from, to, body), ('prod', …), ('int', …), ('lim', variable, to, side, body)
  ('matrix', rows)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flint import fmpq

from ds_jax.verify.math.tokens import UnreadableError

Node = tuple[Any, ...]
NODE_KINDS = frozenset(
  'number decimal constant symbol + * - / ^ ! !! degree pm mp call apply sum prod int lim '
  'matrix'.split()
)

ZERO = ('number', fmpq(0))
ONE = ('number', fmpq(1))
PI = ('constant', 'pi')
EULER = ('constant', 'e')
IMAGINARY = ('constant', 'i')
INFINITY = ('constant', 'infinity')
NEGATIVE_INFINITY = ('-', INFINITY)
_MAX_SIGNS = 4  # \pm in one expression


def subtract(left: Node, right: Node) -> Node:
  return ('+', left, ('-', right))


def number(n: int | fmpq) -> Node:
  return ('number', fmpq(n))


def is_integer(node: Node) -> bool:
  return node[0] == 'number' and node[1].q == 1


def walk(node: Node) -> list[Node]:
  """All nodes of a tree, the root first."""
  nodes: list[Node] = []
  stack = [node]
  while stack:
    node = stack.pop()
    nodes.append(node)
    for operand in node[1:]:
      if not isinstance(operand, tuple):
        continue
      if is_node(operand):
        stack.append(operand)
      else:  # the rows of a matrix
        for row in operand:
          stack += row
  return nodes


def is_node(operand: object) -> bool:
  """Whether an operand is a tree itself, and no number, name or rows of a matrix."""
  return isinstance(operand, tuple) and bool(operand) and isinstance(operand[0], str)


def leaves(node: Node) -> set[Node]:
  """The symbols, constants and unknown functions (by name) in a tree, without bound variables."""
  free: set[Node] = set()
  bound: set[Node] = set()
  for part in walk(node):
    if part[0] in ('symbol', 'constant'):
      free.add(part)
    elif part[0] == 'apply':
      free.add(('apply', part[1]))
    elif part[0] in ('sum', 'prod', 'int', 'lim'):
      bound.add(('symbol', part[1]))
      bound.add(INFINITY)  # as an end of it
  return free - bound


def symbols(*nodes: Node) -> list[str]:
  """The names of the free symbols in some trees, sorted."""
  names: set[str] = set()
  for node in nodes:
    for leaf in leaves(node):
      if leaf[0] == 'symbol':
        names.add(leaf[1])
  return sorted(names)


def is_constant(node: Node) -> bool:
  """Whether no symbol, unknown function or infinity stands in a tree."""
  return all(leaf[0] == 'constant' and leaf != INFINITY for leaf in leaves(node))


def replace(node: Node, change: Callable[[Node], Node | None]) -> Node:
  """A tree with each node for which `change` returns one replaced by that."""
  changed = change(node)
  if changed is not None:
    return changed
  operands = []
  for operand in node[1:]:
    if is_node(operand):
      operand = replace(operand, change)
    elif isinstance(operand, tuple):  # the rows of a matrix
      operand = tuple(tuple(replace(cell, change) for cell in row) for row in operand)
    operands.append(operand)
  return (node[0], *operands)


def alternatives(node: Node) -> list[Node]:
  r"""What a tree with \pm stands for: each sign both ways, all of them together beside a \mp."""
  kinds = {}
  for part in walk(node):
    if part[0] in ('pm', 'mp'):
      kinds[part[1]] = part[0]
  if not kinds:
    return [node]
  if len(kinds) > _MAX_SIGNS:
    raise UnreadableError('signs')
  signs = sorted(kinds)
  # Beside a \mp one choice is made for all: the upper signs, or the lower ones.
  if 'mp' in kinds.values():
    choices = [dict.fromkeys(signs, 1), dict.fromkeys(signs, -1)]
  else:
    choices = [_choice(signs, bits) for bits in range(1 << len(signs))]
  return [_with_signs(node, choice) for choice in choices]


def _choice(signs: list[int], bits: int) -> dict[int, int]:
  """A sign for each \\pm: minus where its bit is set."""
  choice = {}
  for k, sign in enumerate(signs):
    choice[sign] = -1 if bits >> k & 1 else 1
  return choice


def _with_signs(node: Node, choice: dict[int, int]) -> Node:
  """A tree with \\pm and \\mp replaced by the signs that are chosen for them."""

  def change(part: Node) -> Node | None:
    if part[0] not in ('pm', 'mp'):
      return None
    _, number_of_sign, operand = part
    is_minus = (choice[number_of_sign] < 0) == (part[0] == 'pm')
    inner = replace(operand, change)
    if is_minus:
      return ('-', inner)
    return inner

  return replace(node, change)
