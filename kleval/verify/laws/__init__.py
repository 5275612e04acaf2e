"""Laws of a right engine, one file each: which cases are tried, and what usually breaks it."""

from kleval.verify.laws import batch, causality, long, prefix_cache, reference, slots, state, text
from kleval.verify.laws.law import Law

LAWS: dict[str, Law] = {
    one.LAW.name: one.LAW for one in (text, causality, state, batch, prefix_cache, slots, reference, long)
}
__all__ = ["LAWS", "Law"]
