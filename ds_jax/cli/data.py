"""`ds-jax data`: prepare problem sets and benchmarks once, and say what is in a source."""

from __future__ import annotations

import dataclasses
from typing import Any

from ds_jax.checks import InputError
from ds_jax.config import DataConfig
from ds_jax.data import builders
from ds_jax.data.benchmarks import BENCHMARKS, read_benchmark
from ds_jax.data.describe import describe_problems, spread
from ds_jax.data.files import find_files
from ds_jax.data.overlap import GRAM, Overlap, find_overlaps
from ds_jax.data.prepared import load_benchmark
from ds_jax.data.prompts import load_tokenizer
from ds_jax.data.sources import LoadedProblems, file_rows, load_problems, load_rows, tfds_folder
from ds_jax.interfaces import Progress
from ds_jax.types import Problem

TRAINING_SET = 'deepmath103k'  # the name of a training set, unless another is given
_NUM_SHOWN = 10  # overlapping pairs named
_REPORTED_SHARE = 0.25  # of a benchmark problem's grams: such pairs are worth a look

Summary = dict[str, Any]


def prepare(flags: dict[str, Any], progress: Progress) -> tuple[Summary, str]:
  """Builds a benchmark or a training set from a user's file; returns the summary, and as text.

  Args:
    flags: 'from' and 'data_dir', then 'benchmark' or 'name', and field names.
    progress: is told of skipped rows.

  Raises:
    InputError: if the file cannot be used, is not the whole benchmark, or other problems were
      prepared under this name.
  """
  config = _data_config(flags)
  if flags['benchmark']:
    name, split = flags['benchmark'], 'test'
    problems = read_benchmark(name, flags['from'], config)
    report: Summary = {'num_rows': len(problems)}
  else:
    name, split = flags['name'] or TRAINING_SET, 'train'
    if name in BENCHMARKS:
      raise InputError(f'{name} is a benchmark, for evaluation only; use --benchmark={name}.')
    loaded = _load_training(flags['from'], config, progress)
    problems = loaded.problems
    report = {
      'num_rows': loaded.num_rows,
      'skipped': dict(loaded.counts),
      **_overlap_report(problems, flags['data_dir'], progress),
    }
  folder, is_new = builders.write_problems(
    name, split, problems, report=report, data_dir=flags['data_dir']
  )
  summary = {
    'status': 'done',
    'name': name,
    'folder': str(folder),
    'is_new': is_new,
    'num_problems': len(problems),
    **report,
  }
  return summary, format_summary(summary)


def _load_training(pattern: str, config: DataConfig, progress: Progress) -> LoadedProblems:
  loaded = load_rows(file_rows(find_files(pattern)), config, 0, progress=progress, is_training=True)
  if not loaded.problems:
    raise InputError(
      f'{pattern}: none of {loaded.num_rows} rows can be used, e.g. '
      f'{loaded.skipped[:3]}; name its fields with --prompt_field and '
      '--answer_field.'
    )
  return loaded


def _overlap_report(problems: tuple[Problem, ...], data_dir: str, progress: Progress) -> Summary:
  """13-gram overlap with those benchmarks that are prepared in the same folder."""
  present = [name for name in BENCHMARKS if tfds_folder(name, data_dir) is not None]
  missing = [name for name in BENCHMARKS if name not in present]
  if missing:
    progress.note(
      f'No decontamination check against {", ".join(missing)}: not prepared under '
      f'{data_dir!r}. Prepare benchmarks first.'
    )
  benchmark = [
    problem
    for name in present
    for problem in load_benchmark(name, data_dir, DataConfig(), progress)
  ]
  found = find_overlaps(problems, benchmark)
  close = [overlap for overlap in found if overlap.share >= _REPORTED_SHARE]
  return {
    'overlap': {
      'gram': GRAM,
      'checked': present,
      'num_training_problems': _count(found, 'problem_id'),
      'num_benchmark_problems': _count(found, 'benchmark_id'),
      'num_close': len(close),
      'closest': [dataclasses.asdict(overlap) for overlap in found[:_NUM_SHOWN]],
    }
  }


def _count(overlaps: list[Overlap], field: str) -> int:
  return len({getattr(overlap, field) for overlap in overlaps})


def describe(flags: dict[str, Any], progress: Progress) -> tuple[Summary, str]:
  """Statistics of a source as it would be trained on (benchmarks: evaluated), and as text."""
  config = dataclasses.replace(
    _data_config(flags), source=flags['source'], eval_source=flags['source']
  )
  kind, _, name = flags['source'].partition(':')
  if kind in ('tfds', 'countdown') and not flags['data_dir']:
    raise InputError(f'Missing --data_dir: where {flags["source"]} lies.')
  split = 'eval' if kind == 'tfds' and name in BENCHMARKS else 'train'
  loaded = load_problems(config, split, flags['data_dir'] or '', progress=progress)
  summary = {
    'status': 'done',
    'name': flags['source'],
    'num_rows': loaded.num_rows,
    'skipped': dict(loaded.counts),
    **describe_problems(loaded.problems),
  }
  if flags['tokenizer']:
    tokenizer = load_tokenizer(flags['tokenizer'])
    prompts = tokenizer.encode_prompts([problem.prompt for problem in loaded.problems])
    summary['prompt_tokens'] = spread([len(tokens) for tokens in prompts])
  folder = tfds_folder(name, flags['data_dir'] or '') if kind == 'tfds' else None
  if folder is not None:
    summary['prepared'] = builders.read_report(folder)
  return summary, format_summary(summary)


def _data_config(flags: dict[str, Any]) -> DataConfig:
  fields = {name: flags[name] or '' for name in ('prompt_field', 'answer_field', 'id_field')}
  return DataConfig(source='', max_problems=int(flags.get('max_problems') or 0), **fields)


def format_summary(summary: Summary) -> str:
  """The summary of either command as lines for a terminal."""
  counts = f'{summary["num_problems"]:,} problems of {summary["num_rows"]:,} rows'
  lines = [f'{summary["name"]}: {counts}']
  if 'folder' in summary:
    state = 'written to' if summary['is_new'] else 'there already:'
    lines.append(f'{state} {summary["folder"]}')
  lines += _section('skipped', summary.get('skipped'))
  lines += _section('answers', summary.get('answer_types'), summary['num_problems'])
  lines += _section('to know', summary.get('peculiar'))
  for title, name in (('prompt tokens', 'prompt_tokens'), ('difficulty', 'difficulty')):
    if summary.get(name):
      lines.append(f'{title}: ' + ', '.join(f'{k} {v:,.4g}' for k, v in summary[name].items()))
  overlap = summary.get('overlap') or summary.get('prepared', {}).get('overlap')
  if overlap and overlap['checked']:
    lines.append(
      f'overlap: {overlap["num_training_problems"]} problems share {overlap["gram"]} words in a '
      f'row with {overlap["num_benchmark_problems"]} of {", ".join(overlap["checked"])}'
    )
    lines += [
      f'  {o["share"]:6.1%}  {o["problem_id"]}  {o["benchmark_id"]}'
      for o in overlap['closest']
      if o['share'] >= _REPORTED_SHARE
    ]
  return '\n'.join(lines)


def _section(title: str, counts: dict[str, int] | None, total: int = 0) -> list[str]:
  """A title and a line per count that is not 0, with its share of `total` if that is given."""
  shown = {name: count for name, count in (counts or {}).items() if count}
  share = lambda count: f'{count / total:7.1%}' if total else ''
  return [f'{title}:'] * bool(shown) + [
    f'  {count:>8,}{share(count)}  {name.replace("_", " ")}' for name, count in shown.items()
  ]
