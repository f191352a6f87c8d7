"""The run: filter the hard set, search, learn, re-filter; resumable at any moment.

The state is the newest committed checkpoint plus the journals of finished trees. Everything that
influences the next step is in it, and each step is a function of it, so that a run that was
stopped ends as one that was not.
"""

from __future__ import annotations

import functools
import itertools
import operator
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ds_jax.checkpoint import Checkpointer
from ds_jax.checks import InputError
from ds_jax.config import num_updates, response_limit
from ds_jax.evaluate.metrics import count_correct, evaluation_metrics, pass_rates
from ds_jax.evaluate.rollouts import rollout_jobs, run_journaled
from ds_jax.model.decoder import Decoder, abstract_decoder
from ds_jax.report.metrics import MetricsWriter, NoMetrics
from ds_jax.run_state import RunState
from ds_jax.runtime import Prompts, Runtime, model_folder
from ds_jax.search.engine import Counters, Engine, Interrupted
from ds_jax.search.host_tree import Job
from ds_jax.search.journal import Journal
from ds_jax.search.keys import Purpose, base_key_data
from ds_jax.search.rollouts import ForkPlan
from ds_jax.search.split_depths import fork_plan, split_metrics
from ds_jax.search.statistics import summarize
from ds_jax.search.trajectories import trajectories
from ds_jax.sharding import local_view, num_slot_shards
from ds_jax.train.advantages import flat_group, group_advantages, is_uniform
from ds_jax.train.batch import Batch, pack, plain_examples, row_shape
from ds_jax.train.curriculum import batch_of, hard_problems, num_rehearsed
from ds_jax.train.optimizer import make_optimizer
from ds_jax.train.replay import ReplayBuffer
from ds_jax.train.rescore import importance_metrics, rescore, score_solutions
from ds_jax.train.sft import imitation_loss
from ds_jax.train.state import TrainState, abstract_state, init_state, search_params
from ds_jax.train.step import make_learner, policy_loss_fn
from ds_jax.train.trees import PACKINGS
from ds_jax.types import FinishedTree, SilentProgress, Trajectory
from ds_jax.workdir import Stopped, StoppedAlone


class Sampled(NamedTuple):
  """What was sampled for one batch of problems."""
  groups: list[list[Trajectory]]  # one per problem
  trees: list[FinishedTree]
  counters: tuple[Counters, Counters]  # of trees, of direct rollouts
  num_cached: int  # problems that used cached solutions
  num_rehearsed: int  # problems from outside the hard set


class Training:
  """One run from its newest checkpoint to its end; `run` is the whole story."""

  def __init__(self, runtime: Runtime):
    config = runtime.config
    self.runtime, self.config = runtime, config
    self.train_prompts = {p.id: (p, tokens) for p, tokens in runtime.prompts('train')}
    self.eval_prompts = _first(runtime.prompts('eval'), config.evaluate.num_problems)
    self.optimizer = make_optimizer(config.train, num_updates(config))
    self.rows = row_shape(config.train, num_slot_shards(runtime.mesh))
    self.worked = self.worked_solutions() if config.train.objective == 'imitation' else {}
    loss_fn = imitation_loss if self.worked else policy_loss_fn(config.train)
    self.learner = make_learner(self.optimizer, runtime.mesh, micro_rows=self.rows.micro_rows,
                                loss_fn=loss_fn,
                                temperature=config.sampling.temperature or 1.0,
                                frozen=config.train.frozen)
    self.checkpointer = Checkpointer(runtime.workdir.checkpoints, config.checkpoint.keep,
                                     note=runtime.progress.note,
                                     keep_best=config.checkpoint.keep_best)
    self.metrics = (NoMetrics() if runtime.team.index
                    else MetricsWriter(runtime.workdir.root, config.log.tensorboard))
    self.state, self.host = self.restore()
    self.reference = (runtime.load_decoder(model_folder(config, runtime.workdir))
                      if config.train.kl_coefficient else None)  # the policy it started from
    self.metrics.cut(self.host.metrics_size)
    self.journals: list[Journal] = []  # of finished work, which the next checkpoint covers
    self.covered: list[Journal] = []  # by the checkpoint that is being written
    self.in_flight: list[Journal] = []  # of the step under way
    self._search_form: tuple[int, Decoder] | None = None

  def run(self) -> RunState:
    """Goes on to the end.

    Raises:
      Stopped: after saving, if asked to stop.
      SaveError: if a checkpoint cannot be written; the one before is good.
      InputError: after saving, if no gradient is finite any more.
    """
    self.evaluate('before')
    rounds = self.config.curriculum.round_steps
    while self.host.round_index < len(rounds):
      if not self.filter_hard():
        self.runtime.progress.note(
            f'Round {self.host.round_index}: no problem is hard any more '
            f'(pass@1 below {self.config.curriculum.hard_threshold}); training ends here.')
        break
      last = sum(rounds[:self.host.round_index + 1])
      self.runtime.progress.start(f'train, round {self.host.round_index}',
                                  rounds[self.host.round_index])
      while self.host.step < last:
        self.stop_if_asked()
        self.evaluate_if_due()
        self.train_step()
        self.stop_if_broken()
        if self.host.step % self.config.checkpoint.every_steps == 0 and self.host.step < last:
          self.save()
      self.runtime.progress.finish()
      self.end_round()
    self.evaluate('after')
    self.commit()
    return self.host

  def close(self) -> None:
    """Closes files; use `contextlib.closing`."""
    self.metrics.close()
    self.checkpointer.close()

  def stop_if_asked(self) -> None:
    """Saves and raises Stopped, if the run was asked to stop: all processes at the same step."""
    asked = b'1' if self.runtime.should_stop() else b''
    if any(self.runtime.team.gather(asked)):
      self.save()
      self.commit()
      raise Stopped

  def stop_if_broken(self) -> None:
    """Saves and raises InputError after too many gradients in a row that are not finite."""
    count = self.host.skipped_in_row
    if count >= self.config.train.max_skipped:
      self.save()
      self.commit()
      raise InputError(
          f'The last {count} gradients were not finite (train.max_skipped = '
          f'{self.config.train.max_skipped}). None was applied, and step {self.host.step} is '
          'saved. See what grew before (train/grad_norm, train/ratio_max_log in metrics.jsonl), '
          'and start again with a lower train.learning_rate or train.max_grad_norm.')

  def restore(self) -> tuple[TrainState, RunState]:
    """The newest good checkpoint, else the initial model."""
    runtime = self.runtime
    if self.checkpointer.latest() is None:
      folder = model_folder(self.config, runtime.workdir)
      cap = self.config.curriculum.max_cached_per_problem
      state = init_state(runtime.load_decoder(folder), self.optimizer, runtime.mesh)
      return state, RunState(replay=ReplayBuffer(cap), found=ReplayBuffer(cap))
    abstract = abstract_state(abstract_decoder(runtime.decoder_config), self.optimizer,
                              runtime.mesh)
    state, host = self.checkpointer.restore(abstract)
    host = RunState.from_json(host)
    for path in runtime.workdir.journal('').parent.glob('*.process_*'):
      if host.covers(path.name.split('.')[0]):  # a kill came before it was removed
        path.unlink(missing_ok=True)
    runtime.progress.note(f'Continuing at round {host.round_index}, step {host.step}.')
    return state, host

  def settle(self) -> None:
    """The step under way is part of the state now."""
    self.journals += self.in_flight
    self.in_flight = []

  def save(self, score: float | None = None) -> None:
    """Begins a checkpoint of the present state; `commit` waits until it is written."""
    self.commit()
    self.host.num_saves += 1
    self.host.metrics_size = self.metrics.size()
    self.checkpointer.begin_save(self.host.num_saves, self.state, self.host.to_json(), score)
    self.covered, self.journals = self.journals, []

  def commit(self) -> None:
    """Waits for the checkpoint being written; journals that it covers are removed after that."""
    self.checkpointer.wait()
    for journal in self.covered:
      journal.remove()
    self.covered = []

  def params(self) -> Decoder:
    """The parameters in the form for search, on this process's devices; made once per step."""
    runtime = self.runtime
    if self._search_form is None or self._search_form[0] != self.host.step:
      whole = search_params(self.state, runtime.mesh, self.config.model.compute_dtype)
      self._search_form = (self.host.step,
                           local_view(whole, runtime.mesh, runtime.search_mesh))
    return self._search_form[1]

  def grow(self, engine: Engine, jobs: Sequence[Job], purpose: Purpose, name: str,
           phase: str | None, plan: ForkPlan | None = None
           ) -> tuple[list[FinishedTree], Counters]:
    """Grows trees for jobs; what is finished is journaled. Saves and stops when asked to."""
    journal = Journal(self.runtime.workdir.journal(name, self.runtime.team.index))
    self.in_flight.append(journal)
    key = base_key_data(self.config.seed, purpose, self.host.round_index, self.host.step)
    progress = self.runtime.progress if phase else SilentProgress()
    try:
      return run_journaled(engine, self.params(), jobs, key, journal, phase or name, progress,
                           self.runtime.should_stop, plan, self.runtime.team)
    except Interrupted:
      if self.runtime.team.count > 1:
        raise StoppedAlone from None
      self.stop_if_asked()
      raise

  def evaluate(self, when: str) -> None:
    """pass@1 of the present policy on the held-out problems, once per `when`, and a checkpoint."""
    if when in self.host.evaluations:
      return
    start = time.monotonic()
    jobs = rollout_jobs(self.eval_prompts, self.config.evaluate.num_samples)
    phase = f'evaluate ({when} training)' if when in ('before', 'after') else None
    rollouts, _ = self.grow(self.runtime.evaluation_engine, jobs, Purpose.EVALUATE,
                            f'evaluate_{when}', phase)
    found = evaluation_metrics(rollouts)
    self.host.evaluations[when] = found
    self.metrics.write(self.host.step, 'evaluate',
                       {'when': when, **found, 'time/evaluate': time.monotonic() - start})
    self.settle()
    self.save(score=found['evaluate/pass_at_1'])

  def evaluate_if_due(self) -> None:
    """Evaluates before a step, so that a run stopped in the middle of it evaluates again."""
    step, every = self.host.step, self.config.evaluate.every_steps
    if every and step and step % every == 0:
      self.evaluate(f'step_{step:06d}')

  def filter_hard(self) -> bool:
    """Sets the round's hard set; False if there is none."""
    if self.host.hard_ids is not None:
      return bool(self.host.hard_ids)
    start, curriculum = time.monotonic(), self.config.curriculum
    nested = curriculum.filter_from == 'hard' and self.host.round_index > 0
    before = self.host.hard_before if nested else sorted(self.train_prompts)
    if not curriculum.filter_samples:
      self.set_hard(before)
      return bool(before)
    jobs = rollout_jobs([self.train_prompts[name] for name in before], curriculum.filter_samples)
    rollouts, _ = self.grow(self.runtime.direct_engine, jobs, Purpose.FILTER,
                            f'filter_{self.host.round_index}',
                            f'filter, round {self.host.round_index}')
    rates = pass_rates(count_correct(rollouts))
    self.set_hard(hard_problems(rates, curriculum.hard_threshold))
    self.metrics.write(self.host.step, 'filter', {
        'round': self.host.round_index, 'filter/num_problems': len(before),
        'filter/num_hard': len(self.host.hard_ids),
        'filter/pass_at_1': float(np.mean(list(rates.values()))) if rates else 0.0,
        'replay/num_problems': len(self.host.replay.solutions),
        'replay/num_trajectories': len(self.host.replay),
        'time/filter': time.monotonic() - start})
    self.settle()
    self.save()
    return bool(self.host.hard_ids)

  def set_hard(self, names: Sequence[str]) -> None:
    """The round trains on these, and may use the solutions found so far of them."""
    self.host.hard_ids = tuple(names)
    self.host.replay = self.host.solutions().retain(names)
    self.host.found = ReplayBuffer(self.config.curriculum.max_cached_per_problem)

  def end_round(self) -> None:
    """Moves on to the next round, which filters anew."""
    self.host.hard_before = self.host.hard_ids
    self.host.round_index += 1
    self.host.batches, self.host.hard_ids = 0, None
    self.save()

  def train_step(self) -> None:
    """Search, verify, back up, and update on one batch of problems; or imitate solutions."""
    start = searched = time.monotonic()
    if self.worked:
      updates, figures = self.imitate(), {}
      self.host.batches += 1
    else:
      groups, figures = self.sample_groups()
      searched = time.monotonic()
      updates = self.update(groups)
    updated = time.monotonic()
    self.host.step += 1
    figures |= updates | {'round': self.host.round_index,
                          'time/search': searched - start, 'time/update': updated - searched,
                          'time/step': updated - start}
    self.metrics.write(self.host.step, 'train', figures)
    self.settle()
    if self.host.step % self.config.log.every_steps == 0:
      shown = {'solved': 'search/solve_rate', 'reward': 'search/reward', 'loss': 'train/loss',
               'tokens/s': 'time/tokens_per_second'}
      self.runtime.progress.update(self.step_in_round(), **{
          label: round(figures[name], 0 if label == 'tokens/s' else 4)
          for label, name in shown.items() if name in figures})

  def step_in_round(self) -> int:
    """Steps finished in this round."""
    return self.host.step - sum(self.config.curriculum.round_steps[:self.host.round_index])

  def next_batch(self, refill: int = 0) -> tuple[list[str], list[str]]:
    """Problems of the next step, or of a refill: hard ones, and others that are rehearsed."""
    size, hard = self.config.train.batch_problems, self.host.hard_ids
    easy = sorted(set(self.train_prompts) - set(hard))
    rehearsed = num_rehearsed(size, self.config.curriculum.rehearsal_share, len(easy))
    draw = lambda ids, count: list(batch_of(
        ids, count, seed=self.config.seed, round_index=self.host.round_index,
        step=self.host.batches + refill))
    return draw(hard, size - rehearsed), draw(easy, rehearsed) if rehearsed else []

  def sample_groups(self) -> tuple[list[list[Trajectory]], dict[str, float]]:
    """Trajectories of every problem of the step, in order.

    With `max_refills` further batches are drawn until enough groups have contrast, and only those
    are kept (dynamic sampling, arXiv:2503.14476, Eq. 11).
    """
    config, size = self.config, self.config.train.batch_problems
    parts = [self.collect_groups(*self.next_batch())]
    contrast = lambda: [g for part in parts for g in part.groups if not is_uniform(g)]
    while len(parts) <= config.train.max_refills and len(contrast()) < size:
      parts.append(self.collect_groups(*self.next_batch(len(parts)), refill=len(parts)))
    # Nothing below can be interrupted, so that a step that is done again counts once.
    groups = [group for part in parts for group in part.groups]
    trees = [tree for part in parts for tree in part.trees]
    self.host.batches += len(parts)
    self.host.splits = self.host.splits.add(trees, config.search.max_depth)
    for group in groups:
      self.host.found = self.host.found.add(group)
    searched, direct = (functools.reduce(operator.add, counters) for counters in zip(
        *[part.counters for part in parts], strict=True))
    both = searched + direct
    figures = summarize(trees, config.search.max_depth) | split_metrics(
        self.host.splits, config.search.max_depth) | searched.metrics() | {
            'search/cached_share': sum(part.num_cached for part in parts) / len(groups),
            'search/rehearsed_share': sum(part.num_rehearsed for part in parts) / len(groups),
            'time/tokens_per_second': both.generated_tokens / max(both.seconds, 1e-6)}
    if config.train.max_refills:
      figures |= {'search/refills': len(parts) - 1,
                  'search/contrast_share': len(contrast()) / len(groups)}
      groups = contrast()[:size]
    return groups, figures

  def collect_groups(self, hard: Sequence[str], rehearsed: Sequence[str],
                     refill: int = 0) -> Sampled:
    """Trajectories of one batch; changes nothing that a checkpoint holds.

    Hard problems get a full search. Those with cached solutions get these plus K minus their number
    of direct rollouts (hybrid rollouts); rehearsed ones get K direct rollouts.
    """
    name = f'step_{self.host.step:06d}' + (f'_{refill}' if refill else '')
    jobs = _numbered([self.train_prompts[i] for i in [*hard, *rehearsed]],
                     first=refill * self.config.train.batch_problems)
    cached = {job.problem.id: self.host.replay.get(job.problem.id) for job in jobs}
    is_searched = [i < len(hard) and not cached[job.problem.id] for i, job in enumerate(jobs)]
    tree_jobs = list(itertools.compress(jobs, is_searched))
    direct_jobs = [job for job, searched in zip(jobs, is_searched, strict=True) if not searched]
    plan = fork_plan(self.host.splits, self.config.search.max_depth)
    trees, counters = self.grow(self.runtime.search_engine, tree_jobs, Purpose.SEARCH,
                                f'{name}.search', None, plan)
    rollouts, direct_counters = self.hybrid_rollouts(direct_jobs, cached, f'{name}.direct')
    by_job = {(t.problem_id, t.sample): t for t in trees}
    scored = self.score_cached(direct_jobs, cached)
    groups = []
    for group, job in enumerate(jobs):
      key = (job.problem.id, job.sample)
      if key in by_job:
        groups.append(trajectories(by_job[key], group))
      else:
        fresh = [t for tree in rollouts.get(key, ()) for t in trajectories(tree, group)]
        groups.append(flat_group([*scored.get(job.problem.id, ()), *fresh], group))
    return Sampled(groups, trees, (counters, direct_counters),
                   sum(bool(cached[job.problem.id]) for job in jobs), len(rehearsed))

  def hybrid_rollouts(self, jobs: Sequence[Job], cached: Mapping[str, Sequence[Any]],
                      name: str) -> tuple[dict[tuple[str, int], list[FinishedTree]], Counters]:
    """K minus the number of cached solutions direct rollouts for each problem."""
    count = self.config.search.num_trajectories
    wanted = [(job, job.sample * count + i) for job in jobs
              for i in range(max(0, count - len(cached[job.problem.id])))]
    if not wanted:
      return {}, Counters()
    grown, counters = self.grow(
        self.runtime.direct_engine,
        [Job(job.problem, job.prompt_tokens, sample) for job, sample in wanted],
        Purpose.DIRECT, name, None)
    rollouts: dict[tuple[str, int], list[FinishedTree]] = {}
    for (job, _), tree in zip(wanted, grown, strict=True):
      rollouts.setdefault((job.problem.id, job.sample), []).append(tree)
    return rollouts, counters

  def score_cached(self, jobs: Sequence[Job],
                   cached: Mapping[str, Sequence[Any]]) -> dict[str, list[Trajectory]]:
    """Cached solutions as trajectories, with log-probs of the present policy."""
    wanted = [(job.problem.id, solution) for job in {j.problem.id: j for j in jobs}.values()
              for solution in cached[job.problem.id]]
    scored: dict[str, list[Trajectory]] = {}
    for (name, _), trajectory in zip(wanted, score_solutions(
        self.learner, self.state.params, wanted, self.rows.row_length), strict=True):
      scored.setdefault(name, []).append(trajectory)
    return scored

  def update(self, groups: Sequence[Sequence[Trajectory]]) -> dict[str, float]:
    """One optimizer update per minibatch of whole problems; means over the updates."""
    config, size = self.config.train, self.config.train.minibatch_problems
    limit = response_limit(self.config)
    chunks = [[(group, group_advantages(group, config, limit))
               for group in groups[first:first + size] if group]
              for first in range(0, len(groups), size)]
    packed = [PACKINGS[config.packing](chunk, config.loss_aggregation, self.rows.row_length)
              for chunk in chunks]
    # All minibatches before the first update: by the policy that the step began with.
    batches = [rescore(self.learner, self.state.params, self.reference, batch, config)
               for batch in packed]
    figures = self.apply(batches)
    num_trained = sum(int(group.is_trained.sum()) for chunk in chunks for _, group in chunk)
    return figures | importance_metrics(packed, batches, config) | {
        'train/trajectories': num_trained,
        'train/response_tokens': figures['train/num_tokens'] * len(chunks) / max(num_trained, 1)}

  def apply(self, batches: Sequence[Batch]) -> dict[str, float]:
    """One optimizer update per batch; means over the updates."""
    rows = []
    for batch in batches:
      self.state, figures = self.learner.update(self.state, batch)
      rows.append(figures)
      if len(batch.tokens):
        self.host.skipped_in_row = (self.host.skipped_in_row + 1) * int(figures['train/skipped'])
    means = {name: float(np.mean([r[name] for r in rows])) for name in rows[0]}
    return means | {'train/ratio_first': float(np.exp(rows[0]['train/ratio_max_log']))}

  def imitate(self) -> dict[str, float]:
    """Supervised updates towards the worked solutions of the next batch of problems."""
    size = self.config.train.minibatch_problems
    pairs = [self.worked[name] for names in self.next_batch() for name in names]
    return self.apply([pack(plain_examples(pairs[first:first + size]), self.rows.row_length)[0]
                       for first in range(0, len(pairs), size)])

  def worked_solutions(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """(prompt, solution) of each training problem; those without one that fits are left out."""
    encode, limit = self.runtime.tokenizer.encode_response, self.rows.row_length
    pairs = {name: (tokens, encode(problem.solution))
             for name, (problem, tokens) in self.train_prompts.items() if problem.solution}
    fitting = {name: pair for name, pair in pairs.items() if sum(map(len, pair)) <= limit}
    if not fitting:
      raise InputError(
          f'train.objective=imitation needs worked solutions: {len(pairs)} of '
          f'{len(self.train_prompts)} training problems have one, none of at most {limit} tokens '
          'with its prompt; raise train.row_length, or name a source with a field `solution`.')
    self.runtime.progress.note(
        f'{len(fitting)} of {len(self.train_prompts)} training problems have a worked solution of '
        f'at most {limit} tokens with its prompt; the others are left out.')
    self.train_prompts = {name: self.train_prompts[name] for name in fitting}
    return fitting


def _numbered(prompts: Prompts, first: int) -> list[Job]:
  """One job per prompt; a problem that occurs again gets the next sample number."""
  seen: dict[str, int] = {}
  jobs = []
  for problem, tokens in prompts:
    jobs.append(Job(problem, tokens, first + seen.get(problem.id, 0)))
    seen[problem.id] = seen.get(problem.id, 0) + 1
  return jobs


def _first(prompts: Prompts, count: int) -> Prompts:
  return prompts[:count] if count else prompts
