#include "there_is_no_such_header.h"

int unused(int n)
{
    goto out;  // case: P10-R1 violation
out:
    return n;
}
