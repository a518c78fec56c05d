/* Objects of the file and who uses them. */
#include <stddef.h>

#define THE_MODE mode_behind_macro

static int used_once;  // case: P10-R6 violation
static int used_twice;  // case: P10-R6 clean
static const int table[3] = {1, 2, 3};  // case: P10-R6 clean
static int shadowed;  // case: P10-R6 violation -- the other function has a local of the name
static int member_name;  // case: P10-R6 violation -- elsewhere it is a member
static int mode_behind_macro;  // case: P10-R6 clean
static int held;  // case: P10-R6 clean -- its address is held
static int *const holder = &held;
static char buffer[16], spare[16];  // case: P10-R6 violation
int exported_but_private;  // case: P10-R6 violation -- external, and used in this file only
extern int somewhere_else;  // case: P10-R6 clean

struct part { int member_name; };

int counts(struct part *p, int n)
{
    used_once += n;
    used_twice += used_once;
    shadowed += n;
    member_name = shadowed;
    THE_MODE = n;
    exported_but_private = n + somewhere_else;
    buffer[n & 15] = spare[n & 15];
    return table[n % 3] + p->member_name + member_name;
}

int also_counts(struct part *p)
{
    int shadowed = used_twice;

    p->member_name = shadowed + *holder;
    exported_but_private++;
    return THE_MODE + shadowed;
}
