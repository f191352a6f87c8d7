"""Problem sets and benchmarks built once from a user's file, and what a source holds.

A benchmark is taken whole or not at all. Of a training set unusable rows are left out and counted,
and its problems are compared with the benchmarks that are prepared beside it.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Sequence
from typing import Any

from ds_jax.checks import InputError
from ds_jax.config import DataConfig, VerifyConfig
from ds_jax.config.mixtures import parse_sources
from ds_jax.data import builders
from ds_jax.data.benchmarks import BENCHMARKS, read_benchmark
from ds_jax.data.describe import describe_problems, spread
from ds_jax.data.files import find_files
from ds_jax.data.gradable import try_golds
from ds_jax.data.overlap import GRAM, find_overlaps
from ds_jax.data.prepared import load_benchmark
from ds_jax.data.prompts import load_tokenizer
from ds_jax.data.sources import (
  LoadedProblems,
  file_rows,
  load_problems,
  load_rows,
  report_skipped,
  tfds_folder,
)
from ds_jax.interfaces import Progress
from ds_jax.types import Problem
from ds_jax.verify.pool import VerifierPool

REPORTED_SHARE = 0.25  # of a benchmark problem's grams: such pairs are worth a look
_NUM_SHOWN = 10  # overlapping pairs named

Summary = dict[str, Any]


def prepare_benchmark(name: str, pattern: str, config: DataConfig, *, data_dir: str) -> Summary:
  """Builds a benchmark from a public file; returns the summary.

  Args:
    name: of BENCHMARKS.
    pattern: the file, or a pattern of files.
    config: `prompt_field`, `answer_field` and `id_field` win over the recognised layouts.
    data_dir: folder or bucket of prepared sets.

  Raises:
    InputError: if the file is not the whole benchmark, or another one was prepared under its name.
  """
  problems = read_benchmark(name, pattern, config)
  return _build(name, 'test', problems, {'num_rows': len(problems)}, data_dir)


def prepare_training_set(
  name: str, pattern: str, config: DataConfig, *, data_dir: str, progress: Progress
) -> Summary:
  """Builds a training set from a user's file; returns the summary.

  Args:
    name: under which it is kept.
    pattern: the file, or a pattern of files.
    config: `prompt_field`, `answer_field` and `id_field` win over the recognised layouts.
    data_dir: folder or bucket of prepared sets.
    progress: is told of skipped rows.

  Raises:
    InputError: if the file cannot be used, or other problems were prepared under this name.
  """
  if name in BENCHMARKS:
    raise InputError(f'{name} is a benchmark, for evaluation only; use --benchmark={name}.')
  loaded = _load_training(pattern, config, progress)
  report = {
    'num_rows': loaded.num_rows,
    'skipped': dict(loaded.counts),
    'overlap': _overlap(loaded.problems, data_dir, progress),
  }
  return _build(name, 'train', loaded.problems, report, data_dir)


def describe_source(
  config: DataConfig, *, data_dir: str, tokenizer: str, progress: Progress, verifier: str = 'math'
) -> Summary:
  """Statistics of `config.source` as it would be trained on (benchmarks: evaluated).

  Args:
    config: the source, how many of its rows, and in which fields they have what.
    data_dir: folder or bucket of prepared sets; '': none.
    tokenizer: folder or hub name of one that counts the tokens of prompts; '': they are not.
    progress: is told of skipped rows.
    verifier: name of the one that a sample of golds is tried with; '': none is.
  """
  parts = parse_sources(config.source)
  kind, _, name = config.source.partition(':')
  for part in parts:
    if _is_prepared(part.source) and not data_dir:
      raise InputError(f'Missing --data_dir: where {part.source} lies.')
  split = 'eval' if kind == 'tfds' and name in BENCHMARKS else 'train'
  loaded = load_problems(
    dataclasses.replace(config, eval_source=config.source),
    split,
    data_dir,
    progress=progress,
    setting='--',
  )
  summary = {
    'status': 'done',
    'name': config.source,
    'num_rows': loaded.num_rows,
    'skipped': dict(loaded.counts),
    **describe_problems(loaded.problems, loaded.counts),
  }
  if len(parts) > 1:
    summary['sources'] = dict(collections.Counter(p.source for p in loaded.problems))
  if verifier:
    summary['failing_golds'] = _failing_golds(loaded.problems, verifier, progress)
  if tokenizer:
    encoder = load_tokenizer(tokenizer)
    prompts = encoder.encode_problems(loaded.problems)
    summary['prompt_tokens'] = spread([len(tokens) for tokens in prompts])
  if len(parts) > 1 and data_dir:
    summary['overlap'] = _overlap(loaded.problems, data_dir, progress)
    return summary
  folder = tfds_folder(name, data_dir) if kind == 'tfds' else None
  if folder is not None:
    summary['prepared'] = builders.read_report(folder)
  return summary


def _is_prepared(source: str) -> bool:
  """Whether a source is read from TFDS files."""
  return source == 'countdown' or source.startswith('tfds:')


def _failing_golds(problems: Sequence[Problem], verifier: str, progress: Progress) -> str | None:
  """What is to say of golds that the verifier does not take for right; None if nothing is."""
  with VerifierPool(VerifyConfig(verifier=verifier), progress.note) as pool:
    return try_golds(problems, pool.verify).describe('golds', verifier)


def _build(
  name: str, split: str, problems: Sequence[Problem], report: Summary, data_dir: str
) -> Summary:
  folder, is_new = builders.write_problems(name, split, problems, report=report, data_dir=data_dir)
  return {
    'status': 'done',
    'name': name,
    'folder': str(folder),
    'is_new': is_new,
    'num_problems': len(problems),
    **report,
  }


def _load_training(pattern: str, config: DataConfig, progress: Progress) -> LoadedProblems:
  loaded = load_rows(file_rows(find_files(pattern)), config, 0, progress=progress, is_training=True)
  report_skipped(loaded, pattern, progress, '--')
  return loaded


def _overlap(problems: Sequence[Problem], data_dir: str, progress: Progress) -> Summary:
  """13-gram overlap with those benchmarks that are prepared in the same folder."""
  present = [name for name in BENCHMARKS if tfds_folder(name, data_dir) is not None]
  missing = [name for name in BENCHMARKS if name not in present]
  if missing:
    progress.note(
      f'No decontamination check against {", ".join(missing)}: not prepared under '
      f'{data_dir!r}. Prepare benchmarks first.'
    )
  held_out: list[Problem] = []
  for name in present:
    held_out.extend(load_benchmark(name, data_dir, DataConfig(), progress))
  overlaps = find_overlaps(problems, held_out)
  close = [overlap for overlap in overlaps if overlap.share >= REPORTED_SHARE]
  return {
    'gram': GRAM,
    'checked': present,
    'num_training_problems': len({overlap.problem_id for overlap in overlaps}),
    'num_benchmark_problems': len({overlap.benchmark_id for overlap in overlaps}),
    'num_close': len(close),
    'closest': [dataclasses.asdict(overlap) for overlap in overlaps[:_NUM_SHOWN]],
  }
