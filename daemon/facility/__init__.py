"""A model of a busy facility: microscopes, a cluster and the file server between them, under the real core.

    arrivals --FilesObserved--> Core --effects--> drive.py --> staging (server.py), run (work.py) --> answers

The decisions are the production code's own; only the world is a model.  ``figures.py`` says how long things
took, of a simulated and of a real history alike; ``bound.py`` says how fast the hardware could have been.
"""
