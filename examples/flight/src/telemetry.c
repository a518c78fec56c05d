/* Memory: allowed while starting, planted where it is not; and calls that flawfinder knows. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "flight.h"

static struct sample *ring;
static size_t ring_size;
static size_t ring_used;

/* Clean: memory is taken while the program starts. */
int telemetry_init(size_t capacity)
{
    assert(capacity > 0);
    ring = malloc(capacity * sizeof *ring);
    ring_size = ring == NULL ? 0 : capacity;
    return ring == NULL ? -1 : 0;
}

/* Clean: the same name as in guidance.c, and no recursion. */
static int clamp(int value)
{
    return value < -100 ? -100 : value;
}

int telemetry_push(const struct sample *item)
{
    assert(item != NULL);
    if (ring_used >= ring_size) {
        return -1;
    }
    ring[ring_used] = *item;
    ring[ring_used].value = clamp(item->value);
    ring_used++;
    return 0;
}

char *telemetry_label(const char *name)
{
    char buffer[16];
    char *copy = malloc(strlen(name) + 1); /* planted: R3 */

    strcpy(buffer, name); /* planted: flawfinder, a copy without a bound */
    if (copy != NULL) {
        sprintf(copy, "%s", buffer); /* planted: flawfinder */
    }
    return copy;
}

/* Clean: the words goto, malloc and setjmp in a comment, and "goto out;" in a text. */
const char *telemetry_note(void)
{
    return "goto out; malloc(1);";
}
