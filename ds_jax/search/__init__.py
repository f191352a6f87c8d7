"""The tree, its backup and selection rules, allocation policies, and the engine that runs them.

Imports neither model nor decode nor verify: the world enters as `expand_fn` and `verify_fn`.
"""
