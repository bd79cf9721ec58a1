"""YAML with lines, and what is wrong with it."""

from hypothesis import given
from hypothesis import strategies as st

from fastgate.config.document import MAX_DEPTH, MAX_NODES, line_of, parse, plain_scalar


def said(text: str) -> list[tuple[str, int | None]]:
    return [(finding.message, finding.line) for finding in parse(text).findings]


def test_every_key_and_item_has_its_line():
    """Lines are those of keys and items, in flow style too."""
    document = parse("a: 1\nb:\n  - x\n  - {c: 2,\n     d: 3}\n")
    assert document.data == {"a": 1, "b": ["x", {"c": 2, "d": 3}]}
    assert document.lines == {
        (): 1, ("a",): 1, ("b",): 2, ("b", 0): 3, ("b", 1): 4, ("b", 1, "c"): 4, ("b", 1, "d"): 5,
    }  # fmt: skip
    assert line_of(document.lines, ("b", 1, "missing")) == 4


def test_duplicate_keys():
    """A key written twice is a problem at its second place; PyYAML would silently take the last one."""
    assert said("a: 1\nb: 2\na: 3\n") == [("appears twice in the same mapping (first on line 1); remove one", 3)]
    assert parse("a: 1\na: 3\n").data == {"a": 1}


def test_tabs_syntax_errors_and_forbidden_characters_have_lines_and_no_snippet():
    """The line of a syntax error is told, its text is not: it may hold a secret."""
    assert said("a:\n\tb: 1\n") == [("is indented with a tab; YAML wants spaces", 2)]
    [(message, line)] = said("a: 1\nsecret: [hunter2\nb: 2\n")
    assert message.startswith("is not YAML: ")
    assert line == 3
    assert "hunter2" not in message
    assert said("a: 1\nb: \x01\n") == [("is not YAML: it holds a character that YAML forbids", 2)]


def test_empty_files_second_documents_tags_and_complex_keys():
    """Whatever could be ignored silently is said."""
    assert said("")[0][0].startswith("the file is empty")
    assert said("# only a comment\n")[0][0].startswith("the file is empty")
    assert said("a: 1\n---\nb: 2\n") == [("holds a second YAML document; only one is read", 2)]
    assert said("a: !!python/object/apply:os.system [x]\n") == [("has a YAML tag; tags are not used here", 1)]
    assert said("a: !!int 5\n") == [("has a YAML tag; tags are not used here", 1)]
    assert said("? [a]\n: b\n") == [("has a key that is not plain text", 1)]


def test_anchors_are_followed_and_keep_the_lines_of_what_they_name():
    """An alias is the node it names; a problem inside it is told where it was written."""
    document = parse("a: &x\n  b: 1\n  b: 2\nc: *x\n")
    assert document.data == {"a": {"b": 1}, "c": {"b": 1}}
    assert [finding.line for finding in document.findings] == [3, 3]


def test_aliases_that_explode_refer_to_themselves_or_to_nothing():
    """An alias bomb is refused after a bounded number of nodes; cycles and unknown names are refused at once."""
    bomb = "a: &a [1,1,1,1,1,1,1,1,1]\n"
    for name, before in zip("bcdefghij", "abcdefghi", strict=True):
        bomb += f"{name}: &{name} [{','.join([f'*{before}'] * 9)}]\n"
    assert said(bomb)[0][0] == f"the file comes to more than {MAX_NODES} values once its aliases are followed"
    assert said("a: &x [1, *x]\n") == [("refers to an anchor that is not defined before it", 1)]
    assert said("a: *nowhere\n") == [("refers to an anchor that is not defined before it", 1)]


def test_nesting_without_end():
    """Depth is bounded before Python's own recursion is; at some depth libyaml has a bound of its own."""
    assert "levels deep" in said("[" * 2 * MAX_DEPTH)[0][0]
    assert "nest" in said("[" * 10_000)[0][0]


def test_plain_scalars_mean_what_yaml_1_2_says():
    """Country codes, times and dates stay text; only `true` and `false` are flags (YAML 1.2 section 10.3.2)."""
    written = ["no", "on", "12:30:00", "2024-01-01", "0123", "0x1F", "1e3", ".5", "~", "", "True", "1_000", "-7"]
    meant = ["no", "on", "12:30:00", "2024-01-01", 123, 31, 1000.0, 0.5, None, None, True, "1_000", -7]
    assert [plain_scalar(text) for text in written] == meant
    assert parse("a: '5'\nb: \"true\"\n").data == {"a": "5", "b": "true"}


def test_references_in_flow_style():
    """`[${A}]` and `{a: ${B:-x y}}` work without quotes, as the interface document writes them."""
    assert parse("a: [${A}, ${B:-x y}]\nb: {c: ${file:/x}}\n").data == {
        "a": ["${A}", "${B:-x y}"],
        "b": {"c": "${file:/x}"},
    }


@given(st.text(alphabet="ab:-[]{}&*!#|>'\"\n\t $%@`,?~0", max_size=60))
def test_no_text_makes_the_parser_raise(text):
    """Whatever a file holds, the outcome is data or findings."""
    document = parse(text)
    assert document.findings or () in document.lines
