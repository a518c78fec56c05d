#include "unit.h"

static int twice(int n)  // case: P10-R5 clean -- macros of a header that is not here, by their names
{
    CU_ASSERT(n > 0);
    configASSERT( n < 100 );
    return 2 * n;
}
