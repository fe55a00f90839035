"""How completions are drawn."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from rlpipe.config.schema.fields import Count, OpenShare, Positive, Section


class VLLM(Section):
    """How vLLM is run or asked; read by its engines alone.

    Attributes:
        base_url: of the server, for engine vllm_server; the in-process engine has none.
        enforce_eager: no CUDA graphs.
        gpu_memory_utilization: share of the device's memory that the engine takes, keys and values included.
        kv_cache_gb: memory for keys and values, instead of what that share leaves.
        max_model_len: tokens of prompt and response; None is what the model's config says.
        sleep: give a GPU's memory back while nothing is drawn.
        timeout_s: of one request to the server.
    """

    base_url: str | None
    enforce_eager: bool
    gpu_memory_utilization: OpenShare
    kv_cache_gb: Positive | None
    max_model_len: Count | None
    sleep: bool
    timeout_s: Positive


class Correction(Section):
    """Importance weights between the sampler and the trainer; see `ops.importance`."""

    level: Literal["token", "sequence"]
    mode: Literal["truncate", "mask"]
    cap: Positive


class Rollout(Section):
    engine: Literal["transformers", "vllm", "vllm_server"]
    temperature: Positive
    top_k: Count | None
    top_p: OpenShare | None
    min_p: OpenShare | None
    max_new_tokens: Count
    batch_size: Count
    token_budget: Count | None
    correction: Correction | None
    vllm: VLLM

    @property
    def cuts(self) -> dict[str, float]:
        """The limits on what may be drawn that are set."""
        limits = {"top_k": self.top_k, "top_p": self.top_p, "min_p": self.min_p}
        return {name: value for name, value in limits.items() if value is not None}

    @model_validator(mode="after")
    def _engine_has_what_it_needs(self) -> Rollout:
        if self.engine == "transformers":
            if self.correction is not None:
                raise ValueError(
                    "correction: the transformers engine samples from the very weights that are trained, so there is "
                    "nothing to correct; set null, or another engine"
                )
            return self
        if self.engine == "vllm_server" and self.vllm.base_url is None:
            raise ValueError("vllm.base_url null: engine is vllm_server, and a server has an address; set it")
        if self.token_budget is not None:
            raise ValueError(
                f"token_budget {self.token_budget}: vLLM keeps its own account of keys and values; set null, and "
                "vllm.kv_cache_gb or vllm.gpu_memory_utilization"
            )
        if self.cuts and self.temperature != 1:
            raise ValueError(
                f"{', '.join(self.cuts)} at temperature {self.temperature:g}: vLLM gives log-probs either before "
                "temperature or after the cut, and the trainer needs those between; set temperature 1.0, or null "
                "instead of the cut, or engine transformers"
            )
        if self.cuts and self.correction is not None:
            raise ValueError(
                f"correction with {', '.join(self.cuts)}: it divides by the probability of the draw, and a cut "
                "changes that by an amount nobody knows; set one of them to null"
            )
        return self
