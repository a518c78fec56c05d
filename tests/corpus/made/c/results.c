/* Results that are dropped, kept, or kept and forgotten. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RUN(f) f()

int measure(void) { return 3; }
int open_valve(int n) { return n > 3 ? -1 : 0; }
void pulse(void) { }
old_measure() { return 4; }

extern void elsewhere(int n);

int dropped(int n)
{
    measure();  // case: P10-R7 violation
    (void)measure();  // case: P10-R7 clean
    (void) open_valve(n);  // case: P10-R7 clean
    pulse();  // case: P10-R7 clean
    not_of_this_tree(n);  // case: P10-R7 clean
    elsewhere(measure());  // case: P10-R7 clean
    old_measure();  // case: P10-R7 violation
    pulse(), open_valve(n);  // case: P10-R7 violation
    n = (open_valve(1), n + 1);  // case: P10-R7 violation
    n > 2 ? measure() : old_measure();  // case: P10-R7 violation
    n > 2 && open_valve(n);  // case: P10-R7 violation
    for (int i = 0; i < 3; i++, measure()) {  // case: P10-R7 violation
        n += i;
    }
    if (n)
        open_valve(n);  // case: P10-R7 violation
    else
        n = open_valve(n);  // case: P10-R7 clean
    switch (open_valve(n)) {  // case: P10-R7 clean
    case 0:
        measure();  // case: P10-R7 violation
        break;
    default:
        break;
    }
    return measure(), n;  // case: P10-R7 violation
}

int of_the_library(FILE *out, char *to, size_t size)
{
    fclose(out);  // case: P10-R7 violation
    remove("old");  // case: P10-R7 violation
    fwrite(to, 1, 3, out);  // case: P10-R7 violation
    strtol("12", NULL, 10);  // case: P10-R7 violation
    printf("%d\n", 3);  // case: P10-R7 violation
    memcpy(to, "abc", 3);  // case: P10-R7 violation
    (void)memset(to, 0, 3);  // case: P10-R7 clean
    srand(3);  // case: P10-R7 clean
    qsort(to, size, 1, NULL);  // case: P10-R7 clean
    return fflush(NULL);  // case: P10-R7 clean
}

int stored(int n)
{
    int forgotten = open_valve(n);  // case: P10-R7 violation
    int looked_at = open_valve(n);  // case: P10-R7 clean
    int on_purpose = open_valve(n);  // case: P10-R7 clean
    int replaced;

    (void)on_purpose;
    replaced = open_valve(n);  // case: P10-R7 violation
    replaced = open_valve(n + 1);  // case: P10-R7 clean
    return looked_at + replaced;
}

void declares_a_local_of_the_name(int n)
{
    void (*measure)(int) = elsewhere;

    measure(n);  // case: P10-R7 clean
}
