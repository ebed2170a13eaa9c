"""XML as BOINC writes it: what is tolerated, what is refused, and on which line."""

import os
from time import process_time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from boincvm.lenient_xml import (
    DEEPEST_ELEMENT,
    LARGEST_DOCUMENT,
    MOST_TAGS,
    Element,
    XmlError,
    parse,
)


def leaf(name: str, text: str = "", line: int = 1, *, by_itself: bool = False) -> Element:
    return Element(name, text, (), line, by_itself)


@pytest.mark.parametrize(
    ("document", "element"),
    [
        ("<a/>", leaf("a", by_itself=True)),
        ("<a />", leaf("a", by_itself=True)),
        ("<a b='c' />", leaf("a", by_itself=True)),
        ("<a></a>", leaf("a")),
        ("<a\n b='c'\n></a\n>", leaf("a")),
        ("<a> \t\r\n\v\f</a>", leaf("a")),
        ("<a>\N{NO-BREAK SPACE}</a>", leaf("a", "\N{NO-BREAK SPACE}")),
        ("<A>b</A>", leaf("A", "b")),
        ("<?xml version='1.0'?>\n\n<a>b</a>", leaf("a", "b", 3)),
        ("<?xml version='1.0'>\n<a>b</a>", leaf("a", "b", 2)),
        ("\N{BYTE ORDER MARK}<a>b</a>", leaf("a", "b")),
        ("<!-- <x> -- &y; -->\n<a>b<!-- c\n -->d</a>", leaf("a", "bd", 2)),
        ("<a>x<![CDATA[<b>&amp;]] >]]>y</a>", leaf("a", "x<b>&amp;]] >y")),
        ("<a>&lt;&gt;&amp;&quot;&apos;&#65;&#0066;&#xA;&#Xd;C</a>", leaf("a", "<>&\"'AB\n\rC")),
        ("<a>&amp;lt;</a>", leaf("a", "&lt;")),
        ("<a>b & c &d &; &#; &#x; &lt</a>", leaf("a", "b & c &d &; &#; &#x; &lt")),
        ("<a>&c; &nbsp; &#x42; &#256;</a>", leaf("a", "&c; &nbsp; &#x42; &#256;")),
        ("<a>b</c>d</a>", leaf("a", "bd")),
        ("</c><a>b</a>", leaf("a", "b")),
        ("<a>b</a> <c> & ]]> <!DOCTYPE x>", leaf("a", "b")),
        ("<a>b<c>d</c>e<c/></a>",
         Element("a", "be", (leaf("c", "d"), leaf("c", by_itself=True)), 1)),
        ("<a>\n<b>\n\n</b>\n\n<c/></a>",
         Element("a", "", (leaf("b", line=2), leaf("c", line=6, by_itself=True)), 1)),
    ],
)  # fmt: skip
def test_what_is_let_pass(document, element):
    assert parse(document.encode()) == element


@pytest.mark.parametrize(
    ("document", "text"),
    [
        (b"Jos\xe9", b"Jos\xe9"),
        ("José".encode(), "José".encode()),
        (b"&#195;&#169; &#233;", b"\xc3\xa9 \xe9"),
        (b"\xc3&#169;", b"\xc3\xa9"),
        (b"<!-- \xe9 -->\xc3\xa9", b"\xc3\xa9"),
        (b"<![CDATA[\xe9&#233;]]>", b"\xe9&#233;"),
        (b"\x85\xa0 x \xa0\x85", b"\x85\xa0 x \xa0\x85"),
    ],
)
def test_bytes_stay_as_they_are(document, text):
    """There is no encoding: each byte is one character."""
    element = parse(b"<a>" + document + b"</a>")
    assert os.fsencode(element.text) == text
    assert parse(b"<a>" + text.replace(b"&", b"&amp;") + b"</a>") == element


def test_an_element_named_by_odd_bytes():
    with pytest.raises(XmlError) as caught:
        parse(b"<a><b\xe9></a>")
    assert caught.value.found == "'<b\\udce9>' without its end"
    assert os.fsencode(parse(b"<a\xe9/>").name) == b"a\xe9"


BILLION_LAUGHS = (
    '<?xml version="1.0"?>\n<!DOCTYPE lolz [\n <!ENTITY lol "lol">\n'
    ' <!ENTITY lol2 "&lol;&lol;&lol;&lol;">\n]>\n<lolz>&lol2;</lolz>'
)


@pytest.mark.parametrize(
    ("document", "line", "found"),
    [
        ("", 1, "no element"),
        (" \n <!-- -->\n", 1, "no element"),
        ("\n\n x <a/>", 3, "the text 'x'"),
        ("<![CDATA[x]]><a/>", 1, "the text 'x'"),
        (BILLION_LAUGHS, 2, "'<!DOCTYPE lolz ["),
        ("<!doctype a>\n<a/>", 1, "'<!doctype a>'"),
        ("<a>\n<!ENTITY b 'c'></a>", 2, "\"<!ENTITY b 'c'>\""),
        ("<a>\n<!DOCTYPE a SYSTEM 'file:///etc/passwd'></a>", 2, "\"<!DOCTYPE a SYSTEM"),
        ("<a><![cdata[b]]></a>", 1, "'<![cdata[b]]>'"),
        ("<a>\n\n b &#0; </a>", 3, "the entity '&#0;'"),
        ("<a>&#000;</a>", 1, "the entity '&#000;'"),
        ("<a>\n\0</a>", 2, "a NUL character"),
        ("<a>\n<b>", 2, "'<b>' without its end"),
        ("<a>\n<b>c</a>", 2, "'<b>' without its end"),
        ("<a>\n<b", 2, "a tag that does not end"),
        ("<a>\n<!-- -", 2, "a comment that does not end"),
        ("<a>\n<![CDATA[]]", 2, "a CDATA that does not end"),
        ("<a>1 < 2</a>", 1, "'< 2</a>'"),
        ("<a\n<b/></a>", 1, r"'<a\n<b/>'"),
        ("<a><></a>", 1, "'<>'"),
        ("<a></></a>", 1, "'</>'"),
        ("<a>< b></a>", 1, "'< b>'"),
        ("\n" + "<a>" * (DEEPEST_ELEMENT + 1), 2, "elements nested too deeply"),
        ("<a>\n" + "<b/>" * (MOST_TAGS - 1) + "</a>", 2, f"more than {MOST_TAGS} tags"),
        ("<a>\n" + "</b>" * MOST_TAGS + "</a>", 2, f"more than {MOST_TAGS} tags"),
        (" " * LARGEST_DOCUMENT + "<a/>", 1, f"{LARGEST_DOCUMENT + 4} bytes"),
    ],
)  # fmt: skip
def test_what_is_refused(document, line, found):
    with pytest.raises(XmlError) as caught:
        parse(document.encode())
    assert (caught.value.line, caught.value.found[: len(found)]) == (line, found)


def test_the_caps_themselves_are_let_pass():
    deep = "<a>" * DEEPEST_ELEMENT + "</a>" * DEEPEST_ELEMENT
    assert parse(deep.encode()).name == "a"
    many = "<a>" + "<b/>" * (MOST_TAGS - 2) + "</a>"
    assert len(parse(many.encode()).children) == MOST_TAGS - 2
    assert parse(b"<a/>", maximum=4).name == "a"
    with pytest.raises(XmlError, match="5 bytes"):
        parse(b"<a/> ", maximum=4)


def message(document: bytes) -> str:
    """Return the error of `parse`; nothing if it returns an element."""
    try:
        parse(document)
    except XmlError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    "piece",
    ["<", "<a", "<a>", "<a/>", "</a>", "<a>\n</a>", "<!--", "<!---->", "<![CDATA[", "<?", "&", "&#",
     "&#1", "&a", "&lt;", "&#x41;", " ", "\n", "<a ", "a\n", "]]>", "\x85"],
)  # fmt: skip
@pytest.mark.parametrize("begin", ["", "<r>", "<r><a>"])
def test_a_mebibyte_of_anything_takes_less_than_a_second(begin, piece):
    unit = piece.encode("latin-1")
    document = begin.encode() + unit * ((LARGEST_DOCUMENT - len(begin)) // len(unit))
    start = process_time()
    assert len(message(document)) < 300
    assert process_time() - start < 1


MARKUP = st.sampled_from(
    ["<a>", "</a>", "<b/>", "<", ">", "/", "&", "&lt;", "&x;", "&#65;", "<!--", "-->", "<![CDATA[",
     "]]>", "<?x?>", "<!X>", "'", '"', " ", "\n", "\0", "\x1c", "é"]
)  # fmt: skip


@given(
    st.one_of(st.lists(MARKUP).map("".join).map(str.encode), st.text().map(str.encode), st.binary())
)
def test_any_bytes_are_an_element_or_an_error_with_a_line(document):
    try:
        line, text = parse(document).line, ""
    except XmlError as error:
        line, text = error.line, str(error)
    assert 1 <= line <= document.count(b"\n") + 1
    assert len(text.splitlines()) <= 1


def escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace("\r", "&#13;")


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
def test_escaped_text_comes_back(text):
    assert parse(f"<a>|{escaped(text)}|</a>".encode()).text == f"|{text}|"
