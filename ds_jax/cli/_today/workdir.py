"""A run's folder."""

from ds_jax.run.workdir import Workdir, lock, workdir_config

__all__ = ['Workdir', 'lock', 'workdir_config']
