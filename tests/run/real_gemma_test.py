"""A real model with local layers: Gemma 3 270M (tests/real_models.py), token by token."""

from __future__ import annotations

import numpy as np
import pytest
import real_greedy
import real_models

import ds_jax.config as c
from ds_jax.data.prompts import load_tokenizer
from ds_jax.model.huggingface.config import read_config

pytestmark = pytest.mark.long

FOLDER = real_models.model_folder('gemma3')
NUM_TOKENS = 24  # of a greedy continuation, at most

_SENTENCES = [f'On day {n} the ship sailed {7 * n % 31 + 2} miles to the north.' for n in range(80)]
TEXTS = (
  'The capital of France is',
  'Two plus two equals',
  'Once upon a time there was a',
  'Water boils at a temperature of',
  'def fibonacci(n):\n  """Returns the n-th Fibonacci number."""\n',
  'Die Hauptstadt von Deutschland heißt',
  'Q: What is 17 + 25?\nA:',
  'The first ten prime numbers are 2, 3, 5,',
  'Roses are red, violets are blue,',
  'naïve café – „ja“ —',
  # Three windows of 512 tokens, and one that ends within a continuation.
  ' '.join(_SENTENCES) + ' On day 80 the ship sailed',
  ' '.join(_SENTENCES[:32]),
)
CONFIG = c.Config(
  data=c.DataConfig(prompt_limit=1700),
  model=c.ModelConfig(path=str(FOLDER)),
  search=c.SearchConfig(replay_chunk=128, replay_lanes=4, path_block=128),
)


def test_greedy_continuations_are_those_of_transformers(tmp_path):
  torch = pytest.importorskip('torch', reason='transformers on torch is the reference')
  import transformers

  if not FOLDER.is_dir():
    pytest.skip(f'{FOLDER} does not exist; `python tests/real_models.py --model=gemma3` makes it')
  tokenizer, window = load_tokenizer(FOLDER), read_config(FOLDER).window
  prompts, found = real_greedy.by_search(
    FOLDER, CONFIG, TEXTS, num_tokens=NUM_TOKENS, workdir=tmp_path
  )
  assert all(prompt[0] == 2 for prompt in prompts)  # <bos>
  lengths = sorted(len(prompt) for prompt in prompts)
  assert lengths[-1] > 2 * window and window - NUM_TOKENS < lengths[-2] < window, lengths
  model = transformers.AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.float32).eval()
  expected = real_greedy.by_transformers(model, prompts, tokenizer.stop_ids, num_tokens=NUM_TOKENS)
  for text, ours, theirs in zip(TEXTS, found, expected, strict=True):
    np.testing.assert_array_equal(ours, theirs, err_msg=text[:60])
  assert sum(map(len, expected)) > 10 * NUM_TOKENS
