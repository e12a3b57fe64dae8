"""Real pre-trained classifiers played over the providers' own wire formats, for work without an account.

This package plays the outside world: it imports nothing else of the product. Start at `server.py`.
"""
