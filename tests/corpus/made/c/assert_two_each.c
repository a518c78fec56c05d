#include <assert.h>

int clamp(int n, int top)  // case: P10-R5 clean -- four assertions in two functions
{
    assert(n >= 0);
    assert(top > 0);
    assert(top < 1000);
    return n < top ? n : top;
}

int plain(int n)
{
    assert(n < 7);
    return n + 1;
}
