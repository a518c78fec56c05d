"""Rule 1 in C: no jumps."""

from __future__ import annotations

from collections.abc import Iterator

from detectors.detector import FileRule
from detectors.model import Finding
from detectors.parsing import ParsedFile
from detectors.power_of_ten.c_vocabulary import C_LANGUAGES, DETECTOR, as_c, calls_named

__all__ = ["CGoto"]

GOTO = frozenset({b"goto"})
JUMPS = frozenset(
    b"setjmp _setjmp sigsetjmp __sigsetjmp longjmp _longjmp siglongjmp setcontext swapcontext "
    b"__builtin_setjmp __builtin_longjmp".split()
)


class CGoto(FileRule):
    """
    `goto`, `setjmp`, `longjmp` and their kin.

    Why: with structured flow the bounds of loops can be proved, and clean-up cannot be jumped over.
    Instead: return early, or move the clean-up to one function with one exit.
    Not found: jumps made by a macro of a header that is not in the tree; calls through a pointer (rule 9).
    Source: Holzmann, "The Power of Ten", IEEE Computer 39(6), 2006, rule 1.
    """

    id = "P10-R1-goto"
    detector = DETECTOR
    languages = C_LANGUAGES
    examples = (
        "int f(int n) { while (n > 0) { n--; } return n; }\n",
        """
#include <setjmp.h>
/* goto and longjmp in a comment */
const char *text = "goto out; longjmp(b, 1)";
#define LEAVE(x) do { if (x) goto out; } while (0)  // expect: P10-R1-goto
void f(jmp_buf b, int n)
{
    if (n) { goto out; }   // expect: P10-R1-goto
    longjmp(b, 1);         // expect: P10-R1-goto
out:
    return;
}
""",
        """
#if 0
void dead(void) { goto nowhere; }
#else
void live(void) { void *p = &&l; goto *p; l: return; }  // expect: P10-R1-goto
#endif
int longjmp_count;
""",
    )

    def check(self, parsed: ParsedFile) -> Iterator[Finding]:
        """Yield each jump."""
        unit = as_c(parsed)
        for start, word in unit.words(GOTO) if b"goto" in unit.source else ():
            assert word.encode() in GOTO, "what was asked for is found"
            yield self.finding(unit.region(start, start + len(word)), "goto hides the flow; return early instead")
        for name, start in calls_named(unit, JUMPS):
            assert 0 <= start < len(unit.source), "a call stands in its file"
            region = unit.region(start, start + len(name.rpartition("::")[2]))
            yield self.finding(region, f"{name} is a non-local jump, which leaves clean-up undone")
