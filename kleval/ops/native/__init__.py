"""Operators in C++ for a CPU: sources, their build at first use, and the calls. The torch forms stay the reference and the fallback."""
