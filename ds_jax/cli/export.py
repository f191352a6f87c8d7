"""`ds-jax export`."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated, Literal

from ds_jax.checks import InputError
from ds_jax.cli.registry import Needs
from ds_jax.cli.result import Result
from ds_jax.cli.run_flags import RunFlags
from ds_jax.config.places import FOLDER

if TYPE_CHECKING:
  from ds_jax.run.session import Session

HELP = 'Write parameters of a run as a Hugging Face folder, e.g. for vLLM, and upload it.'
EXAMPLE = 'ds-jax export --checkpoint=runs/quickstart --output=DIR --dtype=bfloat16'
NEEDS = Needs()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Args(RunFlags):
  checkpoint: Annotated[str, FOLDER]  # folder of the run
  output: Annotated[str, FOLDER]  # folder to write: a new one, or an empty one
  dtype: Literal['float32', 'bfloat16'] = 'float32'  # float32 keeps every bit
  # of a run with train.lora_rank: its adapters alone, as a folder for peft; default: merged
  adapter: bool = False
  # name on the Hugging Face hub, MODEL or OWNER/MODEL, under which the folder is uploaded as well;
  # with the token of HF_TOKEN or `hf auth login`
  push: str = ''
  public: bool = False  # a new repository on the hub is public; default: private

  def __post_init__(self) -> None:
    super().__post_init__()
    if self.public and not self.push:
      raise InputError(
        '--public is for models that are uploaded; name one with --push=OWNER/MODEL.'
      )


def run(session: Session, args: Args) -> Result:
  from ds_jax.run.publishing import publish

  summary = publish(
    args.chosen_in(session),
    checkpoint=args.checkpoint,
    output=args.output,
    name=args.push,
    dtype=args.dtype,
    adapter=args.adapter,
    is_public=args.public,
  )
  return Result(summary)
