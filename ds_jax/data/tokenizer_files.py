"""The tokenizer of a Hugging Face folder: its files, and that what is loaded is what they say.

transformers builds some classes of tokenizers anew from the vocabulary, by rules of the class, and
ignores those of tokenizer.json; which classes depends on its version. Text would lose its spaces,
or numbers be split in another way than the model has learnt. So what was loaded is compared with
tokenizer.json, and where they differ the file's own is taken.
"""

from __future__ import annotations

import json
import os
import pathlib
from typing import TYPE_CHECKING, Any

from ds_jax import hub
from ds_jax.checks import InputError, first_line
from ds_jax.data.end_ids import GENERATION_CONFIG, MODEL_CONFIG

if TYPE_CHECKING:
  from tokenizers import Tokenizer

TOKENIZER_FILE, SETTINGS_FILE = 'tokenizer.json', 'tokenizer_config.json'
TEMPLATE_FILE, OLD_TEMPLATE_FILE = 'chat_template.jinja', 'chat_template.json'
TEMPLATE_FOLDER = 'additional_chat_templates'
# A folder must have one of these …
_VOCABULARIES = (TOKENIZER_FILE, 'tokenizer.model', 'vocab.json', 'vocab.txt')
# … and these belong to a tokenizer, too.
_TOKENIZER_FILES = (
  *_VOCABULARIES,
  'merges.txt',
  SETTINGS_FILE,
  'added_tokens.json',
  'special_tokens_map.json',
  TEMPLATE_FILE,
  OLD_TEMPLATE_FILE,
  f'{TEMPLATE_FOLDER}/*.jinja',
  GENERATION_CONFIG,
)

# Byte-level ids, spaces, digits, composed and decomposed accents, scripts, emoji, code, controls.
PROBES = (
  'Hello world, what is 1+2?',
  ' leading  double   triple spaces ',
  'lines\n\nof\n \ttext\r\n',
  '7 42 123 1234567 3.14159 1,000',
  'cafe\u0301 caf\u00e9 A\u030a \u212b \ufb01 \u00bd',
  '日本語の問題 中文 Ελληνικά عربى',
  '👩\u200d👩\u200d👧 🙂 𝕏',
  'def f(x):\n    return x ** 2  # it\'s "so"',
  '\\frac{1}{2} $x^2 \\le 5$ \\boxed{7}',
  "don't I'LL We've",
  '\x01 \x7f \u00a0 \u200b \ufeff.',
)
_NUM_SPECIAL = 8  # special tokens that stand in probes


def tokenizer_folder(folder: str | os.PathLike[str]) -> pathlib.Path:
  """The local folder that holds the tokenizer's files; of a model on the hub, its snapshot.

  Raises:
    InputError: if there is no such folder, or no tokenizer in it.
  """
  path = hub.local_folder(folder, (*_TOKENIZER_FILES, MODEL_CONFIG))
  if not path.is_dir():
    raise InputError(
      f'No folder {str(folder)!r}; expected a Hugging Face folder with '
      f'{TOKENIZER_FILE}, or a name on the hub like Qwen/Qwen2.5-1.5B.'
    )
  if not any((path / name).is_file() for name in _VOCABULARIES):
    names = sorted(entry.name for entry in path.iterdir())
    raise InputError(
      f'No tokenizer in {str(path)!r}: expected {TOKENIZER_FILE} with {SETTINGS_FILE} (or '
      f'vocab.json with merges.txt), found {", ".join(names[:10]) or "nothing"}.'
    )
  return path


def files_of(folder: pathlib.Path) -> list[str]:
  """Names of the tokenizer's files in a folder, templates included."""
  names = []
  for pattern in _TOKENIZER_FILES:
    files = sorted(path for path in folder.glob(pattern) if path.is_file())
    names.extend(path.relative_to(folder).as_posix() for path in files)
  return names


def load_backend(folder: pathlib.Path) -> Any:
  """The transformers tokenizer of a folder; it encodes and decodes as tokenizer.json does.

  Raises:
    InputError: if it cannot be loaded, or differs from tokenizer.json.
  """
  # The verifier forks workers; tokenizers would warn in each of them.
  os.environ.setdefault('TOKENIZERS_PARALLELISM', 'false')
  os.environ.setdefault('TRANSFORMERS_NO_ADVISORY_WARNINGS', '1')  # that PyTorch is missing
  _check_readable(folder)
  if not (folder / TOKENIZER_FILE).is_file():
    return _load_without_file(folder)
  file = _read_file(folder)
  loaders = [_load_generic, _load_with_parts]
  if not _is_generic(folder):
    loaders.insert(0, _load_by_class)
  faults = []
  for load in loaders:
    try:
      tokenizer = load(folder)
      text = differing_text(tokenizer, file)
    except Exception as e:  # broken files raise what they like, tokenizers bare Exceptions
      faults.append(first_line(e))
      continue
    if text is None:
      return tokenizer
    faults.append(f'{type(tokenizer).__name__} reads {text!r} in another way')
  raise InputError(
    f'Cannot load a tokenizer from {str(folder)!r} that does what its {TOKENIZER_FILE} says: '
    f'{"; ".join(dict.fromkeys(faults))}. Other versions of transformers may; or save the '
    'tokenizer again with the one that it was made with.'
  )


def _check_readable(folder: pathlib.Path) -> None:
  """Raises InputError that names the first file which is not what its name says."""
  for name in files_of(folder):
    path = folder / name
    if path.suffix not in ('.json', '.jinja') or name in (TOKENIZER_FILE, GENERATION_CONFIG):
      continue  # these are checked where they are read
    try:
      text = path.read_text(encoding='utf-8')
      is_fit = path.suffix == '.jinja' or isinstance(json.loads(text), dict)
    except ValueError as e:
      raise InputError(f'{str(path)!r} cannot be read: {first_line(e)}; copy it again.') from e
    if not is_fit:
      raise InputError(f'Expected {str(path)!r} to be a JSON object; copy it again.')


def differing_text(tokenizer: Any, file: Tokenizer) -> str | None:
  """A text that a transformers tokenizer encodes or decodes in another way than its file.

  What is special, and so left out of decoded text, may be said by tokenizer_config.json alone.
  """
  for text in (*PROBES, *_special_probes(file)):
    for special in (False, True):
      ids = file.encode(text, add_special_tokens=special).ids
      if tokenizer(text, add_special_tokens=special)['input_ids'] != ids:
        return text
      decoded = tokenizer.decode(ids, clean_up_tokenization_spaces=False)
      if decoded != file.decode(ids, skip_special_tokens=False):
        return text
  return None


def _special_probes(file: Tokenizer) -> list[str]:
  tokens = [token.content for token in file.get_added_tokens_decoder().values()]
  tokens = list(dict.fromkeys([*tokens[: _NUM_SPECIAL // 2], *tokens[-_NUM_SPECIAL // 2 :]]))
  return [f'a{token}b' for token in tokens]


def _read_file(folder: pathlib.Path) -> Tokenizer:
  from tokenizers import Tokenizer

  try:
    file = Tokenizer.from_file(str(folder / TOKENIZER_FILE))
  except Exception as e:  # of which tokenizers raises bare ones
    raise InputError(
      f'Cannot load a tokenizer from {str(folder)!r}: {TOKENIZER_FILE}: {first_line(e)}'
    ) from e
  file.no_truncation()  # transformers asks for neither
  file.no_padding()
  return file


def _is_generic(folder: pathlib.Path) -> bool:
  """Whether tokenizer_config.json asks for tokenizer.json as it stands.

  AutoTokenizer ignores that once config.json says 'qwen2' and applies Qwen's own splitting
  (transformers 5.23); the probes do not tell for a vocabulary of a few words.
  """
  try:
    fields = json.loads((folder / SETTINGS_FILE).read_text())
  except (OSError, ValueError):
    return False
  return fields.get('tokenizer_class') in ('PreTrainedTokenizerFast', 'TokenizersBackend')


def _load_by_class(folder: pathlib.Path) -> Any:
  """By the class that the folder names, or that belongs to the model."""
  import transformers

  # Code that comes with a model is not run.
  return transformers.AutoTokenizer.from_pretrained(
    folder, local_files_only=True, trust_remote_code=False
  )


def _load_generic(folder: pathlib.Path) -> Any:
  """tokenizer.json with the special tokens and templates of tokenizer_config.json."""
  import transformers

  return transformers.PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)


def _load_with_parts(folder: pathlib.Path) -> Any:
  """The same, once more given the parts of the file.

  transformers 4 sets `add_prefix_space` of the file's pre-tokenizer to its own default.
  """
  tokenizer, file = _load_generic(folder), _read_file(folder)
  for part in ('normalizer', 'pre_tokenizer', 'post_processor', 'decoder'):
    setattr(tokenizer.backend_tokenizer, part, getattr(file, part))
  return tokenizer


def _load_without_file(folder: pathlib.Path) -> Any:
  """A vocabulary of an older format, where it is sure that transformers reads it right.

  Raises:
    InputError: if it is not.
  """
  remedy = (
    f'write a {TOKENIZER_FILE} once, where the packages sentencepiece and protobuf are installed: '
    'python -c "import transformers; '
    f"transformers.AutoTokenizer.from_pretrained('{folder}').save_pretrained('{folder}')\""
  )
  if not (folder / 'vocab.json').is_file():
    raise InputError(f'{str(folder)!r} has no {TOKENIZER_FILE}; {remedy}')
  try:
    tokenizer = _load_by_class(folder)
  except Exception as e:
    raise InputError(f'Cannot load a tokenizer from {str(folder)!r}: {first_line(e)}') from e
  for text in PROBES:
    ids = tokenizer(text, add_special_tokens=False)['input_ids']
    if tokenizer.decode(ids, clean_up_tokenization_spaces=False) != _as_normal(tokenizer, text):
      raise InputError(
        f'{str(folder)!r} has no {TOKENIZER_FILE}, and {type(tokenizer).__name__} of this version '
        f'of transformers loses {text!r} on the way to tokens and back; {remedy}'
      )
  return tokenizer


def _as_normal(tokenizer: Any, text: str) -> str:
  """The text as the tokenizer's normal form has it, e.g. with composed accents."""
  normalizer = tokenizer.backend_tokenizer.normalizer
  return text if normalizer is None else normalizer.normalize_str(text)
