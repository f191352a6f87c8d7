"""`ds-jax search`: trees at test time, for one problem or for a file of them."""

from __future__ import annotations

import dataclasses
import functools
import json
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from ds_jax import sharding
from ds_jax.checks import InputError
from ds_jax.cli._today.session import Session
from ds_jax.config import RESULT_NEUTRAL, Config
from ds_jax.data.layouts import RowError
from ds_jax.data.sources import load_questions
from ds_jax.data.vocabulary import unknown_words
from ds_jax.evaluate import answers
from ds_jax.interfaces import ALONE, Progress, SilentProgress, Team
from ds_jax.report.inspect import format_split_depths, format_table, format_tree, tree_to_dict
from ds_jax.report.text import percent
from ds_jax.run.durable import ResultsFile, close_parts, open_results, share_keys
from ds_jax.run.experiment import (
  Summary,
  announce,
  engine_for_questions,
  search_jobs,
  trained_params,
)
from ds_jax.run.growing import Shifted
from ds_jax.run.session import Runtime, open_runtime
from ds_jax.run.workdir import Workdir, stopped
from ds_jax.search import statistics
from ds_jax.search.engine.counters import Counters
from ds_jax.search.engine.engine import Interrupted
from ds_jax.search.engine.engine import run as run_engine
from ds_jax.search.engine.host_tree import Job
from ds_jax.search.engine.keys import Purpose, base_key_data
from ds_jax.search.engine.lockstep import deal
from ds_jax.search.policies.serial import POLICIES
from ds_jax.types import FinishedTree, Problem
from ds_jax.verify import grade_countdown

# Columns of the paper's Table 3, one number per tree; mean and deviation are over trees.
TABLE = (
  'search_depth',
  'trajectory_entropy',
  'trajectory_reward',
  'iterations',
  'time_per_iteration',
  'time_per_tree',
)


def todays_search_one(
  config: Config,
  workdir: Workdir,
  text: str,
  answer: str | None,
  selection: str,
  progress: Progress,
  should_stop: Callable[[], bool],
) -> tuple[Summary, str]:
  """Grows one tree for one problem; returns the summary, and the tree as text.

  Raises:
    InputError: if the model cannot read the problem, or the verifier not its answer.
  """
  with open_runtime(with_slots(config, 1), workdir, progress, should_stop) as runtime:
    try:
      problem = accept_problem(Problem('command-line', text, answer or ''), runtime)
    except RowError as e:
      raise InputError(f'--problem: {e}.') from e
    if not problem.answer:
      progress.note('No --answer: ends cannot be graded, so none is better than another.')
    params, name = trained_params(runtime)
    announce(runtime)
    grown: list[tuple[FinishedTree, float]] = []
    _grow(
      runtime,
      params,
      search_jobs(runtime, [problem]),
      lambda *found: grown.append(found),
      SilentProgress(),
    )
    ((tree, seconds),) = grown
    row = tree_row(tree, problem, runtime, selection, seconds)
    shown = '\n'.join(
      [
        format_tree(tree, runtime.tokenizer.decode_response),
        format_split_depths(*split_figures([row])),
      ]
    )
  parts = {name: row[name] for name in ('is_solved', 'selected', 'answers', 'tree')}
  return {
    'status': 'done',
    'parameters': name,
    'time/search': seconds,
    **parts,
    **summarize([row]),
  }, shown


def todays_search_file(
  config: Config,
  workdir: Workdir,
  path: str,
  output: str,
  selection: str,
  progress: Progress,
  should_stop: Callable[[], bool],
  team: Team = ALONE,
) -> tuple[Summary, str]:
  """Grows a tree for every problem of a file, and writes each as a line when it is finished.

  The processes of `team` deal the problems among themselves; the first writes the output.

  Problems whose line is in `output` already are not searched again. Returns the summary over all
  of them, and a table as text.

  Raises:
    InputError: if no row can be used, or `output` belongs to something else.
    Stopped: if asked to; the same command goes on.
  """
  with open_runtime(config, workdir, progress, should_stop, team) as opened:
    accept = functools.partial(accept_problem, runtime=opened)
    loaded = load_questions(path, config.data, accept, progress)
    per_device = -(-len(loaded.problems) // sharding.num_slot_shards(opened.mesh))
    runtime = dataclasses.replace(opened, config=with_slots(config, per_device))
    params, name = trained_params(runtime)
    with open_results(output, run_name(config, name), team) as file:
      announce(runtime)
      rows, work = _search_missing(runtime, params, loaded.problems, file, selection)
  if team.index:
    return {'status': 'done', 'process': team.index}, ''
  found = summarize(rows) | work
  text = '\n'.join(
    [format_table(found['table']), format_split_depths(*split_figures(rows)), _accuracy_line(found)]
  )
  return {
    'status': 'done',
    'parameters': name,
    'output': str(output),
    'num_skipped': len(loaded.skipped),
    **found,
  }, text


def accept_problem(problem: Problem, runtime: Runtime) -> Problem:
  """The problem as it is searched: a problem of the embedded task is its own answer.

  Raises:
    RowError: if the prompt has words that the tokenizer does not know, is too long, or the
      verifier cannot use the answer.
  """
  limit = runtime.config.data.prompt_limit
  unknown = unknown_words(problem.prompt, runtime.tokenizer)
  if unknown:
    raise RowError(
      f'the model has no token for {", ".join(map(repr, unknown[:5]))!s:.200} and '
      'would read "unknown"; write the problem in its words'
    )
  num_tokens = len(runtime.tokenizer.encode_prompt(problem.prompt))
  if num_tokens > limit and runtime.config.data.overlong_prompts == 'skip':
    raise RowError(f'the prompt has {num_tokens} tokens, data.prompt_limit = {limit}')
  if runtime.config.verify.verifier != 'countdown':
    return problem
  problem = dataclasses.replace(problem, answer=problem.answer or problem.prompt)
  try:
    grade_countdown.verify(problem.answer, '')
  except ValueError as e:
    raise RowError(str(e).rstrip('.')) from e
  return problem


def with_slots(config: Config, num_problems: int) -> Config:
  """No more slots per device than serial policies can use: an idle one costs as much as a busy one."""
  if not POLICIES[config.search.policy].is_serial:
    return config
  slots = min(config.search.num_slots, num_problems)
  return dataclasses.replace(
    config,
    search=dataclasses.replace(
      config.search, num_slots=slots, replay_lanes=min(config.search.replay_lanes, slots)
    ),
  )


def run_name(config: Config, parameters: str) -> str:
  """What the lines of an output file depend on: settings and parameters."""
  fields = {
    name: value for name, value in dataclasses.asdict(config).items() if name not in RESULT_NEUTRAL
  }
  digest = zlib.crc32(json.dumps(fields, sort_keys=True).encode())
  return f'{parameters}, settings {digest:08x}'


def _search_missing(
  runtime: Runtime, params: Any, problems: Sequence[Problem], file: ResultsFile, selection: str
) -> tuple[list[dict[str, Any]], dict[str, float]]:
  """Rows of all problems, in their order; those that the file lacks are grown and appended.

  Returns the rows, and how well the slots were used now.
  """
  key_of = lambda row: (row['id'], row['question'], row['gold'])
  kept = {key_of(row): row for row in file.rows}
  wanted = {(p.id, p.prompt, p.answer or None): p for p in problems}
  done = share_keys(runtime.team, set(kept))
  todo = {p.id: p for key, p in wanted.items() if key not in done}
  num_before = len(wanted) - len(todo)
  jobs = deal(search_jobs(runtime, list(todo.values())), runtime.team, runtime.search_team)

  def keep(tree: FinishedTree, seconds: float) -> None:
    file.append(tree_row(tree, todo[tree.problem_id], runtime, selection, seconds))

  progress = runtime.progress
  if num_before:
    progress.note(f'{file.path}: {num_before} of {len(wanted)} trees are there already.')
  progress.start('search', len(wanted))
  counters = Counters()
  if jobs:
    counters = _grow(runtime, params, jobs, keep, Shifted(progress, num_before))
  counters = counters.over_team(runtime.team)
  close_parts(runtime.team, [file])
  progress.update(len(wanted))
  progress.finish()
  if runtime.team.index:
    return [], {}
  kept = {key_of(row): row for row in file.rows}
  work = counters.metrics() | {'search/out_of_budget': counters.out_of_budget}
  return [kept[key] for key in wanted], work if counters.trees else {}


def _grow(
  runtime: Runtime,
  params: Any,
  jobs: Sequence[Job],
  keep: Callable[[FinishedTree, float], None],
  progress: Progress,
) -> Counters:
  """Grows a tree per job; `keep` gets each with the seconds from its start to its end.

  Raises:
    Stopped: if asked to.
  """
  clock = _Clock()
  try:
    return run_engine(
      engine_for_questions(runtime),
      params,
      clock.watch(jobs),
      base_key_data(runtime.config.seed, Purpose.SEARCH, 0, 0),
      on_finish=lambda tree: keep(tree, clock.seconds(tree.problem_id)),
      progress=progress,
      should_stop=runtime.should_stop,
    )
  except Interrupted:
    raise stopped(runtime.team) from None


class _Clock:
  """How long each tree took: from the moment the engine asks for its job, compilation left out."""

  def __init__(self) -> None:
    self._compiling = 0.0
    self._started: dict[str, float] = {}
    jax.monitoring.register_event_duration_secs_listener(self._note_compilation)

  def watch(self, jobs: Iterable[Job]) -> Iterator[Job]:
    for job in jobs:
      self._started[job.problem.id] = self._now()
      yield job

  def seconds(self, problem_id: str) -> float:
    return self._now() - self._started[problem_id]

  def _now(self) -> float:
    return time.monotonic() - self._compiling

  def _note_compilation(self, event: str, seconds: float, **fields: Any) -> None:
    del fields
    if event == '/jax/core/compile/backend_compile_duration':
      self._compiling += seconds


def tree_row(
  tree: FinishedTree, problem: Problem, runtime: Runtime, selection: str, seconds: float
) -> dict[str, Any]:
  """What a line of the output holds, as plain values; numbers that are not finite are None.

  Args:
    tree: the finished tree.
    problem: what it was grown for; an empty answer is not known.
    runtime: its tokenizer and verifier read the ends.
    selection: which of answers.SELECTIONS gives the answer.
    seconds: from the tree's start to its end.
  """
  decode = runtime.tokenizer.decode_response
  is_math = runtime.config.verify.verifier == 'math'
  ends = answers.find_ends(tree, decode, answers.read_boxed if is_math else answers.read_whole)
  chosen = {
    name: _end_fields(choose(ends), bool(problem.answer))
    for name, choose in answers.SELECTIONS.items()
  }
  pairs, disagreements = statistics.split_counts(tree, runtime.config.search.max_depth)
  return {
    'id': problem.id,
    'question': problem.prompt,
    'gold': problem.answer or None,
    'is_solved': tree.is_solved if problem.answer else None,
    'selected': chosen[selection],
    'answers': chosen,
    'table': table_row(tree, seconds),
    'pairs': pairs.tolist(),
    'disagreements': disagreements.tolist(),
    'tree': tree_to_dict(tree, decode),
  }


def _end_fields(end: answers.End | None, is_graded: bool) -> dict[str, Any] | None:
  if end is None:
    return None
  return {
    'node': end.node,
    'answer': end.answer,
    'response': end.text,
    'q': end.q,
    'is_correct': end.is_correct if is_graded else None,
  }


def table_row(tree: FinishedTree, seconds: float) -> dict[str, float | None]:
  """The columns of TABLE for one tree; None where it collected nothing.

  Depth (segments), reward and policy entropy (nats a token) are means over the collected ends;
  an iteration is an expansion; times are seconds of the clock, during which other trees grew too.
  """
  ends = tree.collected
  entropies = [
    np.concatenate([tree.entropies[tree.node_slice(i)] for i in tree.path(end)]).mean()
    for end in ends.tolist()
  ]
  mean = lambda values: float(np.mean(values)) if len(values) else None
  iterations = tree.statistics['expansions']
  return dict(
    zip(
      TABLE,
      (
        mean(tree.depth[ends]),
        mean(entropies),
        mean(tree.reward[ends]),
        iterations,
        seconds / max(iterations, 1),
        seconds,
      ),
      strict=True,
    )
  )


def summarize(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
  """Mean and deviation of every column of TABLE over trees, U/x by depth, and how many are right.

  `accuracy/RULE` is over problems with a known answer, for each rule of choosing one.
  """
  graded = [row for row in rows if row['gold'] is not None]
  share = lambda flags: sum(flags) / len(graded) if graded else None
  ratios, pairs = split_figures(rows)
  total = lambda name: sum(row['tree']['statistics'].get(name) or 0 for row in rows)
  generated = max(total('generated_tokens'), 1)
  return {
    'num_problems': len(rows),
    'num_graded': len(graded),
    'num_solved': sum(row['is_solved'] for row in graded),
    **{
      f'accuracy/{name}': share(
        [bool((row['answers'][name] or {}).get('is_correct')) for row in graded]
      )
      for name in answers.SELECTIONS
    },
    'table': {
      column: _mean_and_deviation([row['table'][column] for row in rows]) for column in TABLE
    },
    'u_over_x': {
      str(depth): ratio for depth, ratio in enumerate(ratios) if depth and np.isfinite(ratio)
    },
    'split_pairs': pairs,
    'search/tokens': total('generated_tokens'),
    'search/recomputed_share': total('recomputed_tokens') / generated,
  }


def split_figures(rows: Sequence[dict[str, Any]]) -> tuple[list[float], list[int]]:
  """U/x and pairs of ends by the depth where they split, over all trees."""
  pairs, disagreements = (
    np.sum([row[name] for row in rows], axis=0) for name in ('pairs', 'disagreements')
  )
  return statistics.unresolved_over_cost(pairs, disagreements).tolist(), pairs.tolist()


def _mean_and_deviation(values: Sequence[float | None]) -> dict[str, float] | None:
  known = [value for value in values if value is not None]
  return (
    {'mean': float(np.mean(known)), 'deviation': float(np.std(known)), 'trees': len(known)}
    if known
    else None
  )


def _accuracy_line(found: dict[str, Any]) -> str:
  if not found['num_graded']:
    return 'No answer is known: nothing was graded.'
  shares = [
    f'{name.replace("_", " ")} {percent(found[f"accuracy/{name}"])}' for name in answers.SELECTIONS
  ]
  return f'correct of {found["num_graded"]} with a known answer: ' + ', '.join(shares)


def search_problem(
  session: Session, *, text: str, answer: str | None, select: str
) -> tuple[Summary, str]:
  return todays_search_one(
    session.config, session.workdir, text, answer, select, session.progress, session.should_stop
  )


def search_file(
  session: Session, *, problems: str, output: str, select: str
) -> tuple[Summary, str]:
  parts = (select, session.progress, session.should_stop, session.team)
  return todays_search_file(session.config, session.workdir, problems, output, *parts)
