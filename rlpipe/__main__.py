"""`python -m rlpipe`: how dvc.yaml calls a stage, with the workspace's own code first on the path."""

from rlpipe.cli import main

main()
