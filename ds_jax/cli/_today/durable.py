"""Files of lines that a stopped command goes on with."""

from ds_jax.run.durable import ResultsFile as LineFile

__all__ = ['LineFile']
