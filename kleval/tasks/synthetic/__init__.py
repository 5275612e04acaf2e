"""Palindrome, MQAR and Stack as questions in text: the synthetic tests of the Kimi Linear paper, for models that are trained already.

The paper (arXiv 2510.26692, section 5.1) trains two layers of each mixer on tokens of its own; `kleval train synthetic` does that.
Here any language model is asked the same three things in words, at any length.

puzzles    a puzzle of so many items: what is shown, what is asked, what is right
task       the task objects
"""
