/* Loops whose end nobody can show by looking. */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define LIMIT 100

struct item { struct item *next; int value; };
struct queue { int length; int data[16]; };

extern int poll_device(void);
extern void advance(int *position);

int changed_counter(const int *a, int n)
{
    int i;
    int sum = 0;

    for (i = 0; i < n; i++) {  // case: P10-R2 violation
        if (a[i] < 0) {
            i--;
        }
        sum++;
    }
    for (i = 0; i < n; i++) {  // case: P10-R2 violation
        if (a[i] == 7) {
            n += 2;
        }
    }
    for (i = 0; i < n; i++) {  // case: P10-R2 violation
        advance(&i);
    }
    for (i = 0; i < n; sum++) {  // case: P10-R2 violation
        sum += a[0];
    }
    return sum;
}

void moving_field(struct queue *q)
{
    for (int i = 0; i < q->length; i++) {  // case: P10-R2 violation
        if (q->data[i & 15] > 0) {
            q->length++;
        }
    }
}

int skips_the_count(const int *a, int n)
{
    int i = 0;
    int sum = 0;

    while (i < n) {  // case: P10-R2 violation
        if (a[i] == 0) {
            continue;
        }
        sum += a[i];
        i++;
    }
    while (sum < n) {  // case: P10-R2 violation
        if (poll_device() != 0) {
            sum++;
        }
    }
    return sum;
}

int chase(const struct item *p)
{
    int n = 0;

    for (; p != NULL; p = p->next) {  // case: P10-R2 violation
        n++;
    }
    return n;
}

int until_it_answers(void)
{
    int answer;
    int tries = 0;

    do {  // case: P10-R2 violation
        answer = poll_device();
    } while (answer == 0);
    for (;;) {  // case: P10-R2 violation
        if (poll_device() == 3) {
            break;
        }
    }
    while (poll_device() != 0 || tries++ < LIMIT) {  // case: P10-R2 violation
        answer++;
    }
    return answer;
}

int false_guards(void)
{
    int n = 0;

    while (poll_device() != 0) {  // case: P10-R2 violation
        if (++n > LIMIT) {
            break;
        }
        n = 0;
    }
    while (poll_device() != 0) {  // case: P10-R2 violation
        switch (poll_device()) {
        case 1:
            if (++n > LIMIT)
                break;
            break;
        default:
            break;
        }
    }
    while (poll_device() != 0) {  // case: P10-R2 violation
        if (poll_device() == 2) {
            if (++n > LIMIT) {
                break;
            }
        }
    }
    return n;
}

int wraps(int n)
{
    int sum = 0;

    for (uint8_t i = 0; i < 300; i++) {  // case: P10-R2 violation
        sum++;
    }
    for (unsigned k = 10; k >= 0; k--) {  // case: P10-R2 violation
        sum++;
    }
    for (int j = 0; j > -n; j++) {  // case: P10-R2 violation
        sum++;
    }
    return sum;
}

size_t text(const char *s, FILE *in)
{
    const char *end = s;
    int c;

    while (*end++) {  // case: P10-R2 violation
    }
    while ((c = fgetc(in)) != EOF) {  // case: P10-R2 violation
        end++;
    }
    return (size_t)(end - s);
}

void leaves_by_label(void)
{
    while (1) {  // case: P10-R2 violation
        if (poll_device() == 9) {
            goto done;  // case: P10-R1 violation
        }
    }
done:
    return;
}
