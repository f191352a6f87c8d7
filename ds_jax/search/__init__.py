"""Tree search with a language model: read the files in this order.

tree.py has the arrays, settings.py the rules and numbers, scores.py the formulas, selection.py and
backup.py a step of the search, policies/ which node gets children next, and engine/ the loop that
grows many trees at once; any_model.py has it grow them with any function that samples. journal.py,
trajectories.py and statistics.py are about finished trees.

Imports neither model nor decode nor verify: the world enters as `expand_fn` and `verify_fn`.
"""
