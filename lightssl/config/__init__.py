"""Recipes: what they may hold (:mod:`schema`) and how they are found and put together (:mod:`load`)."""
