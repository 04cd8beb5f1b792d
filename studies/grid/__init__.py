"""Sweeps: a study file is expanded to runs, and those that the study's folder lacks are done.

``document`` reads a study file and ``spec`` says what it may hold; ``expand`` makes runs of it and ``identity`` gives
each its key; ``store`` is the study's folder on disk; ``schedule`` orders the runs by their measured cost, ``execute``
does them, and ``sweep`` joins all of these.
"""
