"""The command line, the embedded broker and the demo: parse, call, print.

May import every other room. Read main.py first.
"""
