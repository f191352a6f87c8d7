"""Small tokenizers of the kinds that models have, as Hugging Face folders of any class."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

BOS, EOS, PAD = '<s>', '</s>', '<pad>'
CHATML = (
  "{% for message in messages %}<|{{ message['role'] }}|>\n{{ message['content'] }}"
  '{{ eos_token }}\n{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}'
)
_TEXTS = (
  "Hello world, what is 1+2? def f(x):\n    return x ** 2  # it's so\n",
  'A number, the sum of two primes; café, don\'t, we\'ve. 12 123 1234567 3.14159 "quoted" text',
  '日本語の問題 中文 Ελληνικά \\frac{1}{2} $x^2$ \\boxed{7}',
) * 4


def byte_level(**parts: Any) -> tokenizers.Tokenizer:
  """As GPT-2, Qwen and Llama 3 have it; `parts` replace normalizer, pre_tokenizer, …"""
  tokenizer = tokenizers.Tokenizer(models.BPE())
  tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
    [
      pre_tokenizers.Digits(individual_digits=True),
      pre_tokenizers.ByteLevel(add_prefix_space=False),
    ]
  )
  tokenizer.decoder = decoders.ByteLevel()
  return _trained(tokenizer, pre_tokenizers.ByteLevel.alphabet(), parts)


def metaspace(**parts: Any) -> tokenizers.Tokenizer:
  """As Llama 2 and Gemma have it: spaces are ▁, unknown characters become their bytes."""
  tokenizer = tokenizers.Tokenizer(models.BPE(byte_fallback=True, unk_token='<unk>'))
  tokenizer.normalizer = normalizers.Replace(' ', '▁')
  tokenizer.pre_tokenizer = pre_tokenizers.Split('▁', 'merged_with_next')
  tokenizer.decoder = decoders.Sequence(
    [decoders.Replace('▁', ' '), decoders.ByteFallback(), decoders.Fuse()]
  )
  bytes_ = [f'<0x{i:02X}>' for i in range(256)]
  return _trained(tokenizer, [], parts, special=[BOS, EOS, PAD, '<unk>', *bytes_], tokens=bytes_)


def _trained(tokenizer, alphabet, parts, special=(BOS, EOS, PAD), tokens=()):
  trainer = trainers.BpeTrainer(
    vocab_size=700, special_tokens=list(special), initial_alphabet=alphabet, show_progress=False
  )
  tokenizer.train_from_iterator(_TEXTS, trainer)
  if tokens:  # bytes are of the vocabulary, but no added tokens
    fields = json.loads(tokenizer.to_str())
    fields['added_tokens'] = [t for t in fields['added_tokens'] if t['content'] not in tokens]
    tokenizer = tokenizers.Tokenizer.from_str(json.dumps(fields))
  for name, part in parts.items():
    setattr(tokenizer, name, part)
  return tokenizer


def adds(bos: bool, eos: bool) -> processors.TemplateProcessing:
  """What puts BOS before, or EOS behind every text."""
  words = [BOS] * bos + ['$A'] + [EOS] * eos
  return processors.TemplateProcessing(single=words, special_tokens=[(BOS, 0), (EOS, 1)])


def write_folder(
  folder: pathlib.Path,
  tokenizer: tokenizers.Tokenizer,
  *,
  config: dict[str, Any] | None = None,
  **settings: Any,
) -> pathlib.Path:
  """Writes tokenizer.json, tokenizer_config.json with `settings` and, if given, config.json."""
  folder.mkdir(parents=True, exist_ok=True)
  tokenizer.save(str(folder / 'tokenizer.json'))
  settings = {'bos_token': BOS, 'eos_token': EOS, 'pad_token': PAD} | settings
  fields = {name: value for name, value in settings.items() if value is not None}
  (folder / 'tokenizer_config.json').write_text(json.dumps(fields))
  if config is not None:
    (folder / 'config.json').write_text(json.dumps(config))
  return folder
