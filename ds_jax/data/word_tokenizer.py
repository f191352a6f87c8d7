"""The tokenizer of an embedded task, an ordinary Hugging Face folder: one token per word.

A user message becomes `24 from 3 5 7 2 :` and the response follows.
"""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Sequence

PAD, EOS, UNKNOWN = '<pad>', '<eos>', '<unk>'
_CHAT_TEMPLATE = (
  "{% for message in messages %}{{ message['content'] }}{% endfor %}"
  '{% if add_generation_prompt %} :{% endif %}'
)


def write_word_tokenizer(folder: str | os.PathLike[str], words: Sequence[str]) -> None:
  """Writes tokenizer.json, tokenizer_config.json and generation_config.json.

  Args:
    folder: made where it is missing.
    words: all that prompts and responses are written in, ':' among them; each is a token.
  """
  from tokenizers import Tokenizer, models, pre_tokenizers

  ids = {word: i for i, word in enumerate((PAD, EOS, UNKNOWN, *words))}
  tokenizer = Tokenizer(models.WordLevel(ids, UNKNOWN))
  tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
  tokenizer.add_special_tokens([PAD, EOS, UNKNOWN])
  path = pathlib.Path(folder)
  path.mkdir(parents=True, exist_ok=True)
  tokenizer.save(str(path / 'tokenizer.json'))
  _write_json(
    path / 'tokenizer_config.json',
    {
      'tokenizer_class': 'PreTrainedTokenizerFast',
      'pad_token': PAD,
      'eos_token': EOS,
      'unk_token': UNKNOWN,
      'chat_template': _CHAT_TEMPLATE,
      'clean_up_tokenization_spaces': False,
    },
  )
  _write_json(
    path / 'generation_config.json',
    {'eos_token_id': ids[EOS], 'pad_token_id': ids[PAD]},
  )


def _write_json(path: pathlib.Path, fields: dict[str, object]) -> None:
  path.write_text(json.dumps(fields, indent=2) + '\n')
