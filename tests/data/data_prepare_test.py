"""`ds-jax data`: public layouts of benchmarks, what is refused, built once, read back the same."""

from __future__ import annotations

import json
import sys
import types

import pytest
from etils import epath

from ds_jax.checks import InputError
from ds_jax.cli import main
from ds_jax.config import DataConfig
from ds_jax.data import builders
from ds_jax.data.benchmarks import BENCHMARKS, read_benchmark
from ds_jax.data.prepared import load_benchmark
from ds_jax.data.sources import load_problems
from ds_jax.interfaces import SilentProgress
from ds_jax.types import Problem

SUFFIX = " Let's think step by step and output the final answer within \\boxed{}."
LAYOUTS = {
  'flat': lambda i: {'id': i, 'problem': f'Question {i}?', 'answer': f'{i:03d}'},
  'capitals': lambda i: {'ID': f'2024-I-{i}', 'Problem': f'Question {i}?', 'Answer': i},
  'floats': lambda i: {'question': f'Question {i}?', 'answer': float(i)},
  'lists': lambda i: {'question': f'Question {i}?', 'final_answer': [f'${i}$']},
  'solutions': lambda i: {'problem': f'Question {i}?', 'solution': f'So \\boxed{{{i}}}.'},
  'expected': lambda i: {'problem': f'Question {i}?', 'expected_answer': f'\\boxed{{{i}}}'},
  'verl': lambda i: {
    'data_source': 'aime',
    'extra_info': {'index': i},
    'prompt': [{'role': 'user', 'content': f'Question {i}?{SUFFIX}'}],
    'reward_model': {'ground_truth': str(i)},
  },
}


def write(path, rows):
  path.write_text(''.join(json.dumps(row) + '\n' for row in rows))
  return str(path)


@pytest.mark.parametrize('layout', LAYOUTS)
def test_public_layouts_of_a_benchmark(tmp_path, layout):
  rows = [LAYOUTS[layout](i) for i in range(30)] * 2  # copies for several samples
  problems = read_benchmark('aime2024', write(tmp_path / 'a.jsonl', rows), DataConfig())
  assert [p.prompt for p in problems] == [f'Question {i}?' for i in range(30)]
  assert [p.answer for p in problems] == [str(i) for i in range(30)]
  assert len({p.id for p in problems}) == 30
  assert all(p.id.startswith('aime2024-') for p in problems)


@pytest.mark.parametrize(
  'change, words',
  [
    (lambda rows: rows[:29], '29 different problems; aime2024 has 30'),
    (lambda rows: [*rows[:29], LAYOUTS['flat'](29) | {'answer': '1000'}], 'an integer from 0 to'),
    (lambda rows: [*rows[:29], LAYOUTS['flat'](29) | {'answer': ''}], 'answer is empty'),
    (lambda rows: [*rows, LAYOUTS['flat'](3) | {'answer': '4'}], 'with another answer'),
    (lambda rows: [*rows[:29], LAYOUTS['flat'](29) | {'id': 1}], 'ids stand for several'),
  ],
)
def test_a_file_that_is_not_the_benchmark_is_refused(tmp_path, change, words):
  rows = change([LAYOUTS['flat'](i) for i in range(30)])
  with pytest.raises(InputError, match=words):
    read_benchmark('aime2024', write(tmp_path / 'a.jsonl', rows), DataConfig())


def test_benchmarks_come_back_as_they_were(shared, tmp_path):
  folder = shared / 'data/benchmarks'
  if not folder.is_dir():
    pytest.skip(f'no benchmarks: {folder} does not exist')
  for name, benchmark in BENCHMARKS.items():
    problems = read_benchmark(name, str(folder / f'{name}.jsonl'), DataConfig())
    assert len(problems) == benchmark.counts[0]
    builders.write_problems(name, 'test', problems, report={}, data_dir=tmp_path)
    back = load_benchmark(name, str(tmp_path), DataConfig(instruction='Box it.'), SilentProgress())
    assert [(p.id, p.prompt, p.answer) for p in back] == [
      (p.id, f'{p.prompt} Box it.', p.answer) for p in problems
    ]


def run(capsys, *argv):
  code = main(['data', *argv, '--json'])
  captured = capsys.readouterr()
  lines = captured.out.splitlines()
  return code, json.loads(lines[-1]) if code == 0 else {}, captured.out, captured.err


def test_prepare_builds_once_checks_overlap_and_refuses_other_content(capsys, tmp_path):
  long = 'one two three four five six seven eight nine ten eleven twelve thirteen'
  rows = [LAYOUTS['flat'](i) for i in range(29)] + [{'id': 'x', 'problem': long, 'answer': '5'}]
  file, data_dir = write(tmp_path / 'a.jsonl', rows), f'--data_dir={tmp_path / "data"}'
  benchmark = ['prepare', '--benchmark=aime2024', f'--from={file}', data_dir]
  code, summary, _, _ = run(capsys, *benchmark)
  assert code == 0 and summary['is_new'] and summary['num_problems'] == 30
  written = {p: p.stat().st_mtime_ns for p in (tmp_path / 'data').rglob('*') if p.is_file()}
  assert any('array_record' in p.name for p in written)
  code, summary, _, _ = run(capsys, *benchmark)
  assert code == 0 and not summary['is_new']
  assert written == {p: p.stat().st_mtime_ns for p in written}

  train = write(
    tmp_path / 't.jsonl',
    [
      {'id': 'a', 'problem': f'Find {long}.', 'answer': '5', 'difficulty': 4, 'topic': 'T'},
      {'id': 'b', 'problem': 'True or false?', 'answer': 'B'},
      {'id': 'c', 'problem': 'q', 'answer': '3'},
    ],
  )
  code, summary, out, err = run(capsys, 'prepare', f'--from={train}', data_dir)
  assert code == 0 and summary['skipped'] == {'letter_without_options': 1}
  assert summary['overlap']['closest'] == [
    {'problem_id': 'a', 'benchmark_id': 'aime2024-x', 'share': 1.0}
  ]
  assert '100.0%  a  aime2024-x' in out and 'No decontamination check against aime2025' in err
  code, summary, _, _ = run(capsys, 'describe', '--source=tfds:deepmath103k', data_dir)
  assert summary['num_problems'] == 2 and summary['prepared']['skipped'] == {
    'letter_without_options': 1
  }
  config = DataConfig(source='tfds:deepmath103k')
  back = load_problems(config, 'train', str(tmp_path / 'data'), progress=SilentProgress()).problems
  assert back[0].metadata == {'source': '', 'topic': 'T', 'difficulty': 4.0}
  code, _, _, err = run(capsys, 'prepare', f'--from={file}', data_dir)
  assert code == 2 and 'holds other problems' in err


@pytest.mark.parametrize(
  'argv, words',
  [
    (['prepare', '--benchmark=aime2026', '--from={f}', '--data_dir=x'], 'aime2025'),
    (['prepare', '--name=aime2024', '--from={f}', '--data_dir=x'], 'use --benchmark'),
    (['prepare', '--from={f}'], 'Missing --data_dir'),
    (['prepare', '--data_dir=x'], 'Missing --from'),
    (['prepare', '--from=/nowhere.jsonl', '--data_dir=x'], 'If that of a run has moved, --config'),
    (['describe', '--source=tfds:a'], 'Missing --data_dir'),
    (['describe', '--source=hf:a/b'], 'ds_jax[hf]'),
    (['descibe'], 'Unknown command'),
  ],
)
def test_mistakes_are_named(capsys, monkeypatch, tmp_path, argv, words):
  monkeypatch.setitem(sys.modules, 'datasets', None)  # not installed
  file = write(tmp_path / 'a.jsonl', [{'problem': 'q', 'answer': '1'}])
  code, _, _, err = run(capsys, *(a.format(f=file) for a in argv))
  assert code == 2 and words in err and 'Traceback' not in err


def test_a_bucket_gets_and_gives_whole_folders(monkeypatch, tmp_path):
  bucket = tmp_path / 'bucket'  # a local folder that is treated as remote
  monkeypatch.setattr(builders, 'is_remote', lambda path: str(path).startswith(str(bucket)))
  problems = [Problem(f'p{i}', f'Question {i}?', str(i)) for i in range(3)]
  folder, is_new = builders.write_problems(
    'mine', 'train', problems, report={'note': 1}, data_dir=str(bucket)
  )
  assert is_new and builders.read_report(epath.Path(folder))['note'] == 1
  local = builders.local_folder(epath.Path(folder))
  assert not local.startswith(str(bucket))
  loaded = load_problems(
    DataConfig(source='tfds:mine'), 'train', str(bucket), progress=SilentProgress()
  )
  assert [p.id for p in loaded.problems] == ['p0', 'p1', 'p2']


def test_hub_data_sets_are_read_by_split_and_subset(monkeypatch):
  calls = []

  def load_dataset(path, name, split):
    calls.append((path, name, split))
    if split == 'dev':
      raise ValueError('Unknown split "dev".\nmore')
    return [{'question': 'q', 'answer': '1'}, {'question': 'r', 'answer': ''}]

  monkeypatch.setitem(sys.modules, 'datasets', types.SimpleNamespace(load_dataset=load_dataset))
  config = DataConfig(source='hf:me/sums:main', eval_split='test')
  loaded = load_problems(config, 'train', '', progress=SilentProgress())
  assert [p.prompt for p in loaded.problems] == ['q'] and loaded.counts == {'empty': 1}
  load_problems(config, 'eval', '', progress=SilentProgress())
  assert calls == [('me/sums', 'main', 'train'), ('me/sums', 'main', 'test')]
  with pytest.raises(InputError, match="split 'dev' of hf:me/sums: Unknown split"):
    load_problems(
      DataConfig(source='hf:me/sums', train_split='dev'), 'train', '', progress=SilentProgress()
    )
