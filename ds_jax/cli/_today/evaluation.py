"""`ds-jax evaluate --benchmarks=…`: the paper's evaluation, samples kept, resumable at any moment.

A benchmark's samples stand in OUTPUT/NAME.jsonl, one line each, as they finish; a sample that is
there is never drawn again. The random numbers of a sample follow from seed, problem and sample
number, so killed or not, on one device or several (at equal slots per device), the samples are the
same, and so are table.md and table.json, which are functions of them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import pathlib
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ds_jax.checks import InputError, check_choice
from ds_jax.cli._today.session import Session
from ds_jax.config import Config, response_limit
from ds_jax.data import prompts as prompts_lib
from ds_jax.data.benchmarks import BENCHMARKS, load_benchmark
from ds_jax.evaluate import answers, table
from ds_jax.evaluate.samples import TEXT_FIELDS, average, sample_row, summarize_samples
from ds_jax.interfaces import ALONE, Progress, Team
from ds_jax.run import experiment
from ds_jax.run.durable import ResultsFile, close_parts, open_results, share_keys
from ds_jax.run.experiment import Summary, announce, trained_params
from ds_jax.run.growing import Shifted, rollout_jobs
from ds_jax.run.session import Runtime, open_runtime
from ds_jax.run.workdir import Workdir, stopped, write_json
from ds_jax.search.engine.engine import Interrupted
from ds_jax.search.engine.engine import run as run_engine
from ds_jax.search.engine.keys import Purpose, base_key_data
from ds_jax.search.engine.lockstep import deal
from ds_jax.types import FinishedTree, Problem

Prompt = tuple[Problem, np.ndarray]  # tokens [P] int32
Files = Mapping[str, ResultsFile]  # by benchmark


def evaluate_benchmarks(
  config: Config,
  workdir: Workdir,
  names: Sequence[str],
  output: str | None,
  progress: Progress,
  should_stop: Callable[[], bool],
  team: Team = ALONE,
) -> tuple[Summary, str]:
  """Draws the samples that are missing; returns the figures, and the table as text.

  Args:
    config: `evaluate` says how many samples and how they are drawn, `search` how long they may be.
    workdir: whose newest parameters are evaluated; `config.data.data_dir` or its folder `data`
      holds the prepared benchmarks.
    names: of BENCHMARKS.
    output: folder of the results; None: one in the workdir that belongs to these settings.
    progress: is told how far it is.
    should_stop: polled.
    team: its processes deal the samples among themselves; the first writes the tables.

  Raises:
    InputError: for an unknown or unprepared benchmark, a prompt that is too long, a verifier that
      cannot read such answers, or an output that belongs to other settings.
    Stopped: if asked to; the same command goes on.
  """
  for name in names:
    check_choice('--benchmarks', name, BENCHMARKS)
  if config.verify.verifier == 'countdown':
    raise InputError(
      'The answers of benchmarks are mathematics; set --config.verify.verifier=math.'
    )
  with open_runtime(config, workdir, progress, should_stop, team) as runtime:
    prompts = {name: _prompts(runtime, name) for name in dict.fromkeys(names)}
    params, parameters = trained_params(runtime)
    settings = sample_settings(config)
    run = f'{parameters}, settings {_digest(settings)}'
    folder = (
      pathlib.Path(output)
      if output
      else (workdir.root / 'evaluations' / _digest([parameters, settings]))
    )
    with contextlib.ExitStack() as stack:
      files = {
        name: stack.enter_context(open_results(folder / f'{name}.jsonl', run, team, TEXT_FIELDS))
        for name in prompts
      }
      announce(runtime)
      _draw_missing(runtime, params, prompts, files)
      if team.index:
        return {'status': 'done', 'process': team.index}, ''
      results = {
        name: summarize_samples(_wanted_rows(files[name], prompts[name], config))
        for name in prompts
      }
  if set(results) == set(BENCHMARKS):
    results['average'] = average([results[name] for name in BENCHMARKS])
  sampling = {name: getattr(config.evaluate, name) for name in table.PAPER_SETTINGS}
  text = table.markdown(results, parameters, sampling)
  settings = {**settings, 'evaluate.num_samples': config.evaluate.num_samples}
  found = {
    'parameters': parameters,
    'settings': settings,
    'results': results,
    'paper': {
      row: dict(zip((*BENCHMARKS, 'average'), values, strict=True))
      for row, values in table.PAPER.items()
    },
  }
  write_json(folder / 'table.json', found)
  (folder / 'table.md').write_text(text)
  return {'status': 'done', 'output': str(folder), **found}, text


def sample_settings(config: Config) -> dict[str, Any]:
  """What a sample depends on besides parameters, problem and sample number."""
  fields = dataclasses.asdict(config)
  pick = lambda section, *names: {f'{section}.{name}': fields[section][name] for name in names}
  return {
    'seed': config.seed,
    'response_limit': response_limit(config),
    **pick('data', 'instruction', 'prompt_limit', 'overlong_prompts'),
    **pick('model', 'compute_dtype'),
    **pick('mesh', 'tensor'),
    **pick('search', 'segment_length', 'replay_chunk', 'path_block', 'cache_kernel'),
    **pick('evaluate', 'temperature', 'top_p', 'num_slots'),
    **pick('verify', 'verifier', 'degenerate', 'cpu_seconds'),
  }


def _digest(value: Any) -> str:
  return f'{zlib.crc32(json.dumps(value, sort_keys=True).encode()):08x}'


def _prompts(runtime: Runtime, name: str) -> tuple[Prompt, ...]:
  """All problems of a benchmark with their prompt tokens; none may be left out."""
  data = runtime.config.data
  problems = load_benchmark(name, runtime.data_dir, data, runtime.progress)
  prepared = prompts_lib.prepare_prompts(problems, runtime.tokenizer, data)
  if prepared.skipped:
    longest = max(len(runtime.tokenizer.encode_prompt(problem.prompt)) for problem in problems)
    raise InputError(
      f'{name}: {len(prepared.skipped)} of {len(problems)} prompts exceed data.prompt_limit = '
      f'{data.prompt_limit} tokens; set it to {longest} (or data.overlong_prompts=truncate_left, '
      'which cuts their beginnings).'
    )
  return prepared.prompts


def _draw_missing(
  runtime: Runtime, params: Any, prompts: Mapping[str, Sequence[Prompt]], files: Files
) -> None:
  """Grows a width-1 tree for every sample that no file holds, all benchmarks in one go.

  Raises:
    Stopped: if asked to.
  """
  home = {problem.id: (name, problem) for name, pairs in prompts.items() for problem, _ in pairs}
  kept = {(row['id'], row['sample']) for file in files.values() for row in file.rows}
  kept = share_keys(runtime.team, kept)
  jobs = rollout_jobs(
    [pair for pairs in prompts.values() for pair in pairs], runtime.config.evaluate.num_samples
  )
  todo = [job for job in jobs if (job.problem.id, job.sample) not in kept]
  num_before = len(jobs) - len(todo)
  is_math = runtime.config.verify.verifier == 'math'
  read_answer = answers.read_boxed if is_math else answers.read_whole

  def keep(tree: FinishedTree) -> None:
    name, problem = home[tree.problem_id]
    files[name].append(sample_row(tree, problem, runtime.tokenizer, read_answer))

  if num_before:
    runtime.progress.note(f'{num_before} of {len(jobs)} samples are there already.')
  runtime.progress.start('evaluate', len(jobs))
  todo = deal(todo, runtime.team, runtime.search_team)
  if todo:
    key = base_key_data(runtime.config.seed, Purpose.EVALUATE, 0, 0)
    try:
      run_engine(
        runtime.evaluation_engine,
        params,
        todo,
        key,
        on_finish=keep,
        progress=Shifted(runtime.progress, num_before),
        should_stop=runtime.should_stop,
      )
    except Interrupted:
      raise stopped(runtime.team) from None
  close_parts(runtime.team, files.values())
  runtime.progress.update(len(jobs))
  runtime.progress.finish()


def _wanted_rows(
  file: ResultsFile, prompts: Sequence[Prompt], config: Config
) -> list[dict[str, Any]]:
  """The rows of the samples asked for: a file may hold more of an earlier evaluation."""
  gold = {problem.id: problem.answer for problem, _ in prompts}
  rows = [row for row in file.rows if row['sample'] < config.evaluate.num_samples]
  changed = [row['id'] for row in rows if gold.get(row['id']) != row['gold']]
  if changed:
    raise InputError(
      f'{file.path} holds samples of another version of the benchmark, e.g. '
      f'{changed[0]}; choose another --output.'
    )
  return rows


def evaluate(
  session: Session, *, benchmarks: Sequence[str] = (), output: str | None = None
) -> tuple[Summary, str]:
  parts = (session.progress, session.should_stop, session.team)
  if benchmarks:
    return evaluate_benchmarks(session.config, session.workdir, benchmarks, output, *parts)
  summary = experiment.evaluate(session.config, session.workdir, *parts)
  text = (
    'pass@1 {evaluate/pass_at_1:.3f} [{evaluate/pass_at_1_low:.3f}, '
    '{evaluate/pass_at_1_high:.3f}] over {evaluate/num_problems} problems'
  )
  return summary, text.format(**summary)
