"""Metrics: how good captions are, and how honest a confidence is. No torch, no Java."""
