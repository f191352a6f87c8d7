"""`ds-jax init`."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated

from ds_jax.cli.registry import Flags, Needs
from ds_jax.cli.result import Result
from ds_jax.config.places import FOLDER, MODEL

if TYPE_CHECKING:
  from ds_jax.run.session import Session

HELP = 'Write a randomly initialised decoder of config.model as a Hugging Face folder.'
EXAMPLE = 'ds-jax init --config=configs/quickstart.py --tokenizer=DIR --output=DIR'
NEEDS = Needs(config=True)


@dataclasses.dataclass(frozen=True)
class Args(Flags):
  # folder, or name on the hub, whose tokenizer the decoder gets
  tokenizer: Annotated[str, MODEL]
  output: Annotated[str, FOLDER]  # folder to write: a new one, or an empty one


def run(session: Session, args: Args) -> Result:
  from ds_jax.run.parameters import init_model

  return Result(init_model(session, tokenizer=args.tokenizer, output=args.output))
