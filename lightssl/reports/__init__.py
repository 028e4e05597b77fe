"""What a person looks at: the page about a run and the curves on it."""
