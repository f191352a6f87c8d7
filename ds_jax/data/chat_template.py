"""A chat template: parsed, given what it may ask for, and rendered within bounds.

A template is code of a stranger, written in jinja2. It is rendered here and not by transformers,
because a run's prompts must not depend on the day: transformers' templates read the clock, and
later versions give a template no function of ours. The environment is that of transformers; tests
compare the two.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import functools
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jinja2
import jinja2.ext
import jinja2.meta
import jinja2.sandbox
from jinja2 import nodes

from ds_jax.checks import InputError, first_line, suggest

if TYPE_CHECKING:
  from ds_jax.types import Message

# What every template is given; nothing else may be called so.
RESERVED = ('messages', 'add_generation_prompt')
# A template that has no date of its own is given this variable.
_DATE_VARIABLE, _DATE_FORMAT = 'date_string', '%d %b %Y'
_CLOCK = 'strftime_now'
# More than this beside the messages is no prompt.
MAX_LENGTH = 1_000_000  # characters

_REHEARSAL = 'ds_jax.data.rehearse_template'
_REHEARSAL_SECONDS = 120.0  # by the clock, on a loaded machine; the child limits its own work

# jinja2 calls a template that is not a file so.
_NO_FILE = '<template>'


class EndlessTemplateError(InputError):
  """The template was stopped, because it took too long."""


@dataclasses.dataclass(frozen=True)
class ChatTemplate:
  """A template with all that it depends on besides messages."""

  text: str
  origin: str  # the file that it is from, and its name there, for people
  special_tokens: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # bos_token, …
  arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # of the user
  date: datetime.date = dataclasses.field(default_factory=datetime.date.today)

  def check(self) -> None:
    """Raises InputError if it does not parse, or does not read an argument."""
    asked = sorted(self.variables - {*RESERVED, *self.special_tokens})
    for name in self.arguments:
      if name in RESERVED:
        raise InputError(f'data.template_arguments.{name}: ds_jax gives {name} itself; remove it.')
      if name not in self.variables:
        raise InputError(
          f'{self.origin} reads no variable {name!r} of data.template_arguments.'
          f'{suggest(name, asked)} It reads: {", ".join(asked) or "no others"}.'
        )

  @functools.cached_property
  def variables(self) -> frozenset[str]:
    """Names that the template reads and does not define."""
    with self._readable():
      return frozenset(jinja2.meta.find_undeclared_variables(self._tree))

  @functools.cached_property
  def asks_for_date(self) -> bool:
    """Whether the text may depend on the day."""
    names = {node.name for node in self._tree.find_all(nodes.Name)}
    return _CLOCK in names or self._lacks_date

  def render(self, messages: Sequence[Message]) -> str:
    """The text of a chat up to where the response begins.

    Raises:
      InputError: names the template and what it says.
    """
    chat = [{'role': message.role, 'content': message.content} for message in messages]
    variables = {**self.special_tokens, 'tools': None, 'documents': None}
    if self._lacks_date:
      variables[_DATE_VARIABLE] = self.date.strftime(_DATE_FORMAT)
    variables |= self.arguments
    compiled = self._compiled
    try:
      text = compiled.render(messages=chat, add_generation_prompt=True, **variables)
    except Exception as e:  # whatever the code of a stranger raises
      raise InputError(f'{self.origin} fails: {_reason(e)}.') from e
    length = sum(len(message.content) for message in messages)
    if len(text) > length + MAX_LENGTH:
      raise InputError(
        f'{self.origin} makes {len(text):,} characters of {length:,}; expected a prompt.'
      )
    return text

  def rehearse(self, messages: Sequence[Message]) -> str:
    """Checks and renders in a process of limited time and memory, before this one does.

    Raises:
      InputError: as `check` and `render`, and if the template does not come to an end.
    """
    request = dataclasses.asdict(self) | {
      'date': self.date.isoformat(),
      'messages': [tuple(message) for message in messages],
    }
    answer = json.loads(_rehearsed(json.dumps(request), self.origin))
    if 'error' in answer:
      raise InputError(answer['error'])
    return answer['text']

  @functools.cached_property
  def _tree(self) -> nodes.Template:
    with self._readable():
      return _environment().parse(self.text)

  @functools.cached_property
  def _compiled(self) -> jinja2.Template:
    environment = _environment()
    environment.globals[_CLOCK] = self.date.strftime
    with self._readable():
      return environment.from_string(self.text)

  @contextlib.contextmanager
  def _readable(self) -> Iterator[None]:
    """Names the template where jinja2 cannot read it; deep nesting ends in a RecursionError."""
    try:
      yield
    except InputError:
      raise
    except Exception as e:
      raise InputError(f'{self.origin} cannot be read: {_reason(e)}.') from e

  @functools.cached_property
  def _lacks_date(self) -> bool:
    """Whether it prints a date that nobody gives: it neither sets one nor asks whether it is there.

    Those of Llama have a date of their own for that case, which transformers' users get as well.
    """
    if _DATE_VARIABLE not in self.variables:
      return False
    for assignment in self._tree.find_all(nodes.Assign):
      if getattr(assignment.target, 'name', '') == _DATE_VARIABLE:
        return False
    guards = (*self._tree.find_all(nodes.Test), *self._tree.find_all(nodes.Filter))
    for guard in guards:
      is_guard = guard.name in ('defined', 'undefined', 'default', 'd')
      if is_guard and getattr(guard.node, 'name', '') == _DATE_VARIABLE:
        return False
    return True


@functools.cache
def _rehearsed(request: str, origin: str) -> str:
  """What a child process answers to a request of `ChatTemplate.rehearse`.

  Raises:
    EndlessTemplateError: if it comes to no end.
  """
  code = f'import sys; sys.path = {json.dumps(sys.path)}; from {_REHEARSAL} import main; main()'
  try:
    child = subprocess.run(
      [sys.executable, '-I', '-c', code],
      input=request,
      capture_output=True,
      text=True,
      encoding='utf-8',
      timeout=_REHEARSAL_SECONDS,
    )
  except subprocess.TimeoutExpired:
    child = None
  if child is None or child.returncode < 0:  # a signal: that of the limit on processor time
    raise EndlessTemplateError(f'{origin} does not come to an end; mend or replace it.')
  if child.returncode:
    raise RuntimeError(f'The rehearsal of a chat template failed: {child.stderr[-2000:]}')
  return child.stdout


class _GenerationBlock(jinja2.ext.Extension):
  """`{% generation %} … {% endgeneration %}` marks text to train on; here it is that text."""

  tags = {'generation'}

  def parse(self, parser: jinja2.parser.Parser) -> nodes.Node:
    line = next(parser.stream).lineno
    body = parser.parse_statements(('name:endgeneration',), drop_needle=True)
    return nodes.Scope(body).set_lineno(line)


def _environment() -> jinja2.sandbox.ImmutableSandboxedEnvironment:
  """What transformers renders templates in, but for the clock."""
  environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
    trim_blocks=True,
    lstrip_blocks=True,
    extensions=[_GenerationBlock, jinja2.ext.loopcontrols],
  )
  environment.filters['tojson'] = _to_json
  environment.globals['raise_exception'] = _raise_exception
  environment.globals[_CLOCK] = datetime.date.min.strftime  # a place holder for the parser
  return environment


def _to_json(
  value: Any,
  ensure_ascii: bool = False,
  indent: int | None = None,
  separators: tuple[str, str] | None = None,
  sort_keys: bool = False,
) -> str:
  """JSON as in messages: jinja2's own filter escapes for HTML."""
  return json.dumps(
    value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
  )


def _raise_exception(message: str) -> None:
  raise jinja2.TemplateError(message)


def _reason(error: Exception) -> str:
  """What an exception says, with the line of the template."""
  reason = first_line(error).rstrip('.')
  if isinstance(error, MemoryError):
    reason = 'it needs too much memory'
  elif isinstance(error, RecursionError):
    reason = 'it is nested too deeply'
  line = getattr(error, 'lineno', None) or _line_of(error)
  return f'{reason} (line {line})' if line else reason


def _line_of(error: Exception) -> int | None:
  """The line of the template that was being rendered."""
  line, trace = None, error.__traceback__
  while trace is not None:
    if trace.tb_frame.f_code.co_filename == _NO_FILE:
      line = trace.tb_lineno
    trace = trace.tb_next
  return line
