"""Real problems: DeepMath prompts, the real Qwen2.5 tokenizer and template, the math verifier."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ds_jax.cli import main
from ds_jax.testing import tiny_run


def test_a_random_qwen_trains_a_few_steps_on_deepmath(root, shared, tmp_path, capsys):
  tokenizer = shared / 'data/tokenizers/qwen2.5'
  source = shared / 'data/deepmath/deepmath103k_round0/train_25.parquet'
  benchmark = shared / 'data/benchmarks/aime2025.jsonl'
  for path in (tokenizer, source, benchmark):
    if not path.exists():
      pytest.skip(f'{path} does not exist')
  config, model = root / 'configs/smoke.py', tmp_path / 'qwen'
  assert main(['init', f'--config={config}', f'--tokenizer={tokenizer}', f'--output={model}']) == 0
  code = main(
    [
      'train',
      f'--config={config}',
      f'--workdir={tmp_path / "run"}',
      '--json',
      f'--config.model.path={model}',
      f'--config.data.source=file:{source}',
      f'--config.data.eval_source=file:{benchmark}',
    ]
  )
  out, err = capsys.readouterr()
  assert code == 0, err
  assert json.loads(out.splitlines()[-1])['steps'] == 3
  assert 'exceeds data.prompt_limit' in err  # long prompts are skipped and counted
  rows = [r for r in tiny_run.metrics(tiny_run.Workdir(tmp_path / 'run')) if r['kind'] == 'train']
  assert all(r['train/grad_norm'] > 0 for r in rows)
  assert all(np.isclose(r['train/ratio_first'], 1, atol=1e-3) for r in rows)
  # Nearly uniform over the 151,665 ids.
  assert all(np.log(151_665) - 1 < r['search/entropy'] < np.log(151_665) for r in rows)
