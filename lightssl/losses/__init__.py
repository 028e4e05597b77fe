"""Losses: tensors in, a tensor out. They know nothing of recipes, networks or view plans."""
