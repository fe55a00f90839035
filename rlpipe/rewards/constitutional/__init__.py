"""Constitutional AI (arXiv:2212.08073): critique and revision by written principles, and preferences by the same.

`principles.py` reads them; `revising.py` is the loop of critique and revision; `principled.py` judges by a principle a
prompt; `wording.py` is what a model is asked; `working.py` and `lessons.py` teach the embedded judge all of it.
"""
