#include <assert.h>

/* assert(never); in a comment, and "assert(never)" in a string, do not count */
int clamp(int n, int top)  // case: P10-R5 violation -- three in two functions
{
    assert(n >= 0);
    assert(top > 0);
    return n < top ? n : top;
}

const char *plain(int n)
{
    assert(n < 7);
    return "assert(n > 0); assert(n > 1);";
}
