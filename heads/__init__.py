"""What turns a question's raw scores into a probability: values in, values out.

prior.py         what a question's answers favour over the stream, taken off (no labels needed)
verdict.py       does an answer change, is it sure enough, does it go out?

learner.py       a question's head: forecasters that learn from labels, the best one answers
  softmax.py         scores to probabilities, and calibrated scores (Platt)
  probe.py           a probability read from the hidden state
  moved.py           the hidden state, and how it moved
  session_bias.py    what one session does differently
  one_thread.py      the same fit on every machine
  conformal.py       answer sets that hold the truth 9 times of 10
head_file.py     a head as bytes, and only a head of this model and question back
scorecard.py     how right the answers were
score_curves.py  the same as bins and points, to draw

outcomes.py      answers that wait for their labels, each applied once
outcome_rule.py  labels by a rule over the session's own later records
  outcome_expression.py  the language that such a rule is written in
backtest.py      a question over recorded sessions, predicted first and learnt after
recorded.py      recorded answers and records of a past, put in order and scored
paired.py        is one of two forecasters better, or is it chance?

May import `models` alone. No I/O, no clock: the same answers in the same order give the
same results, in a replay too. Read learner.py first.
"""
