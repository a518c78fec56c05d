/* Recursion within one file: function and call share the line, so that there is one place to point at. */
#include <stddef.h>

struct node { struct node *left; struct node *right; int (*sum)(struct node *); int depth; };

#define AGAIN(n) hidden((n) - 1)

int factorial(int n) { return n < 2 ? 1 : n * factorial(n - 1); }  // case: P10-R1 violation

int is_odd(unsigned n);
int is_even(unsigned n) { return n == 0 || is_odd(n - 1); }   // case: P10-R1 violation
int is_odd(unsigned n) { return n != 0 && is_even(n - 1); }   // case: P10-R1 violation

int hidden(int n) { return n > 0 ? AGAIN(n) : 0; }  // case: P10-R1 violation

int old_style(n) int n; { return n ? old_style(n - 1) : 0; }  // case: P10-R1 violation

int first(int n);
int second(int n);
int third(int n) { return first(n - 1); }    // case: P10-R1 violation
int first(int n) { return n ? second(n) : 0; }  // case: P10-R1 violation
int second(int n) { return third(n); }    // case: P10-R1 violation
int enters_the_cycle(int n) { return first(n); }  // case: P10-R1 clean

int sum(struct node *n) { return n->sum ? n->sum(n) : 0; }  // case: P10-R1 clean

int depth(struct node *n) { int depth = n->depth; return (depth); }  // case: P10-R1 clean

static int apply(int (*apply)(int), int n) { return apply(n); }  // case: P10-R1 clean

typedef int (*step)(int);
step next_step(int n) { return n ? (step)next_step : NULL; }  // case: P10-R1 clean

int speaks(void) { const char *s = "speaks() calls speaks()"; return s[0]; }  // case: P10-R1 clean

int commented(int n) { /* commented(n - 1) */ return n; }  // case: P10-R1 clean

__attribute__((noinline)) static int attributed(int n) { return n ? attributed(n - 1) : apply(factorial, n); }  // case: P10-R1 violation

int wraps(int n)
{
    int inner(int m) { return m ? inner(m - 1) : 0; }  // case: P10-R1 violation

    return inner(n) + attributed(n);
}
