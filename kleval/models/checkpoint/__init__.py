"""Model folders: config.json of both kinds, safetensors in every layout of Kimi Linear, from a path or from the Hugging Face hub."""

from __future__ import annotations

from kleval.models.checkpoint.config_json import read_config
from kleval.models.checkpoint.reader import load_decoder
from kleval.models.checkpoint.writer import save

__all__ = ["load_decoder", "read_config", "save"]
