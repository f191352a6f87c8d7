"""A whole run in seconds: Countdown with three numbers, a decoder of a few thousand weights."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from unittest import mock

import jax
import numpy as np

import ds_jax.config as c
from ds_jax.data import countdown
from ds_jax.data.word_tokenizer import write_word_tokenizer
from ds_jax.interfaces import SilentProgress
from ds_jax.report.metrics import read_metrics
from ds_jax.run import training as training_lib
from ds_jax.run.engines import open_engines
from ds_jax.run.session import Session, never
from ds_jax.run.warmstart import warmstart as run_warmstart
from ds_jax.run.workdir import Workdir
from ds_jax.testing.tiny import CompileCounter

COUNTDOWN = c.CountdownConfig(
  num_numbers=3, max_number=6, max_value=30, num_train=24, num_heldout=8, num_warmstart=200
)
SEARCH = c.SearchConfig(
  num_slots=4,
  width=2,
  width_decay=1,
  max_depth=2,
  segment_length=8,
  num_trajectories=4,
  max_expansions=6,
  lambda_uct=1.0,
  lambda2=0.0,
  incomplete_score=-0.5,
  cut_ends='graded',  # so small a model seldom ends its responses
  replay_chunk=32,
  replay_lanes=4,
  path_block=128,
)
TRAIN = c.TrainConfig(
  batch_problems=6,
  minibatch_problems=3,
  row_length=32,
  micro_rows=8,
  learning_rate=4e-4,
  warmup_steps=5,
  weight_decay=0.0,
  beta2=0.95,
  advantage='tree_mean',
  ends='all',
  uniform_trees='drop',
)

# Sections in which all levers of learning that go together are at work.
LEVERS = dict(
  search=dict(policy='prefix', max_expansions=12),
  prefix=dict(
    root_share=0.2,
    first_share=0.8,
    withdraw_rate=0.6,
    failure_rate=0.6,
    worked=True,
    advantage=0.5,
  ),
  budget=dict(
    max_rollouts=6, wave=2, until='success', first_wave=1, first_wave_rate=0.5, max_tokens=1500
  ),
  explore=dict(temperature='bandit', temperatures=(0.8, 1.0, 1.3)),
  memory=dict(when='at_once', per_update=4, further_updates=1, rate_bound=2.0),
  train=dict(
    epochs=2,
    success_weight=1.0,
    max_refills=2,
    waiting_groups=2,
    trained_policy='plain',
    importance_cap=1.1,
  ),
)


def config(**sections) -> c.Config:
  """The tiny run; a keyword replaces fields of a section, e.g. train=dict(ends='collected')."""
  base = c.Config(
    data=c.DataConfig(source='countdown', prompt_limit=10, countdown=COUNTDOWN),
    model=c.ModelConfig(
      num_layers=1,
      width=16,
      mlp_width=32,
      num_heads=2,
      num_kv_heads=1,
      head_width=8,
      tie_embeddings=True,
    ),
    warmstart=c.WarmstartConfig(num_steps=30, batch_size=16),
    search=SEARCH,
    verify=c.VerifyConfig(verifier='python:ds_jax.testing.tiny_verifier.verify', num_workers=1),
    train=TRAIN,
    curriculum=c.CurriculumConfig(
      round_steps=(3, 3),
      filter_samples=2,
      filter_from='all',
      rehearsal_share=0.5,
      max_cached_per_problem=2,
    ),
    evaluate=c.EvaluateConfig(
      num_problems=6, num_samples=2, temperature=1.0, top_p=1.0, num_slots=8
    ),
    checkpoint=c.CheckpointConfig(every_steps=2),
    log=c.LogConfig(writers=('jsonl',)),
  )
  changed = {}
  for name, fields in sections.items():
    is_section = isinstance(fields, dict)
    changed[name] = dataclasses.replace(getattr(base, name), **fields) if is_section else fields
  return dataclasses.replace(base, **changed)


def config_file(folder: pathlib.Path, **sections) -> pathlib.Path:
  """The same as a file for the command line."""
  path = folder / 'tiny.py'
  fields = dataclasses.asdict(config(**sections))
  path.write_text(
    'import ml_collections\n\n\ndef get_config():\n'
    f'  return ml_collections.ConfigDict({fields!r})\n'
  )
  return path


def session(workdir: Workdir, cfg: c.Config, should_stop=never) -> Session:
  """Of a command that nobody watches."""
  return Session(cfg, workdir, SilentProgress(), should_stop)


def warmstart(root: pathlib.Path, cfg: c.Config) -> Workdir:
  workdir = Workdir(root)
  root.mkdir(parents=True, exist_ok=True)
  run_warmstart(session(workdir, cfg))
  return workdir


def copy(workdir: Workdir, root: str | os.PathLike[str]) -> Workdir:
  """A copy of a run at `root`, which is new."""
  return Workdir(pathlib.Path(shutil.copytree(workdir.root, root)))


def train(workdir: Workdir, cfg: c.Config, should_stop=never) -> dict:
  return training_lib.train(session(workdir, cfg, should_stop))[0]


def train_counted(workdir: Workdir, cfg: c.Config) -> list[int]:
  """Trains to the end; returns how many programs each step compiled."""
  counter, compiled = CompileCounter(), []
  train_step = training_lib.Training.train_step

  def counted(training: training_lib.Training) -> None:
    before = counter.compilations()
    train_step(training)
    compiled.append(counter.compilations() - before)

  with mock.patch.object(training_lib.Training, 'train_step', counted):
    train(workdir, cfg)
  return compiled


@contextlib.contextmanager
def opened(session: Session) -> Iterator[training_lib.Training]:
  """The training of a session, from its newest checkpoint on."""
  with open_engines(session) as engines:
    with contextlib.closing(training_lib.Training(engines)) as training:
      yield training


def start(config_path: pathlib.Path, root: pathlib.Path, *flags: str) -> subprocess.Popen:
  """`ds-jax train` of a config file in a process of its own, on one device."""
  flags_of_xla = [f for f in os.environ.get('XLA_FLAGS', '').split() if 'device_count' not in f]
  environment = os.environ | {
    'JAX_PLATFORMS': 'cpu',
    'XLA_FLAGS': ' '.join(flags_of_xla),
    'PYTHONPATH': str(pathlib.Path(__file__).parents[2]),
  }
  return subprocess.Popen(
    [
      sys.executable,
      '-m',
      'ds_jax',
      'train',
      f'--config={config_path}',
      f'--workdir={root}',
      *flags,
    ],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    env=environment,
  )


def final_arrays(workdir: Workdir, cfg: c.Config) -> list[np.ndarray]:
  """Every array of the newest checkpoint: parameters, moments, step."""
  with opened(session(workdir, cfg)) as training:
    return [np.asarray(x) for x in jax.tree.leaves(jax.device_get(training.learning.state))]


def assert_same_run(a: Workdir, b: Workdir, cfg: c.Config) -> None:
  """Metrics (`time/…` aside), cached solutions, parameters and moments are equal, bit by bit."""
  assert metrics(a) == metrics(b)
  assert (a.root / 'replay.jsonl').read_bytes() == (b.root / 'replay.jsonl').read_bytes()
  for x, y in zip(final_arrays(a, cfg), final_arrays(b, cfg), strict=True):
    np.testing.assert_array_equal(x, y)


def metrics(workdir: Workdir) -> list[dict]:
  """Rows of metrics.jsonl without what depends on the clock."""
  return [
    {k: v for k, v in row.items() if not k.startswith('time/')}
    for row in read_metrics(workdir.metrics)
  ]


def write_countdown_tokenizer(folder: str | os.PathLike[str], max_value: int) -> None:
  """Writes the tokenizer of Countdown with values up to `max_value`."""
  write_word_tokenizer(folder, countdown.words(c.CountdownConfig(max_value=max_value)))
