"""MLflow, and nothing of it elsewhere. Importing this room does not import mlflow; opening a run does."""

from rlpipe.tracking.bakeoff import BakeoffRun, Cost, bakeoff_run, costs
from rlpipe.tracking.pipeline import PipelineRun, pipeline_run
from rlpipe.tracking.stage import Tracker, stage_run

__all__ = ["BakeoffRun", "Cost", "PipelineRun", "Tracker", "bakeoff_run", "costs", "pipeline_run", "stage_run"]
