"""Labelled splits through a model: protocol, metrics, results, the challenge's file."""
