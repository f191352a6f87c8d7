"""The report of a run."""

from __future__ import annotations

from typing import Any

from ds_jax.cli._today.session import Session
from ds_jax.run import experiment


def report(session: Session) -> tuple[dict[str, Any], str]:
  return experiment.report(session.workdir, session.progress), ''
