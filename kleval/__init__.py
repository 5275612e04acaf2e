"""kleval: how well a language model uses a long context, and what that context costs."""

__version__ = "0.1.0"
