"""Checkpoints of random weights in the shapes of real models."""
import json

import torch

SHAPES = {
    # Small, so that thousands of tokens take seconds.
    "long": dict(hidden_size=128, intermediate_size=352, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=4),
    # LLaMA-160M, whole.
    "160m": dict(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12, num_key_value_heads=12),
    # TinyLlama-1.1B with 3 of its 22 layers.
    "1b": dict(hidden_size=2048, intermediate_size=5632, num_hidden_layers=3, num_attention_heads=32, num_key_value_heads=4),
    # LLaMA-7B, whole.
    "7b": dict(hidden_size=4096, intermediate_size=11008, num_hidden_layers=32, num_attention_heads=32, num_key_value_heads=32),
}
VOCAB = 32000  # of "long": a tenth of it


def write_checkpoint(folder, shape, share_layers=False):
    """A Hugging Face folder, bf16, with an output matrix of its own. share_layers: all layers are views of one, so that the
    largest shape takes little disk."""
    c = SHAPES[shape]
    vocab = VOCAB // 10 if shape == "long" else VOCAB
    hidden, ffn = c["hidden_size"], c["intermediate_size"]
    kv = hidden // c["num_attention_heads"] * c["num_key_value_heads"]
    noise = torch.randn(1 << 20, generator=torch.Generator().manual_seed(7))

    def matrix(rows, cols):
        copies = -(-rows * cols // noise.numel())
        return (noise.repeat(copies)[: rows * cols].reshape(rows, cols) * cols**-0.5).to(torch.bfloat16)

    def layer():
        return {
            "self_attn.q_proj.weight": matrix(hidden, hidden), "self_attn.k_proj.weight": matrix(kv, hidden),
            "self_attn.v_proj.weight": matrix(kv, hidden), "self_attn.o_proj.weight": matrix(hidden, hidden),
            "mlp.gate_proj.weight": matrix(ffn, hidden), "mlp.up_proj.weight": matrix(ffn, hidden),
            "mlp.down_proj.weight": matrix(hidden, ffn),
            "input_layernorm.weight": torch.ones(hidden), "post_attention_layernorm.weight": torch.ones(hidden),
        }

    folder.mkdir(parents=True)
    state = {"model.embed_tokens.weight": matrix(vocab, hidden), "model.norm.weight": torch.ones(hidden), "lm_head.weight": -matrix(vocab, hidden)}
    shared = layer() if share_layers else None
    for i in range(c["num_hidden_layers"]):
        state.update({f"model.layers.{i}.{name}": tensor for name, tensor in (shared or layer()).items()})
    torch.save(state, folder / "pytorch_model.bin")
    config = dict(c, architectures=["LlamaForCausalLM"], model_type="llama", vocab_size=vocab, max_position_embeddings=2048,
                  rms_norm_eps=1e-5, rope_theta=10000.0, hidden_act="silu", tie_word_embeddings=False, torch_dtype="bfloat16")
    (folder / "config.json").write_text(json.dumps(config))
    return folder
