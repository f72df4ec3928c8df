"""Small random models in the Hugging Face layout, made with transformers and fixed seeds."""
import torch
import transformers


def save(folder, model, shards=None):
    """Writes config.json and pytorch_model.bin, as torch.save writes it."""
    folder.mkdir(parents=True, exist_ok=True)
    model.config.save_pretrained(folder)
    torch.save(model.state_dict(), folder / "pytorch_model.bin")


def randomize(model, seed, dtype):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            scale = 0.3 if parameter.ndim == 1 else 1.4 / parameter.shape[-1] ** 0.5
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale + (parameter.ndim == 1))
    return model.to(dtype).eval()


def tiny_llama(tmp_path, name="llama", hidden=64, layers=2, heads=4, kv_heads=2, ffn=176, vocab=320, tied=False, seed=1,
               dtype=torch.float32, **kwargs):
    """(folder, model) of a LLaMA with grouped-query attention."""
    config = transformers.LlamaConfig(
        vocab_size=vocab, hidden_size=hidden, intermediate_size=ffn, num_hidden_layers=layers, num_attention_heads=heads,
        num_key_value_heads=kv_heads, max_position_embeddings=256, tie_word_embeddings=tied, **kwargs)
    model = randomize(transformers.LlamaForCausalLM(config), seed, dtype)
    save(tmp_path / name, model)
    return tmp_path / name, model
