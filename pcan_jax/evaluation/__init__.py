"""Evaluation of a model on a split: protocol, metrics, results, ensembles, challenge files."""
