"""What the methods of a session return: figures and trees that print themselves.

At a prompt they look as at the shell; a notebook shows them as HTML. What a model wrote is escaped
in both.
"""

from __future__ import annotations

import base64
import dataclasses
import html
import itertools
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, overload

from ds_jax.report.inspect import Decode
from ds_jax.report.text import number, shorten, visible
from ds_jax.report.tree_view import tree_fragment
from ds_jax.run.searched import Searched
from ds_jax.types import FinishedTree, Problem, Verdict

# Of the trees that notebooks have shown: each has anchors of its own.
_numbers = itertools.count(1)

_MAX_TEXT = 60  # characters of a problem, or an answer, in a line


class Outcome(Mapping[str, Any]):
  """Figures by their names, as `ds-jax … --json` prints them; it prints as the shell does."""

  def __init__(
    self, figures: Mapping[str, Any], text: str = '', picture: pathlib.Path | None = None
  ):
    """Holds the figures.

    Args:
      figures: of a command.
      text: what the command prints; '': the figures as lines.
      picture: a PNG file that a notebook shows below, if it is there.
    """
    self._figures, self._picture = dict(figures), picture
    self._text = text or _lines_of(self._figures)

  def __getitem__(self, name: str) -> Any:
    return self._figures[name]

  def __iter__(self) -> Iterator[str]:
    return iter(self._figures)

  def __len__(self) -> int:
    return len(self._figures)

  def __repr__(self) -> str:
    return self._text

  def _repr_html_(self) -> str:
    return _preformatted(self._text) + _image(self._picture)


@dataclasses.dataclass(frozen=True)
class Trajectory:
  """A finished path of a tree."""

  node: int  # its last one
  text: str  # the whole response
  verdict: Verdict
  reward: float
  is_collected: bool  # one of those that the search set out to find


class SearchedTree:
  """A tree that was grown for a problem.

  Attributes:
    problem: the problem, with its answer where that is known.
    tree: the arrays, see types.FinishedTree.
  """

  def __init__(self, searched: Searched, decode: Decode):
    """Holds a finished tree.

    Args:
      searched: the tree, and what was found of it.
      decode: text of tokens.
    """
    self.problem: Problem = searched.problem
    self.tree: FinishedTree = searched.tree
    self._row, self._text, self._decode = searched.row, searched.text, decode

  @property
  def is_solved(self) -> bool | None:
    """Whether an end is correct; None where the right answer is not known."""
    return self._row['is_solved']

  @property
  def answer(self) -> str | None:
    """The answer that `select` chose; None where no end gives any."""
    chosen = self._row['selected']
    return None if chosen is None else chosen['answer']

  @property
  def response(self) -> str | None:
    """The whole response that gives the answer."""
    chosen = self._row['selected']
    return None if chosen is None else chosen['response']

  @property
  def answers(self) -> Mapping[str, Mapping[str, Any] | None]:
    """By each rule of `select`: node, answer, response, q, and whether it is_correct."""
    return self._row['answers']

  @property
  def seconds(self) -> float:
    """From the tree's start to its end, compilation left out; other trees grew meanwhile."""
    return self._row['table']['time_per_tree']

  @property
  def trajectories(self) -> list[Trajectory]:
    """The finished paths, collected ones in order, then the others by creation.

    Those whose verification failed through our fault, or whose text is garbled, are among the
    others.
    """
    collected = self.tree.collected.tolist()
    others = [int(node) for node in self.tree.is_terminal.nonzero()[0] if node not in collected]
    return [self._trajectory(node, node in collected) for node in [*collected, *others]]

  def to_dict(self) -> dict[str, Any]:
    """The tree as plain values that JSON can write, see report/inspect.py."""
    return self._row['tree']

  def __repr__(self) -> str:
    return f'{self._text}\n{self._answer_line()}'

  def _repr_html_(self) -> str:
    return tree_fragment(self._row, name=f'ds-tree-{next(_numbers)}')

  def _trajectory(self, node: int, is_collected: bool) -> Trajectory:
    tree = self.tree
    return Trajectory(
      node=node,
      text=self._decode(tree.along_path(tree.tokens, node)),
      verdict=Verdict(tree.verdict[node]),
      reward=float(tree.reward[node]),
      is_collected=is_collected,
    )

  def _answer_line(self) -> str:
    if self.answer is None:
      return 'answer: none'
    return f'answer: {shorten(visible(self.answer), _MAX_TEXT)}'


class SearchedTrees(Sequence[SearchedTree]):
  """Trees of several problems, in their order.

  Attributes:
    figures: over all of them, as `ds-jax search --problems … --json` prints them.
  """

  def __init__(self, trees: Sequence[SearchedTree], figures: Mapping[str, Any], text: str):
    """Holds finished trees.

    Args:
      trees: in order.
      figures: over them.
      text: the tables that the shell prints.
    """
    self.figures = figures
    self._trees, self._text = tuple(trees), text

  @overload
  def __getitem__(self, index: int) -> SearchedTree: ...

  @overload
  def __getitem__(self, index: slice) -> Sequence[SearchedTree]: ...

  def __getitem__(self, index: int | slice) -> SearchedTree | Sequence[SearchedTree]:
    return self._trees[index]

  def __len__(self) -> int:
    return len(self._trees)

  def __repr__(self) -> str:
    return '\n'.join([*map(_tree_line, self._trees), '', self._text])

  def _repr_html_(self) -> str:
    return _preformatted(repr(self))


def _tree_line(searched: SearchedTree) -> str:
  """Returns '29 f2 f3: solved · answer 5 · 4 ends · 210 tokens · 1.2 s'."""
  state = {True: 'solved', False: 'not solved', None: 'not graded'}[searched.is_solved]
  answer = 'none' if searched.answer is None else shorten(visible(searched.answer), _MAX_TEXT)
  question = shorten(visible(searched.problem.prompt), _MAX_TEXT)
  count = int(searched.tree.is_terminal.sum())
  tokens = searched.tree.statistics['generated_tokens']
  return f'{question}: {state} · answer {answer} · {count} ends · {number(tokens)} tokens'


def _lines_of(figures: Mapping[str, Any]) -> str:
  """A line for each figure that is a text or a number."""
  lines = []
  for name, value in figures.items():
    if isinstance(value, str | int | float) and value != '':
      lines.append(f'{name}: {number(value)}')
  return '\n'.join(lines)


def _preformatted(text: str) -> str:
  return f'<pre style="line-height:1.25">{html.escape(text)}</pre>'


def _image(path: pathlib.Path | None) -> str:
  """A PNG file as HTML that does not need it any more; '': there is none."""
  if path is None or not path.is_file():
    return ''
  data = base64.b64encode(path.read_bytes()).decode()
  return f'<img alt="learning curve" style="max-width:100%" src="data:image/png;base64,{data}">'
