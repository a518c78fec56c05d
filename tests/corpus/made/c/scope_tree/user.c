#include "state.h"

extern int shared_by_extern;

int use(int n)
{
    int forgotten_static = n;

    shared_by_extern = forgotten_static;
    return step(n);
}
