"""Prefixes: rollouts of a problem that start within an earlier response, not from the root.

A problem that the policy hardly ever solves has groups without contrast. From within one of its
solutions about half of the rollouts succeed, at some length: each problem has a share f of its
solutions that is given, and after a visit with a share r of right ends
  f <- clip(f + step * (target - r), 0, 1).
As the rate from the root rises the prefix is withdrawn, and where nearly all rollouts are right
they may start within failures instead, of which f moves the other way. The idea is that of
AdaPrefix-GRPO (arXiv:2607.07674), PrefixRL (arXiv:2601.18795) and, for failures, SRPO
(arXiv:2605.25507). Pure functions on the host.

A response is cut at any token: what was sampled goes on from tokens, not from text. The last line
is never given, or the last segment of a text without lines: it holds the answer. What else gives
the answer away, the steering makes short.
"""

from __future__ import annotations

import bisect
import dataclasses
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ds_jax.config import PrefixConfig, SearchConfig
from ds_jax.train.memory import Rate, rates_after
from ds_jax.train.replay import Solution
from ds_jax.types import Given, Trajectory

_PURPOSE = 0x9EF1E  # keeps these random numbers apart from others of the same seed
_STARTS, _REVISITS = 0, 1  # … and these two from each other

Response = tuple[int, ...]  # token ids


class Source(NamedTuple):
  """What prefixes of one problem are cut from."""

  responses: tuple[Response, ...] = ()  # whole ones, the newest last
  share: float = 0.0  # of the tokens that may be given; 0: the root

  def steered(self, change: float) -> Source:
    """Returns the source with another share."""
    return self._replace(share=min(max(self.share + change, 0.0), 1.0))

  def with_new(self, response: Response, max_responses: int) -> Source:
    """Returns the source with one more response, the newest kept."""
    if response in self.responses:
      return self
    return self._replace(responses=(*self.responses, response)[-max_responses:])


@dataclasses.dataclass(frozen=True)
class Prefixes:
  """What a run knows of its prefixes. Immutable: every change returns new ones."""

  solutions: Mapping[str, Source] = dataclasses.field(default_factory=dict)  # by problem
  failures: Mapping[str, Source] = dataclasses.field(default_factory=dict)
  rates: Mapping[str, Rate] = dataclasses.field(default_factory=dict)  # from the root
  overall: Rate = Rate()  # from the root, of all problems together

  def rate(self, name: str) -> float:
    """The estimated rate of right ends of a problem from the root."""
    return self.rates.get(name, Rate()).towards(self.overall.mean)

  def is_withdrawn(self, name: str, config: PrefixConfig) -> bool:
    """Whether a problem is solved from the root often enough to have no prefix of a solution."""
    return self.rate(name) >= config.withdraw_rate

  def is_mastered(self, name: str, config: PrefixConfig) -> bool:
    """Whether a problem is solved so often that its rollouts start within failures."""
    return 0 < config.failure_rate <= self.rate(name)

  def add(self, groups: Iterable[Sequence[Trajectory]], config: PrefixConfig) -> Prefixes:
    """Takes in what a step sampled: rates from the root, shares, responses.

    A visit moves the share that it began with: that of solutions or of failures, from the root
    those that are 0.

    Args:
      groups: verified ends of each problem, all sampled; an empty group says nothing.
      config: `target_rate`, `step`, `first_share`, `decay`, `max_per_problem`, `failure_rate`.
    """
    groups = [group for group in groups if group]
    rates, overall = rates_after(self.rates, self.overall, groups, decay=config.decay)
    after = dataclasses.replace(self, rates=rates, overall=overall)
    return dataclasses.replace(
      after,
      solutions=after._visited(groups, config, of_right=True),
      failures=after._visited(groups, config, of_right=False),
    )

  def _visited(
    self, groups: Sequence[Sequence[Trajectory]], config: PrefixConfig, *, of_right: bool
  ) -> dict[str, Source]:
    """The solutions, or the failures, after these groups."""
    sources = dict(self.solutions if of_right else self.failures)
    new = Source(share=config.first_share)
    for group in groups:
      name, is_from_root = group[0].problem_id, not group[0].num_given
      source = sources.get(name, new)
      begins_at_root = is_from_root and not source.share
      if begins_at_root or (not is_from_root and group[0].is_given_right == of_right):
        distance = config.target_rate - float(np.mean([t.is_correct for t in group]))
        # More of a solution makes a problem easier, more of a failure harder.
        source = source.steered(config.step * (distance if of_right else -distance))
      if of_right or self.is_mastered(name, config):
        for t in group:
          if t.is_correct == of_right:
            response = tuple(t.response_tokens.tolist())
            source = source.with_new(response, config.max_per_problem)
      if source != new:
        sources[name] = source
    return sources

  def to_json(self) -> dict[str, Any]:
    """Returns plain values that JSON can write; `from_json` restores equal prefixes."""
    return {
      'solutions': _plain(self.solutions),
      'failures': _plain(self.failures),
      'rates': {name: list(rate) for name, rate in self.rates.items()},
      'overall': list(self.overall),
    }

  @classmethod
  def from_json(cls, fields: Mapping[str, Any]) -> Prefixes:
    """Returns the prefixes that `to_json` made the fields of."""
    if not fields:
      return cls()
    rates = {name: Rate(*rate) for name, rate in fields['rates'].items()}
    return cls(
      _sources(fields['solutions']), _sources(fields['failures']), rates, Rate(*fields['overall'])
    )


def longest_prefix(
  response: Response, config: SearchConfig, decode: Callable[[np.ndarray], str]
) -> int:
  """Returns how many tokens of a response may be given: not the last line, nor the end token.

  Of a text without lines, not the last segment. One segment of the depth is always left to sample.

  Args:
    response: the whole one.
    config: `segment_length`, `max_depth`.
    decode: token ids to text, see `Tokenizer.decode_response`.
  """
  tokens, length = np.array(response, np.int32), config.segment_length
  body = decode(tokens).rstrip()
  start = body.rfind('\n') + 1  # of the last line, in characters
  if start:
    size = lambda count: len(decode(tokens[:count]))
    before_last = bisect.bisect_right(range(len(tokens) + 1), start, key=size) - 1
  else:
    before_last = (len(tokens) - 1) // length * length
  return max(0, min(before_last, (config.max_depth - 1) * length))


def with_revisits(
  prefixes: Prefixes,
  config: PrefixConfig,
  names: Sequence[str],
  *,
  among: Collection[str],
  draw: Sequence[int],
) -> list[str]:
  """Puts problems with a prefix in some places of a batch; whom they displace comes next epoch.

  A function of its arguments alone.

  Args:
    prefixes: before the step.
    config: `revisit_share`, and the fields that say who has a prefix.
    names: problems of the batch, in turn.
    among: problems that may come.
    draw: as in `draw_starts`.
  """
  others = set(among) - set(names)
  candidates = []
  for name in sorted(others & (prefixes.solutions.keys() | prefixes.failures.keys())):
    source = _source_of(prefixes, config, name, worked=None)
    if source.responses and source.share:
      candidates.append(name)
  num_places = math.floor(config.revisit_share * len(names))
  rng = np.random.default_rng(np.random.SeedSequence((_PURPOSE, *draw, _REVISITS)))
  revisited = rng.permutation(len(candidates))[:num_places].tolist()
  places = rng.permutation(len(names))[: len(revisited)].tolist()
  batch = list(names)
  for place, candidate in zip(places, revisited, strict=True):
    batch[place] = candidates[candidate]
  return batch


def draw_starts(
  prefixes: Prefixes,
  config: PrefixConfig,
  names: Sequence[str],
  *,
  worked: Mapping[str, Response],
  longest: Callable[[Response], int],
  draw: Sequence[int],
) -> list[Given | None]:
  """Draws where the rollouts of each problem of a batch start; None: from the root.

  A function of its arguments alone, so that every process and a resumed run draw the same.

  Args:
    prefixes: before the step.
    config: of them.
    names: problems of the batch.
    worked: solutions of the data, which stand in for those of problems without any.
    longest: tokens of a response that may be given, see `longest_prefix`.
    draw: numbers that no other batch of any run has together: its seed, step, refill.
  """
  rng = np.random.default_rng(np.random.SeedSequence((_PURPOSE, *draw, _STARTS)))
  num_root = math.ceil(config.root_share * len(names))
  from_root = set(rng.permutation(len(names))[:num_root].tolist())
  starts: list[Given | None] = []
  for i, name in enumerate(names):
    which = rng.random()  # drawn for every problem, so that none depends on those before it
    is_right = not prefixes.is_mastered(name, config)
    source = _source_of(prefixes, config, name, worked=worked.get(name))
    if i in from_root or not source.responses:
      starts.append(None)
      continue
    response = source.responses[int(which * len(source.responses))]
    num_given = math.ceil(source.share * longest(response))
    given = Given(np.array(response[:num_given], np.int32), is_right)
    starts.append(given if num_given else None)
  return starts


def _source_of(
  prefixes: Prefixes, config: PrefixConfig, name: str, *, worked: Response | None
) -> Source:
  """What a problem's rollouts may start within; no responses: nothing."""
  if prefixes.is_mastered(name, config):
    return prefixes.failures.get(name, Source())
  if prefixes.is_withdrawn(name, config):
    return Source()
  source = prefixes.solutions.get(name, Source(share=config.first_share))
  if not source.responses and worked is not None:
    return source._replace(responses=(worked,))
  return source


def successful_starts(groups: Iterable[Sequence[Trajectory]]) -> list[tuple[str, Solution]]:
  """The prefixes of solutions from which a rollout came out right, each once, with its problem.

  Args:
    groups: trajectories of each problem.
  """
  starts = []
  for group in groups:
    if group and group[0].is_given_right and any(t.is_correct for t in group):
      first = group[0]
      given = Solution(tuple(first.question_tokens.tolist()), tuple(first.given_tokens.tolist()))
      starts.append((first.problem_id, given))
  return starts


def _plain(sources: Mapping[str, Source]) -> dict[str, Any]:
  return {
    name: [list(map(list, source.responses)), source.share] for name, source in sources.items()
  }


def _sources(fields: Mapping[str, Any]) -> dict[str, Source]:
  return {name: Source(tuple(map(tuple, rows)), share) for name, (rows, share) in fields.items()}
