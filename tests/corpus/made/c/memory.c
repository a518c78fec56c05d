/* Allocation: who may, and what only looks like it. malloc(3) in a comment is none. */
#define _GNU_SOURCE
#include <alloca.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SLOTS 8
#define MESSAGE "malloc(SLOTS) failed" /* case: P10-R3 clean */

enum { LANES = 4 };

struct pool {
    void *(*malloc)(size_t size);
    void (*free)(void *block);
    char *blocks[SLOTS];
};

typedef void (*hook)(struct pool *);

void on_timer(hook call);

static char *first_block(void)
{
    return malloc(64);  // case: P10-R3 clean -- only pool_init calls it
}

static char *any_block(void)
{
    return malloc(64);  // case: P10-R3 violation -- pool_refill calls it, too
}

static void hooked(struct pool *p)
{
    p->blocks[2] = calloc(1, 64);  // case: P10-R3 violation -- its address is given away
}

void pool_init(struct pool *p)
{
    p->blocks[0] = first_block();
    p->blocks[1] = any_block();
    p->blocks[3] = malloc(64);  // case: P10-R3 clean
    hooked(p);
}

void setupPool(struct pool *p)
{
    p->blocks[4] = strdup("four");  // case: P10-R3 clean
}

void PoolInitialize(struct pool *p)
{
    p->blocks[5] = realloc(NULL, 64);  // case: P10-R3 clean
}

void pool_reinit(struct pool *p)
{
    p->blocks[5] = realloc(p->blocks[5], 64);  // case: P10-R3 violation
}

void pool_initial_size(struct pool *p)
{
    p->blocks[6] = aligned_alloc(64, 64);  // case: P10-R3 violation
}

void pool_uninit(struct pool *p)
{
    free(p->blocks[0]);  // case: P10-R3 violation
}

void pool_refill(struct pool *p)
{
    p->blocks[1] = any_block();
    on_timer(hooked);
}

void own_allocator(struct pool *p)
{
    p->blocks[7] = p->malloc(64);  // case: P10-R3 clean
    p->free(p->blocks[7]);  // case: P10-R3 clean
}

int texts(const char *name, FILE *in)
{
    char *line = NULL;
    char *copy = strndup(name, 8);  // case: P10-R3 violation
    char *text = NULL;
    size_t size = 0;

    if (asprintf(&text, "%s!", name) < 0) {  // case: P10-R3 violation
        return -1;
    }
    if (getline(&line, &size, in) < 0) {  // case: P10-R3 violation
        return -1;
    }
    return copy != NULL && text != NULL;
}

int on_the_stack(int n, int m)
{
    char *room = alloca(16);  // case: P10-R3 violation
    char *more = __builtin_alloca(16);  // case: P10-R3 violation
    char moving[n];  // case: P10-R3 violation
    char fixed[SLOTS];  // case: P10-R3 clean
    char lanes[LANES * sizeof(int)];  // case: P10-R3 clean
    char (*view)[m] = NULL;

    (void)view;
    room[0] = more[0] = moving[0] = fixed[0] = lanes[0] = 0;
    return room[0];
}

int sum_of(int n, const int values[n]);  // case: P10-R3 clean

void *nobody_calls(void)
{
#if 0
    return malloc(1);  // case: P10-R3 clean
#else
    return valloc(1);  // case: P10-R3 violation
#endif
}

struct pool *new(struct pool *old)
{
    struct pool *new = old;  // case: P10-R3 clean

    return new;
}
