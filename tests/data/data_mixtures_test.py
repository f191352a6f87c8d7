"""Several sources in `data.source`: how they are written, read, named and kept apart."""

from __future__ import annotations

import collections
import json

import pytest

from ds_jax.checks import InputError
from ds_jax.config import CountdownConfig, DataConfig, config_from
from ds_jax.config.mixtures import Part, parse_sources
from ds_jax.data.sources import load_problems
from ds_jax.testing.notes import Notes
from ds_jax.verify.verifiers import name_for


def load(source, split='train', progress=None, **fields):
  data_dir = fields.pop('data_dir', '')
  return load_problems(
    DataConfig(source=source, **fields), split, str(data_dir), progress=progress or Notes()
  )


def write(path, rows):
  path.write_text(''.join(json.dumps(row) + '\n' for row in rows))
  return f'file:{path}'


def rows(name, count, **fields):
  return [{'id': i, 'problem': f'{name} {i}?', 'answer': str(i)} | fields for i in range(count)]


@pytest.mark.parametrize(
  'text, parts',
  [
    ('file:a.jsonl', [('file:a.jsonl', 1.0, '')]),
    ('2*gym:legs?a=1&b=+,-', [('gym:legs?a=1&b=+,-', 1.0, '')]),
    (
      '0.7*gym:chain_sum?max_terms=3 + file:/d/gsm8k.jsonl + .1 * hf:me/sums:main',
      [
        ('gym:chain_sum?max_terms=3', 0.7, 'chain_sum'),
        ('file:/d/gsm8k.jsonl', 1.0, 'gsm8k'),
        ('hf:me/sums:main', 0.1, 'sums'),
      ],
    ),
    (
      'file:a + b.json + 3*file:a + b/*.parquet + countdown',
      [
        ('file:a + b.json', 1.0, 'a_b'),
        ('file:a + b/*.parquet', 3.0, 'a_b#2'),
        ('countdown', 1.0, 'countdown'),
      ],
    ),
    ('gym:a?x=1 + gym:a?x=2', [('gym:a?x=1', 1.0, 'a'), ('gym:a?x=2', 1.0, 'a#2')]),
    ('file:data/*.jsonl + tfds:x/y', [('file:data/*.jsonl', 1.0, 'data'), ('tfds:x/y', 1.0, 'y')]),
  ],
)
def test_sources_are_split_at_plus_signs_between_them(text, parts):
  assert parse_sources(text) == tuple(Part(*part) for part in parts)


@pytest.mark.parametrize('weight', ['0', '-1', 'nan', 'inf', 'two'])
def test_weights_are_numbers_above_0(weight):
  with pytest.raises(InputError, match=f'above 0 for the weight of a source, got {weight!r}'):
    parse_sources(f'{weight}*gym:legs + countdown')


def test_a_mixture_round_trips_through_a_config(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  source = '2*gym:chain_sum?min_terms=2&max_terms=3 + 1*file:a.jsonl'
  stored = json.loads(json.dumps({'data': {'source': source}}))
  in_full = config_from(stored).data.source
  assert in_full == f'2*gym:chain_sum?min_terms=2&max_terms=3 + file:{tmp_path}/a.jsonl'
  assert config_from({'data': {'source': in_full}}).data.source == in_full


def test_problems_of_several_sources_keep_apart(tmp_path):
  a = write(tmp_path / 'a.jsonl', rows('A', 3))
  b = write(tmp_path / 'b.jsonl', [*rows('B', 2), {'problem': 'no answer'}])
  notes = Notes()
  loaded = load(f'{a} + 2*{b}', progress=notes)
  assert [p.id for p in loaded.problems] == ['a/0', 'a/1', 'a/2', 'b/0', 'b/1']
  assert [p.source for p in loaded.problems] == ['a'] * 3 + ['b'] * 2
  assert loaded.num_rows == 6 and loaded.counts == {'missing_field': 1}
  assert loaded.skipped[0][1].startswith('b: no reward_model') and 'b.jsonl' in notes.messages[0]
  held = load('countdown', 'eval', eval_source=f'{a} + {b}').problems
  assert [p.id for p in held] == ['a/0', 'b/0', 'a/1', 'b/1', 'a/2']  # any beginning has both
  with pytest.raises(InputError, match='a.jsonl.*has no evaluation split'):
    load(f'{a} + {b}', 'eval')


def test_a_source_alone_is_as_before(tmp_path):
  a = write(tmp_path / 'a.jsonl', rows('A', 3))
  assert load(f'3*{a}').problems == load(a).problems
  assert [p.id for p in load(a).problems] == ['0', '1', '2']


def test_what_sources_repeat_or_contradict_is_left_out(tmp_path):
  a = write(tmp_path / 'a.jsonl', rows('A', 4))
  b = write(tmp_path / 'b.jsonl', [*rows('A', 2), *rows('B', 1)])
  c = write(tmp_path / 'c.jsonl', [{'problem': 'A 3?', 'answer': 'five'}])
  notes = Notes()
  loaded = load(f'{a} + {b} + {c}', progress=notes)
  assert [p.id for p in loaded.problems] == ['a/0', 'a/1', 'a/2', 'b/0#2']
  assert '2 conflicting answers, 2 repeated question' in notes.messages[0]
  assert len(load(f'{a} + {b} + {c}', flaws='keep').problems) == 8
  with pytest.raises(InputError, match='contradict'):
    load(f'{c} + {write(tmp_path / "d.jsonl", [{"problem": "A 3?", "answer": "6"}])}')


def test_evaluation_sets_are_whole_whatever_they_share(tmp_path):
  a = write(tmp_path / 'a.jsonl', rows('A', 4))
  b = write(tmp_path / 'b.jsonl', [*rows('A', 2), *rows('B', 1)])
  c = write(tmp_path / 'c.jsonl', [{'id': 0, 'problem': 'A 3?', 'answer': '4'}])  # contradicts a
  notes = Notes()
  loaded = load(a, 'eval', progress=notes, eval_source=f'{a} + {b} + {c}')
  counts = collections.Counter(problem.source for problem in loaded.problems)
  assert counts == {'a': 4, 'b': 3, 'c': 1} and not loaded.skipped and not notes.messages


def test_golds_of_the_embedded_task_carry_their_verifier(tmp_path):
  a = write(tmp_path / 'a.jsonl', rows('A', 2))
  fields = {
    'countdown': CountdownConfig(num_train=2, num_heldout=1, num_warmstart=1),
    'data_dir': tmp_path,
  }
  problems = load(f'{a} + countdown', **fields).problems
  verifiers = [name_for(p.answer, 'math') for p in problems]
  assert verifiers == ['math', 'math', 'countdown', 'countdown']
  assert name_for(problems[-1].answer, 'python:a.b') == 'python:a.b'
  worked = load(f'{a} + countdown', 'warmstart', **fields).problems
  assert [p.source for p in worked] == ['countdown'] and worked[0].solution
