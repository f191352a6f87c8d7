"""What the folders ask of each other and of the run: functions and protocols, no implementation.

The search receives an ExpandFn and a VerifyFn, whoever wrote them; every long phase a Progress;
what runs in several processes a Team. Shapes are those of types.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from ds_jax.types import Verdict

if TYPE_CHECKING:
  import jax


class SlotPlan(NamedTuple):
  """What every slot does in one expansion. A slot with num_children 0 is idle.

  In order: the segment of child `append_child` of the slot's previous expansion joins its path;
  the path is cut to `keep_length`; `replay_tokens` are encoded after it; a slot that takes over its
  path from another gets the first `keep_length` positions of that one's; then `pending_token` (the
  last token of the path, sampled but never encoded) is encoded and `num_children` children are
  sampled from there.
  """

  append_child: jax.Array  # [B] int32, -1: none
  keep_length: jax.Array  # [B] int32, after appending
  replay_tokens: jax.Array  # [B, chunk] int32
  replay_length: jax.Array  # [B] int32, 0: no replay; at most `lanes` slots per device replay
  # [B] int32, counted from the first slot of its device, a slot that takes over from none; -1: none
  copy_from: jax.Array
  pending_token: jax.Array  # [B] int32
  num_children: jax.Array  # [B] int32, 0..W
  first_child: jax.Array  # [B] int32, children the node has already: child indices count on
  key: jax.Array  # [B, 2] uint32, key data of the node; key(child j) = fold_in(key(node), j)
  # [B] float32, of the sampler, 0: greedy; None: that of all slots is the sampling options'
  temperature: jax.Array | None = None


class Segments(NamedTuple):
  """The sampled children of one expansion; entries at or beyond `length` are padding.

  The *policy* is the full softmax at the sampling temperature (1 for greedy sampling). It is what
  the learner's ratio is made of, on both sides: the ratio of a fresh sample is 1 whatever top-p and
  top-k leave out. logprobs - sampled_logprobs is the log of the probability that they leave in.
  Neither says how likely a child is among distinct siblings (search.siblings), which are sampled
  without replacement: all scores are of the tokens one by one.
  """

  tokens: jax.Array  # [B, W, T] int32, end token included
  logprobs: jax.Array  # [B, W, T] float32, of the policy
  sampled_logprobs: jax.Array  # [B, W, T] float32, of the distribution drawn from; 0 if greedy
  entropies: jax.Array  # [B, W, T] float32, nats, exact, of the policy
  length: jax.Array  # [B, W] int32, 0 for children that were not asked for
  is_ended: jax.Array  # [B, W] bool, the last token is a stop token


# expand_fn(params, slots, plan) -> (slots, Segments). `slots` is the decoder's own state (caches),
# opaque to the search; it is donated.
ExpandFn = Callable[[Any, Any, SlotPlan], tuple[Any, Segments]]

# verify_fn([(answer, response text), …]) -> a future Verdict for each, in order. Never blocks. An
# answer may be a types.Gold.
VerifyFn = Callable[[Sequence[tuple[str, str]]], list['Future[Verdict]']]


class Progress(Protocol):
  """How a long phase tells a person where it stands; implemented in report/progress.py."""

  def start(self, phase: str, total: int | None = None) -> None:
    """Begins a phase of `total` units (None: unknown)."""

  def update(self, completed: int, **fields: float | int | str) -> None:
    """`completed` units are done; `fields` are shown beside the bar (tokens/s, solved, …)."""

  def tell(self, **fields: float | int | str) -> None:
    """Shows fields beside the bar; the count stays what it is."""

  def finish(self) -> None:
    """Ends the phase."""

  def note(self, message: str) -> None:
    """Prints one line (compilation announced, a row skipped, …) without breaking a live bar."""


class SilentProgress:
  """A Progress that says nothing."""

  def start(self, phase: str, total: int | None = None) -> None:
    del phase, total

  def update(self, completed: int, **fields: float | int | str) -> None:
    del completed, fields

  def tell(self, **fields: float | int | str) -> None:
    del fields

  def finish(self) -> None:
    pass

  def note(self, message: str) -> None:
    del message


class Team(Protocol):
  """The processes of one job; each runs the same program. Implemented in run/team.py."""

  index: int  # of this process
  count: int

  @property
  def is_first(self) -> bool:
    """Whether this process writes what there is one of."""
    ...

  def gather(self, data: bytes) -> list[bytes]:
    """The data of every process, in their order. All must call it, equally often; waits for all."""
    ...

  def barrier(self) -> None:
    """Waits until every process has come here. All must call it, equally often."""
    ...


class Alone:
  """The Team of a job of one process."""

  index, count, is_first = 0, 1, True

  def gather(self, data: bytes) -> list[bytes]:
    return [data]

  def barrier(self) -> None:
    pass


ALONE = Alone()


class Tokenizer(Protocol):
  """What the search, the warm start and the reports need of a tokenizer (data/prompts.py)."""

  num_ids: int  # ids at or beyond this are masked in sampler and learner alike
  stop_ids: tuple[int, ...]  # any of these ends a response
  pad_id: int

  def encode_prompt(self, text: str) -> np.ndarray:
    """Token ids [P] int32 of `text` as a user message under the chat template."""
    ...

  def encode_response(self, text: str) -> np.ndarray:
    """Token ids [S] int32 of a response, the end token appended."""
    ...

  def decode_response(self, tokens: np.ndarray) -> str:
    """Response text without special tokens; safe in the middle of a character."""
    ...
