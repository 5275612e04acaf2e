"""Requests in, outcomes out: one file per way to run a model."""
