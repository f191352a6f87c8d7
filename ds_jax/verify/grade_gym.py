"""The verifier `gym:NAME`: the scorer that reasoning-gym (an extra) has for one of its tasks.

Some of its scorers hand the answer to Python's `eval`, or to sympy's parser, which comes to `eval`.
Here `eval` reads literals only, unless the text stands in the entry, and tasks that use sympy see
only answers made of numbers, names and operators. Full marks are correct, a part of them is wrong.
"""

from __future__ import annotations

import ast
import builtins
import functools
import json
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any

from ds_jax.types import Verdict
from ds_jax.verify import extract, gym_tasks

_FULL_MARKS = 1 - 1e-9
_TAG = re.compile(r'<answer>((?:(?!</?answer>).)*)</answer>', re.DOTALL)
_EXPRESSION = re.compile(r'[0-9A-Za-z+\-*/^()., =\n°]{0,1000}')
_ATTRIBUTE = re.compile(r'\.\s*[A-Za-z]')

Scorer = Callable[[str, dict[str, Any]], float]


def verifier(task: str) -> Callable[[str, str], Verdict]:
  """Returns the verifier of a task; golds are entries as `data.gym_entries` writes them.

  Args:
    task: name and options, as in the source: some scorers depend on them.

  Raises:
    InputError: if `reasoning-gym` is not installed, has no such task or refuses an option.
  """
  dataset = gym_tasks.make_dataset(task)
  _, reads = gym_tasks.take_reads(task)
  modules = []
  for base in type(dataset).__mro__:
    if base.__module__.startswith('reasoning_gym.'):
      modules.append(sys.modules[base.__module__])
  uses_sympy = any(map(_imports_sympy, modules))
  read = _READERS[reads]
  return functools.partial(_verify, dataset.score_answer, read, modules, uses_sympy)


def _verify(
  score: Scorer,
  read: Callable[[str], str],
  modules: list[Any],
  uses_sympy: bool,
  gold: str,
  response: str,
) -> Verdict:
  """Scores the answer that `read` finds in a response, with `eval` replaced in `modules`."""
  answer = read(response)
  if not answer:
    return Verdict.NO_ANSWER
  if uses_sympy and not _is_harmless(answer):
    return Verdict.WRONG
  entry = json.loads(gold)
  for module in modules:  # a module's own `eval` is found before the built-in one
    module.eval = functools.partial(_evaluate, frozenset(_texts(entry)))
  try:
    return Verdict.CORRECT if _has_full_marks(score, answer, entry) else Verdict.WRONG
  finally:
    for module in modules:
      del module.eval


def _has_full_marks(score: Scorer, answer: str, entry: dict[str, Any]) -> bool:
  """Whether an answer is wholly right: some scorers compare with tuples, which JSON lacks."""
  if score(answer, entry) >= _FULL_MARKS:
    return True
  try:
    return score(answer, _with_tuples(entry)) >= _FULL_MARKS
  except (TypeError, AttributeError):  # this one needs the lists
    return False


def _with_tuples(value: Any) -> Any:
  """An entry, or a part of it, with tuples for lists."""
  if isinstance(value, dict):
    return {name: _with_tuples(item) for name, item in value.items()}
  return tuple(map(_with_tuples, value)) if isinstance(value, list) else value


def _answer(response: str) -> str:
  r"""The answer in the last `\boxed{}`, else in the last <answer> tags, else the whole text."""
  text = response[-extract.MAX_RESPONSE :]
  return (_marked(text) or text).strip()[: extract.MAX_ANSWER]


def _answer_or_number(response: str) -> str:
  """Likewise, but of a text without box and tags its last number."""
  marked = _marked(response[-extract.MAX_RESPONSE :])
  return marked.strip()[: extract.MAX_ANSWER] if marked else extract.last_number(response)


_READERS: dict[gym_tasks.Reads, Callable[[str], str]] = {
  'all': _answer,
  'last_number': _answer_or_number,
}


def _marked(text: str) -> str:
  """What stands in the last box, else in the last tags; '' without both."""
  answer = extract.last_boxed(text)
  if answer:
    return answer
  tagged = _TAG.findall(text)
  return tagged[-1] if tagged else ''


def _is_harmless(answer: str) -> bool:
  """Whether sympy's parser, which evaluates, may see an answer: no attributes, nothing quoted."""
  return _EXPRESSION.fullmatch(answer) is not None and not _ATTRIBUTE.search(answer)


def _imports_sympy(module: Any) -> bool:
  return any(map(_is_of_sympy, vars(module).values()))


def _is_of_sympy(x: Any) -> bool:
  """Whether something in a module is sympy, or of sympy."""
  names = (getattr(x, '__name__', None), getattr(x, '__module__', None))
  return any(isinstance(name, str) and name.split('.')[0] == 'sympy' for name in names)


def _texts(entry: Any) -> Iterator[str]:
  """Yields all texts in an entry or a part of it."""
  if isinstance(entry, str):
    yield entry
  elif isinstance(entry, list):
    for item in entry:
      yield from _texts(item)
  elif isinstance(entry, dict):
    for item in entry.values():
      yield from _texts(item)


def _evaluate(trusted: frozenset[str], text: str, *names: Any) -> Any:
  """`eval` of an entry's own texts; of any other text, its value if it is a literal."""
  return builtins.eval(text, *names) if text in trusted else ast.literal_eval(text)
