"""A run from a program or a notebook: `ds_jax.open_session`.

open.py opens one, session.py has its methods, opened.py what these share, results.py what they
return. The work is done in run/, as for the command line.
"""
