"""Short-context benchmarks: the ones that lm-eval lacks, and small ones of our own in the shape of all of them.

`builtin` makes a task for every benchmark of the short suites from items that kleval's authors wrote or computed
(`items.toml`, `computed.toml`), so that `--suite short` runs on a fresh machine; each has its benchmark's form (`benchmarks.toml`:
likelihood of choices or generated answer, shots, description, answer extraction), not its data and not its difficulty.
`official` reads the data of four benchmarks that lm-eval 0.4.13 has no task for in the form the paper used (HMMT 2025,
PolyMath-en, MMLU-Redux by likelihood, CMATH), and CRUXEval-O, which it scores without running any code.
"""
