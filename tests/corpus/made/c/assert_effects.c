/* Assertions that change something, and such as cannot fail. */
#include <assert.h>
#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define OUR_ASSERT(condition) assert(condition)

struct ring { unsigned count; int first; };

static int calls;

static int take(void)
{
    calls += 1;
    return calls;
}

static int is_even(int n)
{
    return n % 2 == 0;
}

int effects(struct ring *ring, const char *s, int n, int m)
{
    assert(n++ < m);  // case: P10-R5 violation
    assert(n = m);  // case: P10-R5 violation
    assert(ring->count-- > 0);  // case: P10-R5 violation
    assert(*s++ == 'x');  // case: P10-R5 violation
    assert(take() < 10);  // case: P10-R5 violation
    OUR_ASSERT((n += 2) > 0);  // case: P10-R5 violation
    assert(n == m);  // case: P10-R5 clean
    assert(n <= m && n >= -m && n != 3);  // case: P10-R5 clean
    assert(strlen(s) < 8);  // case: P10-R5 clean
    assert(is_even(n));  // case: P10-R5 clean
    assert(s[0] != '=' && s[0] != '+');  // case: P10-R5 clean
    assert(({ int t = n * 2; t > m; }));  // case: P10-R5 clean
    return n;
}

int always(unsigned u, uint8_t byte, int n, const char *s)
{
    int local = n;

    assert(1);  // case: P10-R5 violation
    assert(true);  // case: P10-R5 violation
    assert("cannot happen");  // case: P10-R5 violation
    assert(u >= 0);  // case: P10-R5 violation
    assert(byte <= 255);  // case: P10-R5 violation
    assert(n == n);  // case: P10-R5 violation
    assert(n > 3 || 1);  // case: P10-R5 violation
    assert(&local != NULL);  // case: P10-R5 violation
    assert(n >= 0 || n < 0);  // case: P10-R5 violation
    assert(0);  // case: P10-R5 clean
    assert(!"reached");  // case: P10-R5 clean
    assert(s != NULL && "no name given");  // case: P10-R5 clean
    assert(u > 0);  // case: P10-R5 clean
    assert(byte < 255);  // case: P10-R5 clean
    static_assert(sizeof(int) >= 2, "int");  // case: P10-R5 clean
    _Static_assert(CHAR_BIT == 8, "bytes");  // case: P10-R5 clean
    return local;
}
