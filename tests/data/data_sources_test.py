"""Reading problems: recognised layouts, broken rows skipped and counted, errors that help."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from ds_jax.checks import InputError
from ds_jax.config import CountdownConfig, DataConfig
from ds_jax.data.layouts import RowError, read_problem, with_instruction
from ds_jax.data.sources import load_problems
from ds_jax.testing.notes import Notes
from ds_jax.verify.extract import last_closed_box


def load(source, split='train', progress=None, **fields):
  config = DataConfig(source=source, **{'flaws': 'keep'} | fields)
  return load_problems(config, split, '/nowhere', progress=progress or Notes())


def verl_row(text='What is 1+1?', gold='2', index='a', role='user'):
  return {
    'data_source': 'test',
    'prompt': [{'role': role, 'content': text}],
    'ability': 'MATH',
    'reward_model': {'ground_truth': gold, 'style': 'rule'},
    'extra_info': {'index': index, 'difficulty': 3.5},
  }


# From a row to a problem.


@pytest.mark.parametrize(
  'row, expected',
  [
    ({'problem': 'q', 'answer': 'a'}, ('q', 'a')),
    ({'question': 'q', 'final_answer': 'a'}, ('q', 'a')),
    ({'prompt': 'q', 'answer': 7}, ('q', '7')),
    ({'prompt': 'q', 'answer': 7.0}, ('q', '7')),
    ({'prompt': 'q', 'answer': 7.25}, ('q', '7.25')),
    ({'prompt': b'q', 'answer': b'a'}, ('q', 'a')),
    ({'prompt': 'q', 'answer': np.int64(3)}, ('q', '3')),
    ({'problem': 'q', 'solution': r'so \boxed{\frac{1}{2}}.'}, ('q', r'\frac{1}{2}')),
    ({'problem': 'q', 'solution': '33'}, ('q', '33')),
    ({'problem': 'q', 'answer': None, 'final_answer': 'a'}, ('q', 'a')),
    (verl_row(), ('What is 1+1?', '2')),
    ({'problem': 'q', 'answer': ['$1$', 2]}, ('q', '$1$, 2')),
    ({'problem': 'q', 'answer': r'so \boxed{7}.'}, ('q', '7')),
    ({'problem': 'q', 'expected_answer': '7'}, ('q', '7')),
    ({'problem': 'q', 'answer': ' a '}, ('q', 'a')),
    ({'problem': ' q ', 'answer': 'a'}, (' q ', 'a')),  # the question is left as it is
  ],
)
def test_recognised_layouts(row, expected):
  problem = read_problem(row, DataConfig())
  assert (problem.prompt, problem.answer) == expected


@pytest.mark.parametrize(
  'row, reason',
  [
    ({'answer': 'a', 'text': 'q'}, r'no problem \| question .*\(fields: answer, text\)'),
    ({'problem': 'q'}, 'no reward_model.ground_truth'),
    ({'problem': 'q', 'answer': ''}, 'answer is empty'),
    ({'problem': '  ', 'answer': 'a'}, 'problem is empty'),
    ({'problem': 5, 'answer': 'a'}, 'problem is int'),
    ({'problem': 'q', 'answer': True}, 'answer is bool'),
    ({'problem': 'q', 'answer': []}, 'answer is list'),
    ({'problem': 'q', 'answer': [['a']]}, 'an item of answer is list'),
    ({'problem': 'q', 'answer': float('nan')}, 'answer is float'),
    ({'problem': 'q\ud800', 'answer': 'a'}, 'problem is not UTF-8'),
    ({'problem': b'\xff', 'answer': 'a'}, 'problem is not UTF-8'),
    ({'problem': 'q', 'solution': 'long words ' * 20}, r'solution has no \\boxed'),
    ({'problem': 'q', 'solution': r'\boxed{ }'}, 'boxed of solution is empty'),
    (verl_row(gold=''), 'ground_truth is empty'),
    (verl_row(role='system'), "roles \\['system'\\], expected one user message"),
    ({'prompt': [], 'answer': 'a'}, 'expected one user message'),
    ({'prompt': ['q'], 'answer': 'a'}, 'not of chat messages'),
    ({'prompt': [{'role': 'user'}], 'answer': 'a'}, 'prompt is NoneType'),
  ],
)
def test_unusable_rows_say_why(row, reason):
  with pytest.raises(RowError, match=reason):
    read_problem(row, DataConfig())


def test_configured_fields_win_and_may_be_dotted():
  row = {'problem': 'no', 'answer': 'no', 'in': {'q': 'question', 'a': 4}, 'x.y': 'flat'}
  config = DataConfig(prompt_field='in.q', answer_field='in.a')
  assert read_problem(row, config).prompt == 'question'
  assert read_problem(row, config).answer == '4'
  assert read_problem(row, dataclasses.replace(config, answer_field='x.y')).answer == 'flat'
  with pytest.raises(RowError, match=r'no in\.z \('):
    read_problem(row, dataclasses.replace(config, answer_field='in.z'))


def test_ids_are_stable():
  assert read_problem(verl_row(index=5), DataConfig()).id == 'test/5'
  assert read_problem({'id': 12, 'problem': 'q', 'answer': 'a'}, DataConfig()).id == '12'
  row = {'problem': 'q', 'answer': 'a'}
  plain = read_problem(row, DataConfig())
  assert plain.id == read_problem(row, DataConfig(instruction='Box it.')).id
  assert plain.id != read_problem(row | {'problem': 'r'}, DataConfig()).id


def test_solution_is_kept_beside_an_answer():
  row = {'problem': 'q', 'answer': 'a', 'solution': 'because', 'level': 3}
  problem = read_problem(row, DataConfig())
  assert problem.solution == 'because' and problem.metadata == {'level': 3}


def test_instruction_is_appended_once():
  suffix = "Let's think step by step."
  assert with_instruction('q', suffix) == "q Let's think step by step."
  assert with_instruction('q', '\n' + suffix) == "q\nLet's think step by step."
  for text in (f'q {suffix}', f'q {suffix}\n'):
    assert with_instruction(text, suffix) == with_instruction(text, ' ' + suffix) == text
  assert with_instruction('q', '') == 'q'


@pytest.mark.parametrize(
  'text, expected',
  [
    (r'\boxed{1} and \boxed{2}', '2'),
    (r'\boxed{1} and \boxed{2', '1'),
    ('no', None),
    (r'\boxed {a{b}c}', 'a{b}c'),
    (r'\boxed{\{1\}}', r'\{1\}'),
    (r'\boxed{x\}', None),
    (r'\boxed{a} \boxed 5', 'a'),
    (r'\boxed', None),
    (r'\boxed{\text{a\\}b}', r'\text{a\\}b'),
  ],
)
def test_last_closed_box(text, expected):
  assert last_closed_box(text) == expected


# Files.


def test_broken_jsonl_lines_are_skipped_and_reported(tmp_path):
  path = tmp_path / 'data.jsonl'
  path.write_bytes(
    b'\n'.join(
      [
        b'\xef\xbb\xbf{"id": "a", "problem": "q1", "answer": "1"}',  # 1, with a byte order mark
        b'{"problem": "q", "answer": ',  # 2
        b'',  # a blank line is no row
        b'[1, 2]',  # 4
        b'{"problem": "q", "answer": ""}',  # 5
        b'{"problem": "\xff", "answer": "1"}',  # 6
        b'[' * 100_000,  # 7
        b'{"problem": "q", "answer": "\\ud800"}',  # 8
        b'{"id": "a", "problem": "q1", "answer": "1"}',  # 9, a repeat
        b'{"id": "a", "problem": "q2", "answer": "2"}',  # 10, an id that is taken
        b'{"problem": "q", "answer": 1' + b'0' * 5000 + b'}',  # 11
        b'',
      ]
    )
  )
  notes = Notes()
  loaded = load(f'file:{path}', progress=notes)
  assert [(p.id, p.answer) for p in loaded.problems] == [('a', '1'), ('a#2', '2')]
  reasons = dict(loaded.skipped)
  assert list(reasons) == [2, 4, 5, 6, 7, 8, 9, 11] and loaded.num_rows == 10
  for line, words in (
    (2, 'not JSON'),
    (4, 'list'),
    (5, 'answer is empty'),
    (6, 'not UTF-8'),
    (7, 'not JSON'),
    (8, 'answer is not UTF-8'),
    (9, 'repeats row 1'),
    (11, 'not JSON'),
  ):
    assert words in reasons[line], (line, reasons[line])
  (message,) = notes.messages
  assert 'skipped 8 of 10 rows' in message and '2: not JSON' in message and '…' in message


def test_broken_csv_rows(tmp_path):
  path = tmp_path / 'data.csv'
  path.write_bytes(
    b'question,answer\r\n"two\nlines",1\r\nq2\r\nq3,3,extra\r\nq4,\r\nq\xff,5\r\n'
    b'q6,' + b'9' * 200_000 + b'\r\nq7,7\r\n'
  )
  loaded = load(f'file:{path}')
  assert [(p.prompt, p.answer) for p in loaded.problems] == [('two\nlines', '1'), ('q7', '7')]
  reasons = dict(loaded.skipped)
  assert list(reasons) == [4, 5, 6, 7, 8]
  assert 'more fields' in reasons[5] and 'empty' in reasons[6] and 'UTF-8' in reasons[7]
  assert 'no reward_model' in reasons[4] and 'not CSV' in reasons[8]


def test_broken_parquet_rows(tmp_path):
  path = tmp_path / 'data.parquet'
  rows = [
    verl_row(index='a'),
    verl_row(gold='', index='b'),
    verl_row(text='', index='c'),
    verl_row(role='assistant', index='d'),
    verl_row(gold='5', index='e'),
  ]
  pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
  loaded = load(f'file:{path}')
  assert [p.id for p in loaded.problems] == ['test/a', 'test/e']
  assert [number for number, _ in loaded.skipped] == [2, 3, 4]
  assert loaded.problems[0].metadata['extra_info.difficulty'] == 3.5

  bad = pyarrow.Array.from_buffers(
    pyarrow.string(),
    3,
    [None, pyarrow.py_buffer(np.array([0, 1, 2, 3], np.int32)), pyarrow.py_buffer(b'a\xffc')],
  )
  table = pyarrow.table({'problem': bad, 'answer': ['1', '2', '3']})
  pyarrow.parquet.write_table(table, path)
  loaded = load(f'file:{path}')
  assert [p.prompt for p in loaded.problems] == ['a', 'c']
  assert loaded.skipped == ((2, 'not UTF-8'),)


def test_json_list(tmp_path):
  path = tmp_path / 'data.json'
  path.write_text(json.dumps([{'problem': 'q', 'answer': 1}, 5, {'problem': 'r', 'answer': 2}]))
  loaded = load(f'file:{path}')
  assert [p.answer for p in loaded.problems] == ['1', '2']
  assert loaded.skipped == ((2, 'expected an object, got int'),)


def test_several_files_by_pattern(tmp_path):
  for name, text in (('b', 'not json'), ('a', '{"problem": "q", "answer": "1"}')):
    (tmp_path / f'{name}.jsonl').write_text(text)
  loaded = load(f'file:{tmp_path}/*.jsonl')
  assert len(loaded.problems) == 1 and loaded.num_rows == 2
  assert loaded.skipped[0][0] == 1 and loaded.skipped[0][1].startswith('b.jsonl: not JSON')


def test_max_problems_counts_good_rows(tmp_path):
  path = tmp_path / 'data.jsonl'
  path.write_text(
    'broken\n' + ''.join(f'{{"problem": "q{i}", "answer": "{i}"}}\n' for i in range(9))
  )
  loaded = load(f'file:{path}', max_problems=3)
  assert [p.answer for p in loaded.problems] == ['0', '1', '2']
  assert loaded.num_rows == 4


@pytest.mark.parametrize(
  'name, content, message',
  [
    ('a.jsonl', 'x\ny\n', 'none of 2 rows can be used.*1: not JSON.*data.prompt_field'),
    ('a.jsonl', '', 'holds no rows'),
    ('a.json', '{"a": 1}', 'list of objects, got dict'),
    ('a.json', '{"a": 1}\n{"a": 2}', 'One object per line'),
    ('a.parquet', 'PAR1 no', 'not a sound parquet file'),
    ('a.csv', 'x,y\n1,2\n', r'none of 1 rows.*fields: x, y'),
    ('a.txt', 'x', r"expected one of .csv, .json, .jsonl, .parquet, got '.txt'"),
    ('a', 'x', "got 'no extension'"),
  ],
)
def test_unusable_files(tmp_path, name, content, message):
  (tmp_path / name).write_text(content)
  with pytest.raises(InputError, match=message):
    load(f'file:{tmp_path / name}')


@pytest.mark.parametrize(
  'source, message',
  [
    ('file:/nope/data.jsonl', "'/nope/data.jsonl' does not exist"),
    ('file:/nope/*.jsonl', "No file matches '/nope/\\*.jsonl'"),
    ('file:/', 'is a folder'),
    ('file:', "Unknown data source 'file:'"),
    (
      'deepmath',
      "Unknown data source 'deepmath'; expected 'countdown', 'chain', 'tfds:NAME', 'file:PA",
    ),
    ('tfds:no_such_data_set', "No TFDS data set 'no_such_data_set' prepared under '/nowhere'"),
    ('tfds:/nope/at/all', 'Cannot read split'),
  ],
)
def test_unusable_sources(source, message):
  with pytest.raises(InputError, match=message) as error:
    load(source)
  assert len(str(error.value)) < 600


def test_a_file_has_no_other_splits(tmp_path):
  path = tmp_path / 'data.jsonl'
  path.write_text('{"problem": "q", "answer": "1"}')
  with pytest.raises(InputError, match='set data.eval_source'):
    load(f'file:{path}', split='eval')
  with pytest.raises(InputError, match='no worked solutions'):
    load(f'file:{path}', split='warmstart')
  assert len(load('file:/nope.jsonl', split='eval', eval_source=f'file:{path}').problems) == 1
  with pytest.raises(InputError, match="Expected split in .*got 'test'"):
    load(f'file:{path}', split='test')


def test_instruction_reaches_every_source(tmp_path):
  path = tmp_path / 'data.jsonl'
  path.write_text('{"problem": "q", "answer": "1"}')
  assert load(f'file:{path}', instruction='Box it.').problems[0].prompt == 'q Box it.'
  config = DataConfig(
    'countdown',
    countdown=CountdownConfig(num_train=2, num_heldout=1, num_warmstart=1),
    instruction='Go.',
  )
  loaded = load_problems(config, 'train', str(tmp_path), progress=Notes())
  assert all(p.prompt == f'{p.answer} Go.' for p in loaded.problems)


def test_tfds_source_by_name_and_by_folder(tmp_path):
  from ds_jax.data import countdown_builder

  config = CountdownConfig(num_train=12, num_heldout=5, num_warmstart=3)
  folder = countdown_builder.prepare(config, tmp_path).data_dir
  own = load_problems(
    DataConfig('countdown', countdown=config), 'train', str(tmp_path), progress=Notes()
  )
  name = f'countdown/{countdown_builder.config_name(config)}'
  for source in (f'tfds:{name}', f'tfds:{name}/1.0.0', f'tfds:{folder}'):
    loaded = load_problems(DataConfig(source=source), 'train', str(tmp_path), progress=Notes())
    assert loaded.problems == own.problems
  halved = DataConfig(source=f'tfds:{name}', train_split='train[:50%]')
  assert (
    load_problems(halved, 'train', str(tmp_path), progress=Notes()).problems == own.problems[:6]
  )
  with pytest.raises(InputError, match="Unknown split 'dev'"):
    load_problems(
      DataConfig(source=f'tfds:{name}', train_split='dev'), 'train', str(tmp_path), progress=Notes()
    )


# Real data.


def test_deepmath_loads_whole(shared):
  folder = shared / 'data/deepmath/deepmath103k_round0'
  if not folder.is_dir():
    pytest.skip(f'no DeepMath data: {folder} does not exist')
  suffix = r" Let's think step by step and output the final answer within \boxed{}."
  notes = Notes()
  loaded = load(f'file:{folder}/*.parquet', progress=notes, instruction=suffix)
  assert loaded.num_rows == 20_504
  assert len({p.id for p in loaded.problems}) == len(loaded.problems) == 20_503
  assert loaded.skipped == ((860, 'train_0.parquet: reward_model.ground_truth is empty'),)
  assert all(
    p.prompt.count(suffix) >= 1 and not p.prompt.endswith(suffix * 2) for p in loaded.problems
  )
  assert 'skipped 1 of 20504 rows (1 empty)' in notes.messages[0]


def test_validation_repeats_are_skipped_and_benchmarks_load(shared):
  data = shared / 'data'
  if not (data / 'benchmarks').is_dir():
    pytest.skip(f'no benchmarks: {data / "benchmarks"} does not exist')
  loaded = load(f'file:{data}/deepmath/val/aime2025_boxed_n32.parquet')
  assert len(loaded.problems) == 30 and len(loaded.skipped) == 930  # 30 x 32 in the file
  for name, size in (('aime2024', 30), ('amc2023', 40), ('math500', 500)):
    loaded = load(f'file:{data}/benchmarks/{name}.jsonl')
    assert len(loaded.problems) == size and not loaded.skipped
