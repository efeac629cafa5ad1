"""What turns a question's raw scores into a probability: values in, values out.

prior.py   what a question's answers favour over the stream, taken off (no labels needed)

May import `models` alone. No I/O, no clock: the same answers in the same order give the
same results, in a replay too.
"""
