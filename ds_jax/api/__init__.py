"""A run from a program or a notebook: `ds_jax.open_session`.

open.py opens one, session.py has its methods, results.py what they return. What is done is in run/,
and the command line does the same.
"""
