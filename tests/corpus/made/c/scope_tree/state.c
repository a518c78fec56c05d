#include "state.h"

int shown;  // case: P10-R6 clean -- a header shows it
int shared_by_extern;  // case: P10-R6 clean -- used in two files
int forgotten_static;  // case: P10-R6 violation

int step(int n)
{
    shown = n;
    forgotten_static = n;
    return shared_by_extern;
}

int undo(void)
{
    shared_by_extern = 0;
    return shown - forgotten_static;
}
