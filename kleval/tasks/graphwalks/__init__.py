"""GraphWalks: the nodes that an operation on a directed graph results in, the graph being a list of edges as long as the context.

Source: openai/graphwalks on the Hugging Face hub (MIT); prompt (`prompt.toml`) and grader are those of its rows and its data card.
"""
