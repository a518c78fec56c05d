/* Pointer and index parameters, used before a check or after one. */
#include <assert.h>
#include <stdbool.h>
#include <stddef.h>

#define SIZE 8

struct cell { int value; struct cell *next; };

static const int table[SIZE] = {1, 2, 3, 4, 5, 6, 7, 8};

static bool usable(const struct cell *cell) { return cell != NULL && cell->value > 0; }  // case: P10-R7 clean

int plain(const int *p) { return *p; }  // case: P10-R7 violation
int arrow(const struct cell *cell) { return cell->value; }  // case: P10-R7 violation
int subscript(const int *p) { return p[0]; }  // case: P10-R7 violation
int written(int *p) { *p = 3; return 0; }  // case: P10-R7 violation
int old_style(p) int *p; { return *p; }  // case: P10-R7 violation
int asked(const int *p) { return p ? *p : 0; }  // case: P10-R7 clean
int asked_first(const int *p) { return p != NULL && *p > 3; }  // case: P10-R7 clean
int turned_round(const int *p) { return p == NULL || *p > 3; }  // case: P10-R7 clean
int asserted(const int *p) { assert(p != NULL); return *p; }  // case: P10-R7 clean
int asked_a_helper(const struct cell *cell) { if (!usable(cell)) { return -1; } return cell->value; }  // case: P10-R7 clean
int only_its_size(const struct cell *cell) { return (int)sizeof(*cell); }  // case: P10-R7 clean
int only_passed_on(const int *p) { return asked(p); }  // case: P10-R7 clean
int multiplied(int a, int p) { return a *p; }  // case: P10-R7 clean
int walks(const struct cell *cell) { while (cell) { cell = cell->next; } return 0; }  // case: P10-R7 clean; P10-R2 violation

int too_late(const int *p)
{
    int value = *p;  // case: P10-R7 violation

    if (p == NULL) {
        return 0;
    }
    return value;
}

int on_one_path(const int *p, int n)
{
    if (n > 3) {
        assert(p != NULL);
        n = *p;  // case: P10-R7 clean
    }
    return n + p[n > 3];  // case: P10-R7 violation
}

int other_was_checked(const int *p, const int *q)
{
    assert(p != NULL);
    return p[0] + q[0];  // case: P10-R7 violation
}

int in_the_branch_of_none(const int *p)
{
    if (p == NULL) {
        return *p;  // case: P10-R7 violation
    }
    return 1;
}

int shadows(const int *p)
{
    int sum = 0;

    for (int i = 0; i < SIZE; i++) {
        const int *p = &table[i];
        sum += *p;  // case: P10-R7 clean
    }
    return sum + (p != NULL);
}

int index_unchecked(int i) { return table[i]; }  // case: P10-R7 violation
int index_checked(int i) { if (i < 0 || i >= SIZE) { return -1; } return table[i]; }  // case: P10-R7 clean
int index_asserted(size_t i) { assert(i < SIZE); return table[i]; }  // case: P10-R7 clean
int index_masked(unsigned i) { return table[i & (SIZE - 1)]; }  // case: P10-R7 clean
int index_wrapped(unsigned i) { return table[i % SIZE]; }  // case: P10-R7 clean
int index_own(int n) { int i = n > 3; return table[i]; }  // case: P10-R7 clean
