"""The flags of commands that read the parameters of a run."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated

from ds_jax.cli.registry import Flags
from ds_jax.config.places import MODEL

if TYPE_CHECKING:
  from ds_jax.run.session import Session


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunFlags(Flags):
  """Which parameters of a run, and where the files of its model are."""

  # which checkpoint: its training step as in metrics.jsonl, or best, the one of the highest pass@1;
  # default: the newest. An unknown step is answered with those that exist
  step: str = ''
  # folder of tokenizer and config.json, if not those that the run keeps; it must fit the run
  model: Annotated[str, MODEL] = ''

  def __post_init__(self) -> None:
    from ds_jax.run.session import check_step

    check_step('--step', self.step)

  def chosen_in(self, session: Session) -> Session:
    """The session with what these flags choose."""
    return dataclasses.replace(session, step=self.step, model=self.model)
