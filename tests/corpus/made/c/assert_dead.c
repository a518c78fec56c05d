#include <assert.h>

int checked(int n)  // case: P10-R5 violation -- both stand in dead text
{
#if 0
    assert(n > 0);
    assert(n < 9);
#endif
    return n;
}
