"""What a token costs in time: the bytes that decoding reads for it.

Decoding is taken as bound by memory traffic, as it is on accelerators at any length. A decode step
reads the parameters once for all its rows; a row reads its path cache and its own segment; W
siblings of one slot share one reading of the path cache.
"""

from __future__ import annotations

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class DecodeCost:
  """Bytes that one decode step of a search reads, per row and per position."""

  row_bytes: float  # parameters over the rows of a step: slots * W
  position_bytes: float  # keys and values of one token, all layers
  num_siblings: int  # W, which read one path cache
  segment_length: int  # T, tokens after which what was decoded becomes part of the path
  prompt_length: float  # mean, tokens

  def line_bytes(self, prefix: np.ndarray, tokens: np.ndarray, num_siblings: int) -> np.ndarray:
    """Bytes read for `tokens` tokens that follow `prefix` ones, one segment after the other.

    A token reads the prefix and the whole segments before its own, which W siblings share, and on
    average half of its own segment:
      tokens * (row + position * ((prefix + (tokens - T) / 2) / W + T / 2)).

    Args:
      prefix: `[...]`, tokens before the first one, prompt included.
      tokens: `[...]`; below T they are one segment.
      num_siblings: W.
    """
    segment = np.minimum(self.segment_length, tokens)
    shared = (prefix + (tokens - segment) / 2) / num_siblings
    return tokens * (self.row_bytes + self.position_bytes * (shared + segment / 2))

  def share_of_time(self, mean_left: np.ndarray) -> np.ndarray:
    """x in time by depth: a continuation from there over a direct rollout.

    The rollout has as many rows in its step, and a path of its own (W = 1). Encoding a path again
    after a jump is left out.

    Args:
      mean_left: `[..., D]`, mean tokens of a response beyond each depth; beyond the first, all.
    """
    whole = mean_left[..., :1]
    prefix = self.prompt_length + whole - mean_left
    continued = self.line_bytes(prefix, mean_left, self.num_siblings)
    return continued / self.line_bytes(np.array(self.prompt_length), whole, 1)
