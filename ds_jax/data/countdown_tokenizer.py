"""The embedded task's tokenizer, an ordinary Hugging Face folder: one token per word and per value.

A user message becomes `24 from 3 5 7 2 :` and the response follows.
"""

from __future__ import annotations

import json
import os
import pathlib

from ds_jax.verify.grade_countdown import FILLER, OPERATORS

PAD, EOS, UNKNOWN = '<pad>', '<eos>', '<unk>'
_WORDS = ('from', ':', *OPERATORS, '=', '|', FILLER)
_CHAT_TEMPLATE = (
  "{% for message in messages %}{{ message['content'] }}{% endfor %}"
  '{% if add_generation_prompt %} :{% endif %}'
)


def write_countdown_tokenizer(folder: str | os.PathLike[str], max_value: int) -> None:
  """Writes tokenizer.json, tokenizer_config.json and generation_config.json.

  Args:
    folder: made where it is missing.
    max_value: CountdownConfig.max_value; there is one token for each of 0..max_value.
  """
  from tokenizers import Tokenizer, models, pre_tokenizers

  words = (PAD, EOS, UNKNOWN, *_WORDS, *map(str, range(max_value + 1)))
  ids = {word: i for i, word in enumerate(words)}
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
