"""Which headers a C file's result depends on, and what a compile database may say of it."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors.closures import Closure, Context, IncludeClosures, references
from detectors.compile_database import commands_of
from detectors.model import Digest, Language


def _closures(tree: Mapping[str, str], commands: Mapping[str, Context] | None = None) -> dict[str, Closure]:
    units: dict[str, Language] = {
        path: "c" if path.endswith((".c", ".h")) else "cpp" for path in tree if path.endswith((".c", ".h", ".cpp"))
    }
    refer = {path: references(text.encode(), "c") for path, text in tree.items()}
    return IncludeClosures(tree, [""], refer.__getitem__, commands or {}, ()).of_all(units)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('#include "a.h"\n', ('"a.h',)),
        ("  #  include\t<sys/a.h> // x\n", ("<sys/a.h",)),
        ("%:include <a.h>\n??=include <b.h>\n", ("<a.h", "<b.h")),
        ("#/**/include /* y */ <a.h>\n", ("<a.h",)),
        ("#inc\\\nlude \\\n <a.h>\n", ("<a.h",)),
        ("#include_next <a.h>\n#import <b.h>\n#embed <c.bin>\n", ("<a.h", "<b.h", "<c.bin")),
        ("#if __has_include(<a.h>)\n#endif\n", ("<a.h",)),
        ("#define H <a.h>\n#include H\n", ("?",)),
        ('/* #include "a.h" */\n// #include "b.h"\nchar *s = "\\\n#include <c.h>";\n', ()),
        ("#ifdef X\n#include <a.h>\n#endif\n", ("<a.h",)),
        ('#include "a.h"\n#include "a.h"\n', ('"a.h',)),
        ("#error don't\n#include <a.h>\n", ("<a.h",)),
    ],
)
def test_references_are_read_as_a_compiler_reads_them(text: str, found: tuple[str, ...]) -> None:
    """A header that is overlooked is not shown to the compiler, and its change runs nothing again."""
    assert references(text.encode(), "c") == found


@given(st.binary(max_size=400))
def test_any_bytes_have_references(data: bytes) -> None:
    """Hostile bytes must not stop the plan of a whole tree."""
    for reference in references(data, "c"):
        assert reference[0] in '"<?'


def test_headers_are_found_beside_the_includer_then_nearest() -> None:
    """The wrong one of two headers of a name would be compiled in, or none."""
    tree = {
        "lib/a.c": '#include "own.h"\n#include <pub/api.h>\n#include <config.h>\n',
        "lib/own.h": "",
        "lib/include/pub/api.h": '#include "types.h"\n',
        "lib/include/pub/types.h": "",
        "lib/include/config.h": "",
        "other/own.h": "",
        "other/include/config.h": "",
        "other/b.c": "#include <config.h>\n",
    }

    found = _closures(tree)

    assert found["lib/a.c"].files == (
        "lib/include/config.h", "lib/include/pub/api.h", "lib/include/pub/types.h", "lib/own.h",
    )  # fmt: skip
    assert found["lib/a.c"].context.search == ("lib/include",)
    assert found["other/b.c"].files == ("other/include/config.h",)
    assert found["lib/include/pub/api.h"].context.search == ("lib/include",)


def test_what_the_system_has_is_not_guessed_to_be_the_trees() -> None:
    """A file of the tree called `stdio.h` would take the place of the C library's."""
    found = _closures({"a.c": "#include <stdio.h>\n#include <nowhere.h>\n", "compat/stdio.h": ""})["a.c"]

    assert found.files == ()
    assert [name.split()[0] for name in found.missing] == ["<nowhere.h", "<stdio.h"]


def test_a_name_looked_up_in_vain_is_part_of_the_closure() -> None:
    """A header that is added later must run again who asked for it."""
    tree = {"a.c": '#include "late.h"\n'}
    before = _closures(tree)["a.c"]
    after = _closures({**tree, "late.h": ""})["a.c"]
    digests = {path: Digest(path) for path in ("a.c", "late.h")}

    assert before.digest(digests) != after.digest(digests)


def test_cycles_self_inclusion_and_computed_names_end() -> None:
    """Includes that lead in circles must not hang the plan; a computed one may be any header."""
    tree = {
        "a.c": '#include "a.h"\n#include X\n',
        "a.h": '#include "b.h"\n',
        "b.h": '#include "a.h"\n#include "b.h"\n',
        "z.h": "",
    }

    assert _closures(tree)["a.c"].files == ("a.h", "b.h", "z.h")
    assert _closures(tree)["b.h"].files == ("a.h",)


@pytest.mark.parametrize("name", ["/etc/hostname", "../../../../etc/hostname", "../x.h"])
def test_a_name_that_leads_out_of_the_tree_is_told(name: str) -> None:
    """A compiler would print what it reads there."""
    assert _closures({"a.c": f'#include "{name}"\n'})["a.c"].outside == name


def test_a_header_is_taken_for_the_language_of_who_includes_it() -> None:
    """A header of C++ that is compiled as C is *not analysed* for nothing."""
    found = _closures(
        {"a.cpp": '#include "x.h"\n#include "y.h"\n', "b.c": '#include "y.h"\n', "x.h": "", "y.h": "", "z.h": ""}
    )

    assert [found[path].context.language for path in ("x.h", "y.h", "z.h")] == ["cpp", None, None]


@given(st.data())
def test_a_closure_changes_exactly_when_a_file_in_it_does(data: st.DataObject) -> None:
    """Too few runs after an edit give stale results, too many waste the night."""
    names = [f"{letter}.h" for letter in "abcdef"]
    tree = {
        name: "".join(f'#include "{other}"\n' for other in data.draw(st.lists(st.sampled_from(names), max_size=3)))
        for name in names
    }
    tree["m.c"] = f'#include "{data.draw(st.sampled_from(names))}"\n'
    edited = data.draw(st.sampled_from(names))
    closure = _closures(tree)["m.c"]
    digests = {path: Digest(f"sha256:{path}") for path in tree}

    changed = closure.digest({**digests, edited: Digest("sha256:edited")}) != closure.digest(digests)

    assert changed == (edited in closure.files)


def _commands(arguments: list[str], directory: str = "/src/build", file: str = "../a.c") -> dict[str, Context]:
    entry = {"directory": directory, "file": file, "arguments": ["cc", *arguments]}
    return commands_of(json.dumps([entry]).encode(), "build", "/src", "")


def test_a_compile_database_says_folders_macros_and_standard() -> None:
    """Without its flags a file that needs them is *not analysed*."""
    said = _commands(
        ["-I../include", "-isystem", "../sys", "-DN=3", "-D", "M(x)=x", "-UQ", "-std=gnu11", "-include", "../c.h", "-c"]
    )

    assert said == {
        "a.c": Context(search=("include", "sys"), flags=("-DN=3", "-DM(x)=x", "-UQ", "-std=gnu11", "-include", "c.h"))
    }


@pytest.mark.parametrize(
    "flag",
    [
        "-fplugin=./evil.so", "-Xclang", "-load", "@response", "-B/tmp", "-specs=evil", "-wrapper", "-o", "-std=c11;id",
        "-I/etc", "-I../..", "-include/etc/passwd", "--sysroot=/tmp", "-Wno-all", "-w", "-DX\0=1", "-D-fplugin=x",
    ],
)  # fmt: skip
def test_nothing_else_of_a_compile_database_is_passed_on(flag: str) -> None:
    """Compilers load the plugins, and run the programs, that their flags name."""
    assert _commands([flag]) == {"a.c": Context()}


def test_a_tree_that_was_moved_is_still_known() -> None:
    """A database made elsewhere would otherwise be worth nothing."""
    assert _commands(["-I../include"], "/home/ci/build") == {"a.c": Context(search=("include",))}


def test_a_file_outside_of_the_tree_has_no_command() -> None:
    """What is not of the tree is not asked about."""
    assert _commands([], file="/etc/a.c") == {}


@pytest.mark.parametrize("data", [b"", b"{}", b"[1]", b'[{"directory": 3, "file": "a.c"}]', b"\xff\xfe", b"[" * 5000])
def test_what_is_no_database_is_refused(data: bytes) -> None:
    """Damage must be told, not taken for a database without entries."""
    with pytest.raises(ValueError, match="no compile database"):
        commands_of(data, "", "/src", "")
