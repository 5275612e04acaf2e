"""lm-eval (EleutherAI's lm-evaluation-harness) in both directions.

`task`: its tasks, asked through any kleval backend, as `lm_eval/NAME`. `bridge`: a kleval backend as a model of lm-eval.
`include`, `generated`: kleval's own tasks as tasks of lm-eval, for its `--include_path`. `provider`: what the registry calls;
`task_index`, `files`, `fetch`, `loading`: the tasks there are, where their data lie, how the data come, how a task is made of
them. Nothing here imports lm_eval until a task is asked for.
"""
