"""From text to tokens and back: a Hugging Face tokenizer with its chat template; prompt lengths.

A tokenizer without a chat template (gpt2) encodes the bare text of a prompt.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import shutil
from collections.abc import Sequence
from typing import Any

import numpy as np

from ds_jax import hub
from ds_jax.checks import InputError
from ds_jax.config import DataConfig
from ds_jax.interfaces import Tokenizer
from ds_jax.types import Problem

# A folder must have one of these …
_VOCABULARIES = ('tokenizer.json', 'tokenizer.model', 'vocab.json', 'vocab.txt')
# … and these belong to a tokenizer, too.
_TOKENIZER_FILES = (
  *_VOCABULARIES,
  'merges.txt',
  'tokenizer_config.json',
  'added_tokens.json',
  'special_tokens_map.json',
  'chat_template.jinja',
  'generation_config.json',
)


@dataclasses.dataclass(frozen=True)
class ChatTokenizer:
  """An interfaces.Tokenizer on top of a transformers tokenizer."""

  tokenizer: Any  # transformers.PreTrainedTokenizerBase
  num_ids: int  # ids the tokenizer really has, which is not the number of embedding rows
  stop_ids: tuple[int, ...]  # the tokenizer's end token first
  pad_id: int

  def encode_prompt(self, text: str) -> np.ndarray:
    """Token ids [P] int32 of `text` as a user message, up to where the response begins."""
    return self.encode_prompts([text])[0]

  def encode_prompts(self, texts: Sequence[str]) -> list[np.ndarray]:
    """Encodes many texts at once, which is several times as fast."""
    if not texts:  # of which transformers makes one empty row
      return []
    if self.tokenizer.chat_template is None:
      rows = self.tokenizer(list(texts))['input_ids']
    else:
      chats = [[{'role': 'user', 'content': text}] for text in texts]
      rows = self.tokenizer.apply_chat_template(
        chats, add_generation_prompt=True, return_dict=False
      )
    return [np.asarray(ids, np.int32) for ids in rows]

  def encode_response(self, text: str) -> np.ndarray:
    """Token ids [S] int32 of a response and its end token."""
    ids = self.tokenizer(text, add_special_tokens=False)['input_ids']
    return np.asarray([*ids, self.stop_ids[0]], np.int32)

  def decode_response(self, tokens: np.ndarray) -> str:
    """Text without special tokens; half a character becomes U+FFFD, ids beyond num_ids nothing."""
    ids = np.asarray(tokens)
    ids = ids[(ids >= 0) & (ids < self.num_ids)].tolist()
    return self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)


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
  texts = [problem.prompt for problem in problems]
  if isinstance(tokenizer, ChatTokenizer):
    encoded = tokenizer.encode_prompts(texts)
  else:
    encoded = list(map(tokenizer.encode_prompt, texts))
  prompts, skipped, truncated = [], [], []
  for problem, tokens in zip(problems, encoded, strict=True):
    if len(tokens) > config.prompt_limit:
      if config.overlong_prompts == 'skip':
        skipped.append(problem.id)
        continue
      truncated.append(problem.id)
    prompts.append((problem, tokens[-config.prompt_limit :]))
  return PreparedPrompts(tuple(prompts), tuple(skipped), tuple(truncated))


def load_tokenizer(folder: str | os.PathLike[str]) -> ChatTokenizer:
  """Loads the tokenizer of a Hugging Face folder, or of a model on the hub by its name.

  `stop_ids` are the tokenizer's end token and the `eos_token_id` of generation_config.json, ids
  that the tokenizer lacks left out: they are never sampled. Without a padding token the end token
  pads.

  Raises:
    InputError: if there is no such folder, it holds no tokenizer or a broken one, or it names no
      end token.
  """
  path = _tokenizer_folder(folder)
  # The verifier forks workers; tokenizers would warn in each of them.
  os.environ.setdefault('TOKENIZERS_PARALLELISM', 'false')
  os.environ.setdefault('TRANSFORMERS_NO_ADVISORY_WARNINGS', '1')  # that PyTorch is missing
  import transformers

  # AutoTokenizer ignores a request for the generic class once config.json says 'qwen2' and applies
  # Qwen's own splitting (transformers 5.23).
  loader = transformers.AutoTokenizer
  if _is_generic(path):
    loader = transformers.PreTrainedTokenizerFast
  try:
    tokenizer = loader.from_pretrained(path, local_files_only=True)
  except Exception as e:  # broken files raise what they like, tokenizers bare Exceptions
    raise InputError(f'Cannot load a tokenizer from {str(path)!r}: {e}') from e
  num_ids = max(tokenizer.get_vocab().values(), default=-1) + 1
  stop_ids = tuple(i for i in _stop_ids(path, tokenizer.eos_token_id) if i < num_ids)
  if not stop_ids:
    raise InputError(
      f'The tokenizer of {str(path)!r} has no end token; set eos_token in '
      'tokenizer_config.json or eos_token_id in generation_config.json.'
    )
  pad_id = tokenizer.pad_token_id
  if pad_id is None:
    pad_id = stop_ids[0]
  return ChatTokenizer(tokenizer, num_ids, stop_ids, pad_id)


def _is_generic(path: pathlib.Path) -> bool:
  """Whether tokenizer_config.json asks for tokenizer.json as it stands."""
  try:
    fields = json.loads((path / 'tokenizer_config.json').read_text())
  except (OSError, ValueError):
    return False
  return fields.get('tokenizer_class') in ('PreTrainedTokenizerFast', 'TokenizersBackend')


def save_tokenizer(
  source_folder: str | os.PathLike[str], output_folder: str | os.PathLike[str]
) -> list[str]:
  """Copies the tokenizer of a folder (or hub model) as it is; returns the names of its files."""
  source, output = _tokenizer_folder(source_folder), pathlib.Path(output_folder)
  output.mkdir(parents=True, exist_ok=True)
  names = [name for name in _TOKENIZER_FILES if (source / name).is_file()]
  if source.resolve() != output.resolve():
    for name in names:
      shutil.copyfile(source / name, output / name)
  return names


def _tokenizer_folder(folder: str | os.PathLike[str]) -> pathlib.Path:
  """The local folder that holds the tokenizer's files."""
  path = hub.local_folder(folder, _TOKENIZER_FILES)
  if not path.is_dir():
    raise InputError(
      f'No folder {str(folder)!r}; expected a Hugging Face folder with '
      f'{_VOCABULARIES[0]}, or a name on the hub like Qwen/Qwen2.5-1.5B.'
    )
  if not any((path / name).is_file() for name in _VOCABULARIES):
    names = sorted(entry.name for entry in path.iterdir())
    raise InputError(
      f'No tokenizer in {str(path)!r}: expected tokenizer.json with tokenizer_config.json (or one '
      f'of {", ".join(_VOCABULARIES[1:])}), found {", ".join(names[:10]) or "nothing"}.'
    )
  return path


def _stop_ids(path: pathlib.Path, eos_id: int | None) -> list[int]:
  """The tokenizer's end token, then those of generation_config.json, each once."""
  ids = [] if eos_id is None else [eos_id]
  file = path / 'generation_config.json'
  if file.is_file():
    ids += _eos_ids(file)
  return list(dict.fromkeys(ids))


def _eos_ids(file: pathlib.Path) -> list[int]:
  """The `eos_token_id` of a JSON file: one id, a list of ids or nothing."""
  try:
    value = json.loads(file.read_text()).get('eos_token_id')
  except (ValueError, AttributeError) as e:
    raise InputError(f'{str(file)!r} is not a JSON object: {e}.') from e
  if value is None:
    return []
  ids = value if isinstance(value, list) else [value]
  if not all(type(i) is int and i >= 0 for i in ids):
    raise InputError(
      f'Expected eos_token_id in {str(file)!r} to be an id or a list of ids, got {value!r}.'
    )
  return ids
