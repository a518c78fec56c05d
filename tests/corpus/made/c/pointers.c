/* Depth of dereference. */
#include <stddef.h>

#define VALUE(p) (*(p))  // case: P10-R9 violation
#define TIMES(a, b) ((a) * (b))  // case: P10-R9 clean
#define STARS "**p"  // case: P10-R9 clean

struct leaf { int value; int row[4]; };
struct branch { struct leaf *leaf; struct leaf inside; int grid[2][3]; int *numbers; };
struct tree {
    struct branch *branch;  // case: P10-R9 clean
    struct branch **branches;  // case: P10-R9 violation
    int (*compare)(int a, int b);  // case: P10-R9 violation
    int (*rows)[4];  // case: P10-R9 clean
    char *names[4];  // case: P10-R9 clean
};

typedef struct leaf leaf_t;  // case: P10-R9 clean
typedef struct leaf *leaf_p;  // case: P10-R9 violation
typedef int grid_t[2][3];  // case: P10-R9 clean
typedef void callback(int);  // case: P10-R9 clean

extern struct branch *find(struct leaf *leaf);
extern void (*handler(int number))(int);  // case: P10-R9 violation

int depth(struct tree *t, struct branch b, struct leaf *l, int n)
{
    int sum = 0;
    int *one = &sum;  // case: P10-R9 clean
    int **two = &one;  // case: P10-R9 violation
    struct leaf *leaves[2] = {l, l};  // case: P10-R9 clean

    sum += **two;  // case: P10-R9 violation
    sum += t->branch->grid[0][1];  // case: P10-R9 violation
    sum += t->branch[0].inside.value;  // case: P10-R9 violation
    sum += (*t).branch->grid[0][1];  // case: P10-R9 violation
    sum += *b.numbers;  // case: P10-R9 clean
    sum += *t->names[0];  // case: P10-R9 violation
    sum += b.leaf->value;  // case: P10-R9 clean
    sum += l->row[2];  // case: P10-R9 clean
    sum += l->value + b.leaf->value;  // case: P10-R9 clean
    sum += b.grid[1][2];  // case: P10-R9 clean
    sum += n **one;  // case: P10-R9 clean
    sum += leaves[1]->value;  // case: P10-R9 clean
    sum += find(l)->grid[0][0];  // case: P10-R9 clean
    sum += find(l)->leaf->value;  // case: P10-R9 violation
    sum += find(l)->numbers[n];  // case: P10-R9 violation
    return sum;
}

int takes(int (*apply)(int), int n)  // case: P10-R9 violation
{
    return apply(n);
}

const char *const *list_of_names(void)  // case: P10-R9 violation
{
    return NULL;  /* was: return **p; */  // case: P10-R9 clean
}

int old_style(names)
    char **names;  /* case: P10-R9 violation */
{
    return names != NULL;
}

int sum_of_rows(int rows[][4]) { return rows == NULL ? 0 : rows[1][2]; }  // case: P10-R9 clean
