"""Backbone-swap experiments: the same trainings with one backbone after the other."""
