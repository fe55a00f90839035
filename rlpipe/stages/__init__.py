"""One file per stage of `dvc.yaml`: checked parameters and paths in, files and metrics out."""
