"""A bandit with a known answer: every algorithm on a table small enough to say where it must end."""
