"""Prefect flows: when and where the stages of `dvc.yaml` run. Whether they run is DVC's to say."""

from pathlib import Path

from rlpipe.environment import prepare

# Prefect reads its settings when it is imported, and every way into a flow passes here first.
prepare(Path(__file__).resolve().parents[1])
