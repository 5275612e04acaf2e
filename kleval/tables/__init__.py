"""Tables: stored records become intervals, scores, costs, ratios and differences, and rows of them."""
