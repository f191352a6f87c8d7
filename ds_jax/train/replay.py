"""The replay buffer: verified correct solutions of problems that the policy still fails.

It lives in the checkpoint (`to_json`, lossless); JSON lines are its readable export (`to_jsonl`).
A cached solution keeps its tokens only. Before it is trained on, the present policy scores it:
those log-probs are its behaviour log-probs, so its importance ratio starts at 1. (The released code
reuses the log-probs of the sample it replaces.) Its value is its outcome, +1 for every token.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from ds_jax.types import Trajectory


class Solution(NamedTuple):
  """A verified correct response."""

  prompt_tokens: tuple[int, ...]
  response_tokens: tuple[int, ...]


def solution_of(trajectory: Trajectory) -> Solution:
  """Returns the whole response of a trajectory, with what was given of it."""
  prompt, response = trajectory.question_tokens, trajectory.response_tokens
  return Solution(tuple(prompt.tolist()), tuple(response.tolist()))


@dataclasses.dataclass(frozen=True)
class ReplayBuffer:
  """Solutions by problem, oldest first. Immutable: every change returns a new buffer."""

  max_per_problem: int  # solutions kept of one problem; the oldest stay, later ones are refused
  solutions: Mapping[str, tuple[Solution, ...]] = dataclasses.field(default_factory=dict)

  def __len__(self) -> int:
    return sum(map(len, self.solutions.values()))

  def get(self, problem_id: str) -> tuple[Solution, ...]:
    """Returns the solutions of a problem, oldest first; none of a problem it does not know."""
    return self.solutions.get(problem_id, ())

  def add(self, trajectories: Iterable[Trajectory]) -> ReplayBuffer:
    """Adds the correct trajectories that are new, in order, up to the cap of each problem."""
    solutions = dict(self.solutions)
    for t in trajectories:
      solution = solution_of(t)
      cached = solutions.get(t.problem_id, ())
      if t.is_correct and solution not in cached and len(cached) < self.max_per_problem:
        solutions[t.problem_id] = (*cached, solution)
    return dataclasses.replace(self, solutions=solutions)

  def retain(self, hard_ids: Iterable[str]) -> ReplayBuffer:
    """Drops the solutions of problems that no longer fail the threshold."""
    hard = set(hard_ids)
    solutions = {name: cached for name, cached in self.solutions.items() if name in hard}
    return dataclasses.replace(self, solutions=solutions)

  def to_json(self) -> dict[str, Any]:
    """Returns plain values that JSON can write; `from_json` restores an equal buffer."""
    solutions = {}
    for name, cached in self.solutions.items():
      solutions[name] = [[list(s.prompt_tokens), list(s.response_tokens)] for s in cached]
    return {'max_per_problem': self.max_per_problem, 'solutions': solutions}

  @classmethod
  def from_json(cls, fields: Mapping[str, Any]) -> ReplayBuffer:
    """Returns the buffer that `to_json` made the fields of."""
    solutions = {}
    for name, pairs in fields['solutions'].items():
      cached = [Solution(tuple(prompt), tuple(response)) for prompt, response in pairs]
      solutions[name] = tuple(cached)
    return cls(fields['max_per_problem'], solutions)

  def to_jsonl(self, decode: Callable[[np.ndarray], str]) -> str:
    """Returns one readable line per solution, by problem, each with its newline.

    Args:
      decode: token ids [S] int32 to text (`Tokenizer.decode_response`).
    """
    lines = []
    for name in sorted(self.solutions):
      for solution in self.solutions[name]:
        fields = {
          'problem_id': name,
          'response': decode(np.array(solution.response_tokens, np.int32)),
          'prompt_tokens': solution.prompt_tokens,
          'response_tokens': solution.response_tokens,
        }
        lines.append(json.dumps(fields, ensure_ascii=False) + '\n')
    return ''.join(lines)


def cached_trajectory(problem_id: str, solution: Solution, logprobs: np.ndarray) -> Trajectory:
  """Returns a cached solution as a trajectory; `advantages.flat_group` joins it with rollouts.

  Args:
    problem_id: whose solution it is.
    solution: from the buffer.
    logprobs: `[S]` float32 of the response under the present policy.
  """
  tokens = np.array(solution.response_tokens, np.int32)
  return Trajectory(
    problem_id=problem_id,
    group=0,
    prompt_tokens=np.array(solution.prompt_tokens, np.int32),
    tokens=tokens,
    behavior_logprobs=logprobs,
    node_ids=np.array([0, 1], np.int32),
    node_lengths=np.array([0, len(tokens)], np.int32),
    node_values=np.array([0.0, 1.0], np.float32),
    node_outcomes=np.ones(2, np.float32),
    reward=1.0,
    is_correct=True,
    is_collected=True,
  )
