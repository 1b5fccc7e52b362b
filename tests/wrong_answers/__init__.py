"""Answers that learners give to the exercises, a file a page.

WRONG: for each check, functions as a learner would write them, and words that the check must say.
RIGHT: for each check, a right answer that is computed in another way than the check's own.
"""
