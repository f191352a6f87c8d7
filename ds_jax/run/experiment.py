"""The commands behind `ds-jax`: a Config and a workdir in, a JSON-able summary out."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import functools
import json
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax

from ds_jax.checks import InputError
from ds_jax.config import Config, check_training
from ds_jax.data import prompts as prompts_lib
from ds_jax.evaluate.metrics import evaluation_metrics
from ds_jax.interfaces import ALONE, Progress, SilentProgress, Team, VerifyFn
from ds_jax.model.decoder import Decoder, init_decoder
from ds_jax.model.huggingface.load import load_decoder
from ds_jax.model.huggingface.save import save_decoder
from ds_jax.report.metrics import read_metrics
from ds_jax.report.plots import write_report
from ds_jax.report.summary import make_summary, summary_table
from ds_jax.run.growing import rollout_jobs, run_journaled
from ds_jax.run.parameters import restore_params
from ds_jax.run.session import Runtime, model_folder, open_runtime
from ds_jax.run.training import Training
from ds_jax.run.warmstart import new_decoder_config
from ds_jax.run.workdir import Workdir, check_config, claim, stopped, write_json
from ds_jax.search.engine.engine import Engine
from ds_jax.search.engine.engine import run as run_engine
from ds_jax.search.engine.host_tree import Job
from ds_jax.search.engine.keys import Purpose, base_key_data
from ds_jax.search.journal import Journal, share_trees
from ds_jax.sharding import local_view
from ds_jax.train.state import search_form
from ds_jax.types import FinishedTree, Problem, Verdict

Summary = dict[str, Any]


def init(config: Config, tokenizer_folder: str, output: str, progress: Progress) -> Summary:
  """Writes a randomly initialised decoder of config.model's shape as a Hugging Face folder.

  Args:
    config: `model` gives the shape, `seed` the numbers.
    tokenizer_folder: a folder with a tokenizer; its files are copied.
    output: the folder to write; an earlier checkpoint there is replaced.
  """
  tokenizer = prompts_lib.load_tokenizer(tokenizer_folder)
  decoder = init_decoder(new_decoder_config(config, tokenizer), jax.random.key(config.seed))
  save_decoder(
    decoder,
    output,
    stop_ids=tokenizer.stop_ids,
    pad_id=tokenizer.pad_id,
    add_files=lambda folder: prompts_lib.save_tokenizer(tokenizer_folder, str(folder)),
  )
  count = decoder.config.num_parameters()
  progress.note(f'Wrote {output}: {count:,} parameters, {tokenizer.num_ids:,} token ids.')
  return {'status': 'done', 'output': str(output), 'num_parameters': count}


def train(
  config: Config,
  workdir: Workdir,
  progress: Progress,
  should_stop: Callable[[], bool],
  team: Team = ALONE,
) -> Summary:
  """The main job: evaluate, filter, search and learn for some rounds, evaluate, report.

  A finished workdir says so and does nothing; an unfinished one goes on. The processes of `team`
  share the workdir; the first of them writes the reports.
  """
  check_training(config)
  moved = check_config(workdir, config)
  if workdir.summary.exists():
    summary = json.loads(workdir.summary.read_text())
    progress.note(f'{workdir.root} is finished; nothing to do.')
    return summary | {'status': 'finished'}
  start = time.monotonic()
  with open_runtime(config, workdir, progress, should_stop, team) as runtime:
    announce(runtime)
    if moved:
      progress.note(f'Other machine settings than before ({moved}): the last bits will differ.')
    with contextlib.closing(Training(runtime)) as training:
      if not team.index:
        claim(workdir, config)
      host = training.run()
      examples = example_trees(training)
      if team.index:
        team.gather(b'')  # process 0 has the reports to write
        return {'status': 'done', 'process': team.index}
  summary = make_summary(read_metrics(workdir.root / 'metrics.jsonl')) | {
    'status': 'done',
    'rounds': host.round_index,
    'time/train': time.monotonic() - start,
  }
  write_json(workdir.root / 'examples.json', examples)
  write_json(workdir.summary, summary)
  summary |= report(workdir, progress)
  team.gather(b'')
  return summary


def announce(runtime: Runtime) -> None:
  from ds_jax import sharding

  count = runtime.decoder_config.num_parameters()
  runtime.progress.note(
    f'Decoder: {count:,} parameters, {runtime.config.model.compute_dtype}. Mesh: '
    f'{sharding.describe(runtime.mesh)}.'
  )


def example_trees(training: Training, count: int = 3) -> list[dict[str, str]]:
  """A few trees of the trained policy on held-out problems, as text."""
  from ds_jax.report.inspect import format_tree

  jobs = [Job(problem, tokens) for problem, tokens in training.eval_prompts[:count]]
  trees: list[FinishedTree] = []
  run_engine(
    training.runtime.search_engine,
    training.params(),
    jobs,
    base_key_data(training.config.seed, Purpose.SEARCH, 0, 0),
    on_finish=trees.append,
  )
  trees.sort(key=lambda tree: tree.problem_id)
  decode = training.runtime.tokenizer.decode_response
  return [{'title': tree.problem_id, 'text': format_tree(tree, decode)} for tree in trees]


def report(workdir: Workdir, progress: Progress) -> Summary:
  """Writes report.html and report.png from what the workdir holds."""
  metrics = read_metrics(workdir.root / 'metrics.jsonl')
  if not metrics:
    raise InputError(f'{workdir.root} has no metrics.jsonl to report on; run `ds-jax train` first.')
  summary = json.loads(workdir.summary.read_text()) if workdir.summary.exists() else {}
  config = json.loads((workdir.root / 'config.json').read_text())
  examples = workdir.root / 'examples.json'
  trees = json.loads(examples.read_text()) if examples.exists() else []
  html, png = write_report(workdir.root, metrics, summary | {'config': config, 'trees': trees})
  if summary:
    print(summary_table(summary))
  progress.note(f'Report: {html}')
  progress.note(f'Picture: {png}')
  return {'report': str(html), 'picture': str(png)}


def trained_params(runtime: Runtime) -> tuple[Decoder, str]:
  """Parameters for search: the newest checkpoint of the workdir, else the initial model."""
  dtype = runtime.config.model.compute_dtype
  restored = restore_params(runtime.workdir, runtime.decoder_config, runtime.mesh, runtime.progress)
  if restored is not None:
    params, step = restored
    whole = search_form(params, mesh=runtime.mesh, dtype=dtype)
    return (
      local_view(whole, runtime.mesh, runtime.search_mesh),
      f'{runtime.workdir.checkpoints} (step {step})',
    )
  path = model_folder(runtime.config, runtime.workdir)
  params = load_decoder(
    path,
    num_ids=runtime.tokenizer.num_ids,
    mesh=runtime.mesh,
    dtype=dtype,
    for_search=True,
    **runtime.config.model.formats | {'compute_dtype': dtype},
  )
  return local_view(params, runtime.mesh, runtime.search_mesh), str(path)


def evaluate(
  config: Config,
  workdir: Workdir,
  progress: Progress,
  should_stop: Callable[[], bool],
  team: Team = ALONE,
) -> Summary:
  """pass@1 of the newest parameters on the evaluation split; resumable within the same settings.

  The processes of `team` share the workdir and deal the samples among themselves.
  """
  from ds_jax.search.engine.engine import Interrupted

  with open_runtime(config, workdir, progress, should_stop, team) as runtime:
    prompts = runtime.prompts('eval')
    prompts = prompts[: config.evaluate.num_problems] if config.evaluate.num_problems else prompts
    params, name = trained_params(runtime)
    announce(runtime)
    key = base_key_data(config.seed, Purpose.EVALUATE, 0, 0)
    journal = Journal(workdir.journal(f'evaluate.{_digest(config, name)}', team.index))
    jobs = rollout_jobs(prompts, config.evaluate.num_samples)
    try:
      rollouts, _ = run_journaled(
        runtime.evaluation_engine,
        params,
        jobs,
        key,
        journal,
        'evaluate',
        progress,
        should_stop,
        team=team,
      )
    except Interrupted:
      raise stopped(team) from None
    journal.remove()  # of all; nobody needs it once all have all samples
  found = evaluation_metrics(rollouts)
  return {'status': 'done', 'parameters': name, **found}


def _digest(config: Config, name: str) -> str:
  import zlib

  text = json.dumps([dataclasses.asdict(config), name], sort_keys=True)
  return f'{zlib.crc32(text.encode()):08x}'


def search_problems(
  runtime: Runtime, params: Decoder, problems: Sequence[Problem], progress: Progress | None = None
) -> list[FinishedTree]:
  """Grows one tree per problem, many at once; trees in the order of `problems`.

  Args:
    runtime: from `open_runtime`.
    params: parameters in the form for search, from `trained_params`.
    problems: any number; ids must differ.
    progress: gets updates.

  Raises:
    InputError: if a prompt exceeds data.prompt_limit.
  """
  trees: list[FinishedTree] = []
  run_engine(
    engine_for_questions(runtime),
    params,
    search_jobs(runtime, problems),
    base_key_data(runtime.config.seed, Purpose.SEARCH, 0, 0),
    on_finish=trees.append,
    progress=progress or SilentProgress(),
  )
  found = {tree.problem_id: tree for tree in share_trees(runtime.search_team, trees)}
  return [found[problem.id] for problem in problems]


def search_jobs(runtime: Runtime, problems: Sequence[Problem]) -> list[Job]:
  """One job per problem; InputError if a prompt exceeds data.prompt_limit."""
  prepared = prompts_lib.prepare_prompts(problems, runtime.tokenizer, runtime.config.data)
  if prepared.skipped:
    raise InputError(
      f'{len(prepared.skipped)} prompts exceed data.prompt_limit = '
      f'{runtime.config.data.prompt_limit} tokens; raise it.'
    )
  return [Job(problem, tokens) for problem, tokens in prepared.prompts]


def engine_for_questions(runtime: Runtime) -> Engine:
  """The search engine, with ends of problems whose answer is not known (empty) left ungraded."""
  engine = runtime.search_engine
  return dataclasses.replace(engine, verify_fn=functools.partial(_grade_known, engine.verify_fn))


def _grade_known(
  verify_fn: VerifyFn, items: Sequence[tuple[str, str]]
) -> list[concurrent.futures.Future[Verdict]]:
  graded = iter(verify_fn([item for item in items if item[0]]))
  futures = []
  for answer, _ in items:
    future = next(graded) if answer else concurrent.futures.Future()
    if not answer:
      future.set_result(Verdict.UNGRADED)
    futures.append(future)
  return futures
