"""The main job."""

from __future__ import annotations

from typing import Any

from ds_jax.cli._today.session import Session
from ds_jax.run import experiment


def train(session: Session) -> tuple[dict[str, Any], str]:
  return experiment.train(
    session.config, session.workdir, session.progress, session.should_stop, session.team
  ), ''
