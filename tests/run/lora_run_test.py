"""Whole runs that train adapters: stopped, continued, evaluated, searched and exported."""

from __future__ import annotations

import dataclasses
import json
import shutil

import hf_models
import jax
import numpy as np
import pytest

from ds_jax.checks import InputError
from ds_jax.cli import main
from ds_jax.config import load_config
from ds_jax.model.huggingface.load import load_decoder
from ds_jax.model.huggingface.save import save_decoder
from ds_jax.run.state import RunState
from ds_jax.run.stopping import Stopped
from ds_jax.run.workdir import Workdir, claim
from ds_jax.testing import tiny_run

LORA = dict(lora_rank=4, lora_alpha=8.0, learning_rate=2e-2, weight_decay=0.01, kl_coefficient=0.01)
SECTIONS = dict(
  train=LORA | dict(epochs=2, max_refills=1),
  memory=dict(when='at_once', per_update=4, further_updates=1, rate_bound=2.0),
  curriculum=dict(round_steps=(4,)),
  evaluate=dict(num_problems=2, num_samples=1),
)
CONFIG = tiny_run.config(**SECTIONS)


@pytest.fixture(scope='module')
def warm(tmp_path_factory):
  """A warm-started workdir; tests copy it."""
  workdir = tiny_run.warmstart(tmp_path_factory.mktemp('lora') / 'warm', CONFIG)
  (workdir.root / 'config.json').unlink()
  return workdir


@pytest.fixture(scope='module')
def done(warm, tmp_path_factory):
  """A finished run, and how many programs its steps compiled."""
  workdir = tiny_run.copy(warm, tmp_path_factory.mktemp('lora_done') / 'run')
  return workdir, tiny_run.train_counted(workdir, CONFIG)


def call(capsys, *argv):
  code = main([*map(str, argv), '--json'])
  captured = capsys.readouterr()
  return code, json.loads(captured.out.splitlines()[-1]) if captured.out else {}, captured.err


def test_it_learns_with_the_frozen_weights_as_they_were(done, warm):
  workdir, compiled = done
  rows = [row for row in tiny_run.metrics(workdir) if row['kind'] == 'train']
  assert compiled[2:] == [0] * (len(rows) - 2)
  norms = [row['train/lora_norm'] for row in rows]
  assert 0 < norms[0] < norms[-1] and norms == sorted(norms)
  assert all(row['train/lora_moved_share'] > 0.9 for row in rows)
  assert all(0 < row['train/lora_trained_share'] < 0.5 for row in rows)
  assert all(row['train/ratio_first'] == pytest.approx(1, abs=1e-4) for row in rows)
  assert all(row['memory/further_updates'] == 1 for row in rows[1:])
  assert (workdir.warmstart / 'model.safetensors').read_bytes() == (
    warm.warmstart / 'model.safetensors'
  ).read_bytes()


def test_checkpoints_hold_adapters_alone(done):
  workdir, _ = done
  with tiny_run.opened(tiny_run.session(workdir, CONFIG)) as training:
    state, base = training.learning.state, training.learning.learner.base
    digest = training.host.base_digest
  size = lambda tree: sum(x.size for x in jax.tree.leaves(tree))
  assert size(state) <= 3 * size(state.params) + 8 < size(base)
  assert len(digest) == 64 and 'base_digest' not in RunState.new(1).to_json()


def test_a_run_that_was_stopped_ends_in_the_same_bits(done, warm, tmp_path):
  workdir = tiny_run.copy(warm, tmp_path / 'run')
  with pytest.raises(Stopped):
    is_there = lambda: any((workdir.root / 'journal').glob('step_000002*'))
    tiny_run.train(workdir, CONFIG, should_stop=is_there)
  tiny_run.train(workdir, CONFIG)
  tiny_run.assert_same_run(workdir, done[0], CONFIG)


def test_other_weights_under_the_adapters_are_refused(done, tmp_path, capsys):
  workdir = tiny_run.copy(done[0], tmp_path / 'run')
  decoder = load_decoder(workdir.warmstart)
  shutil.copytree(workdir.warmstart, tmp_path / 'good')
  decoder = jax.tree.map(lambda x: x * 1.001, decoder)
  save_decoder(decoder, tmp_path / 'other', stop_ids=(1,), pad_id=0)
  shutil.copy(tmp_path / 'other/model.safetensors', workdir.warmstart / 'model.safetensors')
  longer = dataclasses.replace(
    CONFIG, curriculum=dataclasses.replace(CONFIG.curriculum, round_steps=(5,))
  )
  with pytest.raises(InputError, match='are not those whose adapters the run has trained'):
    tiny_run.train(workdir, longer)
  code, _, err = call(capsys, 'export', f'--checkpoint={workdir.root}', f'--output={tmp_path}/out')
  assert code == 2 and 'are not those' in err and not (tmp_path / 'out').exists()
  code, _, err = call(
    capsys,
    'export',
    f'--checkpoint={workdir.root}',
    f'--output={tmp_path}/out',
    f'--model={tmp_path}/good',
  )
  assert code == 0, err


def test_evaluate_and_search_use_the_merged_weights(done, capsys, tmp_path):
  """The run's newest parameters answer as its merged export does, as a model of its own."""
  workdir = tiny_run.copy(done[0], tmp_path / 'run')
  output = tmp_path / 'merged'
  assert call(capsys, 'export', f'--checkpoint={workdir.root}', f'--output={output}')[0] == 0
  plain = tiny_run.config_file(
    tmp_path, evaluate=SECTIONS['evaluate'], model=dict(path=str(output))
  )
  for command, flags in (('evaluate', ()), ('search', ('--problem=6 from 1 2 3',))):
    code, summary, err = call(capsys, command, f'--checkpoint={workdir.root}', *flags)
    assert code == 0 and summary['step'] == 4, err
    code, of_merged, err = call(
      capsys, command, f'--config={plain}', f'--workdir={tmp_path}/{command}', *flags
    )
    assert code == 0 and of_merged['step'] is None, err
    same = [name for name in summary if name.startswith((f'{command}/', 'num_'))]
    assert same and {x: summary[x] for x in same} == {x: of_merged[x] for x in same}


def test_the_merged_export_is_what_was_trained(done, capsys, tmp_path):
  workdir, _ = done
  code, summary, err = call(
    capsys, 'export', f'--checkpoint={workdir.root}', f'--output={tmp_path}/out'
  )
  assert code == 0 and summary['step'] == 4, err
  with tiny_run.opened(tiny_run.session(workdir, CONFIG)) as training:
    expected = jax.device_get(training.learning.params())
  found = load_decoder(tmp_path / 'out', num_ids=expected.config.num_ids)
  for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
    np.testing.assert_array_equal(ours, theirs)


def test_peft_loads_the_adapters_and_computes_the_same(done, capsys, tmp_path):
  pytest.importorskip('torch', reason='peft on torch is the reference')
  peft = pytest.importorskip('peft', reason='`pip install peft`; it is the reference')
  import transformers

  workdir, _ = done
  folder, merged = tmp_path / 'adapter', tmp_path / 'merged'
  code, summary, err = call(
    capsys, 'export', f'--checkpoint={workdir.root}', f'--output={folder}', '--adapter'
  )
  assert code == 0, err
  assert {'adapter_config.json', 'adapter_model.safetensors'} <= set(summary['files'])
  base = transformers.AutoModelForCausalLM.from_pretrained(workdir.warmstart)
  rows = [np.arange(12) + 1]
  (before,) = hf_models.logits(base, rows)
  (theirs,) = hf_models.logits(peft.PeftModel.from_pretrained(base, folder).eval(), rows)
  assert call(capsys, 'export', f'--checkpoint={workdir.root}', f'--output={merged}')[0] == 0
  whole = transformers.AutoModelForCausalLM.from_pretrained(merged)
  np.testing.assert_allclose(hf_models.logits(whole, rows)[0], theirs, atol=1e-5)
  assert np.abs(theirs - before).max() > 1e-2


def test_a_run_without_adapters_has_none_to_export(tmp_path, capsys):
  workdir = Workdir(tmp_path / 'run')
  claim(workdir, tiny_run.config())
  code, _, err = call(
    capsys, 'export', f'--checkpoint={workdir.root}', f'--output={tmp_path}/out', '--adapter'
  )
  assert code == 2 and 'trains all parameters' in err


@pytest.mark.parametrize(
  'fields, words',
  [
    (dict(lora_rank=4, frozen='embedding'), 'train.frozen = embedding'),
    (dict(lora_rank=4, optimizer='muon'), 'train.optimizer = muon'),
    (dict(lora_alpha=8.0), 'train.lora_alpha = 8.0'),
    (dict(lora_targets='up_kernel'), 'train.lora_targets = up_kernel'),
  ],
)
def test_settings_that_contradict_adapters_are_refused(tmp_path, fields, words):
  with pytest.raises(InputError, match=words):
    load_config(str(tiny_run.config_file(tmp_path, train=fields)))
