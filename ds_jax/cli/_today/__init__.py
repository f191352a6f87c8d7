"""Stands in for ds_jax.run until its modules have the names and signatures used here."""
