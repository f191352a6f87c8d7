"""The nouns that every folder shares. Imports numpy only, so that grader workers stay light.

Shape legend (no letter has two meanings; einsum strings use these letters):

  B decoder slots (or trees, one per problem) · N nodes per tree · W children per expansion
  T tokens per segment · P prompt tokens · S positions of a whole path · R trajectories in a batch
  L layers · M model width · H query heads · C key/value heads · G = H/C · D head width
  F MLP width · V vocabulary

Words: a *segment* is the tokens one node adds, a *path* runs from the root to a node, a
*trajectory* is a finished, verified path, a *slot* is a place in the decoder (not a tree).
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import numpy as np


class Verdict(enum.Enum):
  """What became of a finished path.

  CORRECT and WRONG are the verifier's. NO_ANSWER: no answer was found in the text; INCOMPLETE:
  the same, or a right one, but the path was cut off at the depth limit (the search decides this;
  see config.search.cut_ends). TIMEOUT counts
  as wrong for the reward (a hanging answer must not pay). ERROR is our fault: it masks the path.
  DEGENERATE: not correct, and the text is garbled or repeats itself to its end; it counts as wrong
  and is never learnt from. UNGRADED: the gold answer is not known (test-time search).
  """

  CORRECT = 'correct'
  WRONG = 'wrong'
  NO_ANSWER = 'no_answer'
  INCOMPLETE = 'incomplete'
  TIMEOUT = 'timeout'
  ERROR = 'error'
  DEGENERATE = 'degenerate'
  UNGRADED = 'ungraded'

  @property
  def is_masked(self) -> bool:
    """Whether the search neither credits nor collects such an end, and nobody learns from it."""
    return self in (Verdict.ERROR, Verdict.DEGENERATE)


class Gold(str):
  """A gold answer that one verifier alone can read, such as the entry of a reasoning gym.

  Only the readers of sources make one: what a data file says never chooses a verifier.
  """

  verifier: str  # a name, as in config.verify.verifier

  def __new__(cls, text: str, verifier: str) -> Gold:
    gold = super().__new__(cls, text)
    gold.verifier = verifier
    return gold

  def __getnewargs__(self) -> tuple[str, str]:  # of copies
    return str(self), self.verifier


class Message(NamedTuple):
  """What somebody says in a chat."""

  role: str  # 'system', 'user' or 'assistant'
  content: str


@dataclasses.dataclass(frozen=True)
class Problem:
  """One question with a checkable answer."""

  id: str  # stable: random numbers, the cache and the splits are keyed by it
  prompt: str  # the user message, before the chat template
  answer: str  # the gold answer, in the form that the configured verifier reads, or a Gold
  solution: str | None = None  # a worked solution (the response text), for the warm start
  row: str = dataclasses.field(default='', compare=False)  # where it was read, for people
  source: str = ''  # which of several sources it is from; '': there is but one
  metadata: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  # messages before the prompt: a system message, examples (of a user, of an assistant, …)
  preamble: tuple[Message, ...] = ()


class Given(NamedTuple):
  """The beginning of an earlier response, from which a tree starts instead of from the prompt."""

  tokens: np.ndarray  # [G] int32
  is_right: bool  # that response was


@dataclasses.dataclass(frozen=True)
class FinishedTree:
  """A finished tree on the host: what the journal keeps and everything later reads.

  Node 0 is the root and owns no tokens; parents stand before their children. Nodes are in order of
  creation, or depth first where that depends on timing (policies in waves). The tokens of node i
  are `tokens[token_start[i]:token_start[i + 1]]`, the end token included where there is one.
  """

  problem_id: str
  sample: int  # which of several trees of this problem in the same step
  prompt_tokens: np.ndarray  # [P] int32, what was given of a response included
  parent: np.ndarray  # [N] int32, -1 for the root
  depth: np.ndarray  # [N] int32
  token_start: np.ndarray  # [N + 1] int32
  tokens: np.ndarray  # [sum] int32
  logprobs: np.ndarray  # [sum] float32, Segments.logprobs: of the policy, which is not truncated
  entropies: np.ndarray  # [sum] float32, nats, of the policy
  visit_count: np.ndarray  # [N] int32, as released
  value_sum: np.ndarray  # [N] float32, the released code's q (a running sum)
  num_ends: np.ndarray  # [N] int32, verified ends at or below the node
  num_correct: np.ndarray  # [N] int32, those of them that are correct
  is_terminal: np.ndarray  # [N] bool
  is_outcome_chosen: np.ndarray  # [N] bool, below a fork that was placed because of an outcome
  reward: np.ndarray  # [N] float32, of terminals; 0 elsewhere
  verdict: tuple[str | None, ...]  # [N], a Verdict's value for terminals, else None
  collected: np.ndarray  # [K'] int32, collected ends in order; K' <= K
  selections: tuple[tuple[int, str], ...]  # (node, how) in order: which node was chosen when
  # counters of this tree: expansions, tokens, …; and its temperature, if it had one of its own
  statistics: Mapping[str, float]
  num_given: int = 0  # last tokens of the prompt that are the beginning of an earlier response
  is_given_right: bool = False  # that response was right

  @property
  def is_solved(self) -> bool:
    return bool(self.num_correct[0] > 0)

  @property
  def temperature(self) -> float | None:
    """That of the sampler, if its job had one of its own."""
    return self.statistics.get('temperature')

  def is_cut(self, end: int, stop_ids: Collection[int]) -> bool:
    """Whether the path to a terminal was cut off at the depth limit: no end token ends it.

    Args:
      end: the terminal node.
      stop_ids: any of these ids ends a response.
    """
    tokens = self.tokens[self.node_slice(end)]
    return not len(tokens) or int(tokens[-1]) not in stop_ids

  def num_cut_correct(self, stop_ids: Collection[int]) -> int:
    """Ends with a right answer that were cut off at the depth limit, whether they pay or not.

    Args:
      stop_ids: any of these ids ends a response.
    """
    paid = 0
    for node, verdict in enumerate(self.verdict):
      paid += verdict == Verdict.CORRECT.value and self.is_cut(node, stop_ids)
    return paid + int(self.statistics.get('cut_correct', 0))

  def path(self, node: int) -> list[int]:
    """Node indices from the root to `node`, both included."""
    nodes = [int(node)]
    while self.parent[nodes[-1]] >= 0:
      nodes.append(int(self.parent[nodes[-1]]))
    return nodes[::-1]

  def node_slice(self, node: int) -> slice:
    """Where the tokens of `node` stand in `tokens`, `logprobs` and `entropies`."""
    return slice(int(self.token_start[node]), int(self.token_start[node + 1]))

  def along_path(self, values: np.ndarray, node: int) -> np.ndarray:
    """Values per token (`tokens`, `logprobs`, `entropies`) of the path from the root to `node`."""
    return np.concatenate([values[self.node_slice(i)] for i in self.path(node)])

  def ends(self) -> list[int]:
    """Nodes that end a verified path: the collected ones in order, then the others as created.

    Masked ends are left out: verification failed through our fault, or the text is degenerate (the
    paper keeps garbled and endlessly repeating texts out of its negatives).
    """
    collected = self.collected.tolist()
    passed_over = sorted(set(np.flatnonzero(self.is_terminal).tolist()) - set(collected))
    ends = collected + passed_over
    return [end for end in ends if not Verdict(self.verdict[end]).is_masked]


@dataclasses.dataclass(frozen=True)
class Trajectory:
  """A finished, verified path with what the learner needs; S = its response tokens.

  Per-node fields run from the root (index 0, no tokens) to the terminal.
  """

  problem_id: str
  group: int  # trajectories of one group share a baseline (one tree, or one group of rollouts)
  prompt_tokens: np.ndarray  # [P] int32, what was given of a response included
  tokens: np.ndarray  # [S] int32
  behavior_logprobs: np.ndarray  # [S] float32, of the policy that sampled, as in Segments.logprobs
  node_ids: np.ndarray  # [depth + 1] int32
  node_lengths: np.ndarray  # [depth + 1] int32, tokens each node adds; sums to S
  node_values: np.ndarray  # [depth + 1] float32, value_sum (q) in the finished tree
  node_outcomes: np.ndarray  # [depth + 1] float32, mean outcome (+1/-1) of verified ends below
  reward: float  # value of the terminal: 1, -1 or the incomplete score
  is_correct: bool
  is_collected: bool  # one of the K collected ends (else: a verified end passed over)
  num_given: int = 0  # as in FinishedTree
  is_given_right: bool = False  # likewise
  temperature: float | None = None  # of the sampler, where groups have their own; None: the run's

  @property
  def question_tokens(self) -> np.ndarray:
    """The prompt without what was given of a response."""
    return self.prompt_tokens[: len(self.prompt_tokens) - self.num_given]

  @property
  def given_tokens(self) -> np.ndarray:
    """The beginning of the response that was given, not sampled; `[num_given]` int32."""
    return self.prompt_tokens[len(self.prompt_tokens) - self.num_given :]

  @property
  def response_tokens(self) -> np.ndarray:
    """The whole response, with what was given of it."""
    return np.concatenate([self.given_tokens, self.tokens])
