"""Numerics: one file per operator; in each the reference, and the fast form."""
