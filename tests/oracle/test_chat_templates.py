"""Rendered conversations against transformers' apply_chat_template."""
import json

import jinja2
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from chat_templates import TEMPLATES
from tokenize_tool import TokenizeTool


def message(role, content):
    return {"role": role, "content": content}


CONVERSATIONS = [
    [message("user", "Hello")],
    [message("system", "Be brief."), message("user", "Who are you?")],
    [message("user", "  spaces around \n"), message("assistant", " Sure.\n\n"), message("user", "Go on\u3000")],
    [message("system", " S "), message("user", "1"), message("assistant", "2"), message("user", "3"),
     message("assistant", "4"), message("user", "5")],
    [message("user", "a"), message("assistant", "b")],
    [message("user", "a"), message("user", "b")],
    [message("assistant", "first")],
    [message("system", "alone")],
    [message("user", "{{ bos_token }}{% if %}{# <|im_end|> 'quotes' \"double\" \\n 日本語 😀")],
    [message("user", "")],
]


@pytest.fixture(params=TEMPLATES)
def pair(request, tmp_path):
    tokenizer = Tokenizer(models.BPE(vocab={"a": 0, "<s>": 1, "</s>": 2}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<s>", "</s>"])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(
        {"bos_token": "<s>", "eos_token": "</s>", "chat_template": TEMPLATES[request.param]}))
    reference = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>",
                                        chat_template=TEMPLATES[request.param])
    with TokenizeTool(tmp_path) as tool:
        yield tool, reference


def test_conversations(pair):
    tool, reference = pair
    for conversation in CONVERSATIONS:
        for prompt in (True, False):
            answer = tool.ask(messages=conversation, prompt=prompt)
            try:
                want = reference.apply_chat_template(conversation, tokenize=False, add_generation_prompt=prompt)
            except (jinja2.exceptions.TemplateError, TypeError) as error:
                assert "INVALID_ARGUMENT" in answer["error"], (answer, error)
                continue
            assert answer.get("text") == want, answer


@pytest.mark.parametrize("source, status, words", [
    ("{{ 1", "INVALID_ARGUMENT", "does not end"),
    ("{{ 'a }}", "INVALID_ARGUMENT", "does not end"),
    ("{% for x in y %}", "INVALID_ARGUMENT", "endfor"),
    ("{% if %}{% endif %}", "INVALID_ARGUMENT", "expression"),
    ("{{ a b }}", "INVALID_ARGUMENT", "\"b\""),
    ("{{ a $ }}", "INVALID_ARGUMENT", "line 1"),
    ("\n\n{{ 1 + 'a' }}", "INVALID_ARGUMENT", "line 3"),
    ("{% include 'x' %}", "UNIMPLEMENTED", "include"),
    ("{{ x | eval }}", "UNIMPLEMENTED", "eval"),
    ("{{ lipsum() }}", "UNIMPLEMENTED", "lipsum"),
    ("{{ ''.__class__.__mro__ }}", "INVALID_ARGUMENT", "undefined"),
    ("{{ 'x'.format('y') }}", "UNIMPLEMENTED", "format"),
    ("{{ [1] }}", "UNIMPLEMENTED", "printing"),
    ("{{ " + "(" * 5000 + ")" * 5000 + " }}", "RESOURCE_EXHAUSTED", "deeply"),
    ("{{ " + "not " * 5000 + "a }}", "RESOURCE_EXHAUSTED", "deeply"),
    ("{{ " + "- " * 5000 + "1 }}", "RESOURCE_EXHAUSTED", "deeply"),
    ("{{ 'a'" + "+ 'a'" * 5000 + " }}", "RESOURCE_EXHAUSTED", "deeply"),
    ("{% if a %}" * 5000 + "{% endif %}" * 5000, "RESOURCE_EXHAUSTED", "deeply"),
    ("{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}", "RESOURCE_EXHAUSTED", "steps"),
    ("{% set n = namespace(s='aaaaaaaa') %}{% for i in range(99) %}{% set n.s = n.s + n.s %}{% endfor %}",
     "RESOURCE_EXHAUSTED", "256 MiB of values"),
    ("{% for i in range(9999999) %}{% endfor %}", "RESOURCE_EXHAUSTED", "range"),
    ("x" * 300000, "RESOURCE_EXHAUSTED", "bytes"),
    ("{{ 99999999999999999999 }}", "INVALID_ARGUMENT", "integer"),
    ("", "NOT_FOUND", "no chat template"),
])
def test_templates_that_are_refused(source, status, words, tmp_path):
    tokenizer = Tokenizer(models.BPE(vocab={"a": 0}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "chat_template.jinja").write_text(source)
    with TokenizeTool(tmp_path) as tool:
        # Inert until asked for.
        assert tool.encode("a") == [0]
        answer = tool.ask(messages=[message("user", "hi")])
        assert status in answer["error"] and words in answer["error"], answer
