"""A real model: SmolLM2-135M-Instruct (tests/real_models.py) from its folder to its export.

Commands run as users run them, on one device and with XLA's optimisations.
"""

from __future__ import annotations

import dataclasses
import faulthandler
import itertools
import json
import os
import pathlib
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
import real_greedy
import real_models

import ds_jax.config as c
from ds_jax.data.prompts import load_tokenizer
from ds_jax.model.decoder import abstract_decoder
from ds_jax.model.huggingface import layout
from ds_jax.model.huggingface.config import read_config
from ds_jax.report.metrics import read_metrics
from ds_jax.run.checkpoint import Checkpointer
from ds_jax.sharding import make_mesh, parameter_shardings

pytestmark = pytest.mark.long

FOLDER = real_models.model_folder('smollm2')
NUM_TOKENS = 32  # of a greedy continuation, at most
ROOT = pathlib.Path(__file__).parents[2]
SUM_LIMIT, SUM_STEPS = 8, 8  # tokens of a response to a sum, and training steps

QUESTIONS = (
  'What is 2 + 2?',
  'What is 17 + 25? Answer with the number alone.',
  'Name the capital of France.',
  'Is 91 a prime number?',
  'Write the numbers from 1 to 10.',
  'Translate "good morning" into French.',
  'Solve 3x + 5 = 20 for x.',
  'What colour is the sky? One word.',
  'Compute 1234567 * 2.',
  'Say hello.',
  'Was ist 7 mal 8? Außerdem: naïve café – „ja“.',
  'def f(n):\n    return n * 2\n\nWhat is f(21)?',
)

CONFIG = c.Config(
  data=c.DataConfig(
    prompt_limit=96, instruction=r' Put the final answer in \boxed{}.', max_problems=4
  ),
  model=c.ModelConfig(path=str(FOLDER)),
  search=c.SearchConfig(
    num_slots=4,
    width=2,
    max_depth=2,
    segment_length=32,
    num_trajectories=2,
    max_expansions=3,
    replay_chunk=96,
    replay_lanes=4,
    path_block=32,
  ),
  train=c.TrainConfig(
    batch_problems=2, minibatch_problems=2, row_length=160, micro_rows=2, warmup_steps=0
  ),
  curriculum=c.CurriculumConfig(round_steps=(2,), filter_samples=0),
  evaluate=c.EvaluateConfig(num_problems=2, num_samples=1, num_slots=4),
  checkpoint=c.CheckpointConfig(keep=1),
  log=c.LogConfig(writers=('jsonl',)),
)


@pytest.fixture(scope='module', autouse=True)
def folder():
  if not FOLDER.is_dir():
    pytest.skip(f'{FOLDER} does not exist; `python tests/real_models.py --model=smollm2` makes it')
  return FOLDER


@pytest.fixture(scope='module')
def transformers_model(folder):
  torch = pytest.importorskip('torch', reason='transformers on torch is the reference')
  import transformers

  return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def test_the_chat_template_and_the_ends_are_those_of_the_model(folder):
  import transformers

  tokenizer = load_tokenizer(folder)
  assert tokenizer.stop_ids == (2,) and tokenizer.num_ids == 49152
  theirs = transformers.AutoTokenizer.from_pretrained(folder)
  ids = tokenizer.encode_prompt('What is 123 + 45?')
  expected = theirs.apply_chat_template(
    [{'role': 'user', 'content': 'What is 123 + 45?'}], add_generation_prompt=True, tokenize=False
  )
  assert theirs.decode(ids) == expected
  assert expected.startswith('<|im_start|>system\nYou are a helpful AI assistant named SmolLM')
  assert expected.endswith('What is 123 + 45?<|im_end|>\n<|im_start|>assistant\n')
  pieces = [theirs.decode(i) for i in ids]
  assert {'1', '2', '3', '4', '5'} <= set(pieces)  # every digit stands alone
  assert not {'123', '12', '23', '45'} & set(pieces)


def test_greedy_continuations_are_those_of_transformers(folder, transformers_model, tmp_path):
  """Token by token, by the decoder that the search has."""
  prompts, found = real_greedy.by_search(
    folder, CONFIG, QUESTIONS, num_tokens=NUM_TOKENS, workdir=tmp_path
  )
  stop_ids = load_tokenizer(folder).stop_ids
  expected = real_greedy.by_transformers(
    transformers_model, prompts, stop_ids, num_tokens=NUM_TOKENS
  )
  for question, ours, theirs in zip(QUESTIONS, found, expected, strict=True):
    np.testing.assert_array_equal(ours, theirs, err_msg=question)
  num_ended = sum(int(tokens[-1]) in stop_ids for tokens in expected)
  assert 0 < num_ended < len(QUESTIONS)  # both kinds of end are compared


def run_command(*argv):
  """`ds-jax` in a process of its own; its summary."""
  faulthandler.cancel_dump_traceback_later()  # where others use the machine, it takes its time
  flags = [f for f in os.environ.get('XLA_FLAGS', '').split() if f.startswith('--xla_cpu_coll')]
  environment = os.environ | {'XLA_FLAGS': ' '.join(flags), 'PYTHONPATH': str(ROOT)}
  done = subprocess.run(
    [sys.executable, '-m', 'ds_jax', *argv, '--json'],
    capture_output=True,
    text=True,
    env=environment,
    timeout=3600,
  )
  assert done.returncode == 0, done.stderr[-3000:]
  return json.loads(done.stdout.splitlines()[-1])  # after what is for people


def write_config(root, config):
  """A config file for the problems in a folder; the flag that names it."""
  data = dataclasses.replace(
    config.data, source=f'file:{root}/train.jsonl', eval_source=f'file:{root}/eval.jsonl'
  )
  fields = dataclasses.asdict(dataclasses.replace(config, data=data))
  (root / 'config.py').write_text(
    'import ml_collections\n\n\ndef get_config():\n'
    f'  return ml_collections.ConfigDict({fields!r})\n'
  )
  return f'--config={root}/config.py'


@pytest.fixture(scope='module')
def run(folder, tmp_path_factory):
  """A workdir after two training steps on sums, and the config file; 2 GB while it lasts."""
  root = tmp_path_factory.mktemp('smollm2')
  for name, first in (('train', 11), ('eval', 31)):
    rows = []
    for i in range(4):
      a, b = first + i, 2 * i + 3
      rows.append(json.dumps({'problem': f'What is {a} + {b}?', 'answer': str(a + b)}))
    (root / f'{name}.jsonl').write_text('\n'.join(rows) + '\n')
  config = write_config(root, CONFIG)
  summary = run_command('train', config, f'--workdir={root}/run')
  yield root, config, summary
  shutil.rmtree(root)


def test_two_steps_train_it(run):
  root, _, summary = run
  assert summary['status'] == 'done' and summary['steps'] == 2
  rows = [json.loads(line) for line in (root / 'run/metrics.jsonl').read_text().splitlines()]
  steps = [row for row in rows if row['kind'] == 'train']
  assert len(steps) == 2
  for row in steps:
    assert row['train/skipped'] == 0 and 0 < row['train/grad_norm'] < 1e3
    assert row['train/ratio_first'] == pytest.approx(1, abs=1e-3)
  assert all(row['evaluate/num_problems'] == 2 for row in rows if row['kind'] == 'evaluate')


def test_it_is_searched(run):
  root, config, _ = run
  problem = ('--problem=What is 5 + 8?', '--answer=13')
  summary = run_command('search', config, f'--workdir={root}/searched', *problem)
  assert summary['parameters'] == str(FOLDER)
  nodes = summary['tree']['nodes']
  assert len(nodes) > 2 and all(node['num_tokens'] > 0 for node in nodes[1:])
  assert any(character.isalpha() for node in nodes for character in node['text'])


def test_it_is_evaluated(run):
  root, _, _ = run
  summary = run_command('evaluate', f'--checkpoint={root}/run', '--samples=2')
  assert summary['evaluate/num_problems'] == 2 and 'step 2' in summary['parameters']
  lines = (pathlib.Path(summary['output']) / 'samples.jsonl').read_text().splitlines()
  samples = [json.loads(line) for line in lines if 'response' in json.loads(line)]
  assert len(samples) == 4 and all(row['response'].strip() for row in samples)


SUMS = dataclasses.replace(
  CONFIG,
  data=c.DataConfig(prompt_limit=56),
  sampling=c.SamplingConfig(temperature=0.6),
  search=dataclasses.replace(
    CONFIG.search,
    policy='direct',
    num_slots=64,
    width=1,
    max_depth=1,
    segment_length=SUM_LIMIT,
    num_trajectories=8,
    max_expansions=8,
    replay_chunk=56,
  ),
  verify=c.VerifyConfig(verifier='last_number', degenerate='keep'),
  train=c.TrainConfig(
    batch_problems=8,
    minibatch_problems=8,
    row_length=64,
    micro_rows=8,
    learning_rate=1e-5,
    warmup_steps=0,
    weight_decay=0.0,
    granularity='outcome',
    baseline_ends='all',
    ends='all',
    normalization='standard',
    uniform_trees='drop',
  ),
  curriculum=c.CurriculumConfig(
    round_steps=(SUM_STEPS,), filter_samples=0, max_cached_per_problem=0
  ),
  evaluate=c.EvaluateConfig(
    num_problems=8, num_samples=4, before_training=False, temperature=0.6, top_p=1.0, num_slots=64
  ),
)


def write_sums(root):
  """One-digit sums, and a config file that asks for them."""
  rows = []
  for a, b in itertools.product(range(10), repeat=2):
    question = f'State the final answer to the following arithmetic problem: {a} + {b} ='
    rows.append(json.dumps({'problem': question, 'answer': str(a + b)}))
  for name, part in (('train', rows[::2]), ('eval', rows[1::2])):
    (root / f'{name}.jsonl').write_text('\n'.join(part) + '\n')
  return write_config(root, SUMS)


@pytest.mark.parametrize('cut_ends', ['incomplete', 'graded'])
def test_it_goes_on_ending_its_responses_unless_cut_ones_pay(folder, tmp_path, cut_ends):
  """The limit leaves room for `The answer is 13.`, and for `4 + 9 = 13` without an end."""
  config = write_sums(tmp_path)
  override = f'--config.search.cut_ends={cut_ends}'
  run_command('train', config, f'--workdir={tmp_path}/run', override)
  rows = read_metrics(tmp_path / 'run/metrics.jsonl')
  shutil.rmtree(tmp_path / 'run')
  first, *_, last = (row for row in rows if row['kind'] == 'train')
  assert first['search/cut_share'] > 0.7
  assert last['search/reward'] > first['search/reward'] + 0.5  # it learns the task either way
  # Measured: .016 against .17 of the responses, all of these with the right answer.
  assert (last['search/cut_share'] < 0.1) == (cut_ends == 'incomplete')
  assert (last['search/cut_correct_share'] > 0.1) == (cut_ends == 'graded')


def test_its_export_has_the_bits_of_the_run_and_loads_in_transformers(run, transformers_model):
  import transformers

  root, _, _ = run
  summary = run_command('export', f'--checkpoint={root}/run', f'--output={root}/out')
  assert summary['step'] == 2
  theirs = transformers.AutoModelForCausalLM.from_pretrained(root / 'out').state_dict()
  before = transformers_model.state_dict()
  num_changed = 0
  tensors = newest_tensors(root / 'run')
  for name, tensor in tensors.items():
    np.testing.assert_array_equal(tensor, theirs[name], err_msg=name)
    num_changed += not np.array_equal(tensor, before[name])
  assert len(tensors) == 272 and num_changed > 200
  exported = transformers.AutoTokenizer.from_pretrained(root / 'out')
  original = transformers.AutoTokenizer.from_pretrained(FOLDER)
  for text in QUESTIONS:
    assert exported(text).input_ids == original(text).input_ids


def newest_tensors(workdir):
  """The parameters of a run in the layout of the file, by their names there."""
  abstract = abstract_decoder(read_config(FOLDER))
  shardings = parameter_shardings(abstract, make_mesh(devices=jax.devices()[:1]))

  def placed(leaf, sharding):
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

  abstract = jax.tree.map(placed, abstract, shardings)
  params, _ = Checkpointer(workdir / 'checkpoints', keep=None).restore(abstract, part='params')
  tensors = {}
  for parameter in layout.all_parameters(params):
    leaf = np.asarray(parameter.leaf)
    layers = leaf if layout.is_stacked(parameter.name) else [leaf]
    for layer, entry in zip(layers, parameter.entries, strict=True):
      tensors[entry.name] = layout.to_file(parameter.name, layer, entry)
  return tensors
