"""The comments of a dataclass's fields, for help texts: what a reader of the source reads."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import io
import textwrap
import tokenize


def comments_of(cls: type) -> dict[str, str]:
  """What is written about the fields of a dataclass and of its bases, by name.

  The lines of comment right above a field are about it, and the comment behind it.
  """
  texts: dict[str, str] = {}
  for base in reversed(cls.__mro__):
    if dataclasses.is_dataclass(base):
      texts |= _comments_in(textwrap.dedent(inspect.getsource(base)))
  return texts


def _comments_in(source: str) -> dict[str, str]:
  above, behind = _comment_lines(source)
  (definition,) = ast.parse(source).body
  texts = {}
  for field in definition.body:
    if not isinstance(field, ast.AnnAssign):
      continue
    parts = [behind[line] for line in range(field.lineno, field.end_lineno + 1) if line in behind]
    line = field.lineno - 1
    while line in above:
      parts.insert(0, above[line])
      line -= 1
    if parts:
      texts[field.target.id] = ' '.join(parts)
  return texts


def _comment_lines(source: str) -> tuple[dict[int, str], dict[int, str]]:
  """Comments by their line, from 1: those that have it for themselves, and those behind code."""
  above, behind = {}, {}
  for token in tokenize.generate_tokens(io.StringIO(source).readline):
    if token.type == tokenize.COMMENT:
      is_alone = token.line.lstrip().startswith('#')
      lines = above if is_alone else behind
      lines[token.start[0]] = token.string.lstrip('# ')
  return above, behind
