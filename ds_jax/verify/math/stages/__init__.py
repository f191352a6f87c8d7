"""The stages of a comparison, by what they compare; `compare.STAGES` is their order."""
