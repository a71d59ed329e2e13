from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from ftcheck.recipe.lines import key_lines, parse

TEXT = '''\
description = """two
lines with [brackets] and key = value"""  # a comment with = and [

[model]
name_or_path = 'a#b'  # [not.a.section]
"quoted key" = 1

[lora]  # adapters
target_modules = [
    "c_attn",  # ]
    'c_proj = 3',
]
rank_pattern = { "x.y" = 4, z = [1, 2] }
alpha.beta = 5
[checks.accept]
FT203 = """a "quoted" reason"""""
last = \'\'\'
x = 1
\'\'\'
end = 2
'''


def test_lines_of_keys_and_sections() -> None:
    parse(TEXT)
    assert key_lines(TEXT) == {
        "description": 1,
        "model": 4,
        "model.name_or_path": 5,
        "model.quoted key": 6,
        "lora": 8,
        "lora.target_modules": 9,
        "lora.rank_pattern": 13,
        "lora.alpha.beta": 14,
        "checks.accept": 15,
        "checks.accept.FT203": 16,
        "checks.accept.last": 17,
        "checks.accept.end": 20,
    }


def test_brackets_in_names_and_in_comments() -> None:
    text = '["a]b"]  # ]\n"c=d" = 1\n[e . "f]"]  # ]\ng = 2\n[[h]]  # ]]\ni = 3\n'
    parse(text)
    assert key_lines(text) == {
        "a]b": 1,
        "a]b.c=d": 2,
        "e.f]": 3,
        "e.f].g": 4,
        "h": 5,
        "h.i": 6,
    }


VALUES = st.recursive(
    st.one_of(
        st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"])),
        st.integers(-(2**60), 2**60),
        st.booleans(),
    ),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=4,
)
KEYS = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1, max_size=8
).filter(lambda key: "." not in key)


@given(st.dictionaries(KEYS, st.dictionaries(KEYS, VALUES, max_size=4), max_size=4))
def test_each_key_is_found_where_it_stands(document: dict[str, dict[str, object]]) -> None:
    import tomlkit

    text = tomlkit.dumps(document)
    parsed = parse(text)
    rows = text.split("\n")
    lines = key_lines(text)
    for section, values in parsed.items():
        assert rows[lines[section] - 1].startswith("[")
        for key in values:
            row = rows[lines[f"{section}.{key}"] - 1]
            bare = row.startswith(key)
            assert bare or row.startswith((json.dumps(key, ensure_ascii=False), '"', "'"))
