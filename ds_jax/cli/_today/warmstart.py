"""The warm start."""

from __future__ import annotations

from typing import Any

from ds_jax.cli._today.session import Session
from ds_jax.run import warmstart as todays


def warmstart(session: Session) -> dict[str, Any]:
  return todays.warmstart(session.config, session.workdir, session.progress, session.should_stop)
