"""What servers say of a prompt that is too long, and what only sounds like it."""

from __future__ import annotations

import pytest

from kleval.backends.server_errors import too_long

TOO_LONG = {
    "vLLM": "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens.",
    "vLLM, newer": "The decoder prompt (length 5000) is longer than the maximum model length of 4096.",
    "vLLM, no room": "max_tokens must be at least 1, got -904.",
    "llama.cpp": "the request exceeds the available context size (4096 tokens), try increasing it",
    "llama-cpp-python": "This model's maximum context length is 512 tokens, however you requested 1000 tokens",
    "SGLang": "The input (5000 tokens) is longer than the model's context length (4096 tokens).",
    "SGLang, total": "Requested token count exceeds the model's maximum context length of 4096 tokens.",
    "Kimi": "Invalid request: Your request exceeded model token limit: 131072",
    "LM Studio": "Trying to keep the first 5000 tokens when context the overflows. However, the model is loaded with context length "
    "of only 4096 tokens, which is not enough. Try to load the model with a larger context length",
    "LM Studio, older": "The number of tokens to keep from the initial prompt is greater than the context length.",
    "TGI": "Input validation error: `inputs` must have less than 4096 tokens. Given: 5000",
    "TGI, sum": "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: 4090 `inputs` tokens",
    "TabbyAPI": "Prompt length 5000 is greater than max_seq_len 4096",
    "DashScope": "<400> InternalError.Algo.InvalidParameter: Range of input length should be [1, 30720]",
    "TensorRT-LLM": "The sum of prompt length (5000) and max_tokens (10) should not exceed max_seq_len (4096)",
    "TensorRT-LLM, older": "Prompt length (5000) exceeds maximum input length (4096). Set log level to info",
    "Cohere": "too many tokens: total number of tokens in the prompt cannot exceed 4081 - received 5000. Try a shorter prompt",
    "Zhipu": "Prompt exceeds max length",
    "Zhipu, Chinese": "输入长度超限",
    "OpenAI": "Your input exceeds the context window of this model. Please adjust your input and try again.",
    "Mistral": "Prompt contains 40000 tokens and 0 draft tokens, too large for model with 32768 maximum context length",
    "Anthropic": "prompt is too long: 210000 tokens > 200000 maximum",
    "Google": "The input token count (1100000) exceeds the maximum number of tokens allowed (1048576).",
    "Groq": "Please reduce the length of the messages or completion.",
    "Google, sum": "Unable to submit request because the input token count is 1194097 but model only supports up to 1048576.",
    "a sum": "prompt tokens (5000) + max_new_tokens (10) > max_total_tokens 4096",
    "a plain limit": "Prompt has 5000 tokens, but the model's limit is 4096",
    "Ollama": "input length exceeds maximum context length",
}
OTHER = (
    "Rate limit reached for tokens per minute (TPM): Limit 6000, Requested 8000",
    "Request too large for model on tokens per minute (TPM): Limit 6000, Requested 8000",
    "max_tokens is too large: 20000. This model supports at most 16384 completion tokens, whereas you provided 20000.",
    "stop must have less than 5 elements",
    "The model `kimi` does not exist",
    "You exceeded your current quota, please check your plan",
    "user: string should have at most 64 characters",
    "temperature is greater than 2",
    "Invalid value for 'seed': more than 64 bits",
    "internal error",
    "too many requests",
    "Failed to load model: not enough memory for context",
    "",
)


@pytest.mark.parametrize("server", TOO_LONG)
def test_a_prompt_that_is_too_long_is_known_in_anybodys_words(server: str) -> None:
    assert too_long(TOO_LONG[server])


@pytest.mark.parametrize("code", ["context_length_exceeded", "exceed_context_size_error", "1261"])
def test_a_code_alone_is_enough(code: str) -> None:
    assert too_long("", code)


@pytest.mark.parametrize("said", OTHER)
def test_other_limits_are_not_taken_for_it(said: str) -> None:
    assert not too_long(said)
