#include <assert.h>

int size_of_word(void)  // case: P10-R5 violation -- static assertions do not count
{
    static_assert(sizeof(int) == 4, "word");
    _Static_assert(sizeof(long) >= 4, "long");
    return 4;
}
