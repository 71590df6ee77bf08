"""Writes: starting and stopping runs for people, claims and results for workers."""
