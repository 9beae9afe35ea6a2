"""The table of messages: how errors are worded, for every test that compares them.

What two tests compare stands here once: a constant, or a function of what varies. Rewording it is
one change. pytest has the folder of this package on its path::

    from messages.planning import PLAN_AGAIN
"""
