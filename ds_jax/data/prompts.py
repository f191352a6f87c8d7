"""From text to tokens and back: a Hugging Face tokenizer with its chat template; prompt lengths.

A tokenizer without a chat template (gpt2) encodes the bare text of a prompt.
"""

from __future__ import annotations

import dataclasses
import datetime
import functools
import html
import json
import os
import pathlib
import shutil
from collections.abc import Sequence
from typing import Any

import numpy as np

from ds_jax.checks import InputError
from ds_jax.config import DataConfig
from ds_jax.data.chat_template import ChatTemplate, EndlessTemplateError
from ds_jax.data.end_ids import end_ids, num_rows
from ds_jax.data.template_files import choose_template
from ds_jax.data.tokenizer_files import files_of, load_backend, tokenizer_folder
from ds_jax.interfaces import Tokenizer
from ds_jax.types import Message, Problem

# A problem as no template has it in its own text.
_REHEARSED = Problem('of a rehearsal', 'Which number is 17 + 4 * 6? Write it as \\boxed{}.', '41')

_SYSTEM = Message('system', 'The answer is checked by a program.')


@dataclasses.dataclass(frozen=True)
class ChatTokenizer:
  """An interfaces.Tokenizer on top of a transformers tokenizer."""

  tokenizer: Any  # transformers.PreTrainedTokenizerBase
  num_ids: int  # ids that the tokenizer has and the model's embedding, too
  stop_ids: tuple[int, ...]  # the tokenizer's end token first
  pad_id: int
  settings: DataConfig = DataConfig()  # system message, and what the template is given
  date: datetime.date | None = None  # of the run; None: today
  folder: str = dataclasses.field(default='', compare=False)  # where it is from

  @property
  def num_without_row(self) -> int:
    """How many ids the tokenizer has and the model lacks."""
    return _num_ids(self.tokenizer) - self.num_ids

  @functools.cached_property
  def template(self) -> ChatTemplate | None:
    """The chat template, tried on a problem; None: there is none.

    Raises:
      InputError: if it is broken, drops what it is given, or settings do not fit it.
    """
    chosen = choose_template(
      self.tokenizer.chat_template, pathlib.Path(self.folder), self.settings.template_name
    )
    arguments = dict(self.settings.template_arguments)
    if chosen is None:
      if arguments:
        raise InputError(
          f'data.template_arguments = {arguments}, but {self.folder} has no chat template.'
        )
      return None
    date = self.date or datetime.date.today()
    if self.settings.date:
      date = datetime.date.fromisoformat(self.settings.date)
    text, origin = chosen
    tokens = dict(self.tokenizer.special_tokens_map)
    template = ChatTemplate(text, origin, special_tokens=tokens, arguments=arguments, date=date)
    chat = self.chat_of(_REHEARSED)
    try:
      _rehearse(template, chat)
    except EndlessTemplateError:
      raise
    except InputError:
      # It may ask for a system message, and rows may bring their own.
      if chat[0].role == 'system' or not _is_fit(template, (_SYSTEM, *chat)):
        raise
    return template

  def chat_of(self, problem: Problem) -> tuple[Message, ...]:
    """The messages of a problem; its own system message goes before that of the settings."""
    preamble = problem.preamble
    system = self.settings.system_message
    if system and not (preamble and preamble[0].role == 'system'):
      preamble = (Message('system', system), *preamble)
    return (*preamble, Message('user', problem.prompt))

  def encode_prompt(self, text: str) -> np.ndarray:
    """Token ids [P] int32 of `text` as a user message, up to where the response begins."""
    return self.encode_prompts([text])[0]

  def encode_prompts(self, texts: Sequence[str]) -> list[np.ndarray]:
    """Encodes many texts at once, which is several times as fast."""
    return self.encode_problems([Problem(f'{text[:40]!r}', text, '') for text in texts])

  def encode_problems(self, problems: Sequence[Problem]) -> list[np.ndarray]:
    """Token ids [P] int32 of each problem's chat, up to where the response begins.

    Raises:
      InputError: names the problem that its prompt does not hold, of which the template fails, or
        whose prompt has a token that the model lacks.
    """
    if not problems:
      return []
    if self.template is None:
      rows = self._encode_bare(problems)
    else:
      texts = [self._rendered(problem) for problem in problems]
      rows = self.tokenizer(texts, add_special_tokens=False)['input_ids']
    prompts = []
    for problem, row in zip(problems, rows, strict=True):
      self._check_known(row, f'The prompt of problem {problem.id}')
      prompts.append(np.asarray(row, np.int32))
    return prompts

  def encode_response(self, text: str) -> np.ndarray:
    """Token ids [S] int32 of a response and its end token.

    Raises:
      InputError: if the model lacks one of the tokens.
    """
    ids = self.tokenizer(text, add_special_tokens=False)['input_ids']
    self._check_known(ids, f'The response {text[:60]!r}')
    return np.asarray([*ids, self.stop_ids[0]], np.int32)

  def decode_response(self, tokens: np.ndarray) -> str:
    """Text without special tokens; half a character becomes U+FFFD, ids beyond num_ids nothing."""
    ids = np.asarray(tokens)
    ids = ids[(ids >= 0) & (ids < self.num_ids)].tolist()
    return self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)

  def _rendered(self, problem: Problem) -> str:
    chat = self.chat_of(problem)
    try:
      text = self.template.render(chat)
      _check_holds(text, chat, self.template.origin)
    except InputError as e:
      raise InputError(f'Problem {problem.id}: {e}{self._remedy(chat)}') from e
    return text

  def _remedy(self, chat: Sequence[Message]) -> str:
    """What to do where the template fails for lack of a system message; '' for other faults."""
    if chat[0].role == 'system' or not _is_fit(self.template, (_SYSTEM, *chat)):
      return ''
    return ' With a system message it does not: set data.system_message, or give the row one.'

  def _encode_bare(self, problems: Sequence[Problem]) -> list[list[int]]:
    """Texts with the tokens that the tokenizer puts before them, but none that it puts behind.

    Some end every text with their end token; a response cannot begin after that.
    """
    for problem in problems:
      if len(self.chat_of(problem)) > 1:
        raise InputError(
          f'Problem {problem.id} has several messages (or data.system_message is set), and '
          f'{self.folder or "the tokenizer"} has no chat template; write them into one text, or '
          'add a chat_template.jinja.'
        )
    texts = [problem.prompt for problem in problems]
    bare = self.tokenizer(texts, add_special_tokens=False)['input_ids']
    full = self.tokenizer(texts)['input_ids']
    return [_without_suffix(*pair) for pair in zip(full, bare, strict=True)]

  def _check_known(self, ids: Sequence[int], what: str) -> None:
    """Raises InputError if the model has no row for an id."""
    if not ids or max(ids) < self.num_ids:
      return
    beyond = next(i for i in ids if i >= self.num_ids)
    token = self.tokenizer.convert_ids_to_tokens(beyond)
    raise InputError(
      f'{what} holds the token {token!r}, whose id {beyond} the model does not have: its embedding '
      f'ends at {self.num_ids - 1}. Take the token out of the text, or use the tokenizer that '
      'belongs to the model.'
    )


@dataclasses.dataclass(frozen=True)
class PreparedPrompts:
  """Problems with their prompt tokens, and what became of prompts that are too long."""

  prompts: tuple[tuple[Problem, np.ndarray], ...]  # tokens [P] int32, P <= prompt_limit
  skipped: tuple[str, ...]  # ids of problems left out
  truncated: tuple[str, ...] = ()  # ids of problems whose prompt lost its beginning


def prepare_prompts(
  problems: Sequence[Problem], tokenizer: Tokenizer, config: DataConfig
) -> PreparedPrompts:
  """Encodes all prompts; those longer than `config.prompt_limit` are skipped or cut on the left.

  Cutting the beginning, chat template included, is what the released code does.
  """
  encoded = encode_problems(problems, tokenizer)
  prompts, skipped, truncated = [], [], []
  for problem, tokens in zip(problems, encoded, strict=True):
    if len(tokens) > config.prompt_limit:
      if config.overlong_prompts == 'skip':
        skipped.append(problem.id)
        continue
      truncated.append(problem.id)
    prompts.append((problem, tokens[-config.prompt_limit :]))
  return PreparedPrompts(tuple(prompts), tuple(skipped), tuple(truncated))


def encode_problems(problems: Sequence[Problem], tokenizer: Tokenizer) -> list[np.ndarray]:
  """Prompt tokens [P] int32 of each problem, by any tokenizer of the protocol.

  Raises:
    InputError: if a problem has several messages and the tokenizer takes but one text.
  """
  if isinstance(tokenizer, ChatTokenizer):
    return tokenizer.encode_problems(problems)
  for problem in problems:
    if problem.preamble:
      raise InputError(f'Problem {problem.id} has several messages; {tokenizer!r} takes a text.')
  return [tokenizer.encode_prompt(problem.prompt) for problem in problems]


def load_tokenizer(
  folder: str | os.PathLike[str],
  settings: DataConfig | None = None,
  date: datetime.date | None = None,
) -> ChatTokenizer:
  """Loads the tokenizer of a Hugging Face folder, or of a model on the hub by its name.

  `stop_ids` are the tokenizer's end token and those of the model (data/end_ids.py). Ids that the
  tokenizer or the model's embedding lacks are left out: they are never sampled. Without a padding
  token the end token pads.

  Args:
    folder: the folder, or the model's name.
    settings: system message, and what the chat template is given; None: the defaults.
    date: what a chat template that asks for it gets, unless `settings` says another; None: today.

  Raises:
    InputError: if there is no such folder, it holds no tokenizer or a broken one, or it names no
      end token. What is wrong with its chat template is said when that is first used.
  """
  path = tokenizer_folder(folder)
  ids_of_model, rows = end_ids(path), num_rows(path)
  tokenizer = load_backend(path)
  num_ids = _num_ids(tokenizer)
  num_ids = min(num_ids, rows or num_ids)
  ends = [tokenizer.eos_token_id, *ids_of_model]
  stop_ids = tuple(dict.fromkeys(i for i in ends if i is not None and i < num_ids))
  if not stop_ids:
    raise InputError(
      f'The tokenizer of {str(path)!r} has no end token; set eos_token in '
      'tokenizer_config.json or eos_token_id in generation_config.json.'
    )
  pad_id = tokenizer.pad_token_id
  if pad_id is None or pad_id >= num_ids:
    pad_id = stop_ids[0]
  settings = settings or DataConfig()
  return ChatTokenizer(
    tokenizer, num_ids, stop_ids, pad_id=pad_id, settings=settings, date=date, folder=str(path)
  )


def save_tokenizer(
  source_folder: str | os.PathLike[str], output_folder: str | os.PathLike[str]
) -> list[str]:
  """Copies the tokenizer of a folder (or hub model) as it is; returns the names of its files."""
  source, output = tokenizer_folder(source_folder), pathlib.Path(output_folder)
  output.mkdir(parents=True, exist_ok=True)
  names = files_of(source)
  if source.resolve() != output.resolve():
    for name in names:
      (output / name).parent.mkdir(exist_ok=True)
      shutil.copyfile(source / name, output / name)
  return names


def _num_ids(tokenizer: Any) -> int:
  return max(tokenizer.get_vocab().values(), default=-1) + 1


def _without_suffix(full: list[int], bare: list[int]) -> list[int]:
  """`full` up to where `bare`, which it holds, ends."""
  for start in range(len(full) - len(bare) + 1):
    if full[start : start + len(bare)] == bare:
      return full[: start + len(bare)]
  return full


def _rehearse(template: ChatTemplate, chat: Sequence[Message]) -> None:
  """Raises InputError if the template fails, never ends or drops something."""
  _check_holds(template.rehearse(chat), chat, template.origin)


def _is_fit(template: ChatTemplate, chat: Sequence[Message]) -> bool:
  try:
    _rehearse(template, chat)
  except InputError:
    return False
  return True


def _check_holds(rendered: str, chat: Sequence[Message], origin: str) -> None:
  """Raises InputError unless a rendered chat holds what system and user say.

  Templates may change spaces and capitals, or escape text as JSON and HTML do. From what an
  assistant said, templates of reasoning models take the reasoning.
  """
  texts = (_squeezed(rendered), _squeezed(html.unescape(rendered)))
  for message in chat:
    if message.role == 'assistant':
      continue
    forms = {_squeezed(form) for form in _written_forms(message.content)}
    if not any(form in text for form in forms for text in texts):
      remedy = 'Use a template for messages of text.'
      if message.role == 'system':
        remedy = 'Write it into the question, or use a template that has a place for it.'
      raise InputError(
        f'{origin} drops or changes what {message.role} says: {message.content[:60]!r} is not in '
        f'what it makes, {rendered[:100]!r}. {remedy}'
      )


def _written_forms(content: str) -> list[str]:
  """A text as it is, and as JSON writes it."""
  return [content, json.dumps(content)[1:-1], json.dumps(content, ensure_ascii=False)[1:-1]]


def _squeezed(text: str) -> str:
  return ''.join(text.split()).casefold()
