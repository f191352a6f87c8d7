"""The processes of a job."""

from __future__ import annotations

from ds_jax.cli._today.team import TodaysTeam, today
from ds_jax.run import cluster
from ds_jax.run.cluster import cluster_from, ending_together, leave

__all__ = ['cluster_from', 'ending_together', 'join', 'leave']


def join(named: cluster.Cluster | None) -> TodaysTeam:
  return today(cluster.join(named))
