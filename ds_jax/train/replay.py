"""The replay buffer: verified correct solutions of problems that the policy still fails.

It lives in the checkpoint (`to_json`, lossless); the JSON-lines file is its readable export.
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


@dataclasses.dataclass(frozen=True)
class ReplayBuffer:
  """Solutions by problem, oldest first. Immutable: every change returns a new buffer."""

  max_per_problem: int  # solutions kept of one problem; the oldest stay, later ones are refused
  solutions: Mapping[str, tuple[Solution, ...]] = dataclasses.field(default_factory=dict)

  def __len__(self) -> int:
    return sum(map(len, self.solutions.values()))

  def get(self, problem_id: str) -> tuple[Solution, ...]:
    return self.solutions.get(problem_id, ())

  def add(self, trajectories: Iterable[Trajectory]) -> ReplayBuffer:
    """Adds the correct trajectories that are new, in order, up to the cap of each problem."""
    solutions = dict(self.solutions)
    for t in trajectories:
      solution = Solution(_integers(t.prompt_tokens), _integers(t.tokens))
      kept = solutions.get(t.problem_id, ())
      if t.is_correct and solution not in kept and len(kept) < self.max_per_problem:
        solutions[t.problem_id] = (*kept, solution)
    return dataclasses.replace(self, solutions=solutions)

  def retain(self, hard_ids: Iterable[str]) -> ReplayBuffer:
    """Keeps the solutions of problems that still fail the threshold."""
    hard = set(hard_ids)
    return dataclasses.replace(
      self, solutions={k: v for k, v in self.solutions.items() if k in hard}
    )

  def to_json(self) -> dict[str, Any]:
    """JSON-able; `from_json` restores an equal buffer."""
    return {
      'max_per_problem': self.max_per_problem,
      'solutions': {
        name: [[list(s.prompt_tokens), list(s.response_tokens)] for s in kept]
        for name, kept in self.solutions.items()
      },
    }

  @classmethod
  def from_json(cls, fields: Mapping[str, Any]) -> ReplayBuffer:
    return cls(
      fields['max_per_problem'],
      {
        name: tuple(Solution(tuple(p), tuple(r)) for p, r in kept)
        for name, kept in fields['solutions'].items()
      },
    )

  def to_jsonl(self, decode: Callable[[np.ndarray], str]) -> str:
    """One readable line per solution, for people.

    Args:
      decode: token ids [S] int32 to text (`Tokenizer.decode_response`).
    """
    lines = []
    for name in sorted(self.solutions):
      for s in self.solutions[name]:
        tokens = np.array(s.response_tokens, np.int32)
        line = {
          'problem_id': name,
          'response': decode(tokens),
          'prompt_tokens': s.prompt_tokens,
          'response_tokens': s.response_tokens,
        }
        lines.append(json.dumps(line, ensure_ascii=False) + '\n')
    return ''.join(lines)


def cached_trajectory(
  problem_id: str, solution: Solution, logprobs: np.ndarray, entropies: np.ndarray
) -> Trajectory:
  """A cached solution as a trajectory; join it with rollouts by `advantages.flat_group`.

  Args:
    problem_id: whose solution it is.
    solution: from the buffer.
    logprobs: `[S]` float32 of the response under the present policy.
    entropies: `[S]` float32, nats, of the same.
  """
  tokens = np.array(solution.response_tokens, np.int32)
  return Trajectory(
    problem_id=problem_id,
    group=0,
    prompt_tokens=np.array(solution.prompt_tokens, np.int32),
    tokens=tokens,
    behavior_logprobs=logprobs,
    entropies=entropies,
    node_ids=np.array([0, 1], np.int32),
    node_lengths=np.array([0, len(tokens)], np.int32),
    node_values=np.array([0.0, 1.0], np.float32),
    node_outcomes=np.ones(2, np.float32),
    reward=1.0,
    is_correct=True,
    is_collected=True,
  )


def _integers(tokens: np.ndarray) -> tuple[int, ...]:
  return tuple(int(token) for token in tokens)
