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

ZERO, ONE, TWO = (('number', fmpq(n)) for n in range(3))
PI, EULER, IMAGINARY = ('constant', 'pi'), ('constant', 'e'), ('constant', 'i')
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
  nodes, stack = [], [node]
  while stack:
    node = stack.pop()
    nodes.append(node)
    for operand in node[1:]:
      if isinstance(operand, tuple):
        is_node = operand and isinstance(operand[0], str)
        stack += [operand] if is_node else [cell for row in operand for cell in row]
  return nodes


def leaves(node: Node) -> set[Node]:
  """The symbols, constants and unknown functions (by name) in a tree, without bound variables."""
  found, bound = set(), set()
  for part in walk(node):
    if part[0] in ('symbol', 'constant'):
      found.add(part)
    elif part[0] == 'apply':
      found.add(('apply', part[1]))
    elif part[0] in ('sum', 'prod', 'int', 'lim'):
      bound.update((('symbol', part[1]), INFINITY))
  return found - bound


def symbols(*nodes: Node) -> list[str]:
  return sorted({leaf[1] for node in nodes for leaf in leaves(node) if leaf[0] == 'symbol'})


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
    if isinstance(operand, tuple) and operand and isinstance(operand[0], str):
      operand = replace(operand, change)
    elif isinstance(operand, tuple):
      operand = tuple(tuple(replace(cell, change) for cell in row) for row in operand)
    operands.append(operand)
  return (node[0], *operands)


def alternatives(node: Node) -> list[Node]:
  r"""What a tree with \pm stands for: each sign both ways, all of them together beside a \mp."""
  parts = walk(node)
  signs = sorted({part[1] for part in parts if part[0] in ('pm', 'mp')})
  if not signs:
    return [node]
  if len(signs) > 4:
    raise UnreadableError('signs')
  is_tied = any(part[0] == 'mp' for part in parts)
  if is_tied:
    choices = [dict.fromkeys(signs, sign) for sign in (1, -1)]
  else:
    choices = [
      {s: 1 - 2 * (bits >> k & 1) for k, s in enumerate(signs)} for bits in range(1 << len(signs))
    ]
  return [replace(node, _choose(choice)) for choice in choices]


def _choose(choice: dict[int, int]) -> Callable[[Node], Node | None]:
  def change(node: Node) -> Node | None:
    if node[0] not in ('pm', 'mp'):
      return None
    sign = choice[node[1]] * (1 if node[0] == 'pm' else -1)
    inner = replace(node[2], change)
    return inner if sign > 0 else ('-', inner)

  return change
