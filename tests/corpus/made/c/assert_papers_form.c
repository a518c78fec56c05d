#include <stdbool.h>

void report(const char *file, int line, const char *text);

#define c_check(e) ((e) ? (true) : (report(__FILE__, __LINE__, #e), false))

int checked(int n, int top)  // case: P10-R5 clean -- the paper's form: tested, reported, recovered from
{
    if (!c_check(n > 0)) {
        return -1;
    }
    if (!c_check(n < top)) {
        return -1;
    }
    return n;
}
