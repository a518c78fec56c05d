/* What gcc says with its warnings on. */
#include <stdio.h>

int sign(int a, unsigned b)
{
    return a < b;  // case: P10-R10 violation
}

int unused(int n)
{
    int spare = 4;  // case: P10-R10 violation
    int kept = 3;  // case: P10-R10 clean

    return n + kept;
}

int not_used(int n)  // case: P10-R10 violation
{
    return 1;
}

int used(int n)  // case: P10-R10 clean
{
    (void)n;
    return 1;
}

int nothing_returned(int n)
{
    if (n > 3) {
        return 1;
    }
}  // case: P10-R10 violation

void formats(long n)
{
    (void)printf("%d\n", n);  // case: P10-R10 violation
    (void)printf("%ld\n", n);  // case: P10-R10 clean
}

int assigns(int a, int b)
{
    if (a = b) {  // case: P10-R10 violation
        return 1;
    }
    if ((a == b)) {  // case: P10-R10 clean
        return 2;
    }
    return 0;
}

int falls(int n)
{
    switch (n) {
    case 1:
        n += 2;  // case: P10-R10 violation
    case 2:
        n += 3;
        break;
    case 3:
        n += 4;  // case: P10-R10 clean
        __attribute__((fallthrough));
    default:
        n = 0;
        break;
    }
    return n;
}

static int nobody_calls(void)  // case: P10-R10 violation
{
    return 3;
}
