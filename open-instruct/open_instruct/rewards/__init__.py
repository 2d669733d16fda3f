"""Samples -> rewards: verifiers by name, judge types, shaping."""
