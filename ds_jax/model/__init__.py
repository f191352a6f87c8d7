"""The decoder: configuration, parameters, attention, caches, and Hugging Face folders."""
