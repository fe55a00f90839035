"""The flows as deployments of a Prefect server."""

from __future__ import annotations

from typing import Any

from prefect import Flow, serve

from flows.bakeoff import bakeoff
from flows.post_training import post_training

_FORMS: tuple[tuple[Flow[..., Any], str], ...] = (
    (post_training, "An empty form runs params.yaml as it stands."),
    (bakeoff, "An empty form compares the algorithms of params.yaml."),
)


def offer() -> None:
    """Serve both flows under the name `rlpipe`, until interrupted. Nothing has a default that could go stale."""
    deployments: list[Any] = [flow.to_deployment("rlpipe", description=text) for flow, text in _FORMS]
    serve(*deployments)
