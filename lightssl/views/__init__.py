"""Views of an image: the plan that says which, the crops and augmentations that make them."""
