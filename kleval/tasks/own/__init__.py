"""Tasks and metrics of the user's own, from files that were named: Python (`./my.py:Task`), a plain form (`./my.yaml`), metrics
(`./m.py:f`). A file is run, or read, because its user named it, and not before.
"""
