"""Answers about one batch: what each convention makes of it, and which convention made a number."""
