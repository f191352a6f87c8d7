"""`ds-jax evaluate --benchmarks`: the same samples and table however often it is stopped."""

from __future__ import annotations

import itertools
import json
import math
import pathlib
import shutil
import subprocess
import sys
import time

import jax
import pytest

from ds_jax import sharding
from ds_jax.cli import main
from ds_jax.data import builders
from ds_jax.evaluate import answers, metrics, samples, table
from ds_jax.interfaces import SilentProgress
from ds_jax.run import engines, evaluation
from ds_jax.run.parameters import init_model
from ds_jax.run.session import Session, never
from ds_jax.run.stopping import Stopped
from ds_jax.run.workdir import Workdir, claim
from ds_jax.testing import tiny_run
from ds_jax.types import Problem

NAMES = ['aime2024', 'aime2025']
SETTINGS = dict(
  data=dict(prompt_limit=64, instruction=''),
  search=dict(cut_ends='graded'),  # a random model seldom ends its responses
  evaluate=dict(num_samples=4, num_slots=4),
  train=dict(row_length=96),
)


def byte_tokenizer(folder):
  """A tokenizer of 257 ids, as a Hugging Face folder."""
  import tokenizers
  import transformers

  alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
  model = tokenizers.models.BPE({c: i for i, c in enumerate([*alphabet, '<end>'])}, [])
  tokenizer = tokenizers.Tokenizer(model)
  tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
  tokenizer.decoder = tokenizers.decoders.ByteLevel()
  transformers.PreTrainedTokenizerFast(
    tokenizer_object=tokenizer, eos_token='<end>', pad_token='<end>'
  ).save_pretrained(folder)
  return folder


def make_run(root):
  """A workdir with a random model and two prepared benchmarks; its config."""
  tokenizer = byte_tokenizer(root / 'tokenizer')
  settings = SETTINGS | {'model': dict(path=str(root / 'model'))}
  config = tiny_run.config(**settings)
  session = Session(config, None, SilentProgress())
  init_model(session, tokenizer=str(tokenizer), output=str(root / 'model'))
  workdir = Workdir(root / 'run')
  claim(workdir, config)
  for name in NAMES:
    problems = [Problem(f'{name}-{i}', f'{name}: {i}+{i}=', str(2 * i)) for i in range(30)]
    builders.write_problems(name, 'test', problems, report={}, data_dir=workdir.data)
  return config, workdir


@pytest.fixture(scope='module')
def made(tmp_path_factory):
  return make_run(tmp_path_factory.mktemp('evaluate'))


def evaluate(made, output, should_stop=never, names=NAMES):
  config, workdir = made
  session = tiny_run.session(workdir, config, should_stop)
  return evaluation.evaluate(session, benchmarks=names, output=str(output))


@pytest.fixture(scope='module')
def whole(made, tmp_path_factory):
  output = tmp_path_factory.mktemp('whole')
  return output, *evaluate(made, output)


def sample_lines(folder):
  """All samples, sorted: they are written as they finish."""
  return sorted(line for path in folder.glob('*.jsonl') for line in path.read_text().splitlines())


def assert_same(folder, other):
  assert sample_lines(folder) == sample_lines(other)
  for name in ('table.md', 'table.json'):
    assert (folder / name).read_bytes() == (other / name).read_bytes()


def test_every_sample_is_kept_and_counted(whole):
  folder, found, text = whole
  rows = [json.loads(line) for line in sample_lines(folder)]
  assert len({(row['id'], row['sample']) for row in rows}) == len(rows) == 2 * 30 * 4
  for name in NAMES:
    mine = [row for row in rows if row['id'].startswith(name)]
    figures = found['results'][name]
    assert figures['num_problems'] == 30 and figures['num_samples'] == 4
    assert figures['pass_at_1'] == pytest.approx(
      sum(row['verdict'] == 'correct' for row in mine) / len(mine)
    )
    assert figures['pass_at'][1] == pytest.approx(figures['pass_at_1'])
    assert figures['pass_at'][4] > figures['pass_at'][2] > figures['pass_at'][1] > 0
    assert figures['cut_share'] == sum(row['is_cut'] for row in mine) / len(mine)
    assert figures['low'] < figures['pass_at_1'] < figures['high']
  assert all(row['num_tokens'] == 16 for row in rows if row['is_cut'])
  assert '53.65' in text and 'AIME 2025' in text and '– |' in text
  assert 'average' not in found['results']


@pytest.mark.parametrize('kept', [0, 1, 17, 100, 239])
def test_a_killed_evaluation_goes_on_with_the_same_samples(made, whole, tmp_path, kept):
  if not kept:  # nothing at all, and a folder that another evaluation made
    return assert_same(_copy(whole[0], tmp_path, 0), whole[0])
  folder = _copy(whole[0], tmp_path, kept)
  evaluate(made, folder)
  assert_same(folder, whole[0])
  return None


def _copy(source, folder, num_dropped):
  """A copy as a kill leaves it: fewer lines, the last one broken, no table."""
  folder = folder / 'copy'
  shutil.copytree(source, folder)
  for path in folder.glob('*.jsonl') if num_dropped else ():
    lines = path.read_bytes().splitlines(keepends=True)
    kept = lines[: max(0, len(lines) - num_dropped // 2)]
    path.write_bytes(b''.join(kept) + lines[-1][:40])
    (folder / 'table.md').unlink(missing_ok=True)
    (folder / 'table.json').unlink(missing_ok=True)
  return folder


def test_stopped_five_times_it_ends_the_same(made, whole, tmp_path):
  for goal in (1, 30, 90, 150, 200):
    count = lambda: len(sample_lines(tmp_path))
    with pytest.raises(Stopped):
      evaluate(made, tmp_path, should_stop=lambda goal=goal, count=count: count() >= goal)
    assert goal <= count() < 240 and not (tmp_path / 'table.md').exists()
  evaluate(made, tmp_path)
  assert_same(tmp_path, whole[0])


def test_samples_of_own_problems_are_kept_too(made, tmp_path):
  """Without benchmarks the run's own evaluation split is evaluated."""
  found, text = evaluate(made, tmp_path, names=[])
  lines = sample_lines(tmp_path)
  rows = [json.loads(line) for line in lines]
  assert found['output'] == str(tmp_path) and len(rows) == 6 * 4
  assert {'id', 'sample', 'question', 'response', 'gold', 'verdict', 'answer'} < set(rows[0])
  solved = sum(row['verdict'] == 'correct' for row in rows) / len(rows)
  assert found['evaluate/pass_at_1'] == pytest.approx(solved)
  assert found['evaluate/cut_share'] == sum(row['is_cut'] for row in rows) / len(rows)
  assert text.startswith(f'pass@1 {100 * solved:.1f} % [') and 'over 6 problems, 4 samples' in text
  path = tmp_path / 'samples.jsonl'
  path.write_bytes(b''.join(path.read_bytes().splitlines(keepends=True)[:9]) + b'{"run"')
  assert evaluate(made, tmp_path, names=[]) == (found, text)
  assert sample_lines(tmp_path) == lines


def test_the_last_line_is_the_result(whole):
  last = whole[2].splitlines()[-1]
  figures = whole[1]['results']['aime2025']
  assert last.startswith(f'AIME 2025: pass@1 {100 * figures["pass_at_1"]:.1f} % [')
  assert last not in (whole[0] / 'table.md').read_text()


def test_one_device_and_eight_draw_the_same_samples(made, whole, tmp_path, monkeypatch):
  assert jax.device_count() == 8
  monkeypatch.setattr(
    engines, 'open_mesh', lambda config: sharding.make_mesh(devices=jax.devices()[:1])
  )
  evaluate(made, tmp_path)
  assert_same(tmp_path, whole[0])


@pytest.mark.long
def test_killed_five_times_it_ends_the_same(made, whole, tmp_path):
  """SIGKILL, each time after some more samples."""
  command = [
    sys.executable,
    '-m',
    'ds_jax',
    'evaluate',
    f'--checkpoint={made[1].root}',
    f'--benchmarks={",".join(NAMES)}',
    f'--output={tmp_path / "out"}',
  ]
  out = tmp_path / 'out'
  count = lambda: sum(p.read_bytes().count(b'\n') for p in out.glob('*.jsonl'))
  for goal in (1, 30, 90, 150, 200):
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while count() < goal:
      assert process.poll() is None, process.communicate()
      time.sleep(0.001)
    process.kill()
    process.communicate()
  assert subprocess.run(command).returncode == 0
  assert_same(out, whole[0])


def run(capsys, *argv):
  code = main(['evaluate', *map(str, argv), '--json'])
  captured = capsys.readouterr()
  lines = captured.out.splitlines()
  return code, json.loads(lines[-1]) if code == 0 else {}, captured.out, captured.err


def test_the_command_reuses_samples_and_tells_settings_apart(capsys, made, whole):
  checkpoint = f'--checkpoint={made[1].root}'
  argv = [checkpoint, '--benchmarks=aime2024', '--temperature=0.6', '--top_p=0.95']
  code, first, out, err = run(capsys, *argv, '--samples=1')
  assert code == 0 and 'sampling: num_samples 1 (paper: 32).' in out, err
  output = pathlib.Path(first['output'])
  assert output.parent == made[1].root / 'evaluations'
  drawn = sample_lines(output)
  code, second, _, err = run(capsys, *argv, '--samples=2')
  assert code == 0 and '30 of 60 samples are there already' in err
  assert second['output'] == first['output'] and set(drawn) < set(sample_lines(output))
  code, again, _, err = run(capsys, *argv, '--samples=1')
  assert again['results'] == first['results'] and 'Compiling' not in err
  code, _, _, err = run(capsys, checkpoint, '--benchmarks=aime2024', f'--output={output}')
  assert code == 2 and 'other settings' in err


@pytest.mark.parametrize(
  'argv, words',
  [
    (['--benchmarks=aime2023'], "Did you mean 'aime2025' or"),
    (['--benchmarks=math500'], 'ds-jax data prepare --benchmark=math500'),
    (['--benchmarks=aime2024', '--config.data.prompt_limit=9'], 'prompts exceed'),
    (['--benchmarks=aime2024', '--config.verify.verifier=countdown'], 'verify.verifier=math'),
    (['--benchmarks=aime2024', '--samples=few'], 'num_samples'),
    (['--workdir=x'], 'leave out'),
  ],
)
def test_mistakes_are_named_before_any_work(capsys, made, argv, words):
  code, _, _, err = run(capsys, f'--checkpoint={made[1].root}', *argv)
  assert code == 2 and words in err and 'Traceback' not in err and 'Compiling' not in err


def test_a_model_folder_is_no_run(capsys, made):
  code, _, _, err = run(capsys, f'--checkpoint={made[0].model.path}', '--benchmarks=aime2024')
  assert code == 2 and '--config.model.path=' in err


# Figures by counting.


def row(name, sample, answer, verdict, **fields):
  return {
    'id': name,
    'sample': sample,
    'answer': answer,
    'verdict': verdict,
    'num_tokens': 10,
    'is_cut': False,
  } | fields


def test_majority_by_counting_and_ties_by_lot():
  right, wrong = ('7', 'correct'), ('8', 'wrong')
  block = lambda *items: [row('p', i, *item) for i, item in enumerate(items)]
  assert samples.vote_share(block(right, right, wrong)) == 1
  assert samples.vote_share(block(right, wrong, ('8.0', 'wrong'))) == 0
  assert samples.vote_share(block(right, wrong)) == 0.5
  assert samples.vote_share(block((None, 'no_answer'), (None, 'no_answer'), right)) == 1
  assert samples.vote_share(block((None, 'incomplete'))) == 0
  group = block(right, wrong, right, right)
  assert samples.majority_at_k(group, 1) == 0.75 and samples.majority_at_k(group, 2) == 0.75
  assert samples.majority_at_k(group, 4) == 1 and metrics.sample_counts(len(group)) == [1, 2, 4]
  assert metrics.sample_counts(3) == [1, 2, 3] and not metrics.sample_counts(0)


@pytest.mark.parametrize(
  'spellings, others',
  [
    ([r'\frac{\pi}{2}', 'π/2', r'0.5\pi'], '3'),
    (['B', '(B)', r'\text{B}'], 'A'),
    (['Yes', 'yes', r'\text{Yes}'], 'No'),
    (['1, 2', '2, 1', '2,1'], '1, 3'),
    (['x=5', '5', '5.0'], '6'),
  ],
)
def test_answers_that_the_verifier_holds_equal_are_one_vote(spellings, others):
  right = [row('p', i, text, 'correct') for i, text in enumerate(spellings)]
  wrong = [row('p', i, others, 'wrong') for i in (3, 4)]
  block = [right[0], *wrong, *right[1:]]
  assert samples.vote_share(block) == 1
  assert samples.summarize_samples(right + wrong)['majority_at'][5] == 1
  ends = [answers.End(i, '', text, False, 0.0, -2.0) for i, text in enumerate(spellings)]
  ends += [answers.End(i, '', others, False, 0.0, -1.0) for i in (3, 4)]
  assert answers.vote(ends).answer in spellings


def test_other_verifiers_vote_by_spelling():
  texts = ['3 + 4 = 7', '7', '7.0', r'\frac{\pi}{2}', r'0.5\pi']
  assert answers.answer_grouper('exact')(texts) == [0, 1, 1, 2, 3]
  assert answers.answer_reader('last_number')('It is 4, so 5.') == '5'
  assert answers.answer_reader('math')('It is 5.') is None
  assert answers.answer_grouper('math')(texts) == [0, 0, 0, 2, 2]


def test_a_vote_of_many_spellings_is_cheap():
  texts = [rf'\sqrt{{{i}}}+\sin({i}x)' for i in range(200)] + ['a word ' * 40] * 20
  texts += [f'({"(" * i}' for i in range(100)] + [r'\frac{1}{2}', '0.5']
  start = time.process_time()
  classes = answers.group_equal(texts)
  assert time.process_time() - start < 2  # a fraction of a second; 0.1 s on a free core
  assert classes[-1] == classes[-2] and len(set(classes[:200])) == 200


def test_summary_does_not_depend_on_the_order_and_leaves_our_faults_out():
  rows = [
    row(f'p{i}', s, str(s % 2), 'correct' if (i + s) % 3 == 0 else 'wrong')
    for i, s in itertools.product(range(5), range(4))
  ]
  found = samples.summarize_samples(rows)
  assert samples.summarize_samples(rows[::-1]) == found
  lost = [row(f'p{i}', 9, None, 'error', num_tokens=999) for i in range(5)]
  with_lost = samples.summarize_samples(rows + lost)
  assert with_lost['num_errors'] == 5 and with_lost['verdicts']['error'] == 5
  apart = ('num_errors', 'verdicts')
  assert {k: v for k, v in with_lost.items() if k not in apart} == {
    k: v for k, v in found.items() if k not in apart
  }
  assert samples.summarize_samples([])['num_problems'] == 0


def test_the_papers_rows_average_to_what_the_paper_says():
  for row in table.PAPER.values():
    *values, mean = row.values()
    assert sum(values) / len(values) == pytest.approx(mean, abs=0.005)
  figures = [
    {'pass_at_1': 0.5, 'low': 0.38, 'high': 0.6, 'standard_error': 0.06},
    {'pass_at_1': 0.7, 'low': 0.54, 'high': 0.84, 'standard_error': 0.08},
  ]
  found = metrics.average(figures)
  assert found['low'] == pytest.approx(0.6 - 0.1)  # of 0.12 and 0.16 to the left
  assert found['high'] == pytest.approx(0.6 + math.hypot(0.1, 0.14) / 2)
  assert found['pass_at_1'] == pytest.approx(0.6) and found['standard_error'] == pytest.approx(0.05)
