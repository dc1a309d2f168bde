"""The paper's tables and figures as plans of runs, and what came out of them: statistics, tables, pictures.

An item (a table, a figure, a claim) says which recipes are trained and on what they are scored; training is the
sweep's, scoring is `boqsa.training.evaluate`. No training code lives here, and nothing that a single run needs.
"""
