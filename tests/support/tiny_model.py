"""A language model of a megabyte, written here: enough for the real llama.cpp server to sample replies and tool calls.

It knows one thing, which byte likely follows which: one-hot embeddings, attention and feed-forward of zeros, and an
output matrix that holds the bigrams. What it says means nothing; that it is sampled, and that llama.cpp's grammar
forces tool calls into their schema, is the point (guides/code_llm_scale.md B3).
"""

from pathlib import Path

import gguf
import numpy as np

__all__ = ["write_tiny_model"]

CHAT_TEMPLATE = """\
{%- if tools %}<|im_start|>system
# Tools
Function signatures within <tools></tools>:
<tools>
{% for tool in tools %}{{ tool | tojson }}
{% endfor %}</tools>
For each call return a json object within <tool_call></tool_call>:
<tool_call>
{"name": <function-name>, "arguments": <args-json-object>}
</tool_call><|im_end|>
{% endif -%}
{%- for message in messages %}
{%- if message.role == "tool" %}<|im_start|>user
<tool_response>
{{ message.content }}
</tool_response><|im_end|>
{% else %}<|im_start|>{{ message.role }}
{{ message.content or "" }}
{%- for tool_call in message.tool_calls or [] %}
{%- if tool_call.function is defined %}{%- set tool_call = tool_call.function %}{% endif %}
<tool_call>
{"name": "{{ tool_call.name }}", "arguments": {{ tool_call.arguments | tojson }}}
</tool_call>
{%- endfor %}<|im_end|>
{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""

SPECIAL = ["<|im_start|>", "<|im_end|>", "<tool_call>", "</tool_call>"]
_SIZE = 288
"""Of an embedding: at least one place per token, in heads of 32."""
_STRONG, _LIKELY = 12.0, 4.0


def _byte_names() -> list[str]:
    """The name of each byte in GPT-2's byte-level vocabulary."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    names = {byte: chr(byte) for byte in plain}
    others = (byte for byte in range(256) if byte not in names)
    names |= {byte: chr(256 + number) for number, byte in enumerate(others)}
    return [names[byte] for byte in range(256)]


def _bigrams(tokens: list[str]) -> np.ndarray:
    """(V, size) logits of the next token, for the one-hot embedding of the last one."""
    place = {token: at for at, token in enumerate(tokens)}
    logits = np.full((len(tokens), _SIZE), -6.0, np.float32)
    letters = [place[chr(code)] for code in range(ord("a"), ord("z") + 1)]
    for last in range(len(tokens)):
        logits[letters, last] = 0.0
        for sign in '"}':
            logits[place[sign], last] = _LIKELY
        for digit in "0123456789":
            logits[place[digit], last] = 1.0
    newline = place["Ċ"]  # what byte 10 is called
    logits[:, newline] = -6.0
    logits[place["<tool_call>"], newline] = _STRONG
    logits[letters, newline] = 1.0
    logits[newline, place["<tool_call>"]] = _STRONG  # only together do they begin a call
    logits[place["</tool_call>"], place["}"]] = _STRONG  # where the grammar allows it
    logits[place["<|im_end|>"], place["</tool_call>"]] = _STRONG
    logits[place["<|im_end|>"], letters] = 1.0
    return logits


def write_tiny_model(path: Path) -> None:
    """Write the model as a GGUF file."""
    tokens = [*_byte_names(), *SPECIAL]
    kinds = [gguf.TokenType.NORMAL] * 256 + [gguf.TokenType.USER_DEFINED] * len(SPECIAL)
    kinds[tokens.index("<|im_end|>")] = gguf.TokenType.CONTROL
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(4096)
    writer.add_embedding_length(_SIZE)
    writer.add_block_count(1)
    writer.add_feed_forward_length(32)
    writer.add_head_count(_SIZE // 32)
    writer.add_head_count_kv(_SIZE // 32)
    writer.add_rope_dimension_count(32)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges(["a b"])
    writer.add_eos_token_id(tokens.index("<|im_end|>"))
    writer.add_bos_token_id(tokens.index("<|im_start|>"))
    writer.add_add_bos_token(False)
    writer.add_add_space_prefix(False)
    writer.add_chat_template(CHAT_TEMPLATE)
    one_hot = np.zeros((len(tokens), _SIZE), np.float32)
    one_hot[np.arange(len(tokens)), np.arange(len(tokens))] = 1.0
    writer.add_tensor("token_embd.weight", one_hot)
    writer.add_tensor("output_norm.weight", np.full(_SIZE, _SIZE**-0.5, np.float32))  # undoes what the norm scales
    writer.add_tensor("output.weight", _bigrams(tokens))
    writer.add_tensor("blk.0.attn_norm.weight", np.ones(_SIZE, np.float32))
    writer.add_tensor("blk.0.ffn_norm.weight", np.ones(_SIZE, np.float32))
    for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
        writer.add_tensor(f"blk.0.{name}.weight", np.zeros((_SIZE, _SIZE), np.float32))
    for name, shape in (("ffn_gate", (32, _SIZE)), ("ffn_up", (32, _SIZE)), ("ffn_down", (_SIZE, 32))):
        writer.add_tensor(f"blk.0.{name}.weight", np.zeros(shape, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
