/* Loops whose end can be seen. */
#include <stddef.h>
#include <stdint.h>

#define LIMIT 100
#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

struct item { struct item *next; int value; };
struct list { struct item *head; size_t length; };

extern int poll_device(void);
extern void run_tasks(void);

static const int primes[] = {2, 3, 5, 7};

int counted(int n)
{
    int i;
    int sum = 0;

    for (i = 0; i < n; i++) {  // case: P10-R2 clean
        sum += i;
    }
    for (i = n; i > 0; --i) {  // case: P10-R2 clean
        sum -= i;
    }
    for (size_t k = 0; k < COUNT(primes); k += 1) {  // case: P10-R2 clean
        sum += primes[k];
    }
    while (n-- > 0) {  // case: P10-R2 clean
        sum++;
    }
    return sum;
}

int counted_inside(const int *a, int n)
{
    int i = 0;

    while (i < n) {  // case: P10-R2 clean
        if (a[i] == 0) {
            break;
        }
        i++;
    }
    do {  // case: P10-R2 clean
        i += poll_device();
    } while (0);
    return i;
}

int guarded(struct item *head)
{
    int seen = 0;
    int tries = 0;

    for (struct item *p = head; p != NULL; p = p->next) {  // case: P10-R2 clean
        if (++seen > LIMIT) {
            break;
        }
    }
    for (; head != NULL && tries < LIMIT; head = head->next, tries++) {  // case: P10-R2 clean
        seen += head->value;
    }
    while (poll_device() != 0 && tries++ < 2 * LIMIT) {  // case: P10-R2 clean
        seen++;
    }
    for (;;) {  // case: P10-R2 clean
        tries++;
        if (tries >= 3 * LIMIT) {
            return -1;
        }
        if (poll_device() == 0) {
            break;
        }
    }
    return seen;
}

int bits(uint32_t n)
{
    int count = 0;

    while (n != 0) {  // case: P10-R2 clean
        n >>= 1;
        count++;
    }
    return count;
}

int field_limit(const struct list *list)
{
    int sum = 0;
    const struct item *p = list->head;

    for (size_t i = 0; i < list->length && p != NULL; i++) {  // case: P10-R2 clean
        sum += p->value;
        p = p->next;
    }
    return sum;
}

void scheduler(void)
{
    for (;;) {  // case: P10-R2 clean
        switch (poll_device()) {
        case 1:
            run_tasks();
            break;
        default:
            break;
        }
    }
}

void scheduler_with_inner_loop(void)
{
    while (1) {  // case: P10-R2 clean
        for (int i = 0; i < LIMIT; i++) {  // case: P10-R2 clean
            if (poll_device() != 0) {
                break;
            }
        }
        run_tasks();
    }
}

size_t bounded_length(const char *s)
{
    size_t n;

    for (n = 0; s[n] != '\0' && n < LIMIT; n++) {  // case: P10-R2 clean
    }
    return n;
}
