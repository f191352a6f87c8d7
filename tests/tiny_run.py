"""A whole run in seconds: Countdown with three numbers, a decoder of a few thousand weights."""

from __future__ import annotations

import dataclasses
import json
import pathlib

import ds_jax.config as c
from ds_jax import experiment
from ds_jax.report.metrics import read_metrics
from ds_jax.types import SilentProgress
from ds_jax.warmstart import warmstart as run_warmstart
from ds_jax.workdir import Workdir

NEVER = lambda: False


def config(**sections) -> c.Config:
  """The tiny run; a keyword replaces fields of a section, e.g. train=dict(ends='collected')."""
  base = c.Config(
      data=c.DataConfig(prompt_limit=10, countdown=c.CountdownConfig(
          num_numbers=3, max_number=6, max_value=30, num_train=24, num_heldout=8,
          num_warmstart=200)),
      model=c.ModelConfig(num_layers=1, width=16, mlp_width=32, num_heads=2, head_width=8),
      warmstart=c.WarmstartConfig(num_steps=30, batch_size=16),
      search=c.SearchConfig(num_slots=4, width=2, max_depth=2, segment_length=8,
                            num_trajectories=4, max_expansions=6, replay_lanes=4),
      verify=c.VerifyConfig(verifier='python:tiny_verifier.verify', num_workers=1),
      train=c.TrainConfig(batch_problems=6, minibatch_problems=3, row_length=32, micro_rows=8),
      curriculum=c.CurriculumConfig(num_rounds=2, steps_per_round=3, filter_samples=2),
      evaluate=c.EvaluateConfig(num_problems=6, num_samples=2, num_slots=8),
      checkpoint=c.CheckpointConfig(every_steps=2),
      log=c.LogConfig(tensorboard=False))
  return dataclasses.replace(base, **{
      name: dataclasses.replace(getattr(base, name), **fields) if isinstance(fields, dict)
      else fields for name, fields in sections.items()})


def config_file(folder: pathlib.Path, **sections) -> pathlib.Path:
  """The same as a file for the command line."""
  path = folder / 'tiny.py'
  fields = json.dumps(dataclasses.asdict(config(**sections)))
  path.write_text('import json\nimport ml_collections\n\n\ndef get_config():\n'
                  f'  return ml_collections.ConfigDict(json.loads({fields!r}))\n')
  return path


def warmstart(root: pathlib.Path, cfg: c.Config) -> Workdir:
  workdir = Workdir(root)
  root.mkdir(parents=True, exist_ok=True)
  run_warmstart(cfg, workdir, SilentProgress(), NEVER)
  return workdir


def train(workdir: Workdir, cfg: c.Config, should_stop=NEVER) -> dict:
  return experiment.train(cfg, workdir, SilentProgress(), should_stop)


def metrics(workdir: Workdir) -> list[dict]:
  """Rows of metrics.jsonl without what depends on the clock."""
  return [{k: v for k, v in row.items() if not k.startswith('time/')}
          for row in read_metrics(workdir.root / 'metrics.jsonl')]
