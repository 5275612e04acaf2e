"""Plan of a run on hardware that need not be here: counts of what is asked, memory, time and money, from closed forms.

`plan_run` makes it, of tasks as `task_ids` names them; `records` are its JSON values; nothing here prints.
"""

from kleval.planning.asking import task_ids
from kleval.planning.plan import ModelPlan, RunPlan, Span, plan_run, records

__all__ = ["ModelPlan", "RunPlan", "Span", "plan_run", "records", "task_ids"]
