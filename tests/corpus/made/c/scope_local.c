/* Locals that could live further in, and such as must not. */
#include <errno.h>

extern int read_port(int n);
extern void write_port(int n);

int narrow(int n)
{
    int only_in_if = 0;  // case: P10-R6 violation
    int in_both = 0;  // case: P10-R6 clean
    int each_pass;  // case: P10-R6 violation
    int carried = 0;  // case: P10-R6 clean
    int saved = errno;  // case: P10-R6 clean -- taken before the calls change it
    int last = -1;  // case: P10-R6 clean -- the pass before wrote it

    if (n > 3) {
        only_in_if = read_port(n);
        write_port(only_in_if);
        in_both = 1;
    } else {
        in_both = 2;
    }
    for (int i = 0; i < n; i++) {
        each_pass = read_port(i);
        carried += each_pass;
        if (each_pass == last) {
            break;
        }
        last = each_pass;
    }
    write_port(carried);
    if (n < 0) {
        errno = saved;
    }
    return in_both;
}

int before_it_changes(int n)
{
    int twice = n * 2;  // case: P10-R6 clean -- n is another one below
    int used_here = 0;  // case: P10-R6 clean

    n = read_port(n);
    if (n > 0) {
        write_port(twice);
        used_here = n;
    }
    return used_here;
}

int deep(int n)
{
    int value;  // case: P10-R6 violation
    static int times;  // case: P10-R6 clean

    while (n-- > 0) {
        if (n & 1) {
            value = read_port(n);
            write_port(value);
        }
        times++;
    }
    return times;
}

void address_leaves(int n)
{
    int slot = 0;  // case: P10-R6 clean -- used after the block through its address
    int *at = 0;

    if (n > 0) {
        slot = n;
        at = &slot;
    }
    if (at) {
        write_port(*at);
    }
}

void declared_inside(int n)
{
    if (n > 0) {
        int inside = read_port(n);  // case: P10-R6 clean
        write_port(inside);
    }
}

int old_style(n, wide)
    int n;
    int wide;  /* case: P10-R6 clean */
{
    int late;  /* case: P10-R6 violation */

    if (n) {
        late = wide;
        write_port(late);
    }
    return n;
}
