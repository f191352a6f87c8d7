"""Parameters as folders."""

from __future__ import annotations

from typing import Any

from ds_jax.cli._today.session import Session
from ds_jax.run import experiment
from ds_jax.run import parameters as todays


def export(session: Session, *, checkpoint: str, output: str, dtype: str) -> dict[str, Any]:
  return todays.export(checkpoint, output, dtype, session.progress)


def init_model(session: Session, *, tokenizer: str, output: str) -> dict[str, Any]:
  return experiment.init(session.config, tokenizer, output, session.progress)
