"""`ds-jax data describe`."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated

from ds_jax.cli.data_prepare import RowFlags
from ds_jax.cli.registry import Needs
from ds_jax.cli.result import Result
from ds_jax.config.annotations import Count
from ds_jax.config.places import BUCKET_OR_FOLDER, MODEL, SOURCE

if TYPE_CHECKING:
  from ds_jax.run.session import Session

HELP = 'Print what a source holds: counts, answer types, prompt lengths, flawed rows.'
EXAMPLE = 'ds-jax data describe --source=tfds:deepmath103k --data_dir=data'
NEEDS = Needs()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Args(RowFlags):
  # as in config.data.source, e.g. file:PATH or tfds:deepmath103k
  source: Annotated[str, SOURCE]
  data_dir: Annotated[str, BUCKET_OR_FOLDER] = ''  # folder or gs://… of prepared sets
  tokenizer: Annotated[str, MODEL] = ''  # folder or hub name; counts prompt tokens
  # judges a sample of golds as answers, as config.verify.verifier would; '': none does
  verifier: str = 'math'
  max_problems: Count = 0  # rows to read; of gym:NAME, to generate


def run(session: Session, args: Args) -> Result:
  from ds_jax.cli.data_text import format_summary
  from ds_jax.data.prepare import describe_source

  summary = describe_source(
    args.data_config(args.source, args.max_problems),
    data_dir=args.data_dir,
    tokenizer=args.tokenizer,
    verifier=args.verifier,
    progress=session.progress,
  )
  return Result(summary, format_summary(summary))
